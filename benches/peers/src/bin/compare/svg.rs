//! A little SVG: text, lines, paths and the marks of the plots, on a background of its own, so that a plot reads the
//! same on a light and a dark page.

use std::fmt::Write;

pub const INK: &str = "#1b1f24";
pub const FAINT: &str = "#d8dde3";
pub const SOFT: &str = "#59636e";

/// A mark of a plot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    Bar,
    Diamond,
    HollowDiamond,
    Circle,
    HollowCircle,
    Square,
    HollowSquare,
    Up,
    Down,
    Cross,
    Plus,
}

/// Where a text's point lies in it.
#[derive(Clone, Copy)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// A picture in the making.
pub struct Picture {
    width: f64,
    height: f64,
    body: String,
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl Picture {
    pub fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.body, "{element}");
    }

    pub fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, style: (f64, &str), text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let ((size, colour), text) = (style, escape(text));
        self.push(format_args!(
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{text}</text>"#
        ));
    }

    /// Bold text from its start.
    pub fn heading(&mut self, (x, y): (f64, f64), size: f64, text: &str) {
        let text = escape(text);
        self.push(format_args!(
            r#"<text x="{x:.1}" y="{y:.1}" font-size="{size}" font-weight="bold" fill="{INK}">{text}</text>"#
        ));
    }

    pub fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), width: f64, colour: &str) {
        self.push(format_args!(
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{colour}" stroke-width="{width}"/>"#
        ));
    }

    pub fn band(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), colour: &str) {
        self.push(format_args!(
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{colour}"/>"#
        ));
    }

    /// A line through points.
    pub fn track(&mut self, points: &[(f64, f64)], width: f64, colour: &str) {
        let points: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.push(format_args!(
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="{width}"/>"#,
            points.join(" ")
        ));
    }

    /// A mark of radius `r`; `hint` is shown when the pointer rests on it.
    pub fn mark(&mut self, mark: Mark, (x, y): (f64, f64), r: f64, colour: &str, hint: &str) {
        let path = outline(mark, x, y, r);
        let paint = match mark {
            Mark::HollowDiamond | Mark::HollowCircle | Mark::HollowSquare => {
                format!(r##"fill="#ffffff" stroke="{colour}" stroke-width="2""##)
            }
            Mark::Cross | Mark::Plus | Mark::Bar => format!(r#"fill="none" stroke="{colour}" stroke-width="2.4""#),
            _ => format!(r##"fill="{colour}" stroke="#ffffff" stroke-width="0.8""##),
        };
        let hint = escape(hint);
        self.push(format_args!(r#"<path d="{path}" {paint}><title>{hint}</title></path>"#));
    }

    pub fn finish(&self) -> String {
        let Self { width, height, body } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" font-family=\"system-ui, 'Segoe UI', 'DejaVu Sans', Helvetica, sans-serif\">\n\
             <rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"#ffffff\"/>\n{body}</svg>\n"
        )
    }
}

fn outline(mark: Mark, x: f64, y: f64, r: f64) -> String {
    let closed = |points: &[(f64, f64)]| {
        let points: Vec<_> = points.iter().map(|(dx, dy)| format!("{:.1} {:.1}", x + dx * r, y + dy * r)).collect();
        format!("M{}Z", points.join("L"))
    };
    let strokes = |lines: &[(f64, f64, f64, f64)]| {
        let one = |(a, b, c, d): &(f64, f64, f64, f64)| {
            format!("M{:.1} {:.1}L{:.1} {:.1}", x + a * r, y + b * r, x + c * r, y + d * r)
        };
        lines.iter().map(one).collect::<String>()
    };
    match mark {
        Mark::Diamond | Mark::HollowDiamond => closed(&[(0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)]),
        Mark::Square | Mark::HollowSquare => closed(&[(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]),
        Mark::Up => closed(&[(0.0, -1.15), (1.1, 0.85), (-1.1, 0.85)]),
        Mark::Down => closed(&[(0.0, 1.15), (1.1, -0.85), (-1.1, -0.85)]),
        Mark::Cross => strokes(&[(-0.85, -0.85, 0.85, 0.85), (-0.85, 0.85, 0.85, -0.85)]),
        Mark::Plus => strokes(&[(-1.1, 0.0, 1.1, 0.0), (0.0, -1.1, 0.0, 1.1)]),
        Mark::Bar => strokes(&[(0.0, -1.3, 0.0, 1.3)]),
        Mark::Circle | Mark::HollowCircle => {
            let left = x - r;
            format!("M{left:.1} {y:.1}a{r} {r} 0 1 0 {0:.1} 0a{r} {r} 0 1 0 -{0:.1} 0Z", 2.0 * r)
        }
    }
}
