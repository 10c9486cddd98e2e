//! Numbers, names and tables as people read them.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;
use stratalloc::view::Process;

/// A number of bytes.
pub(crate) fn bytes(count: u64) -> String {
    if count < 1024 {
        return format!("{count} B");
    }
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut value, mut unit) = (count as f64 / 1024.0, 0);
    while value >= 1023.95 && unit + 1 < units.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    format!("{value:.1} {}", units[unit])
}

/// A time that has passed.
pub(crate) fn age(time: Option<Duration>) -> String {
    let Some(time) = time else {
        return String::from("before the system's start");
    };
    let (seconds, minutes) = (time.as_secs(), time.as_secs() / 60);
    match seconds {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{minutes} min {} s", seconds % 60),
        3600..86_400 => format!("{} h {} min", minutes / 60, minutes % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// A path, in one line whatever it has in it.
pub(crate) fn path(path: &Path) -> String {
    plain(&path.to_string_lossy())
}

const KEPT: [char; 3] = ['\\', '\'', '"'];

/// A text of others' with all that is not seen escaped: what moves a terminal's cursor or turns its text, and what no XML may have.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::new();
    // What is escaped for programs alone stays as it is.
    for part in text.split_inclusive(KEPT) {
        let seen = part.trim_end_matches(KEPT);
        plain.extend(seen.escape_debug());
        plain.push_str(&part[seen.len()..]);
    }
    plain
}

/// A number with its noun: the plural has an s, or es.
pub(crate) fn count(number: u64, noun: &str) -> String {
    let ending = match number {
        1 => "",
        _ if noun.ends_with('s') => "es",
        _ => "s",
    };
    format!("{number} {noun}{ending}")
}

/// The processes that live, and how many died.
pub(crate) fn living(processes: &[Process]) -> (usize, usize) {
    let alive = processes.iter().filter(|process| process.is_alive).count();
    (alive, processes.len() - alive)
}

/// Columns, the first of them to the left, others to the right.
#[derive(Debug, Default)]
pub(crate) struct Table {
    left: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table whose first `left` columns stand to the left.
    pub(crate) fn new<const N: usize>(left: usize, head: [&str; N]) -> Self {
        Self { left, rows: vec![head.map(String::from).to_vec()] }
    }

    /// Adds a row.
    pub(crate) fn add<const N: usize>(&mut self, row: [String; N]) {
        self.rows.push(row.to_vec());
    }

    /// Whether it has no more than its head.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    /// Writes it, with `indent` spaces before each row.
    pub(crate) fn write(&self, indent: usize, out: &mut dyn Write) -> io::Result<()> {
        self.write_from(0, indent, out)
    }

    /// Writes it without its head.
    pub(crate) fn write_body(&self, indent: usize, out: &mut dyn Write) -> io::Result<()> {
        self.write_from(1, indent, out)
    }

    fn write_from(&self, first: usize, indent: usize, out: &mut dyn Write) -> io::Result<()> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |at: usize| self.rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|at| width(at).unwrap_or(0)).collect();
        for row in self.rows.iter().skip(first) {
            let mut line = " ".repeat(indent);
            for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let gap = if at == 0 { "" } else { "  " };
                _ = if at < self.left {
                    write!(line, "{gap}{cell:<width$}")
                } else {
                    write!(line, "{gap}{cell:>width$}")
                };
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
