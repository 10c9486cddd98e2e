//! The work of the example `quickstart` on the system's allocator, to compare with.
//!
//! ```sh
//! cargo run --release --example baseline [FILE.json]
//! ```

mod work;

use std::process::ExitCode;
use work::report::say;

fn main() -> ExitCode {
    say("stratalloc is active: no, this is the system's allocator");
    work::exit_code(work::run())
}
