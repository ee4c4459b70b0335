//! Finds the two disks of a sandbox.
//!
//! They are told apart by what they allow, not by their letter: `microvm` numbers its devices from the back, other VMMs
//! from the front. The read-only disk is the template's, the writable one is the sandbox's own.

use crate::failure::InitError;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A disk that the VMM has is there as soon as its driver is; this only bounds a broken set-up.
const APPEAR_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(2);

/// The device nodes of the two disks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Disks {
    /// Shared by all sandboxes of a template, read-only.
    pub(crate) base: PathBuf,
    /// This sandbox's own, empty at its first boot.
    pub(crate) scratch: PathBuf,
}

/// Waits until exactly one read-only and one writable virtio disk are there.
///
/// # Errors
///
/// If they aren't within 10 s, or `/sys` can't be read.
pub(crate) fn wait_for_disks() -> Result<Disks, InitError> {
    let start = Instant::now();
    loop {
        let found = scan(Path::new("/sys/block")).map_err(|source| InitError::File {
            action: "list",
            path: PathBuf::from("/sys/block"),
            source,
        })?;
        if let Some(disks) = found.pair() {
            return Ok(disks);
        }
        if start.elapsed() > APPEAR_MAX {
            return Err(InitError::Disks {
                read_only: found.read_only.len(),
                writable: found.writable.len(),
                waited: APPEAR_MAX,
            });
        }
        std::thread::sleep(POLL);
    }
}

#[derive(Debug, Default)]
struct Found {
    read_only: Vec<String>,
    writable: Vec<String>,
}

impl Found {
    fn pair(&self) -> Option<Disks> {
        let ([base], [scratch]) = (self.read_only.as_slice(), self.writable.as_slice()) else {
            return None;
        };
        let node = |name: &str| Path::new("/dev").join(name);
        Some(Disks { base: node(base), scratch: node(scratch) })
    }
}

fn scan(sys_block: &Path) -> io::Result<Found> {
    let mut found = Found::default();
    for entry in fs::read_dir(sys_block)? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        if !name.starts_with("vd") {
            continue;
        }
        match fs::read_to_string(sys_block.join(&name).join("ro"))?.trim() {
            "0" => found.writable.push(name),
            _ => found.read_only.push(name),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(name: &str, disks: &[(&str, &str)]) -> PathBuf {
        let root = std::env::temp_dir().join(format!("wrenn-init-{name}-{}", std::process::id()));
        for (disk, ro) in disks {
            fs::create_dir_all(root.join(disk)).unwrap();
            fs::write(root.join(disk).join("ro"), ro).unwrap();
        }
        root
    }

    #[test]
    fn the_read_only_disk_is_the_base_whatever_its_letter() {
        let root = tree("pair", &[("vda", "0\n"), ("vdb", "1\n"), ("loop0", "1\n")]);
        let disks = scan(&root).unwrap().pair();
        fs::remove_dir_all(&root).unwrap();
        let expected =
            Disks { base: PathBuf::from("/dev/vdb"), scratch: PathBuf::from("/dev/vda") };
        assert_eq!(disks, Some(expected));
    }

    #[test]
    fn two_writable_disks_are_not_a_pair() {
        let root = tree("writable", &[("vda", "0\n"), ("vdb", "0\n")]);
        let found = scan(&root).unwrap();
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(found.pair(), None);
        assert_eq!(found.writable.len(), 2);
    }
}
