//! C programs that tests compile and run, and the library for them.

#![allow(dead_code, reason = "each user takes what it needs")]

#[path = "in_time.rs"]
pub(crate) mod in_time;
#[path = "skipped.rs"]
pub(crate) mod skipped;

use in_time::output_in_time;
use skipped::skipped;
use std::fs::{create_dir_all, remove_dir_all, write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub(crate) const CRATE: &str = env!("CARGO_MANIFEST_DIR");

/// Where this test builds the library.
fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(env!("CARGO_CRATE_NAME").replace('_', "-"))
}

/// Builds the library as a user would, but for features that the test has been built with, too; the file.
pub(crate) fn build(feature: &str, kind: &str, file: &str, options: &[&str]) -> PathBuf {
    let mut features = vec![feature];
    features.extend(cfg!(feature = "fine-classes").then_some("fine-classes"));
    features.extend(cfg!(feature = "malloc-debug").then_some("malloc-debug"));
    let target = target();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["rustc", "--quiet", "--profile", "preload", "--lib", "--crate-type", kind]).current_dir(CRATE);
    cargo.args(["--features", &features.join(",")]).arg("--target-dir").arg(&target).arg("--").args(options);
    ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"].iter().for_each(|name| _ = cargo.env_remove(name));
    let output = output_in_time(&mut cargo);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    target.join("preload").join(file)
}

/// Whether `program` can be run; says so if not.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !installed {
        skipped(&format!("{program} is not installed"));
    }
    installed
}

/// A folder for the calling test alone, empty, which goes with this value.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn create() -> Self {
        let thread = std::thread::current();
        let name = thread.name().expect("the harness names a test's thread after it");
        let this = Self(target().join("tests").join(format!("{name}-{}", std::process::id())));
        create_dir_all(&this.0).expect("a folder");
        this
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        write(&path, text).expect("a file");
        path
    }

    /// Compiles a program, whose path is as seen from `tests/c`; `None` without a compiler.
    pub(crate) fn compile(&self, source: &str, options: &[&str]) -> Option<PathBuf> {
        let (compiler, standard) = if source.ends_with(".cpp") { ("g++", "-std=c++17") } else { ("gcc", "-std=gnu11") };
        if !is_installed(compiler) {
            return None;
        }
        let name = source.rsplit('/').next().expect("a name");
        let program = self.0.join(name.replace('.', "-"));
        let mut command = Command::new(compiler);
        // Without builtins no call is folded away.
        command.args([standard, "-fno-builtin", "-Wall", "-Wextra", "-Werror", "-pthread"]);
        command.current_dir(Path::new(CRATE).join("tests/c"));
        command.arg(source).args(options).arg("-o").arg(&program).arg("-ldl");
        let output = output_in_time(&mut command);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(program)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed stays in the folder of the build.
        let _ = remove_dir_all(&self.0);
    }
}

/// Runs `command`, which ends well and says nothing on its standard error: its standard output.
#[track_caller]
pub(crate) fn said(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = output_in_time(command);
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success() && stderr.is_empty(), "{command:?}: {status}\n{stderr}{stdout}");
    stdout.into_owned()
}
