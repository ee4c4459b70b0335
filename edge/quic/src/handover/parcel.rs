//! What does a successor get?

use std::fmt;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use socket2::{SockRef, Type};

use super::message::{Label, Manifest};
use super::wire::WireError;
use super::{DESCRIPTORS_MAX, SECRETS_MAX};
use crate::elders::{ELDERS_MAX, Elder};

/// Sockets, secrets and what else a successor needs. The sockets are copies (`try_clone`) of those in use.
#[derive(Default)]
pub struct Parcel {
    /// Generation of the sender.
    pub generation: u16,
    /// Listening TCP sockets.
    pub tcp: Vec<Named<TcpListener>>,
    /// UDP sockets, one per worker and name.
    pub udp: Vec<Named<UdpSocket>>,
    /// The pid file, with the lock on it: the lock belongs to the open file, so it never is free.
    pub pid_lock: Option<OwnedFd>,
    /// Whatever the edge wants its successor to know (ticket keys); at most [`SECRETS_MAX`] bytes.
    pub secrets: Vec<u8>,
    /// The sender's own forward sockets ([`ForwardSocket::elder`](crate::ForwardSocket::elder)) and those of the
    /// generations that still drain before it ([`Shared::elders`](crate::Shared::elders)). More than [`ELDERS_MAX`] are
    /// not handed over: the edge goes on until one of them has ended.
    pub elders: Vec<Elder>,
}

/// A socket and what it is for.
#[derive(Debug)]
pub struct Named<S> {
    /// Which listener it is, in the words of the configuration.
    pub name: String,
    /// Which worker uses it.
    pub worker: u8,
    /// The socket.
    pub socket: S,
}

impl Parcel {
    /// The generation of whoever takes this parcel: the one after the sender's that no elder has.
    #[must_use]
    pub fn next_generation(&self) -> u16 {
        let mut next = self.generation.wrapping_add(1);
        while self.elders.iter().any(|elder| elder.generation == next) {
            next = next.wrapping_add(1);
        }
        next
    }

    /// The manifest, if the parcel is within the limits.
    pub(super) fn manifest(&self) -> Result<Manifest, WireError> {
        let label = |name: &String, worker| Label { name: name.clone(), worker };
        let manifest = Manifest {
            generation: self.generation,
            tcp: self.tcp.iter().map(|s| label(&s.name, s.worker)).collect(),
            udp: self.udp.iter().map(|s| label(&s.name, s.worker)).collect(),
            pid_lock: self.pid_lock.is_some(),
            secrets: STANDARD.encode(&self.secrets),
            elders: self.elders.clone(),
        };
        check(&manifest)?;
        Ok(manifest)
    }

    /// The descriptors, in the order of the manifest.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let tcp = self.tcp.iter().map(|s| s.socket.as_fd());
        let udp = self.udp.iter().map(|s| s.socket.as_fd());
        tcp.chain(udp).chain(self.pid_lock.iter().map(AsFd::as_fd)).collect()
    }

    /// Puts a parcel together; `fds` are as many as the manifest says. What does not fit is an error and all are closed.
    pub(super) fn assemble(manifest: Manifest, fds: Vec<OwnedFd>) -> Result<Self, WireError> {
        let secrets = STANDARD.decode(&manifest.secrets).map_err(|_| WireError::Secrets)?;
        let mut fds = fds.into_iter();
        let mut next = || fds.next().ok_or(WireError::Descriptors);
        let mut parcel = Self {
            generation: manifest.generation,
            secrets,
            elders: manifest.elders,
            ..Self::default()
        };
        for Label { name, worker } in manifest.tcp {
            let fd = next()?;
            let socket = SockRef::from(&fd);
            if !(socket.r#type().is_ok_and(|t| t == Type::STREAM)
                && socket.is_listener().is_ok_and(|listens| listens))
            {
                return Err(WireError::NotASocket(name));
            }
            parcel.tcp.push(Named { name, worker, socket: fd.into() });
        }
        for Label { name, worker } in manifest.udp {
            let fd = next()?;
            if !SockRef::from(&fd).r#type().is_ok_and(|t| t == Type::DGRAM) {
                return Err(WireError::NotASocket(name));
            }
            parcel.udp.push(Named { name, worker, socket: fd.into() });
        }
        if manifest.pid_lock {
            parcel.pid_lock = Some(next()?);
        }
        Ok(parcel)
    }
}

/// Whether a manifest is within the limits, whoever made it.
pub(super) fn check(manifest: &Manifest) -> Result<(), WireError> {
    if manifest.descriptors() > DESCRIPTORS_MAX {
        return Err(WireError::Descriptors);
    }
    if manifest.secrets.len() > SECRETS_MAX.div_ceil(3) * 4 {
        return Err(WireError::Secrets);
    }
    if manifest.elders.len() > ELDERS_MAX {
        return Err(WireError::Elders);
    }
    Ok(())
}

impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parcel")
            .field("generation", &self.generation)
            .field("tcp", &self.tcp)
            .field("udp", &self.udp)
            .field("pid_lock", &self.pid_lock)
            .field("elders", &self.elders)
            .finish_non_exhaustive()
    }
}
