//! Makes `kernels/vmlinux-{semver}` and `kernels/initramfs-{semver}`.
//!
//! Which version that is was decided by the first build and is remembered; `refresh` asks the archive again.

use crate::apt::{Apt, Package, archive_path};
use crate::bzimage;
use crate::digest::Inputs;
use crate::elf::Elf;
use crate::error::BuildError;
use crate::initramfs::{self, MODULES};
use crate::module;
use crate::tool::DPKG_DEB;
use crate::workspace::{Workspace, publish_file, read_json, write_json};
use pool_config::Layout;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// Which kernel package this work directory builds from.
const RESOLVED: &str = "kernel-package.json";

/// What is in `kernels/` and what it was made of.
#[derive(Debug, Serialize, Deserialize)]
struct Stamp {
    package: Package,
    key: String,
}

/// A kernel that is there.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// Its upstream version.
    pub(crate) version: semver::Version,
    /// Whether this build made it.
    pub(crate) built: bool,
}

/// Builds kernel and initramfs unless their inputs are unchanged.
///
/// # Errors
///
/// If the archive can't be reached, a tool fails, or the package isn't as expected.
pub(crate) fn build(
    workspace: &Workspace,
    layout: &Layout,
    init: &Path,
    refresh: bool,
) -> Result<Kernel, BuildError> {
    let init_bytes = read_static(init)?;
    let (package, apt) = resolve(workspace, refresh)?;
    let version = package.upstream()?;
    let key = Inputs::of("kernel")
        .with("package", &package.name)
        .with("version", &package.version)
        .with("modules", MODULES.join(" "))
        .with("init", blake3::hash(&init_bytes).as_bytes())
        .key();
    let outputs = Outputs::of(layout, &version);
    if outputs.are_made_from(&key) {
        return Ok(Kernel { version, built: false });
    }

    let archive = fetch(workspace, &package, apt)?;
    let draft = workspace.draft()?;
    let tree = draft.path().join("package");
    DPKG_DEB.run("unpack the kernel").arg("-x").arg(&archive).arg(&tree).output()?;
    let image = only_entry(&tree.join("boot"), "vmlinuz-")?;
    let bytes = fs::read(&image).map_err(BuildError::file("read", &image))?;
    let kernel =
        bzimage::extract_vmlinux(&bytes).map_err(|error| BuildError::malformed(&image, error))?;
    let modules = module::collect(&only_entry(&tree.join("lib/modules"), "")?, &MODULES)?;
    let initramfs = initramfs::assemble(&init_bytes, &modules)
        .map_err(|error| BuildError::malformed(init, error))?;

    // A kernel is usable once its `vmlinux` is there, so that comes last.
    outputs.write(draft.path(), &outputs.initramfs, &initramfs)?;
    outputs.write(draft.path(), &outputs.vmlinux, &kernel)?;
    write_json(&outputs.stamp, &Stamp { package, key })?;
    Ok(Kernel { version, built: true })
}

/// The package to build from; apt comes along when it was already needed.
fn resolve(workspace: &Workspace, refresh: bool) -> Result<(Package, Option<Apt>), BuildError> {
    let remembered = workspace.path(RESOLVED);
    if let (false, Some(package)) = (refresh, read_json(&remembered)) {
        return Ok((package, None));
    }
    let apt = Apt::prepare(workspace)?;
    let package = apt.newest_kernel()?;
    write_json(&remembered, &package)?;
    Ok((package, Some(apt)))
}

fn fetch(
    workspace: &Workspace,
    package: &Package,
    apt: Option<Apt>,
) -> Result<PathBuf, BuildError> {
    let archive = archive_path(workspace, package);
    if archive.exists() {
        return Ok(archive);
    }
    let apt = match apt {
        Some(apt) => apt,
        None => Apt::prepare(workspace)?,
    };
    tracing::info!(package = package.name, version = package.version, "downloading the kernel");
    apt.download(workspace, package)
}

/// Where one version's files are.
struct Outputs {
    vmlinux: PathBuf,
    initramfs: PathBuf,
    stamp: PathBuf,
}

impl Outputs {
    fn of(layout: &Layout, version: &semver::Version) -> Self {
        let file = |kind: &str| layout.kernels_dir().join(format!("{kind}-{version}"));
        Self {
            vmlinux: file("vmlinux"),
            initramfs: file("initramfs"),
            stamp: layout.kernels_dir().join(format!("kernel-{version}.json")),
        }
    }

    fn are_made_from(&self, key: &str) -> bool {
        let stamped = read_json::<Stamp>(&self.stamp).is_some_and(|stamp| stamp.key == key);
        stamped && self.vmlinux.exists() && self.initramfs.exists()
    }

    /// Writes one file whole. The draft may be on another file system, so the bytes go beside their target first.
    fn write(&self, draft: &Path, target: &Path, bytes: &[u8]) -> Result<(), BuildError> {
        let beside = crate::workspace::draft_in(target.parent().unwrap_or(draft))?;
        let path = beside.path().join("file");
        fs::write(&path, bytes).map_err(BuildError::file("write", &path))?;
        publish_file(&path, target)
    }
}

/// Reads the guest's init and refuses one that needs libraries, because the initramfs has none.
fn read_static(init: &Path) -> Result<Vec<u8>, BuildError> {
    let bytes = fs::read(init).map_err(BuildError::file("read the guest init", init))?;
    let elf = Elf::parse(&bytes).map_err(|error| BuildError::malformed(init, error))?;
    match elf.section(".interp").map_err(|error| BuildError::malformed(init, error))? {
        None => Ok(bytes),
        Some(_) => Err(BuildError::malformed(
            init,
            "it is dynamically linked; build it with `-C target-feature=+crt-static`",
        )),
    }
}

/// The one entry of a directory whose name starts so.
fn only_entry(dir: &Path, prefix: &str) -> Result<PathBuf, BuildError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(BuildError::file("list", dir))? {
        let entry = entry.map_err(BuildError::file("list", dir))?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            found.push(entry.path());
        }
    }
    match <[PathBuf; 1]>::try_from(found) {
        Ok([path]) => Ok(path),
        Err(found) => {
            let problem = format!("expected one entry {prefix}*, found {}", found.len());
            Err(BuildError::malformed(dir, problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::tests::with_section;

    #[test]
    fn an_init_that_needs_libraries_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let init = dir.path().join("init");
        fs::write(&init, with_section(".interp", b"/lib64/ld-linux-x86-64.so.2\0")).unwrap();
        let message = read_static(&init).unwrap_err().to_string();
        assert!(message.contains("crt-static"), "{message}");
        fs::write(&init, with_section(".text", b"code")).unwrap();
        assert!(read_static(&init).is_ok());
    }

    #[test]
    fn outputs_count_as_made_only_while_all_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let outputs = Outputs::of(&layout, &semver::Version::new(6, 1, 170));
        let package = Package { name: "linux".to_owned(), version: "6.1.170-1".to_owned() };
        outputs.write(dir.path(), &outputs.vmlinux, b"kernel").unwrap();
        outputs.write(dir.path(), &outputs.initramfs, b"initramfs").unwrap();
        write_json(&outputs.stamp, &Stamp { package, key: "k".to_owned() }).unwrap();

        assert!(outputs.are_made_from("k"));
        assert!(!outputs.are_made_from("other"));
        assert_eq!(layout.latest_kernel().unwrap().vmlinux, outputs.vmlinux);
        fs::remove_file(&outputs.initramfs).unwrap();
        assert!(!outputs.are_made_from("k"));
    }
}
