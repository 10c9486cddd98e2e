//! `stratalloc dump`

use crate::{Failure, open};
use std::io::{self, Write};
use std::path::Path;
use stratalloc::view::{Kind, Tile};

/// Lists every run and slab of the heap at `path`.
pub(crate) fn run(path: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let view = open(path)?;
    writeln!(out, "{:<14} {:>8}  {:<10}{:>6}{:>7}{:>7}", "ADDRESS", "PAGES", "KIND", "CLASS", "OUT", "FREE")?;
    let mut result = Ok(());
    view.each_tile(&mut |tile| {
        if result.is_ok() {
            result = line(&tile, out);
        }
    });
    Ok(result?)
}

fn line(tile: &Tile, out: &mut dyn Write) -> io::Result<()> {
    let (name, rest) = match tile.kind {
        Kind::Free { dirty: 0 } => ("free", String::new()),
        Kind::Free { dirty } => ("free", format!("  {dirty} pages may hold memory")),
        Kind::Run => ("run", String::new()),
        Kind::Records => ("records", String::new()),
        Kind::Held => ("on its way", String::new()),
        Kind::Slab { size, blocks, free } => ("slab", format!("{size:>6}{:>7}{free:>7}", blocks.saturating_sub(free))),
        _ => ("not clear", String::new()),
    };
    let line = format!("{:#014x} {:>8}  {name:<10}{rest}", tile.at, tile.pages);
    writeln!(out, "{}", line.trim_end())
}
