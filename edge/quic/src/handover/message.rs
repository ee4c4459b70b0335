//! What do the two processes of a hand-over say to each other?

use serde::{Deserialize, Serialize};

use crate::elders::Elder;

/// The version of this protocol. Fields may be added without a new one: unknown ones are ignored.
pub(super) const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Message {
    /// First word of the successor: the versions it understands.
    Hello { speaks: Vec<u32> },
    /// The running edge does not hand over, for instance since it speaks another version.
    Refused { reason: String, version: u32 },
    /// What comes: the descriptors follow, in this order: tcp, udp, the pid file's lock.
    Parcel(Manifest),
    /// The successor can serve.
    Ready,
    /// The running edge has stopped reading; the successor may begin.
    Released,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) generation: u16,
    pub(super) tcp: Vec<Label>,
    pub(super) udp: Vec<Label>,
    pub(super) pid_lock: bool,
    /// Opaque bytes, base64.
    pub(super) secrets: String,
    pub(super) elders: Vec<Elder>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Label {
    pub(super) name: String,
    pub(super) worker: u8,
}

impl Manifest {
    /// How many descriptors follow.
    pub(super) fn descriptors(&self) -> usize {
        self.tcp.len() + self.udp.len() + usize::from(self.pid_lock)
    }
}
