//! What the host needs once, before it can have slots; and the broom.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use crate::cgroup::{self, Cgroups};
use crate::config::{SlotConfig, SlotIndex};
use crate::error::{HostError, SlotError};
use crate::link;
use crate::netlink::Netlink;
use crate::netns::{self, Workers};
use crate::{build, rules};

/// A host that is set up for slots. A handle: clones share everything.
///
/// Dropping it changes nothing on the system; [`Host::teardown`] does.
#[derive(Clone, Debug)]
pub struct Host {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: SlotConfig,
    pub(crate) netns: OwnedFd,
    pub(crate) cgroups: Cgroups,
    pub(crate) workers: Arc<Workers>,
}

impl Host {
    /// Sets the host up: packet forwarding, the table `wrenn_<tag>`, the parent cgroups. May be
    /// repeated at any time, also while slots are in use.
    ///
    /// Forwarding (`net.ipv4.ip_forward`) is switched on and never off again, because others may
    /// have come to rely on it. The table only *drops*, so it works beside any firewall; but a
    /// firewall whose own forward chain drops by default must be told to let `w<tag>-*` out.
    ///
    /// # Errors
    ///
    /// [`HostError`]; what was done until then stays, and a repetition completes it.
    pub async fn setup(config: &SlotConfig) -> Result<Self, HostError> {
        config.validate()?;
        if config.dns_is_refused() {
            tracing::warn!(dns = %config.dns, "guests cannot reach this private name server");
        }
        let step = steps(config);
        let config = config.clone();
        let work = move || Self::setup_blocking(config);
        netns::on_thread(work, drop).await.map_err(step("run the set-up"))?
    }

    fn setup_blocking(config: SlotConfig) -> Result<Self, HostError> {
        let step = steps(&config);
        let path = config.host_netns.as_deref().unwrap_or(Path::new("/proc/self/ns/net"));
        let netns = netns::open(path).map_err(step("open the host's network namespace"))?;
        let cgroups = Cgroups::detect(Path::new(cgroup::ROOT), &config.cgroup())
            .ok_or_else(|| HostError::NoCgroups { root: cgroup::ROOT.into() })?;
        cgroups.setup().map_err(step("make the parent cgroups"))?;
        netns::prepare_names().map_err(step("make the directory of namespaces"))?;
        netns::enter(netns.as_fd()).map_err(step("enter the host's network namespace"))?;
        netns::set_sysctl("ipv4/ip_forward", "1").map_err(step("switch packet forwarding on"))?;
        rules::apply(&rules::host_script(&config)).map_err(step("write the nftables rules"))?;
        let workers = Workers::start().map_err(step("start threads"))?;
        let inner = Inner { config, netns, cgroups, workers: Arc::new(workers) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The configuration this host was set up with.
    #[must_use]
    pub fn config(&self) -> &SlotConfig {
        &self.inner.config
    }

    /// Slots of this installation that the system knows, whole or half-made, in order. Each is to
    /// be adopted ([`crate::Slot::adopt`]) or swept.
    ///
    /// # Errors
    ///
    /// [`HostError::Step`] if one of the places cannot be listed.
    pub async fn existing(&self) -> Result<Vec<SlotIndex>, HostError> {
        let host = self.clone();
        let work = move || host.existing_blocking();
        netns::on_thread(work, drop).await.map_err(steps(self.config())("list slots"))?
    }

    fn existing_blocking(&self) -> Result<Vec<SlotIndex>, HostError> {
        let config = self.config();
        let step = steps(config);
        let names = netns::names().map_err(step("list namespaces"))?;
        let mut found: BTreeSet<_> =
            names.iter().filter_map(|name| config.index_of(name)).collect();
        found.extend(self.inner.cgroups.existing().map_err(step("list cgroups"))?);
        let links = self.links().map_err(step("list links"))?;
        found.extend(links.iter().filter_map(|link| config.index_of(&link.name)));
        Ok(found.into_iter().collect())
    }

    fn links(&self) -> io::Result<Vec<link::Link>> {
        netns::enter(self.inner.netns.as_fd())?;
        link::list(&mut Netlink::route()?)
    }

    /// Removes every slot of this installation that is not in `keep`: processes, tap, links,
    /// namespace, cgroups. Returns which were removed. Half-made slots go as well.
    ///
    /// # Errors
    ///
    /// [`HostError::Sweep`] if any could not be removed; the others were nevertheless.
    ///
    /// # Cancel safety
    ///
    /// Runs to its end even if the future is dropped.
    pub async fn sweep(&self, keep: &[SlotIndex]) -> Result<Vec<SlotIndex>, HostError> {
        let (host, keep) = (self.clone(), keep.to_vec());
        let work = move || host.sweep_blocking(&keep);
        netns::on_thread(work, drop).await.map_err(steps(self.config())("sweep"))?
    }

    fn sweep_blocking(&self, keep: &[SlotIndex]) -> Result<Vec<SlotIndex>, HostError> {
        let mut found = self.existing_blocking()?;
        found.retain(|index| !keep.contains(index));
        let mut failures: Vec<(SlotIndex, SlotError)> = Vec::new();
        for index in &found {
            if let Err(error) = build::remove(&self.inner, *index) {
                failures.push((*index, error));
            }
        }
        let failed = failures.len();
        match failures.into_iter().next() {
            None => Ok(found),
            Some((index, error)) => {
                Err(HostError::Sweep { failed, found: found.len(), index, source: Box::new(error) })
            }
        }
    }

    /// Removes all slots and everything that [`Host::setup`] made, except packet forwarding.
    ///
    /// # Errors
    ///
    /// [`HostError`]; a repetition continues.
    pub async fn teardown(&self) -> Result<(), HostError> {
        let host = self.clone();
        let work = move || {
            host.sweep_blocking(&[])?;
            let step = steps(host.config());
            netns::enter(host.inner.netns.as_fd()).map_err(step("enter the host's namespace"))?;
            rules::apply(&rules::host_removal_script(host.config()))
                .map_err(step("remove the nftables rules"))?;
            host.inner.cgroups.teardown().map_err(step("remove the parent cgroups"))
        };
        netns::on_thread(work, drop).await.map_err(steps(self.config())("tear down"))?
    }
}

/// For `map_err`: names the failed step of this installation.
fn steps(
    config: &SlotConfig,
) -> impl Fn(&'static str) -> Box<dyn FnOnce(io::Error) -> HostError> + use<> {
    let tag = config.tag.clone();
    move |step| {
        let tag = tag.clone();
        Box::new(move |source| HostError::Step { tag, step, source })
    }
}
