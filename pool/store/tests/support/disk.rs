//! File systems of their own, and how they fill up.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::{fs::File, os::unix::fs::FileExt as _, path::Path};

use rustix::mount::{MountFlags, UnmountFlags};

/// Takes all room that is left.
pub(crate) fn fill(path: &Path) {
    let file = File::create(path).unwrap();
    let mut at = 0;
    while let Ok(written) = file.write_at(&[1; 4096], at) {
        at += written as u64;
    }
}

/// A file system of its own for one test.
pub(crate) struct Mounted {
    dir: tempfile::TempDir,
}

impl Mounted {
    pub(crate) fn tmpfs(options: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = std::ffi::CString::new(options).unwrap();
        rustix::mount::mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), data.as_c_str())
            .expect("this test is run as root");
        Self { dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.dir.path(), UnmountFlags::DETACH);
    }
}
