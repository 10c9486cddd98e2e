//! Runs one of the counted loops on this build's allocator: `micro LOOP TURNS`; `micro name` prints the allocator's
//! name.
//!
//! `compare --micro` runs it under callgrind.

#![allow(clippy::disallowed_macros, reason = "a bench prints its results")]

#[path = "../allocator.rs"]
mod allocator;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["name"] => println!("{}", allocator::NAME),
        [name, turns] => counted::run(name, turns.parse().expect("a number of turns")),
        _ => panic!("micro LOOP TURNS"),
    }
}
