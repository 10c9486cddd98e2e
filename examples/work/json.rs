//! A JSON document of several megabytes: parsed, queried and written again, a few times over.

use super::mib;
use super::report::say;
use super::words::commonest;
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use std::{env, fs, iter};

/// A document that is shorter than this is repeated until it is as long.
const DOCUMENT_BYTES: usize = 8 << 20;
/// Bytes to be parsed in all rounds together, as far as `ROUNDS` allows.
const TOTAL_BYTES: usize = 128 << 20;
/// Rounds, at the most.
const ROUNDS: usize = 16;

/// The document that is worked on: that of `file`, or else what `cargo metadata` prints.
pub(super) fn document(file: Option<PathBuf>) -> Result<Vec<u8>, String> {
    let (name, text) = match file {
        Some(file) => (file.display().to_string(), read(&file)?),
        None => (String::from("cargo metadata"), cargo_metadata()?),
    };
    serde_json::from_slice::<Value>(&text)
        .map_err(|error| format!("{name:?} is not JSON: {error}; give a file that holds one JSON document"))?;
    let copies = DOCUMENT_BYTES.div_ceil(text.len());
    let document = repeat(text, copies);
    say(format_args!("json    {name}, {copies} times: {:.1} MiB", mib(document.len())));
    Ok(document)
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|error| format!("cannot read {file:?}: {error}; give the path of a JSON file, or nothing"))
}

/// What cargo knows of this package and of all that it was built from.
fn cargo_metadata() -> Result<Vec<u8>, String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(&cargo)
        .args(["metadata", "--format-version", "1", "--filter-platform", "host-tuple"])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .output()
        .map_err(|error| format!("cannot run {cargo:?}: {error}; give a JSON file instead"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("cargo metadata failed: {}; give a JSON file instead", said.trim()))
}

/// `text` itself, or an array of so many copies.
fn repeat(text: Vec<u8>, copies: usize) -> Vec<u8> {
    if copies == 1 {
        return text;
    }
    let copies: Vec<&[u8]> = iter::repeat_n(text.as_slice(), copies).collect();
    [b"[", copies.join(&b","[..]).as_slice(), b"]"].concat()
}

/// What there is in a document.
#[derive(Default)]
pub(super) struct Census {
    objects: usize,
    arrays: usize,
    strings: usize,
    deepest: usize,
    keys: HashMap<String, u64>,
}

/// Parses, queries and writes `document`, round after round; returns the last round's results.
pub(super) fn work(document: &[u8]) -> Result<(Value, Census), String> {
    let start = Instant::now();
    let rounds = (TOTAL_BYTES / document.len()).clamp(1, ROUNDS);
    let mut results = round(document)?;
    for done in 1..rounds {
        if done % 4 == 0 {
            say(format_args!("json    round {done} of {rounds}"));
        }
        results = round(document)?;
    }
    say(format_args!("json    {rounds} rounds in {:.2} s", start.elapsed().as_secs_f64()));
    results.1.describe();
    Ok(results)
}

fn round(document: &[u8]) -> Result<(Value, Census), String> {
    let value: Value = serde_json::from_slice(document)
        .map_err(|error| format!("an array of copies of the document cannot be parsed: {error}; give a flatter one"))?;
    let mut census = Census::default();
    census.take(&value, 0);
    let written = value.to_string();
    if written.is_empty() { Err(String::from("serde_json wrote nothing")) } else { Ok((value, census)) }
}

impl Census {
    fn take(&mut self, value: &Value, depth: usize) {
        self.deepest = self.deepest.max(depth);
        match value {
            Value::Object(members) => {
                self.objects += 1;
                members.iter().for_each(|(key, value)| self.take_member(key, value, depth + 1));
            }
            Value::Array(items) => {
                self.arrays += 1;
                items.iter().for_each(|item| self.take(item, depth + 1));
            }
            Value::String(_) => self.strings += 1,
            Value::Number(_) | Value::Bool(_) | Value::Null => {}
        }
    }

    fn take_member(&mut self, key: &str, value: &Value, depth: usize) {
        *self.keys.entry(key.to_owned()).or_default() += 1;
        self.take(value, depth);
    }

    fn describe(&self) {
        let Self { objects, arrays, strings, deepest, keys } = self;
        say(format_args!("json    {objects} objects, {arrays} arrays, {strings} strings, {deepest} levels deep"));
        say(format_args!("json    {} different keys, most often {}", keys.len(), commonest(keys)));
    }
}
