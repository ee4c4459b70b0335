//! Snapshots and templates: what capsules and functions start from.

use jiff::Timestamp;
use pool_model::{SandboxId, SnapshotId, TemplateId};
use serde::{Deserialize, Serialize};

/// Why a snapshot exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotKind {
    /// Someone asked for it with `POST /v1/capsules/{id}/snapshot`.
    User,
    /// A function's sandboxes are restored from it.
    Function,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    /// Its id: a digest of its content.
    pub id: SnapshotId,
    /// Why it exists.
    pub kind: SnapshotKind,
    /// The caller's name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The sandbox it was taken of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxId>,
    /// The template that sandbox was booted from.
    pub template: TemplateId,
    /// Memory of a sandbox restored from it, MiB.
    pub memory_mib: u32,
    /// Bytes it takes on disk.
    pub size_bytes: u64,
    /// When it was taken.
    pub created_at: Timestamp,
}

/// The body of `POST /v1/capsules/{id}/snapshot` (may be empty).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateSnapshot {
    /// A name to find it by, at most 64 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateInfo {
    /// Its id.
    pub id: TemplateId,
    /// Its name.
    pub name: String,
    /// Memory of a sandbox booted from it, MiB.
    pub memory_mib: u32,
    /// Its virtual processors.
    pub vcpus: u32,
    /// The kernel it boots.
    pub kernel: String,
    /// The guest daemon in it.
    pub envd_version: String,
}
