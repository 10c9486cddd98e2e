//! `stratalloc list`

use crate::text::{self, Table};
use crate::{Failure, open};
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;
use stratalloc::view::is_heap;

/// Lists the heaps in `folder`.
pub(crate) fn run(folder: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let refused = |error| Failure::Refused(format!("{}: cannot list the folder: {error}", text::path(folder)));
    let entries = fs::read_dir(folder).map_err(refused)?;
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    let mut table = Table::new(1, ["PATH", "SIZE", "USED", "SCHEME", "ALIVE", "DEAD"]);
    let (mut wrong, mut hidden) = (Vec::new(), 0);
    for path in paths {
        match is_heap(&path) {
            Ok(true) => {}
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                hidden += 1;
                continue;
            }
            Ok(false) | Err(_) => continue,
        }
        match open(&path) {
            Ok(view) => {
                let (facts, (alive, dead)) = (view.facts(), text::living(&view.processes()));
                let bytes = [facts.span.bytes as u64, view.used()].map(text::bytes);
                let [size, used] = bytes;
                let scheme = facts.scheme.name().to_string();
                table.add([text::path(&path), size, used, scheme, alive.to_string(), dead.to_string()]);
            }
            Err(Failure::Refused(why)) => wrong.push(why),
            Err(other) => return Err(other),
        }
    }
    if !table.is_empty() {
        table.write(0, out)?;
    } else if wrong.is_empty() {
        writeln!(out, "no heap in {}", text::path(folder))?;
    }
    for why in wrong {
        writeln!(out, "{why}")?;
    }
    if hidden > 0 {
        writeln!(out, "({} of other users' could not be looked at)", text::count(hidden, "file"))?;
    }
    Ok(())
}
