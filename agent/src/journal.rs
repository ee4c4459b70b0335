//! What the agent remembers about a sandbox across its own death: one file per sandbox.
//!
//! # Invariants
//!
//! - The record is written before the thing it speaks of is made, and removed after the last
//!   trace of it is gone. Whatever is found without a record is an orphan and is reaped.
//! - A record is replaced by rename: it is the old one or the new one, never half.
//! - The file is mode 0600: it holds the sandbox's environment and access token.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use agent_slot::SlotIndex;
use agent_vmm::MachineRecord;
use jiff::Timestamp;
use pool_model::{
    FunctionId, Generation, OnTimeout, SandboxId, SandboxState, SnapshotId, TeamId, TemplateId,
};
use serde::{Deserialize, Serialize};

/// Version of the record's format.
pub const RECORD_VERSION: u32 = 2;

/// Why a sandbox exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Somebody created it and was told its id: it outlives the agent.
    Sandbox,
    /// It waits in, or was leased from, this function's pool: it dies with the agent.
    Warm(FunctionId),
    /// It is a VMM that waits for any snapshot: it dies with the agent.
    Blank,
}

/// The snapshot whose memory a machine's mapping is backed by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backing {
    /// The page server's name for it.
    pub snapshot: SnapshotId,
    /// Its directory.
    pub dir: PathBuf,
    /// Size of its memory.
    pub memory_bytes: u64,
}

/// Everything to find a sandbox again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`RECORD_VERSION`].
    pub version: u32,
    /// Its id.
    pub sandbox: SandboxId,
    /// Why it exists.
    pub purpose: Purpose,
    /// Its owner.
    pub team: TeamId,
    /// Where its base disk comes from.
    pub template: TemplateId,
    /// The snapshot it was created from, if any.
    pub snapshot: Option<SnapshotId>,
    /// Guest memory.
    pub memory_bytes: u64,
    /// Virtual processors.
    pub vcpus: u8,
    /// Kernel version it was booted with; empty is the plain one.
    pub kernel: String,
    /// Digest of the base disk below it, which outlives a rebuild of its template.
    pub base_disk: String,
    /// Environment of its processes.
    pub env: BTreeMap<String, String>,
    /// Whether it may reach the internet.
    pub internet: bool,
    /// Its guest daemon's access token.
    pub access_token: String,
    /// What it is doing.
    pub state: SandboxState,
    /// Counts its restores.
    pub generation: Generation,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its time ends; none while it is paused.
    pub expires_at: Option<Timestamp>,
    /// The lifetime it was created with, milliseconds.
    pub timeout_ms: u64,
    /// What happens then.
    pub on_timeout: OnTimeout,
    /// The slot it is in or about to be put in.
    pub slot: Option<SlotIndex>,
    /// Its VMM.
    pub machine: Option<MachineRecord>,
    /// What its VMM's memory is backed by.
    pub backing: Option<Backing>,
    /// The image it was paused to, in [`images_dir`].
    pub image: Option<SnapshotId>,
}

impl Record {
    /// The lifetime it was created with.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// How sure a write must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Survives the death of any process.
    Process,
    /// Survives the death of the host. A machine doesn't, so only paused sandboxes need it.
    Host,
}

/// Where a sandbox's pause images are.
#[must_use]
pub fn images_dir(sandbox_dir: &Path) -> PathBuf {
    sandbox_dir.join("images")
}

/// A sandbox's writable disk.
#[must_use]
pub fn scratch_disk(sandbox_dir: &Path) -> PathBuf {
    sandbox_dir.join("scratch.ext4")
}

/// Makes a sandbox's directory, which only root may list.
///
/// # Errors
///
/// As the file system says; `AlreadyExists` if the id is taken.
pub fn create_dir(sandbox_dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o711).create(sandbox_dir)
}

/// Writes the record in place of the one before.
///
/// # Errors
///
/// As the file system says; the old record is whole then.
pub fn write(sandbox_dir: &Path, record: &Record, durability: Durability) -> io::Result<()> {
    let temporary = sandbox_dir.join(".sandbox.json.new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    serde_json::to_writer(&mut file, record)?;
    file.flush()?;
    if durability == Durability::Host {
        file.sync_all()?;
    }
    fs::rename(&temporary, record_file(sandbox_dir))?;
    if durability == Durability::Host {
        File::open(sandbox_dir)?.sync_all()?;
    }
    Ok(())
}

/// Reads a record.
///
/// # Errors
///
/// `NotFound` if there is none; `InvalidData` if it is not of this version.
pub fn read(sandbox_dir: &Path) -> io::Result<Record> {
    let bytes = fs::read(record_file(sandbox_dir))?;
    let record: Record = serde_json::from_slice(&bytes)?;
    if record.version != RECORD_VERSION {
        let version = record.version;
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("record has version {version}, expected {RECORD_VERSION}"),
        ));
    }
    Ok(record)
}

fn record_file(sandbox_dir: &Path) -> PathBuf {
    sandbox_dir.join("sandbox.json")
}

#[cfg(test)]
pub(crate) fn example(sandbox: SandboxId) -> Record {
    Record {
        version: RECORD_VERSION,
        sandbox,
        purpose: Purpose::Sandbox,
        team: TeamId::PLATFORM,
        template: TemplateId::DEFAULT,
        snapshot: None,
        memory_bytes: 256 << 20,
        vcpus: 1,
        kernel: "6.1.0".to_owned(),
        base_disk: "d".to_owned(),
        env: BTreeMap::from([("A".to_owned(), "b".to_owned())]),
        internet: false,
        access_token: "secret".to_owned(),
        state: SandboxState::Starting,
        generation: Generation(1),
        created_at: Timestamp::UNIX_EPOCH,
        expires_at: Some(Timestamp::UNIX_EPOCH),
        timeout_ms: 300_000,
        on_timeout: OnTimeout::Pause,
        slot: Some(SlotIndex::default()),
        machine: None,
        backing: None,
        image: Some(SnapshotId::from_u128(5)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn record_survives_the_disk_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let record = example(SandboxId::from_u128(9));
        write(dir.path(), &record, Durability::Host).unwrap();
        assert_eq!(read(dir.path()).unwrap(), record);
        let mode = fs::metadata(record_file(dir.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn other_versions_and_damage_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let newer = Record { version: 99, ..example(SandboxId::from_u128(9)) };
        write(dir.path(), &newer, Durability::Process).unwrap();
        assert!(read(dir.path()).unwrap_err().to_string().contains("version 99"));
        fs::write(record_file(dir.path()), b"{\"version\":2").unwrap();
        assert!(read(dir.path()).is_err());
    }
}
