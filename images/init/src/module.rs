//! Inserts the kernel modules that the builder put into the initramfs.
//!
//! `/modules` holds them uncompressed, named `00-virtio.ko`, `01-…` so that the order of names is the order of
//! dependencies: no index has to be parsed here.

use crate::failure::InitError;
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use std::fs::File;
use std::path::{Path, PathBuf};

const DIR: &str = "/modules";

/// Inserts every module in order and returns how many there were.
///
/// # Errors
///
/// At the first one that the kernel refuses. One that it already has is fine.
pub(crate) fn insert_all() -> Result<usize, InitError> {
    let paths = ordered(Path::new(DIR))?;
    for path in &paths {
        insert(path)?;
    }
    Ok(paths.len())
}

fn ordered(dir: &Path) -> Result<Vec<PathBuf>, InitError> {
    let read = |source| InitError::File { action: "list", path: dir.to_owned(), source };
    let mut paths = std::fs::read_dir(dir)
        .map_err(read)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(read)?;
    paths.sort();
    Ok(paths)
}

fn insert(path: &Path) -> Result<(), InitError> {
    let file = File::open(path).map_err(|source| InitError::File {
        action: "open",
        path: path.to_owned(),
        source,
    })?;
    match finit_module(&file, c"", ModuleInitFlags::empty()) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(source) => Err(InitError::Module { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_order() {
        let dir = std::env::temp_dir().join(format!("wrenn-init-modules-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for name in ["10-overlay.ko", "00-virtio.ko", "02-virtio_ring.ko"] {
            File::create(dir.join(name)).unwrap();
        }
        let names: Vec<_> = ordered(&dir)
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_owned())
            .collect();
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(names, ["00-virtio.ko", "02-virtio_ring.ko", "10-overlay.ko"]);
    }
}
