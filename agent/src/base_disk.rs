//! Base disks that sandboxes and snapshots stand on, kept by digest for as long as one does.
//!
//! A template may be rebuilt at any time (a new guest daemon, a new package): its directory is
//! swapped for a new one. What was made before stands on the old disk, byte for byte, so each disk
//! gets a second name here, a hard link: no copy, and gone when nobody needs it.
//!
//! # Invariants
//!
//! - A file's name is the digest its template had while the link was made.
//! - A disk that a record or a snapshot names is not removed.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use pool_config::Layout;

use crate::{error::AgentError, template::Template};

/// Attempts to link a disk whose template is being rebuilt meanwhile.
const ATTEMPTS: u32 = 5;

/// Where the disk with this digest is kept, or would be.
#[must_use]
pub fn place(layout: &Layout, digest: &str) -> PathBuf {
    path(layout, digest)
}

/// The disk with this digest, if it is kept.
#[must_use]
pub fn find(layout: &Layout, digest: &str) -> Option<PathBuf> {
    Some(path(layout, digest)).filter(|path| path.exists())
}

/// Keeps a template's disk and returns its lasting path.
///
/// # Errors
///
/// What the disk says; `Interrupted` if the template is rebuilt again and again.
pub fn keep(layout: &Layout, template: &Template) -> Result<PathBuf, AgentError> {
    let step = "keep the base disk";
    let kept = path(layout, &template.digest);
    for _ in 0..ATTEMPTS {
        if kept.exists() {
            return Ok(kept);
        }
        if !template.is_current().map_err(AgentError::io(step))? {
            break;
        }
        link(&template.base_disk, &kept).map_err(AgentError::io(step))?;
        // It may have been swapped between the look and the link: then this is another disk.
        if template.is_current().map_err(AgentError::io(step))? {
            return Ok(kept);
        }
        fs::remove_file(&kept).map_err(AgentError::io(step))?;
    }
    Err(AgentError::io(step)(io::Error::new(
        io::ErrorKind::Interrupted,
        format!("template {} was rebuilt meanwhile", template.id),
    )))
}

/// Removes the disks that nothing names.
///
/// # Errors
///
/// What the disk says.
pub fn sweep(layout: &Layout, named: &BTreeSet<String>) -> io::Result<usize> {
    let entries = match fs::read_dir(dir(layout)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut removed = 0;
    for entry in entries {
        let path = entry?.path();
        let digest = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if !named.contains(digest) {
            fs::remove_file(&path)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Makes the second name. Where the image is on another file system there is none: a copy is made.
fn link(disk: &Path, kept: &Path) -> io::Result<()> {
    if let Some(dir) = kept.parent() {
        fs::create_dir_all(dir)?;
    }
    match fs::hard_link(disk, kept) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let half = kept.with_extension("new");
            pool_store::copy_sparse(disk, &half)?;
            fs::rename(half, kept)
        }
        linked => linked,
    }
}

fn dir(layout: &Layout) -> PathBuf {
    layout.root().join("bases")
}

fn path(layout: &Layout, digest: &str) -> PathBuf {
    dir(layout).join(digest).with_extension("ext4")
}

#[cfg(test)]
mod tests {
    use pool_model::{TeamId, TemplateId};

    use super::*;
    use crate::template;

    #[test]
    fn disk_outlives_the_rebuild_of_its_template_until_nothing_names_it() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path());
        build(&layout, "one");
        let old = template::open(&layout, TeamId::PLATFORM, TemplateId::DEFAULT).unwrap();
        let kept = keep(&layout, &old).unwrap();
        fs::remove_file(&old.base_disk).unwrap();
        build(&layout, "two");
        assert_eq!(fs::read(&kept).unwrap(), b"one");
        assert_eq!(find(&layout, "one"), Some(kept.clone()));
        let new = template::open(&layout, TeamId::PLATFORM, TemplateId::DEFAULT).unwrap();
        assert_eq!(fs::read(keep(&layout, &new).unwrap()).unwrap(), b"two");
        assert_eq!(sweep(&layout, &BTreeSet::from(["two".to_owned()])).unwrap(), 1);
        assert_eq!(find(&layout, "one"), None);
        assert!(find(&layout, "two").is_some());
    }

    #[test]
    fn disk_of_a_rebuilt_template_is_not_kept_under_the_old_name() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path());
        build(&layout, "one");
        let old = template::open(&layout, TeamId::PLATFORM, TemplateId::DEFAULT).unwrap();
        build(&layout, "two");
        assert!(keep(&layout, &old).is_err());
        assert_eq!(find(&layout, "one"), None);
    }

    fn build(layout: &Layout, digest: &str) {
        let dir = layout.template_dir(TeamId::PLATFORM, TemplateId::DEFAULT);
        fs::create_dir_all(&dir).unwrap();
        let _ = fs::remove_file(dir.join("rootfs.ext4"));
        fs::write(dir.join("rootfs.ext4"), digest).unwrap();
        let json = format!(
            r#"{{"name":"t","kernel":"","memory_mib":256,"vcpus":1,"envd_version":"0.1.0","digest":"{digest}"}}"#
        );
        fs::write(dir.join("template.json"), json).unwrap();
    }
}
