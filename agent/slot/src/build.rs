//! Making, checking, cleaning and removing a slot: the blocking part, for threads of
//! [`crate::netns`] only, because all of it changes the thread's namespace.
//!
//! ```text
//!  host namespace                    slot namespace  w<tag>-<index>
//!  w<tag>-<index>  10.213.x.y/31 --- uplink0  10.213.x.y+1/31   default route: prohibited | host
//!                                    tap0     172.16.0.1/30 --- guest 172.16.0.2
//! ```
//!
//! # Invariants
//!
//! - The rules are in place before any link is up.
//! - The mark on the host's link is set last: a slot without it is half-made.
//! - Removing works on any half of a slot, and goes on after a failure.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::cgroup::KILL_TIMEOUT;
use crate::config::{
    GATEWAY_IP, GATEWAY_MAC, GUEST_IP, GUEST_MAC, GUEST_PREFIX, Limits, SlotConfig, SlotIndex,
    TAP_NAME, TAP_QUEUE_LEN, UPLINK_NAME,
};
use crate::error::SlotError;
use crate::host::Inner;
use crate::link::{self, DefaultRoute, Tun};
use crate::netlink::Netlink;
use crate::{netns, rules, sys};

/// Settings inside a slot. `ip_forward` comes first, because it resets others.
const SYSCTLS: &[(&str, &str)] = &[
    ("ipv6/conf/all/disable_ipv6", "1"),
    ("ipv6/conf/default/disable_ipv6", "1"),
    ("ipv4/ip_forward", "1"),
    // Strict: what arrives must come from where its source is routed to. With the default route
    // prohibited this also drops what still arrives from the internet.
    ("ipv4/conf/all/rp_filter", "1"),
    ("ipv4/conf/default/rp_filter", "1"),
    ("ipv4/conf/all/accept_redirects", "0"),
    ("ipv4/conf/default/accept_redirects", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/conf/all/accept_source_route", "0"),
    // A guest learns no address but its gateway's.
    ("ipv4/conf/all/arp_ignore", "1"),
    // Refusals to one guest: up to 100 per second instead of 1, so that they are quick.
    ("ipv4/icmp_ratelimit", "10"),
];

/// What creating and adopting give to a slot.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) netns: OwnedFd,
    /// Interface number of the uplink inside the slot.
    pub(crate) uplink: u32,
}

/// Makes a slot; leaves nothing behind if it fails.
pub(crate) fn create(host: &Inner, index: SlotIndex, limits: Limits) -> Result<Parts, SlotError> {
    match try_create(host, index, limits) {
        Err(SlotError::Exists { index }) => Err(SlotError::Exists { index }),
        Err(error) => {
            if let Err(remains) = remove(host, index) {
                tracing::warn!(slot.index = index.get(), error = ?remains, "a half-made slot stays");
            }
            Err(error)
        }
        Ok(parts) => Ok(parts),
    }
}

fn try_create(host: &Inner, index: SlotIndex, limits: Limits) -> Result<Parts, SlotError> {
    let config = &host.config;
    let step = |what| SlotError::step(index, what);
    netns::enter(host.netns.as_fd()).map_err(step("enter the host's namespace"))?;
    let mut outer = Netlink::route().map_err(step("open netlink on the host"))?;
    let netns = match netns::create(&config.slot_name(index)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(SlotError::Exists { index });
        }
        other => other.map_err(step("create its namespace"))?,
    };
    for (name, value) in SYSCTLS {
        netns::set_sysctl(name, value).map_err(step("write kernel settings"))?;
    }
    rules::apply(&rules::slot_script()).map_err(step("write nftables rules"))?;
    let mut inner = Netlink::route().map_err(step("open netlink"))?;
    make_tap(&mut inner, config.uid(index)).map_err(step("make the tap"))?;
    let uplink =
        make_uplink(host, index, &mut inner, &mut outer).map_err(step("make the uplink"))?;
    host.cgroups.create(index).map_err(step("make its cgroups"))?;
    kill(host, index)?;
    set_limits(host, index, limits)?;
    mark(host, index, &mut outer).map_err(step("mark it whole"))?;
    Ok(Parts { netns, uplink })
}

/// Writes a slot's limits: the guest's memory and what the VMM needs besides.
pub(crate) fn set_limits(host: &Inner, index: SlotIndex, limits: Limits) -> Result<(), SlotError> {
    let memory_bytes = limits.memory_bytes.saturating_add(host.config.memory_overhead_bytes);
    host.cgroups
        .set_limits(index, Limits { memory_bytes, ..limits })
        .map_err(SlotError::step(index, "write its cgroup limits"))
}

fn make_tap(netlink: &mut Netlink, uid: u32) -> io::Result<()> {
    let tap = sys::attach_tap(TAP_NAME)?;
    sys::persist_tap(tap.as_fd(), uid)?;
    let link = link::get(netlink, TAP_NAME)?.index;
    link::start_tap(netlink, link, GATEWAY_MAC, TAP_QUEUE_LEN)?;
    link::add_address(netlink, link, GATEWAY_IP, GUEST_PREFIX)?;
    link::set_neighbour(netlink, link, GUEST_IP, GUEST_MAC)
}

/// Links the slot to the host. Returns the interface number of the slot's end.
fn make_uplink(
    host: &Inner,
    index: SlotIndex,
    inner: &mut Netlink,
    outer: &mut Netlink,
) -> io::Result<u32> {
    let (config, name) = (&host.config, host.config.slot_name(index));
    link::set_default_route(inner, DefaultRoute::Prohibited)?;
    let add = |inner: &mut _| link::add_veth(inner, UPLINK_NAME, &name, host.netns.as_fd());
    match add(inner) {
        // The name is ours: it remains from a namespace that is still on its way out.
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
            link::delete(outer, &name)?;
            add(inner)?;
        }
        other => other?,
    }
    let uplink = link::get(inner, UPLINK_NAME)?.index;
    link::add_address(inner, uplink, config.slot_ip(index), 31)?;
    let burst = u32::try_from(config.burst_bytes).unwrap_or(u32::MAX);
    let rate = config.rate_bytes_per_s;
    link::limit_rate(inner, uplink, rate, burst, config.rate_queue_bytes())?;
    link::set_up(inner, uplink)?;

    netns::enter(host.netns.as_fd())?;
    netns::set_sysctl(&format!("ipv6/conf/{name}/disable_ipv6"), "1")?;
    netns::set_sysctl(&format!("ipv4/conf/{name}/rp_filter"), "1")?;
    netns::set_sysctl(&format!("ipv4/conf/{name}/accept_redirects"), "0")?;
    let link = link::get(outer, &name)?.index;
    link::add_address(outer, link, config.host_ip(index), 31)?;
    link::set_up(outer, link)?;
    Ok(uplink)
}

fn mark(host: &Inner, index: SlotIndex, outer: &mut Netlink) -> io::Result<()> {
    let link = link::get(outer, &host.config.slot_name(index))?.index;
    link::set_alias(outer, link, &mark_text(&host.config, index))
}

/// Says that a slot is whole, and for which configuration: another one's slots are not adopted.
fn mark_text(config: &SlotConfig, index: SlotIndex) -> String {
    let (uid, slot_ip) = (config.uid(index), config.slot_ip(index));
    let (rate, burst) = (config.rate_bytes_per_s, config.burst_bytes);
    let rules = rules::slot_script();
    let text = format!("{uid} {slot_ip} {rate} {burst} {SYSCTLS:?} {rules}");
    // FNV-1a: stable across builds, and nobody but root can set a mark.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("wrenn slot 1 {hash:016x}")
}

/// Finds a slot that an earlier process made.
pub(crate) fn adopt(host: &Inner, index: SlotIndex) -> Result<Parts, SlotError> {
    let step = |what| SlotError::step(index, what);
    let refuse = |reason| Err(SlotError::NotAdoptable { index, reason });
    let name = host.config.slot_name(index);
    let netns = match netns::open(&netns::path(&name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return refuse("it has no namespace");
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return refuse("its namespace is half-made");
        }
        other => other.map_err(step("open its namespace"))?,
    };
    netns::enter(host.netns.as_fd()).map_err(step("enter the host's namespace"))?;
    let outer = Netlink::route().and_then(|mut outer| link::find(&mut outer, &name));
    match outer.map_err(step("look up its link"))? {
        None => return refuse("it has no link to the host"),
        Some(link) if link.alias.as_deref() != Some(mark_text(&host.config, index).as_str()) => {
            return refuse("it is half-made or of another configuration");
        }
        Some(link) if !link.up => return refuse("its link to the host is down"),
        Some(_) => {}
    }
    netns::enter(netns.as_fd()).map_err(step("enter its namespace"))?;
    let inner = Netlink::route().and_then(|mut inner| link::find(&mut inner, UPLINK_NAME));
    let Some(uplink) = inner.map_err(step("look up its uplink"))? else {
        return refuse("it has no uplink");
    };
    host.cgroups.create(index).map_err(step("make its cgroups"))?;
    Ok(Parts { netns, uplink: uplink.index })
}

/// Makes a used slot as new: no process, no internet, no connection, the tap as it was made.
pub(crate) fn reset(
    host: &Inner,
    index: SlotIndex,
    netns: &OwnedFd,
    was_online: bool,
) -> Result<(), SlotError> {
    let step = |what| SlotError::step(index, what);
    kill(host, index)?;
    netns::enter(netns.as_fd()).map_err(step("enter its namespace"))?;
    let mut inner = Netlink::route().map_err(step("open netlink"))?;
    link::set_default_route(&mut inner, DefaultRoute::Prohibited)
        .map_err(step("cut its internet"))?;
    Netlink::netfilter()
        .and_then(|mut netfilter| link::flush_connections(&mut netfilter, None))
        .map_err(step("forget its connections"))?;
    renew_tap(&mut inner, host.config.uid(index)).map_err(step("renew the tap"))?;
    if was_online {
        forget_on_host(host, index).map_err(step("forget its connections on the host"))?;
    }
    Ok(())
}

/// A VMM holds the tap's descriptor, with which it can change the device, up to letting it vanish.
fn renew_tap(netlink: &mut Netlink, uid: u32) -> io::Result<()> {
    let expected = Tun { owner: Some(uid), persistent: true, vnet_hdr: true };
    match link::find(netlink, TAP_NAME)? {
        Some(tap)
            if tap.tun == Some(expected)
                && tap.up
                && tap.mac == Some(GATEWAY_MAC)
                && tap.queue_len == Some(TAP_QUEUE_LEN) =>
        {
            link::set_neighbour(netlink, tap.index, GUEST_IP, GUEST_MAC)
        }
        Some(_) => {
            link::delete(netlink, TAP_NAME)?;
            make_tap(netlink, uid)
        }
        None => make_tap(netlink, uid),
    }
}

/// The host tracks the guest's connections as well, the idle ones for days.
fn forget_on_host(host: &Inner, index: SlotIndex) -> io::Result<()> {
    netns::enter(host.netns.as_fd())?;
    link::flush_connections(&mut Netlink::netfilter()?, Some(host.config.slot_ip(index)))
}

fn kill(host: &Inner, index: SlotIndex) -> Result<(), SlotError> {
    let left = host.cgroups.kill(index).map_err(SlotError::step(index, "kill its processes"))?;
    if left > 0 {
        return Err(SlotError::Undead { index, left, waited: KILL_TIMEOUT });
    }
    Ok(())
}

/// Removes whatever there is of a slot. The first failure is returned, after trying the rest.
pub(crate) fn remove(host: &Inner, index: SlotIndex) -> Result<(), SlotError> {
    let name = host.config.slot_name(index);
    let step = |what| SlotError::step(index, what);
    let steps = [
        kill(host, index),
        remove_tap(&name).map_err(step("delete its tap")),
        remove_link(host, &name).map_err(step("delete its link")),
        forget_on_host(host, index).map_err(step("forget its connections on the host")),
        netns::remove(&name).map_err(step("remove its namespace")),
        host.cgroups.remove(index).map_err(step("remove its cgroups")),
    ];
    steps.into_iter().collect()
}

/// Explicitly, because a descriptor of the namespace elsewhere would keep it.
fn remove_tap(name: &str) -> io::Result<()> {
    match netns::open(&netns::path(name)) {
        Ok(netns) => {
            netns::enter(netns.as_fd())?;
            link::delete(&mut Netlink::route()?, TAP_NAME)
        }
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn remove_link(host: &Inner, name: &str) -> io::Result<()> {
    netns::enter(host.netns.as_fd())?;
    link::delete(&mut Netlink::route()?, name)
}
