//! Lays out the initramfs: the guest's init, its modules, and nothing else.
//!
//! It isn't compressed: the guest's CPU may be emulated, and two megabytes are copied faster than decoded.

use crate::cpio::{Archive, CpioError};
use crate::module::Module;

/// What the guest needs before it has its disks: virtio over MMIO, block, network, overlay; and the balloon,
/// through which it says which pages are free (page reporting is built into the kernel).
pub(crate) const MODULES: [&str; 5] =
    ["virtio_mmio", "virtio_blk", "virtio_net", "virtio_balloon", "overlay"];

/// Where init mounts things before there is a root.
const MOUNT_POINTS: [&str; 6] = ["dev", "lower", "newroot", "proc", "scratch", "sys"];

/// Makes the archive. Module files are named `00-…`, so that the order of names is the order to insert them.
///
/// # Errors
///
/// If a file is too long for the format.
pub(crate) fn assemble(init: &[u8], modules: &[Module]) -> Result<Vec<u8>, CpioError> {
    let mut archive = Archive::default();
    for directory in MOUNT_POINTS {
        archive.directory(directory)?;
    }
    // The kernel opens it for init before init can mount anything.
    archive.character_device("dev/console", 5, 1)?;
    archive.executable("init", init)?;
    archive.directory("modules")?;
    for (index, module) in modules.iter().enumerate() {
        archive.file(&format!("modules/{index:02}-{}.ko", module.name), &module.contents)?;
    }
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_numbered_in_their_order() {
        let module = |name: &str| Module { name: name.to_owned(), contents: b"ko".to_vec() };
        let archive = assemble(b"init", &[module("virtio_ring"), module("virtio")]).unwrap();
        let text = String::from_utf8(archive).unwrap();
        let first = text.find("modules/00-virtio_ring.ko\0").unwrap();
        let second = text.find("modules/01-virtio.ko\0").unwrap();
        assert!(text.find("modules\0").unwrap() < first && first < second);
    }
}
