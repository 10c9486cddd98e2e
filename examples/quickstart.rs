//! Real work on stratalloc: a JSON document parsed and queried, and a word index made by several threads. At the end,
//! what the allocator did.
//!
//! ```sh
//! cargo run --release --example quickstart [FILE.json]
//! ```
//!
//! Without a file the document is what `cargo metadata` prints for this package. The same work on the system's allocator
//! is the example `baseline`.

mod work;

use std::process::ExitCode;
use stratalloc::Stratalloc;
use work::report::say;

#[global_allocator]
static A: Stratalloc = Stratalloc::new();

fn main() -> ExitCode {
    say(format_args!("stratalloc is active: {}", if Stratalloc::is_active() { "yes" } else { "no" }));
    let outcome = work::run();
    if outcome.is_ok() {
        say(format_args!("\n{}", Stratalloc::stats()));
    }
    work::exit_code(outcome)
}
