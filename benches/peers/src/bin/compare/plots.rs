//! The plots: a dot plot of ratios to the system's for CPU, peak and idle memory, and lines for what scales.
//!
//! In a dot plot each row is a workload and each mark an allocator, on a logarithmic axis; what lies beyond the axis is
//! drawn at its end with its value. The last row is the geometric mean.

use crate::record::Metric;
use crate::roster::{self, Allocator, OURS, SYSTEM};
use crate::stats::{Results, throughput};
use crate::svg::{Anchor, FAINT, INK, Mark, Picture, SOFT};

const WIDTH: f64 = 1040.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = WIDTH - 60.0;
const HEAD: f64 = 118.0;
const ROW: f64 = 26.0;

/// The axis never shows more than this; what lies beyond is drawn at its end.
const NARROWEST: f64 = 0.2;
const WIDEST: f64 = 5.0;

const TICKS: [f64; 14] = [0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0];

/// Picture name and text of a dot plot.
pub struct Dots<'a> {
    pub metric: Metric,
    pub title: &'a str,
    pub machine: &'a str,
}

/// The logarithmic axis.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64> + Clone) -> Self {
        let low = values.clone().fold(0.8, f64::min).max(NARROWEST) / 1.04;
        let high = values.fold(1.25, f64::max).min(WIDEST) * 1.04;
        Self { low, high }
    }

    fn x(&self, value: f64) -> f64 {
        let share = (value.clamp(self.low, self.high) / self.low).ln() / (self.high / self.low).ln();
        LEFT + share * (RIGHT - LEFT)
    }

    fn is_beyond(&self, value: f64) -> bool {
        value < self.low || value > self.high
    }
}

fn head(picture: &mut Picture, title: &str, machine: &str, allocators: &[&Allocator]) {
    picture.heading((24.0, 32.0), 18.0, title);
    picture.text((24.0, 52.0), Anchor::Start, (12.0, SOFT), machine);
    let (mut x, mut y) = (32.0, 76.0);
    for allocator in allocators {
        let width = 36.0 + 6.6 * allocator.name.len() as f64;
        if x + width > WIDTH - 16.0 {
            (x, y) = (32.0, y + 20.0);
        }
        picture.mark(allocator.mark, (x, y), size(allocator), allocator.colour, allocator.name);
        picture.text((x + 12.0, y + 4.0), Anchor::Start, (12.0, INK), allocator.name);
        x += width;
    }
}

fn size(allocator: &Allocator) -> f64 {
    if roster::is_ours(allocator.name) { 6.5 } else { 4.5 }
}

/// A row of a dot plot: its name, the ratios, and the bound if there is one.
struct Row {
    name: String,
    ratios: Vec<(&'static Allocator, f64)>,
    bound: Option<f64>,
    failed: Vec<&'static str>,
}

fn rows(results: &Results, metric: Metric) -> Vec<Row> {
    let others: Vec<_> = results.allocators.iter().copied().filter(|allocator| allocator.name != SYSTEM).collect();
    let mut rows: Vec<Row> = Vec::new();
    for name in results.compared() {
        let ratio = |of: &&'static Allocator| Some((*of, results.ratio(name, of.name, SYSTEM, metric)?));
        let bound = (metric == Metric::Idle).then(|| bound(results, name)).flatten();
        let failed = others.iter().map(|of| of.name).filter(|of| results.has_failed(name, of)).collect();
        rows.push(Row { name: name.into(), ratios: others.iter().filter_map(ratio).collect(), bound, failed });
    }
    rows.retain(|row| !row.ratios.is_empty());
    if rows.is_empty() {
        return rows;
    }
    let mean = |of: &&'static Allocator| Some((*of, results.mean(of.name, SYSTEM, metric)?.0));
    let ratios = others.iter().filter_map(mean).collect();
    rows.push(Row { name: "geometric mean".into(), ratios, bound: None, failed: Vec::new() });
    rows
}

/// The documented bound of a row's idle memory, as a ratio to the system's idle memory.
fn bound(results: &Results, row: &str) -> Option<f64> {
    let allowed = results.median_of(row, OURS, |run| run.get(Metric::Allowed))?;
    Some(allowed / results.median_of(row, SYSTEM, |run| run.get(Metric::Idle))?)
}

/// A dot plot; nothing if there are no ratios.
pub fn dots(results: &Results, plot: &Dots<'_>) -> Option<String> {
    let rows = rows(results, plot.metric);
    if rows.is_empty() {
        return None;
    }
    let axis = Axis::over(rows.iter().flat_map(|row| row.ratios.iter().map(|(_, ratio)| *ratio)));
    let bottom = HEAD + ROW * rows.len() as f64;
    let mut picture = Picture::new(WIDTH, bottom + 62.0);
    let others: Vec<_> = results.allocators.iter().copied().filter(|allocator| allocator.name != SYSTEM).collect();
    head(&mut picture, plot.title, plot.machine, &others);
    picture.band((LEFT - 130.0, bottom - ROW), (RIGHT - LEFT + 160.0, ROW), "#f0f2f5");
    grid(&mut picture, &axis, bottom);
    for (index, row) in rows.iter().enumerate() {
        draw(&mut picture, &axis, HEAD + ROW * (index as f64 + 0.5), row);
    }
    let note = if plot.metric == Metric::Idle { "; a black bar is the bound that stratalloc documents" } else { "" };
    let note = format!("left is better; 1 is the system allocator; medians of {} rounds{note}", results.rounds);
    picture.text((f64::midpoint(LEFT, RIGHT), bottom + 44.0), Anchor::Middle, (12.0, SOFT), &note);
    Some(picture.finish())
}

fn grid(picture: &mut Picture, axis: &Axis, bottom: f64) {
    for tick in TICKS.into_iter().filter(|tick| !axis.is_beyond(*tick)) {
        let (x, is_one) = (axis.x(tick), tick == 1.0);
        let (width, colour) = if is_one { (2.0, SOFT) } else { (1.0, FAINT) };
        picture.line((x, HEAD - 4.0), (x, bottom + 4.0), width, colour);
        picture.text((x, bottom + 20.0), Anchor::Middle, (12.0, INK), &tick.to_string());
    }
}

/// The peers, spread a little up and down so that equal ones are seen, then ours on top.
fn draw(picture: &mut Picture, axis: &Axis, y: f64, row: &Row) {
    picture.text((LEFT - 14.0, y + 4.0), Anchor::End, (12.5, INK), &row.name);
    picture.line((LEFT, y + ROW / 2.0), (RIGHT, y + ROW / 2.0), 0.5, FAINT);
    if let Some(bound) = row.bound.filter(|bound| !axis.is_beyond(*bound)) {
        picture.mark(Mark::Bar, (axis.x(bound), y), 8.0, "#000000", &format!("bound {bound:.2}"));
    }
    if !row.failed.is_empty() {
        let text = format!("failed: {}", row.failed.join(", "));
        picture.text((RIGHT + 44.0, y - 3.0), Anchor::End, (10.0, SOFT), &text);
    }
    let (ours, peers): (Vec<_>, Vec<_>) = row.ratios.iter().partition(|(of, _)| roster::is_ours(of.name));
    let mut beyond = 0;
    for (index, (of, ratio)) in peers.iter().chain(ours.iter().rev()).enumerate() {
        let spread = if index < peers.len() { [-5.0, 4.0, -1.0][index % 3] } else { 0.0 };
        picture.mark(of.mark, (axis.x(*ratio), y + spread), size(of), of.colour, &format!("{} {ratio:.3}", of.name));
        if axis.is_beyond(*ratio) {
            let (side, place) = if *ratio > 1.0 { (-1.0, Anchor::End) } else { (1.0, Anchor::Start) };
            let x = axis.x(*ratio) + side * (10.0 + 44.0 * f64::from(beyond));
            picture.text((x, y + 4.0), place, (11.0, of.colour), &format!("{ratio:.2}×"));
            beyond += 1;
        }
    }
}

/// A panel of lines: one for each allocator, over steps of equal width.
struct Panel {
    title: &'static str,
    prefix: &'static str,
    left: f64,
    unit: fn(&crate::record::Run) -> Option<f64>,
}

const PANEL: (f64, f64) = (420.0, 300.0);

/// Throughput by threads and time by length, side by side; nothing if there are neither.
pub fn scaling(results: &Results, machine: &str) -> Option<String> {
    let panels = [
        Panel {
            title: "churn: million operations a second, by threads (up is better)",
            prefix: "churn-",
            left: 70.0,
            unit: |run| Some(throughput(run)? / 1e6),
        },
        Panel {
            title: "runs-k: ns an operation, 10^k runs free (down is better)",
            prefix: "runs-",
            left: 590.0,
            unit: |run| Some(1e9 / throughput(run)?),
        },
    ];
    let mut picture = Picture::new(WIDTH, HEAD + PANEL.1 + 70.0);
    head(&mut picture, "Scaling", machine, &results.allocators);
    let drawn = panels.iter().filter(|panel| lines(&mut picture, results, panel).is_some()).count();
    (drawn > 0).then(|| picture.finish())
}

fn lines(picture: &mut Picture, results: &Results, panel: &Panel) -> Option<()> {
    let mut steps: Vec<_> = results.workloads.iter().filter(|row| row.starts_with(panel.prefix)).collect();
    steps.sort_by_key(|row| roster::number(row));
    let value = |row: &str, of: &Allocator| results.median_of(row, of.name, panel.unit);
    let all = steps.iter().flat_map(|row| results.allocators.iter().filter_map(move |of| value(row, of)));
    let (low, high) = all.fold((f64::MAX, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    if high <= 0.0 {
        return None;
    }
    let (low, high) = (low / 1.1, high * 1.1);
    let (top, bottom) = (HEAD + 40.0, HEAD + 20.0 + PANEL.1);
    let x = |index: usize| panel.left + PANEL.0 * (index as f64 + 0.5) / steps.len() as f64;
    let y = |value: f64| bottom - (bottom - top) * (value / low).ln() / (high / low).ln();
    picture.heading((panel.left, HEAD + 16.0), 12.5, panel.title);
    ticks(picture, panel.left, (low, high), &y);
    for (index, row) in steps.iter().enumerate() {
        picture.text((x(index), bottom + 20.0), Anchor::Middle, (12.0, INK), row);
    }
    let (ours, peers): (Vec<_>, Vec<_>) =
        results.allocators.iter().copied().partition(|of: &&Allocator| roster::is_ours(of.name));
    for of in peers.iter().chain(ours.iter().rev()) {
        let points = steps.iter().enumerate().filter_map(|(index, row)| Some((x(index), y(value(row, of)?))));
        let points: Vec<_> = points.collect();
        picture.track(&points, if roster::is_ours(of.name) { 2.5 } else { 1.2 }, of.colour);
        for point in points {
            picture.mark(of.mark, point, size(of), of.colour, of.name);
        }
    }
    Some(())
}

/// Lines at round multiples of the powers of ten between the ends.
fn ticks(picture: &mut Picture, left: f64, (low, high): (f64, f64), y: &dyn Fn(f64) -> f64) {
    let steps = (-6..12).flat_map(|power| [1.0, 1.5, 2.0, 3.0, 5.0, 7.0].map(|digit| digit * 10_f64.powi(power)));
    for value in steps.filter(|value| (low..=high).contains(value)) {
        picture.line((left, y(value)), (left + PANEL.0, y(value)), 1.0, FAINT);
        let text = if value < 1.0 { format!("{value:.2}") } else { format!("{value:.0}") };
        picture.text((left - 8.0, y(value) + 4.0), Anchor::End, (12.0, INK), &text);
    }
}
