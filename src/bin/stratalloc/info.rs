//! `stratalloc info`

use crate::text::{self, Table, bytes};
use crate::{Failure, open, refused};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use stratalloc::Stats;
use stratalloc::view::{Facts, Layers, Process, View};

/// Says what the heap at `path` is, where its bytes are, and who is in it.
pub(crate) fn run(path: &Path, as_json: bool, with_classes: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let view = open(path)?;
    let on_disk = view.bytes_on_disk().map_err(|error| refused(path, &error))?;
    if as_json {
        let text = format!("{:#}", json_of(path, &view, on_disk));
        writeln!(out, "{}", ascii(&text))?;
        return Ok(());
    }
    let layers = view.layers();
    write_facts(path, &view.facts(), &layers, on_disk, out)?;
    write_layers(&layers, out)?;
    write_processes(&view.processes(), out)?;
    if with_classes {
        writeln!(out, "\n{}", view.stats())?;
    }
    Ok(())
}

/// JSON of nothing but ASCII: only names have other letters, in strings, and some of those move a terminal's cursor.
fn ascii(json: &str) -> String {
    let mut text = String::new();
    for letter in json.chars() {
        match letter {
            ' '..='~' | '\n' => text.push(letter),
            _ => letter.encode_utf16(&mut [0; 2]).iter().for_each(|unit| _ = write!(text, "\\u{unit:04x}")),
        }
    }
    text
}

fn write_facts(path: &Path, facts: &Facts, layers: &Layers, on_disk: u64, out: &mut dyn Write) -> Result<(), Failure> {
    let (at, end) = (facts.span.at, facts.span.at + facts.span.bytes);
    let copies = if facts.has_copies { "with copies (malloc-debug)" } else { "without copies" };
    let root = match facts.root {
        0 => String::from("none"),
        root if (at..end).contains(&root) => format!("{root:#x}"),
        root => format!("{root:#x}, outside of the heap"),
    };
    writeln!(out, "{}", text::path(path))?;
    writeln!(
        out,
        "  version    {}, words of {} bytes, pages of {}",
        facts.version, facts.word_bytes, facts.page_bytes
    )?;
    writeln!(out, "  classes    {}, records {copies}", facts.classes)?;
    writeln!(out, "  scheme     {}", facts.scheme.name())?;
    writeln!(out, "  address    {at:#x} to {end:#x}")?;
    writeln!(out, "  root       {root}")?;
    let (size, used, disk) = (bytes(facts.span.bytes as u64), bytes(layers.used), bytes(on_disk));
    writeln!(out, "  file       {size}, {used} in use, {disk} on the disk")?;
    Ok(())
}

fn write_layers(layers: &Layers, out: &mut dyn Write) -> Result<(), Failure> {
    let blocks = |(blocks, _): (u64, u64)| text::count(blocks, "block");
    let runs = |(runs, _): (u64, u64)| text::count(runs, "run");
    let rows = [
        ("slabs", layers.slabs.1, text::count(layers.slabs.0, "slab")),
        ("  live blocks", layers.live_blocks.1, blocks(layers.live_blocks)),
        ("  cached by threads", layers.cached_blocks.1, blocks(layers.cached_blocks)),
        ("  in the depot", layers.depot_blocks.1, blocks(layers.depot_blocks)),
        ("  free", layers.free_blocks.1, blocks(layers.free_blocks)),
        ("runs in use", layers.runs.1, runs(layers.runs)),
        ("  live", layers.live_runs, String::new()),
        ("  cached by threads", layers.cached_runs, String::new()),
        ("runs of records", layers.records.1, runs(layers.records)),
        ("runs on their way", layers.held.1, runs(layers.held)),
        ("free runs", layers.free_runs.1, runs(layers.free_runs)),
        ("page map", layers.map, format!("{} of {} leaves", layers.leaves.0, layers.leaves.1)),
        ("state and seats", layers.head, String::new()),
        ("not clear", layers.unclear, String::from("being changed, damaged, or not taken in yet")),
    ];
    writeln!(out, "\nlayers")?;
    let mut table = Table::new(1, ["", "", ""]);
    let is_there = |(name, bytes, _): &(&str, u64, String)| {
        *bytes > 0 || !["runs on their way", "not clear", "runs of records"].contains(name)
    };
    rows.into_iter().filter(is_there).for_each(|(name, count, what)| table.add([name.to_string(), bytes(count), what]));
    table.write_body(2, out)?;
    Ok(())
}

fn write_processes(processes: &[Process], out: &mut dyn Write) -> Result<(), Failure> {
    writeln!(out, "\nprocesses{}", if processes.is_empty() { ": none" } else { "" })?;
    if processes.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(0, ["PID", "STATE", "FOR", "THREADS", "CACHED", "ALLOCATED", "FREED"]);
    for process in processes {
        let state = if process.is_alive { "alive" } else { "dead" };
        let (threads, cached) = (process.threads.len(), bytes(process.cached));
        let counts = [process.allocs, process.frees].map(|count| count.to_string());
        let [allocs, frees] = counts;
        let pid = process.pid.to_string();
        table.add([pid, state.to_string(), text::age(process.age), threads.to_string(), cached, allocs, frees]);
    }
    table.write(2, out)?;
    Ok(())
}

fn json_of(path: &Path, view: &View, on_disk: u64) -> Value {
    let (facts, layers) = (view.facts(), view.layers());
    json!({
        "path": path.to_string_lossy(),
        "version": facts.version,
        "word_bytes": facts.word_bytes,
        "page_bytes": facts.page_bytes,
        "classes": facts.classes,
        "has_copies": facts.has_copies,
        "scheme": facts.scheme.name(),
        "address": facts.span.at,
        "bytes": facts.span.bytes,
        "root": facts.root,
        "used": layers.used,
        "on_disk": on_disk,
        "layers": layers_json(&layers),
        "processes": view.processes().iter().map(process_json).collect::<Vec<_>>(),
        "stats": stats_json(&view.stats()),
    })
}

fn layers_json(layers: &Layers) -> Value {
    let both = |(count, bytes): (u64, u64)| json!({ "count": count, "bytes": bytes });
    json!({
        "slabs": both(layers.slabs),
        "live_blocks": both(layers.live_blocks),
        "cached_blocks": both(layers.cached_blocks),
        "depot_blocks": both(layers.depot_blocks),
        "free_blocks": both(layers.free_blocks),
        "runs": both(layers.runs),
        "live_runs": { "bytes": layers.live_runs },
        "cached_runs": { "bytes": layers.cached_runs },
        "record_runs": both(layers.records),
        "runs_on_their_way": both(layers.held),
        "free_runs": both(layers.free_runs),
        "page_map": { "bytes": layers.map, "leaves": layers.leaves.0, "leaves_max": layers.leaves.1 },
        "head": { "bytes": layers.head },
        "unclear": { "bytes": layers.unclear },
    })
}

fn process_json(process: &Process) -> Value {
    json!({
        "pid": process.pid,
        "is_alive": process.is_alive,
        "seconds": process.age.map(|age| age.as_secs_f64()),
        "threads": process.threads,
        "cached_bytes": process.cached,
        "allocs": process.allocs,
        "frees": process.frees,
        "allocated_bytes": process.allocated,
        "freed_bytes": process.freed,
    })
}

fn stats_json(stats: &Stats) -> Value {
    let classes: Vec<Value> = stats
        .classes
        .iter()
        .map(|class| {
            json!({
                "size": class.size,
                "allocs": class.allocs,
                "frees": class.frees,
                "cached": class.cached,
                "in_depot": class.in_depot,
                "slabs": class.slabs,
            })
        })
        .collect();
    json!({
        "allocated": stats.allocated,
        "active": stats.active,
        "mapped": stats.mapped,
        "retained": stats.retained,
        "records": stats.records,
        "threads": stats.threads,
        "classes": classes,
    })
}
