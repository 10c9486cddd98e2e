//! The examples, which some tests run or load.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The file that an example is built as, which `cargo test` puts beside this binary's folder. Where only this test was
/// built, it is built now.
pub(crate) fn path(file: &str) -> PathBuf {
    let this = std::env::current_exe().expect("the path of this binary");
    let profile = this.ancestors().nth(2).expect("target/PROFILE/deps/BINARY");
    let built = profile.join("examples").join(file);
    if !built.exists() {
        build(file.trim_start_matches("lib").trim_end_matches(".so"), profile);
    }
    assert!(built.exists(), "{} was not built", built.display());
    built
}

/// As `path`, of an example that is built as this test was, whatever was built before.
#[allow(dead_code, reason = "only who shares a heap with an example needs it")]
pub(crate) fn path_of_this_build(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("the path of this binary");
    build(name, this.ancestors().nth(2).expect("target/PROFILE/deps/BINARY"));
    path(name)
}

fn build(name: &str, profile: &Path) {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--example", name]).current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.arg("--target-dir").arg(profile.parent().expect("target/PROFILE"));
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let features = [
        (cfg!(feature = "fine-classes"), "fine-classes"),
        (cfg!(feature = "valgrind"), "valgrind"),
        (cfg!(feature = "malloc-debug"), "malloc-debug"),
        (cfg!(feature = "allocator-api2"), "allocator-api2"),
        (cfg!(feature = "shared"), "shared"),
        (cfg!(feature = "symmetric"), "symmetric"),
    ];
    for (on, feature) in features {
        if on {
            cargo.args(["--features", feature]);
        }
    }
    assert!(cargo.status().expect("cargo runs").success(), "example {name} does not build");
}
