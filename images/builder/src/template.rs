//! Makes a template's directory: base disk with envd, empty scratch disk, description.

use crate::digest::Inputs;
use crate::disk;
use crate::error::BuildError;
use crate::recipe;
use crate::rootfs::Base;
use crate::workspace::{draft_in, publish_dir, read_json, write_json};
use pool_config::Layout;
use pool_model::{TeamId, TemplateId};
use serde::{Deserialize, Serialize};
use std::path::Path;

const ROOTFS: &str = "rootfs.ext4";
const SCRATCH: &str = "scratch.ext4";
const DESCRIPTION: &str = "template.json";
const ENVD_DIR: &str = "/usr/local/bin";
const ENVD_NAME: &str = "envd";

/// `template.json`: what a sandbox of this template boots with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// The name in the API.
    pub name: String,
    /// The version of the kernel in `kernels/`.
    pub kernel: String,
    /// Memory of a sandbox when nothing else is asked for.
    pub memory_mib: u32,
    /// CPUs of a sandbox when nothing else is asked for.
    pub vcpus: u8,
    /// The version of the guest daemon.
    pub envd_version: String,
    /// Digest of what the two disks were made of, 64 hex digits: another digest is another disk.
    pub digest: String,
}

/// The guest daemon to put into a template.
#[derive(Debug)]
pub(crate) struct Envd<'a> {
    pub(crate) path: &'a Path,
    pub(crate) digest: String,
    pub(crate) version: String,
}

/// Makes the default template of the platform unless its inputs are unchanged.
///
/// Returns its description and whether this build made its disks.
///
/// # Errors
///
/// If a tool fails or a file can't be written.
pub(crate) fn build(
    layout: &Layout,
    base: &Base,
    envd: &Envd<'_>,
    kernel: &semver::Version,
) -> Result<(Template, bool), BuildError> {
    let digest = Inputs::of("template").with("base", &base.digest).with("envd", &envd.digest).key();
    let template = Template {
        name: recipe::NAME.to_owned(),
        kernel: kernel.to_string(),
        memory_mib: recipe::MEMORY_MIB,
        vcpus: recipe::VCPUS,
        envd_version: envd.version.clone(),
        digest,
    };
    let dir = layout.template_dir(TeamId::PLATFORM, TemplateId::DEFAULT);
    let complete = dir.join(ROOTFS).exists() && dir.join(SCRATCH).exists();
    let former = read_json::<Template>(&dir.join(DESCRIPTION)).filter(|_| complete);
    match former {
        Some(former) if former == template => return Ok((template, false)),
        // The same disks with another kernel: only the description changes.
        Some(former) if former.digest == template.digest => {
            write_json(&dir.join(DESCRIPTION), &template)?;
            return Ok((template, false));
        }
        _ => {}
    }
    let draft = draft_in(dir.parent().unwrap_or(Path::new("/")))?;
    let rootfs = draft.path().join(ROOTFS);
    disk::copy(&base.image, &rootfs)?;
    disk::inject(&rootfs, envd.path, ENVD_DIR, ENVD_NAME)?;
    disk::make_scratch(&draft.path().join(SCRATCH))?;
    write_json(&draft.path().join(DESCRIPTION), &template)?;
    publish_dir(draft, &dir)?;
    Ok((template, true))
}
