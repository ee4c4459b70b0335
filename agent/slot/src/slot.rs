//! A slot: the place on a host that one sandbox after another runs in.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::build::{self, Parts};
use crate::config::{Limits, SlotIndex, TAP_NAME};
use crate::dial::Dialer;
use crate::error::SlotError;
use crate::host::Host;
use crate::link::{self, DefaultRoute};
use crate::netlink::Netlink;
use crate::{netns, sys};

/// How long [`Slot::dial`] waits. A guest that runs answers within a millisecond.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// One slot, whole.
///
/// Dropping it changes nothing on the system, so that slots survive their agent: the next one
/// adopts or sweeps them. It starts without internet.
#[derive(Debug)]
pub struct Slot {
    host: Host,
    index: SlotIndex,
    netns: Arc<OwnedFd>,
    uplink: u32,
    /// Whether the guest may have had internet since the last reset.
    was_online: AtomicBool,
}

impl Slot {
    /// Makes the slot `index`: namespace, tap, link to the host, rules, cgroups.
    ///
    /// # Errors
    ///
    /// [`SlotError::Exists`] if there is one, even a half-made one. Any other failure leaves
    /// nothing behind.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the slot is removed again when it is made.
    pub async fn create(host: &Host, index: SlotIndex, limits: Limits) -> Result<Self, SlotError> {
        let (inner, orphan) = (Arc::clone(&host.inner), Arc::clone(&host.inner));
        let work = move || build::create(&inner, index, limits);
        let undo = move |made: Result<Parts, SlotError>| {
            let undone = made.and_then(|_| build::remove(&orphan, index));
            if let Err(error) = undone {
                tracing::warn!(slot.index = index.get(), ?error, "an unclaimed slot stays");
            }
        };
        let parts = netns::on_thread(work, undo).await.map_err(SlotError::step(index, "run"))??;
        Ok(Self::new(host, index, parts, false))
    }

    /// Takes over a slot that an earlier process made. Its guest, if any, runs on; its internet
    /// stays on or off as it is.
    ///
    /// # Errors
    ///
    /// [`SlotError::NotAdoptable`] if it is absent, half-made or of another configuration.
    pub async fn adopt(host: &Host, index: SlotIndex) -> Result<Self, SlotError> {
        let inner = Arc::clone(&host.inner);
        let work = move || build::adopt(&inner, index);
        let parts = netns::on_thread(work, drop).await.map_err(SlotError::step(index, "run"))??;
        Ok(Self::new(host, index, parts, true))
    }

    fn new(host: &Host, index: SlotIndex, parts: Parts, was_online: bool) -> Self {
        Self {
            host: host.clone(),
            index,
            netns: Arc::new(parts.netns),
            uplink: parts.uplink,
            was_online: AtomicBool::new(was_online),
        }
    }

    /// Its number.
    #[must_use]
    pub fn index(&self) -> SlotIndex {
        self.index
    }

    /// Uid of the slot's processes; no other slot has it.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.host.config().uid(self.index)
    }

    /// Gid of the slot's processes; the same number as the uid.
    #[must_use]
    pub fn gid(&self) -> u32 {
        self.uid()
    }

    /// Name of its network namespace, as `ip netns` lists it.
    #[must_use]
    pub fn netns_name(&self) -> String {
        self.host.config().slot_name(self.index)
    }

    /// The files (one per cgroup hierarchy) into which a process writes its pid to join the slot.
    #[must_use]
    pub fn cgroup_procs(&self) -> Vec<PathBuf> {
        self.host.inner.cgroups.procs(self.index)
    }

    /// Changes the limits, for a sandbox of another size.
    ///
    /// # Errors
    ///
    /// [`SlotError::Step`] if the kernel refuses, e.g. a limit below what is in use.
    pub async fn set_limits(&self, limits: Limits) -> Result<(), SlotError> {
        let (inner, index) = (Arc::clone(&self.host.inner), self.index);
        let work = move || build::set_limits(&inner, index, limits);
        netns::on_thread(work, drop).await.map_err(SlotError::step(index, "run"))?
    }

    /// Opens the tap for a VMM: with virtio-net headers (10 bytes), without packet information,
    /// non-blocking, CLOEXEC. The tap itself stays when the descriptor is closed. Blocks for about
    /// 100 µs.
    ///
    /// # Errors
    ///
    /// `EBUSY` in the source: a VMM still holds it.
    pub fn open_tap(&self) -> Result<OwnedFd, SlotError> {
        let open = || {
            let tap = sys::attach_tap(TAP_NAME)?;
            sys::normalise_tap(tap.as_fd())?;
            Ok(tap)
        };
        netns::inside(self.netns.as_fd(), open).map_err(SlotError::step(self.index, "open its tap"))
    }

    /// Switches the guest's way to the internet. Off, it hears "administratively prohibited" at
    /// once; packets of connections that were open are dropped in both directions.
    ///
    /// # Errors
    ///
    /// [`SlotError::Step`]; then it is as it was.
    pub async fn set_internet(&self, on: bool) -> Result<(), SlotError> {
        let gateway = self.host.config().host_ip(self.index);
        let route = if on {
            self.was_online.store(true, Ordering::Relaxed);
            DefaultRoute::Via { gateway, link: self.uplink }
        } else {
            DefaultRoute::Prohibited
        };
        let set = move || link::set_default_route(&mut Netlink::route()?, route);
        self.host
            .inner
            .workers
            .run(Arc::clone(&self.netns), set)
            .await
            .map_err(SlotError::step(self.index, "set its default route"))
    }

    /// Connects to a port of the guest, within [`DIAL_TIMEOUT`].
    ///
    /// # Errors
    ///
    /// As [`Dialer::dial`].
    pub async fn dial(&self, port: u16) -> io::Result<TcpStream> {
        self.dialer().dial(port, DIAL_TIMEOUT).await
    }

    /// What a proxy keeps to connect to the guest.
    #[must_use]
    pub fn dialer(&self) -> Dialer {
        Dialer { netns: Arc::clone(&self.netns), workers: Arc::clone(&self.host.inner.workers) }
    }

    /// Makes the slot as new for the next sandbox: kills its processes, cuts the internet, forgets
    /// connections (here and on the host), repairs the tap. Limits stay.
    ///
    /// # Errors
    ///
    /// [`SlotError`]; then the slot must be destroyed, not used.
    ///
    /// # Cancel safety
    ///
    /// Runs to its end even if the future is dropped.
    pub async fn reset(&self) -> Result<(), SlotError> {
        let (inner, index, netns) =
            (Arc::clone(&self.host.inner), self.index, Arc::clone(&self.netns));
        let was_online = self.was_online.load(Ordering::Relaxed);
        let work = move || build::reset(&inner, index, &netns, was_online);
        netns::on_thread(work, drop).await.map_err(SlotError::step(index, "run"))??;
        self.was_online.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Kills its processes and removes everything of it. Dialers and taps that are still held
    /// elsewhere keep only descriptors of things without effect.
    ///
    /// # Errors
    ///
    /// The first [`SlotError`]; all steps were tried, and a sweep tries them again.
    ///
    /// # Cancel safety
    ///
    /// Runs to its end even if the future is dropped.
    pub async fn destroy(self) -> Result<(), SlotError> {
        let (inner, index) = (Arc::clone(&self.host.inner), self.index);
        let work = move || build::remove(&inner, index);
        netns::on_thread(work, drop).await.map_err(SlotError::step(index, "run"))?
    }
}
