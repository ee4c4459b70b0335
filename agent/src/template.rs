//! Templates whose images are on this host.

use std::{fs, io, path::PathBuf};

use pool_config::Layout;
use pool_model::{TeamId, TemplateId};
use serde::Deserialize;

use crate::error::AgentError;

/// A template: an immutable disk and how to boot it.
#[derive(Debug, Clone)]
pub struct Template {
    /// Its id.
    pub id: TemplateId,
    /// Its owner.
    pub team: TeamId,
    /// Its name, e.g. `minimal-debian`.
    pub name: String,
    /// Kernel version; empty is the plain one.
    pub kernel: String,
    /// Guest memory when nothing else is asked for, MiB.
    pub memory_mib: u32,
    /// Processors when nothing else is asked for.
    pub vcpus: u8,
    /// Version of the guest daemon in it.
    pub envd_version: String,
    /// Digest of what it was built from.
    pub digest: String,
    /// The read-only disk.
    pub base_disk: PathBuf,
    /// The empty writable disk that is copied for each sandbox.
    pub scratch_disk: PathBuf,
}

#[derive(Debug, Deserialize)]
struct RawTemplate {
    name: String,
    kernel: String,
    memory_mib: u32,
    vcpus: u8,
    envd_version: String,
    digest: String,
}

impl Template {
    /// Whether the template is still the one that was opened, not a rebuilt one.
    ///
    /// # Errors
    ///
    /// What the disk says.
    pub fn is_current(&self) -> io::Result<bool> {
        let json = self.base_disk.with_file_name("template.json");
        let raw: RawTemplate = serde_json::from_slice(&fs::read(json)?)?;
        Ok(raw.digest == self.digest)
    }
}

/// Opens a team's template; a platform template serves every team.
///
/// # Errors
///
/// [`AgentError::TemplateNotFound`], or what the disk says.
pub fn open(layout: &Layout, team: TeamId, id: TemplateId) -> Result<Template, AgentError> {
    for owner in [team, TeamId::PLATFORM] {
        if let Some(template) = read(layout, owner, id)? {
            return Ok(template);
        }
    }
    Err(AgentError::TemplateNotFound(id))
}

/// Lists the templates that a team may use.
///
/// # Errors
///
/// What the disk says.
pub fn list(layout: &Layout, team: TeamId) -> Result<Vec<Template>, AgentError> {
    let mut owners = vec![TeamId::PLATFORM, team];
    owners.dedup();
    let mut found = Vec::new();
    for owner in owners {
        let default = layout.template_dir(owner, TemplateId::DEFAULT);
        let Some(dir) = default.parent() else { continue };
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(AgentError::io("list templates")(error)),
        };
        for entry in entries.flatten() {
            let label = entry.file_name();
            let id = label.to_str().and_then(|label| TemplateId::from_label(label).ok());
            if let Some(template) = id.map(|id| read(layout, owner, id)).transpose()?.flatten() {
                found.push(template);
            }
        }
    }
    found.sort_by_key(|template| template.id);
    Ok(found)
}

fn read(layout: &Layout, team: TeamId, id: TemplateId) -> Result<Option<Template>, AgentError> {
    let dir = layout.template_dir(team, id);
    let text = match fs::read(dir.join("template.json")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(AgentError::io("read a template")(error)),
    };
    let raw: RawTemplate = serde_json::from_slice(&text)
        .map_err(|error| AgentError::io("read a template")(error.into()))?;
    Ok(Some(Template {
        id,
        team,
        name: raw.name,
        kernel: raw.kernel,
        memory_mib: raw.memory_mib,
        vcpus: raw.vcpus,
        envd_version: raw.envd_version,
        digest: raw.digest,
        base_disk: dir.join("rootfs.ext4"),
        scratch_disk: dir.join("scratch.ext4"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platform_template_serves_every_team_and_unknown_ones_are_named() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path());
        let dir = layout.template_dir(TeamId::PLATFORM, TemplateId::DEFAULT);
        fs::create_dir_all(&dir).unwrap();
        fs::write(
            dir.join("template.json"),
            r#"{"name":"minimal-debian","kernel":"6.1.0","memory_mib":256,"vcpus":1,"envd_version":"0.1.0","digest":"d"}"#,
        )
        .unwrap();
        let team = TeamId::from_u128(77);
        assert_eq!(open(&layout, team, TemplateId::DEFAULT).unwrap().name, "minimal-debian");
        assert_eq!(list(&layout, team).unwrap().len(), 1);
        let unknown = TemplateId::from_u128(5);
        assert!(matches!(
            open(&layout, team, unknown),
            Err(AgentError::TemplateNotFound(id)) if id == unknown
        ));
    }
}
