//! When a client's call is refused, and in which words.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use pool_remote::SourceError;
use rustix::fs::OFlags;

use crate::{
    error::{BaseError, chain},
    process::{Process, link_of},
    protocol::{Attach, Outcome, RefusalCode},
    sys::{PAGE_BYTES, Uffd},
};

/// What the kernel calls a userfaultfd.
const UFFD_LINK: &str = "anon_inode:[userfaultfd]";

/// A refusal, in the words that go to the client.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    code: RefusalCode,
    message: String,
}

impl Refusal {
    pub(crate) fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn into_outcome(self) -> Outcome {
        Outcome::Refused { code: self.code, message: self.message }
    }
}

impl From<BaseError> for Refusal {
    fn from(error: BaseError) -> Self {
        let code = match &error {
            BaseError::Snapshot { source, .. } if pool_store::is_damage(source) => {
                RefusalCode::Damaged
            }
            BaseError::Layer { source, .. } if is_layer_damage(source) => RefusalCode::Damaged,
            BaseError::Plan { .. } => RefusalCode::Damaged,
            BaseError::Snapshot { .. } | BaseError::Layer { .. } | BaseError::Length { .. } => {
                RefusalCode::Snapshot
            }
            BaseError::NotOurs { .. } => RefusalCode::BadDescriptor,
            BaseError::Pages { .. } => RefusalCode::BadRequest,
            BaseError::HugePages { .. } | BaseError::Io { .. } => RefusalCode::Host,
        };
        Self::new(code, chain(&error))
    }
}

/// Whether asking again can't help.
fn is_layer_damage(error: &SourceError) -> bool {
    let SourceError::Layer { error, .. } = error else {
        return matches!(error, SourceError::Block { .. } | SourceError::LocalDamage { .. });
    };
    !matches!(&**error, pool_store::LayerError::Io { .. })
}

/// For `map_err`: a `step` that the host refused.
pub(crate) fn host(step: &'static str) -> impl Fn(io::Error) -> Refusal {
    move |error| Refusal::new(RefusalCode::Host, format!("cannot {step}: {error}"))
}

/// A copy of a process's descriptor.
pub(crate) fn fetch(process: &Process, number: i32) -> Result<OwnedFd, Refusal> {
    process.descriptor(number).map_err(|error| {
        let message = format!("cannot fetch descriptor {number}: {error}");
        Refusal::new(RefusalCode::BadDescriptor, message)
    })
}

/// The userfaultfd that a process holds as `number`, checked to be one.
pub(crate) fn fetch_uffd(process: &Process, number: i32) -> Result<Uffd, Refusal> {
    let fd = fetch(process, number)?;
    let link = link_of(fd.as_fd()).map_err(host("identify the userfaultfd"))?;
    if link != UFFD_LINK {
        let message = format!("descriptor {number} is {link}, not a userfaultfd");
        return Err(Refusal::new(RefusalCode::BadDescriptor, message));
    }
    rustix::fs::fcntl_getfl(&fd)
        .and_then(|flags| rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK))
        .map_err(|error| host("make the userfaultfd non-blocking")(error.into()))?;
    Ok(Uffd::from_fd(fd))
}

/// Checks the range of an attach.
pub(crate) fn check_range(attach: &Attach, base_bytes: u64) -> Result<(), Refusal> {
    let page = PAGE_BYTES as u64;
    let whole = attach.addr.is_multiple_of(page) && attach.len.is_multiple_of(page);
    let inside = attach.len > 0 && attach.len <= base_bytes;
    if whole && inside && attach.addr.checked_add(attach.len).is_some() {
        return Ok(());
    }
    let message =
        format!("{} bytes at {:#x} are no mapping of {base_bytes} bytes", attach.len, attach.addr);
    Err(Refusal::new(RefusalCode::BadRequest, message))
}

/// Faults that a predecessor read and never answered are raised again by this.
pub(crate) fn wake_all(uffd: Option<&Uffd>, attach: &Attach) -> Result<(), Refusal> {
    uffd.map_or(Ok(()), |uffd| uffd.wake(attach.addr, attach.len))
        .map_err(host("wake the waiting threads"))
}
