//! Bootstraps Debian into the base disk that all templates' root file systems start from.
//!
//! The result stays in the work directory and is bootstrapped again only when its recipe changes or `refresh` asks for newer
//! packages. What is in it is known by the digest of its bytes, because an archive changes with time and a recipe doesn't.

use crate::apt;
use crate::digest::file_digest;
use crate::disk;
use crate::error::BuildError;
use crate::recipe;
use crate::sources::{KEYRING, SUITE};
use crate::tool::{MMDEBSTRAP, SETPRIV, UNSHARE};
use crate::workspace::{Workspace, publish_file, read_json, write_json};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// 35 s with a near mirror; a far one may need minutes.
const BOOTSTRAP_MAX: Duration = Duration::from_secs(900);
const IMAGE: &str = "base.ext4";
const STAMP: &str = "base.json";

/// A base disk in the work directory.
#[derive(Debug)]
pub(crate) struct Base {
    /// The image.
    pub(crate) image: PathBuf,
    /// The digest of its bytes.
    pub(crate) digest: String,
    /// Whether this build made it.
    pub(crate) built: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stamp {
    key: String,
    digest: String,
}

/// Bootstraps unless the recipe is unchanged.
///
/// # Errors
///
/// If the archive can't be reached or one of the tools fails.
pub(crate) fn build(workspace: &Workspace, refresh: bool) -> Result<Base, BuildError> {
    let (image, stamp) = (workspace.path(IMAGE), workspace.path(STAMP));
    let key = recipe::key();
    let made = read_json::<Stamp>(&stamp).filter(|stamp| stamp.key == key && image.exists());
    if let (false, Some(made)) = (refresh, made) {
        return Ok(Base { image, digest: made.digest, built: false });
    }
    let draft = workspace.draft()?;
    let tree = draft.path().join("root");
    tracing::info!(suite = SUITE, packages = recipe::packages().len(), "bootstrapping");
    bootstrap(workspace, draft.path(), &tree)?;
    let made = draft.path().join(IMAGE);
    disk::make_base(&tree, &made, &key)?;
    let digest = file_digest(&made)?;
    // Without its stamp the former image isn't trusted, so a crash in between only costs a bootstrap.
    if stamp.exists() {
        fs::remove_file(&stamp).map_err(BuildError::file("remove", &stamp))?;
    }
    publish_file(&made, &image)?;
    write_json(&stamp, &Stamp { key, digest: digest.clone() })?;
    Ok(Base { image, digest, built: true })
}

fn bootstrap(workspace: &Workspace, draft: &Path, tree: &Path) -> Result<(), BuildError> {
    if !Path::new(KEYRING).exists() {
        return Err(BuildError::ToolMissing { tool: KEYRING, package: "debian-archive-keyring" });
    }
    let file = |name: &str, text: &str| {
        let path = draft.join(name);
        fs::write(&path, text).map_err(BuildError::file("write", &path))?;
        Ok(path)
    };
    let sources = apt::sources_file(workspace)?;
    let apt_config = file("apt.conf", &apt::host_settings()?)?;
    let dpkg_config = file("dpkg.cfg", recipe::DPKG_CONFIG)?;
    let customize = file("customize.sh", recipe::CUSTOMIZE)?;
    // Mounts and processes that it makes live in namespaces of its own: they vanish with it, so that deleting a draft
    // never reaches through a mount; and it ends when we do, however we end.
    SETPRIV
        .run("bootstrap Debian")
        .deadline(BOOTSTRAP_MAX)
        .args(["--pdeathsig=KILL", UNSHARE.name, "--mount", "--propagation=private"])
        .args(["--pid", "--fork", "--kill-child=KILL", "--mount-proc", MMDEBSTRAP.name])
        .args(["--mode=root", "--variant=minbase", "--format=directory", "--skip=cleanup/apt"])
        .arg(format!("--include={}", recipe::packages().join(",")))
        .arg(option("--aptopt=", &apt_config))
        .arg(option("--dpkgopt=", &dpkg_config))
        .arg(format!("--customize-hook=sh '{}' \"$1\"", customize.display()))
        .arg(SUITE)
        .arg(tree)
        .arg(&sources)
        .output()
        .map(drop)
}

fn option(name: &str, path: &Path) -> std::ffi::OsString {
    let mut option = std::ffi::OsString::from(name);
    option.push(path);
    option
}
