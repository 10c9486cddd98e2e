//! `stratalloc map`: a picture of a heap's pages.
//!
//! The pages that are in use lie in rows, from the top left, in cells of one page or as many as there must be for all to find room.
//! The colour of a cell says what most of it is, and how full that is. A bar above shows how much of the file that is.

use crate::text::{self, bytes};
use crate::{Failure, open};
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use stratalloc::view::{Kind, Layers, Tile, View, is_heap};

/// Cells in a row, and rows at the most.
const COLUMNS: usize = 128;
const ROWS: usize = 64;
/// The side of a cell, and where the rows begin.
const SIDE: usize = 7;
const LEFT: usize = 112;
const TOP: usize = 150;
const WIDTH: usize = LEFT + COLUMNS * SIDE + 24;

const INK: &str = "#1b1f24";
const SOFT: &str = "#59636e";
const FONT: &str = "system-ui, 'Segoe UI', 'DejaVu Sans', Helvetica, sans-serif";

/// What a cell has pages of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Slab,
    Run,
    Records,
    Held,
    Free,
    FreeDirty,
    Unclear,
}

/// All of them, with their names and colours. That of a slab is what it has when it is full.
const LEGEND: [(What, &str, [u8; 3]); 7] = [
    (What::Slab, "slabs", [29, 94, 170]),
    (What::Run, "runs in use", [224, 123, 29]),
    (What::Records, "records", [123, 77, 163]),
    (What::Held, "runs on their way", [196, 47, 90]),
    (What::FreeDirty, "free, may hold memory", [186, 205, 190]),
    (What::Free, "free", [234, 238, 241]),
    (What::Unclear, "not clear", [30, 30, 30]),
];
/// The colour of a slab without a block outside.
const EMPTY_SLAB: [u8; 3] = [205, 222, 242];

/// Pages of each kind in a cell, and how many of those of slabs have blocks outside, as far as these fill them.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    pages: [f64; LEGEND.len()],
    full: f64,
}

impl Cell {
    /// What most of it is; whatever is in use comes before what is free.
    fn most(&self) -> Option<usize> {
        let of = |range: std::ops::Range<usize>| {
            range.filter(|at| self.pages[*at] > 0.0).max_by(|a, b| self.pages[*a].total_cmp(&self.pages[*b]))
        };
        let used: f64 = self.pages[..4].iter().sum::<f64>() + self.pages[6];
        let all: f64 = self.pages.iter().sum();
        if used * 20.0 >= all && all > 0.0 { of(0..4).or_else(|| of(6..7)) } else { of(4..7) }
    }

    /// Its colour: the less of the cell is so, the paler.
    fn colour(&self) -> String {
        let Some(most) = self.most() else {
            return String::from("#ffffff");
        };
        let (what, _, colour) = LEGEND[most];
        let all: f64 = self.pages.iter().sum();
        let used = self.pages[..4].iter().sum::<f64>();
        let colour =
            if what == What::Slab { mix(EMPTY_SLAB, colour, self.full / self.pages[most].max(1e-9)) } else { colour };
        let share = if most < 4 { 0.3 + 0.7 * used / all.max(1e-9) } else { 1.0 };
        hex(mix([234, 238, 241], colour, share))
    }

    /// What is in it, in words.
    fn words(&self) -> String {
        let all: f64 = self.pages.iter().sum::<f64>().max(1e-9);
        let share = |part: f64| format!("{:.0} %", 100.0 * part / all);
        let mut parts = Vec::new();
        for ((what, name, _), pages) in LEGEND.iter().zip(self.pages).filter(|(_, pages)| *pages > 0.0) {
            let full =
                if *what == What::Slab { format!(" ({:.0} % full)", 100.0 * self.full / pages) } else { String::new() };
            parts.push(format!("{} {name}{full}", share(pages)));
        }
        parts.join(", ")
    }

    fn add(&mut self, other: &Self) {
        self.pages.iter_mut().zip(other.pages).for_each(|(sum, more)| *sum += more);
        self.full += other.full;
    }
}

fn mix(from: [u8; 3], to: [u8; 3], share: f64) -> [u8; 3] {
    // In sixteen steps: so neighbours that hardly differ are drawn as one.
    let share = (share.clamp(0.0, 1.0) * 16.0).round() / 16.0;
    let part = |at: usize| f64::from(from[at]) + (f64::from(to[at]) - f64::from(from[at])) * share;
    [0, 1, 2].map(|at| part(at).round() as u8)
}

fn hex([red, green, blue]: [u8; 3]) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// The pages that are in use, in cells.
struct Grid {
    cells: Vec<Cell>,
    /// Pages of a cell, and of all.
    grain: u64,
    pages: u64,
    first: usize,
    page: usize,
}

impl Grid {
    fn of(view: &View) -> Self {
        let page = view.facts().page_bytes as usize;
        let (mut first, mut pages) = (0, 0);
        view.each_tile(&mut |tile| {
            first = if pages == 0 { tile.at } else { first };
            pages = (tile.at.saturating_sub(first) / page) as u64 + tile.pages;
        });
        let grain = pages.div_ceil((COLUMNS * ROWS) as u64).max(1).next_power_of_two();
        let mut grid = Self { cells: vec![Cell::default(); pages.div_ceil(grain) as usize], grain, pages, first, page };
        view.each_tile(&mut |tile| grid.add(&tile));
        grid
    }

    fn add(&mut self, tile: &Tile) {
        let (what, full) = match tile.kind {
            Kind::Slab { blocks, free, .. } => (0, f64::from(blocks.saturating_sub(free)) / f64::from(blocks.max(1))),
            Kind::Run => (1, 0.0),
            Kind::Records => (2, 0.0),
            Kind::Held => (3, 0.0),
            Kind::Free { dirty } if u64::from(dirty) * 2 >= tile.pages => (4, 0.0),
            Kind::Free { .. } => (5, 0.0),
            _ => (6, 0.0),
        };
        let mut at = (tile.at.saturating_sub(self.first) / self.page) as u64;
        let end = (at + tile.pages).min(self.pages);
        while at < end {
            let cell = at / self.grain;
            let here = ((cell + 1) * self.grain).min(end) - at;
            if let Some(cell) = self.cells.get_mut(cell as usize) {
                cell.pages[what] += here as f64;
                cell.full += if what == 0 { here as f64 * full } else { 0.0 };
            }
            at += here;
        }
    }

    fn rows(&self) -> usize {
        self.cells.len().div_ceil(COLUMNS)
    }

    fn address_of(&self, cell: usize) -> usize {
        self.first + cell * self.grain as usize * self.page
    }
}

/// Draws the heap at `path`.
pub(crate) fn run(path: &Path, output: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let view = open(path)?;
    let picture = draw(path, &view);
    if output == Path::new("-") {
        out.write_all(picture.as_bytes())?;
        return Ok(());
    }
    let refused = |why: String| Failure::Refused(format!("{}: cannot write the picture: {why}", text::path(output)));
    if output.canonicalize().is_ok_and(|output| is_heap(&output).unwrap_or(false)) {
        return Err(refused(String::from("a heap is there")));
    }
    std::fs::write(output, picture).map_err(|error| refused(error.to_string()))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A picture in the making.
struct Picture(String);

impl Picture {
    fn text(&mut self, x: usize, y: usize, (size, colour, anchor): (usize, &str, &str), text: &str) {
        let text = escape(text);
        _ = writeln!(
            self.0,
            r#"<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" text-anchor="{anchor}">{text}</text>"#
        );
    }

    fn band(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), colour: &str, hint: &str) {
        let hint = if hint.is_empty() { String::new() } else { format!("<title>{}</title>", escape(hint)) };
        _ = writeln!(
            self.0,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{colour}">{hint}</rect>"#
        );
    }
}

fn draw(path: &Path, view: &View) -> String {
    let (grid, layers, facts) = (Grid::of(view), view.layers(), view.facts());
    let height = TOP + grid.rows().max(1) * SIDE + 44;
    let mut picture = Picture(String::new());
    _ = writeln!(
        picture.0,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"{FONT}\">\n<rect width=\"{WIDTH}\" height=\"{height}\" rx=\"8\" fill=\"#ffffff\"/>"
    );
    let size = facts.span.bytes as u64;
    let title = format!("{}: {} of {} in use", text::path(path), bytes(layers.used), bytes(size));
    picture.text(24, 32, (16, INK, "start"), &title);
    draw_file(&mut picture, &layers, size);
    draw_legend(&mut picture);
    draw_grid(&mut picture, &grid);
    let grain = grid.grain * grid.page as u64;
    let scale = format!("a cell is {}, a row {}; addresses to the left", bytes(grain), bytes(grain * COLUMNS as u64));
    picture.text(LEFT, height - 18, (11, SOFT, "start"), &scale);
    picture.0.push_str("</svg>\n");
    picture.0
}

/// The bar of the whole file.
fn draw_file(picture: &mut Picture, layers: &Layers, size: u64) {
    let (x, y, width) = (24.0, 48.0, (WIDTH - 48) as f64);
    picture.band((x, y), (width, 14.0), "#f3f5f7", "room that nothing has taken yet");
    let pages = layers.used.saturating_sub(layers.map).saturating_sub(layers.head);
    let parts =
        [("state and seats", layers.head, "#8d97a1"), ("page map", layers.map, "#b9a3cf"), ("pages", pages, "#5b8fce")];
    let mut at = x;
    for (name, count, colour) in parts {
        let part = (width * count as f64 / size.max(1) as f64).max(1.5);
        picture.band((at, y), (part, 14.0), colour, &format!("{name}: {}", bytes(count)));
        at += part;
    }
    for quarter in 0..=4_u64 {
        let place = 24 + (WIDTH - 48) * quarter as usize / 4;
        let anchor = ["start", "middle", "middle", "middle", "end"][quarter as usize % 5];
        picture.text(
            place,
            76,
            (10, SOFT, anchor),
            &if quarter == 0 { String::from("0") } else { bytes(size / 4 * quarter) },
        );
    }
}

fn draw_legend(picture: &mut Picture) {
    let mut x = 24;
    for (what, name, colour) in LEGEND {
        if what == What::Slab {
            for step in 0..4 {
                let shade = hex(mix(EMPTY_SLAB, colour, f64::from(step) / 3.0));
                picture.band(((x + 12 * step) as f64, 96.0), (12.0, 12.0), &shade, "");
            }
            picture.text(x as usize + 54, 106, (11, INK, "start"), "slabs, empty to full");
            x += 178;
            continue;
        }
        picture.band((f64::from(x), 96.0), (12.0, 12.0), &hex(colour), "");
        picture.text(x as usize + 18, 106, (11, INK, "start"), name);
        x += 34 + name.len() as i32 * 7;
    }
    picture.text(24, 130, (11, SOFT, "start"), "paler: little of the cell is in use");
}

fn draw_grid(picture: &mut Picture, grid: &Grid) {
    if grid.cells.is_empty() {
        picture.text(LEFT, TOP + 10, (12, SOFT, "start"), "no pages are in use");
    }
    for row in 0..grid.rows() {
        let (first, end) = (row * COLUMNS, ((row + 1) * COLUMNS).min(grid.cells.len()));
        let y = TOP + row * SIDE;
        if row % 4 == 0 {
            picture.text(LEFT - 8, y + SIDE, (9, SOFT, "end"), &format!("{:#x}", grid.address_of(first)));
        }
        let mut at = first;
        while at < end {
            let colour = grid.cells[at].colour();
            let (mut sum, begin) = (Cell::default(), at);
            while at < end && grid.cells[at].colour() == colour {
                sum.add(&grid.cells[at]);
                at += 1;
            }
            let (x, width) = (LEFT + (begin - first) * SIDE, (at - begin) * SIDE);
            let length = bytes((at - begin) as u64 * grid.grain * grid.page as u64);
            let hint = format!("{:#x}, {length}: {}", grid.address_of(begin), sum.words());
            let place = (x as f64, y as f64);
            picture.band(place, (width as f64 - 0.5, SIDE as f64 - 0.5), &colour, &hint);
        }
    }
}
