//! Builds a binary once per allocator and keeps a copy of each below the target folder.
//!
//! An allocator is a feature, which changes only the last crate, so that all builds share one target folder and the
//! dependencies are built once.

use crate::roster::{self, SYSTEM};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// A binary of one allocator.
pub struct Built {
    pub allocator: &'static str,
    pub binary: PathBuf,
}

/// What was built, and whether everything that must build did.
pub struct Outcome {
    pub built: Vec<Built>,
    pub complete: bool,
}

/// The target folder that this program itself lies in.
fn target_folder() -> PathBuf {
    let own = env::current_exe().expect("the program knows its own place");
    let folder = own.parent().and_then(Path::parent).expect("cargo puts binaries two folders deep");
    folder.to_path_buf()
}

fn build(binary: &str, allocator: &str, profile: &str) -> Result<PathBuf, String> {
    let target = target_folder();
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--quiet", "--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
    command.args(["--bin", binary, "--profile", profile, "--target-dir"]).arg(&target);
    if allocator != SYSTEM {
        command.args(["--features", allocator]);
    }
    let status = command.status().map_err(|error| format!("cargo does not start: {error}"))?;
    if !status.success() {
        return Err("cargo build failed, see above".into());
    }
    let folder = target.join("peers").join(profile);
    let copy = folder.join(format!("{binary}-{allocator}"));
    fs::create_dir_all(&folder)
        .and_then(|()| fs::copy(target.join(profile).join(binary), &copy))
        .map_err(|error| format!("{}: {error}", copy.display()))?;
    Ok(copy)
}

/// Builds `binary` for each allocator; names each that does not build and leaves it out.
pub fn all(binary: &str, allocators: &[&'static str], profile: &str) -> Outcome {
    let mut outcome = Outcome { built: Vec::new(), complete: true };
    for allocator in allocators {
        eprintln!("building {binary} ({profile}) on {allocator}");
        match build(binary, allocator, profile) {
            Ok(binary) => outcome.built.push(Built { allocator, binary }),
            Err(why) => {
                eprintln!("!!! {allocator} IS LEFT OUT: {why}");
                outcome.complete &= roster::is_peer(allocator);
            }
        }
    }
    outcome
}

/// Takes `workload-ALLOCATOR` from a folder; names each that is not there.
pub fn prebuilt(folder: &Path, allocators: &[&'static str]) -> Outcome {
    let mut outcome = Outcome { built: Vec::new(), complete: true };
    for allocator in allocators {
        let binary = folder.join(format!("workload-{allocator}"));
        if binary.is_file() {
            outcome.built.push(Built { allocator, binary });
        } else {
            eprintln!("!!! {allocator} IS LEFT OUT: there is no {}", binary.display());
            outcome.complete &= roster::is_peer(allocator);
        }
    }
    outcome
}
