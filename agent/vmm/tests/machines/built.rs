//! Where are the real binaries that these tests need?
//!
//! Beside this test, built there unless a build of the whole workspace has just put them there.

#![allow(dead_code, reason = "the examples need a part")]

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::SystemTime,
};

/// The library that is preloaded into QEMU.
pub(crate) fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        built("libqemu_uffd.so", &["-p", "qemu-uffd", "--lib"], &["agent/vmm/qemu-uffd/src"])
    })
}

/// The page server.
pub(crate) fn pager() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let sources = ["pool/config/src", "pool/pager/src", "pool/remote/src", "pool/store/src"];
    BUILT.get_or_init(|| built("pager", &["-p", "pool-pager", "--bin", "pager"], &sources))
}

/// The top of the workspace.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn built(file: &str, what: &[&str], sources: &[&str]) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile_dir = test.ancestors().nth(2).expect("a test lives in <profile>/deps");
    let file = profile_dir.join(file);
    let newest = sources.iter().filter_map(|dir| newest(&workspace().join(dir))).max();
    if modified(&file) >= newest {
        return file;
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "-q"]).args(what);
    cargo.arg("--target-dir").arg(profile_dir.parent().unwrap());
    if profile_dir.ends_with("release") {
        cargo.arg("--release");
    }
    let done = cargo.current_dir(workspace()).status().unwrap();
    assert!(done.success(), "cargo build {what:?}");
    file
}

fn modified(file: &Path) -> Option<SystemTime> {
    file.metadata().and_then(|metadata| metadata.modified()).ok()
}

fn newest(dir: &Path) -> Option<SystemTime> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.filter_map(|path| if path.is_dir() { newest(&path) } else { modified(&path) }).max()
}
