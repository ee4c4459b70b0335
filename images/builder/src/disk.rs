//! Makes and changes ext4 images without mounting them.
//!
//! No journal: the base disk is never written, and a scratch disk dies with its sandbox or is frozen together with the memory
//! that knows what isn't on it yet. No checksums of metadata: the guest's CPU may be emulated.

use crate::digest::{file_digest, uuid_of};
use crate::error::BuildError;
use crate::tool::{CP, DEBUGFS, E2FSCK, MKE2FS, Run};
use crate::workspace::draft_in;
use std::fs::{self, File};
use std::path::Path;

const FEATURES: &str = "^has_journal,^metadata_csum,^64bit,^resize_inode,uninit_bg";
const BLOCK: u64 = 4096;
/// Room in the base disk for what is injected later. Unused blocks are holes.
const BASE_SLACK_BYTES: u64 = 256 << 20;
const BASE_SLACK_INODES: u64 = 4096;
/// What a sandbox can write at most; sparse, so it costs what is written.
const SCRATCH_BYTES: u64 = 8 << 30;
/// Written into the images in place of the time they were made: 2025-01-01.
const MADE_AT: &str = "1735689600";

/// Makes the base disk of a directory tree.
///
/// # Errors
///
/// If the tree can't be read or `mke2fs` fails.
pub(crate) fn make_base(tree: &Path, image: &Path, key: &str) -> Result<(), BuildError> {
    let usage = Usage::of(tree)?;
    let bytes = (usage.bytes + usage.bytes / 8 + BASE_SLACK_BYTES).next_multiple_of(1 << 20);
    let inodes = usage.inodes + BASE_SLACK_INODES;
    create_sparse(image, bytes)?;
    mke2fs("make the base disk", "wrenn-base", key)
        .args(["-N", &inodes.to_string(), "-d"])
        .arg(tree)
        .arg(image)
        .output()
        .map(drop)
}

/// Makes an empty scratch disk.
///
/// # Errors
///
/// If `mke2fs` fails.
pub(crate) fn make_scratch(image: &Path) -> Result<(), BuildError> {
    create_sparse(image, SCRATCH_BYTES)?;
    mke2fs("make the scratch disk", "wrenn-scratch", "scratch")
        .args(["-i", "65536"])
        .arg(image)
        .output()
        .map(drop)
}

/// Copies an image without its holes.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), BuildError> {
    let copy = CP.run("copy an image").args(["--sparse=always", "--reflink=auto", "--"]);
    copy.arg(from).arg(to).output().map(drop)
}

/// Puts an executable into an image, in place of the one of that name, and checks that it is there.
///
/// # Errors
///
/// If `debugfs` fails, or the image doesn't hold the file's exact bytes afterwards.
pub(crate) fn inject(image: &Path, file: &Path, dir: &str, name: &str) -> Result<(), BuildError> {
    let beside = draft_in(image.parent().unwrap_or(Path::new("/")))?;
    // debugfs splits its commands at spaces, so paths of the host stay out of them.
    let source = beside.path().join("source");
    fs::copy(file, &source).map_err(BuildError::file("copy", file))?;
    let script = beside.path().join("commands");
    // Read back by its whole path: had `cd` failed, the file would be in the wrong place.
    let commands = format!(
        "cd {dir}\nrm {name}\nwrite source {name}\n\
         set_inode_field {dir}/{name} mode 0100755\nset_inode_field {dir}/{name} uid 0\n\
         set_inode_field {dir}/{name} gid 0\ndump {dir}/{name} written\n"
    );
    fs::write(&script, commands).map_err(BuildError::file("write", &script))?;
    // Its exit status says nothing about single commands: what counts is what can be read back.
    DEBUGFS
        .run("inject a file")
        .within(beside.path())
        .env("E2FSPROGS_FAKE_TIME", MADE_AT)
        .args(["-w", "-f", "commands"])
        .arg(image)
        .output()?;
    let written = beside.path().join("written");
    if !written.exists() || file_digest(&written)? != file_digest(&source)? {
        let problem = format!("{dir}/{name} could not be written into it");
        return Err(BuildError::malformed(image, problem));
    }
    E2FSCK.run("check an image").arg("-fn").arg(image).output().map(drop)
}

fn mke2fs(step: &'static str, label: &str, key: &str) -> Run {
    let uuid = uuid_of(key);
    let extended = format!("hash_seed={uuid},root_owner=0:0,assume_storage_prezeroed=1");
    MKE2FS.run(step).env("E2FSPROGS_FAKE_TIME", MADE_AT).args([
        "-q", "-F", "-t", "ext4", "-O", FEATURES, "-b", "4096", "-m", "0", "-L", label, "-U",
        &uuid, "-E", &extended,
    ])
}

fn create_sparse(image: &Path, bytes: u64) -> Result<(), BuildError> {
    let file = File::create(image).map_err(BuildError::file("make", image))?;
    file.set_len(bytes).map_err(BuildError::file("size", image))
}

/// What a tree needs in blocks and inodes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Usage {
    bytes: u64,
    inodes: u64,
}

impl Usage {
    fn of(tree: &Path) -> Result<Self, BuildError> {
        let mut usage = Self::default();
        let mut left = vec![tree.to_owned()];
        while let Some(dir) = left.pop() {
            for entry in fs::read_dir(&dir).map_err(BuildError::file("list", &dir))? {
                let entry = entry.map_err(BuildError::file("list", &dir))?;
                let path = entry.path();
                let metadata = entry.metadata().map_err(BuildError::file("look at", &path))?;
                usage.inodes += 1;
                usage.bytes += metadata.len().next_multiple_of(BLOCK);
                if metadata.is_dir() {
                    left.push(path);
                }
            }
        }
        Ok(usage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_tree_becomes_a_disk_and_a_file_in_it_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("usr/local/bin")).unwrap();
        fs::write(tree.join("usr/local/bin/envd"), "old").unwrap();
        let image = dir.path().join("rootfs.ext4");
        make_base(&tree, &image, "key").unwrap();

        let envd = dir.path().join("envd with spaces");
        for version in ["first", "second version"] {
            fs::write(&envd, version.repeat(5000)).unwrap();
            inject(&image, &envd, "/usr/local/bin", "envd").unwrap();
            let read = DEBUGFS.run("read").args(["-R", "cat /usr/local/bin/envd"]).arg(&image);
            assert_eq!(read.output().unwrap(), version.repeat(5000));
        }
        let stat = DEBUGFS.run("stat").args(["-R", "stat /usr/local/bin/envd"]).arg(&image);
        assert!(stat.output().unwrap().contains("Mode:  0755"));
    }

    #[test]
    fn a_file_without_a_place_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(&tree).unwrap();
        let image = dir.path().join("rootfs.ext4");
        make_base(&tree, &image, "key").unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        let error = inject(&image, &file, "/no/such/dir", "envd").unwrap_err();
        assert!(matches!(error, BuildError::Malformed { .. }), "{error}");
    }

    fn dump_superblock(image: &Path) -> Vec<u8> {
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; 1 << 20];
        File::open(image).unwrap().read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn equal_inputs_make_equal_scratch_disks_that_cost_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let images = ["a", "b"].map(|name| dir.path().join(name));
        for image in &images {
            make_scratch(image).unwrap();
        }
        let metadata = fs::metadata(&images[0]).unwrap();
        assert_eq!(metadata.len(), SCRATCH_BYTES);
        assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
        let [a, b] = images.map(|image| dump_superblock(&image));
        assert_eq!(a, b);
    }
}
