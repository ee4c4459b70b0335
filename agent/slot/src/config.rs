//! What a host's slots look like: names, numbers and limits, all derived from one [`SlotConfig`].
//!
//! Pure: nothing here touches the system.
//!
//! # Limits
//!
//! [`MAX_INDEX`]: a /16 holds 32,768 pairs of /31 addresses. Interface names fit `IFNAMSIZ`
//! (15 bytes): `w` + tag (1 to 8 bytes) + `-` + index (up to 5 digits).

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::ConfigError;

/// The guest's address, the same in every slot.
pub const GUEST_IP: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 2);
/// The host's side of the tap, the guest's gateway, the same in every slot.
pub const GATEWAY_IP: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
/// Prefix length of the network that [`GUEST_IP`] and [`GATEWAY_IP`] share.
pub const GUEST_PREFIX: u8 = 30;
/// The guest's MAC address, the same in every slot.
pub const GUEST_MAC: [u8; 6] = [0x02, 0x57, 0x52, 0x00, 0x00, 0x02];
/// The tap's MAC address. The same in every slot, so that the neighbour entry which a guest took
/// into its snapshot is still right wherever it is restored.
pub const GATEWAY_MAC: [u8; 6] = [0x02, 0x57, 0x52, 0x00, 0x00, 0x01];
/// The tap's name inside a slot.
pub const TAP_NAME: &str = "tap0";
/// The name of the veth's end inside a slot.
pub const UPLINK_NAME: &str = "uplink0";
/// Transmit queue of the tap, packets: a guest that is slow to start loses nothing meanwhile.
pub const TAP_QUEUE_LEN: u32 = 5000;
/// Largest slot index: 2^15 pairs of /31 addresses in a /16.
pub const MAX_INDEX: u16 = 32_767;

/// A guest hands over packets of up to 64 KiB and their headers; a smaller bucket drops them all.
const MIN_BURST_BYTES: u64 = 128 << 10;

/// The number of a slot on its host, `0..=`[`MAX_INDEX`]. Names, addresses and the uid follow
/// from it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default,
)]
#[serde(try_from = "u16", into = "u16")]
pub struct SlotIndex(u16);

impl SlotIndex {
    /// Checks `index` against [`MAX_INDEX`].
    ///
    /// # Errors
    ///
    /// [`ConfigError::IndexTooLarge`].
    pub fn new(index: u16) -> Result<Self, ConfigError> {
        if index > MAX_INDEX {
            return Err(ConfigError::IndexTooLarge { index });
        }
        Ok(Self(index))
    }

    /// The bare number.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for SlotIndex {
    type Error = ConfigError;
    fn try_from(index: u16) -> Result<Self, ConfigError> {
        Self::new(index)
    }
}

impl From<SlotIndex> for u16 {
    fn from(index: SlotIndex) -> Self {
        index.0
    }
}

impl fmt::Display for SlotIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SlotIndex {
    type Err = ConfigError;
    /// Only the canonical form (no sign, no leading zero): names must map back one to one.
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let bad = || ConfigError::BadIndex { text: text.to_owned() };
        let index: u16 = text.parse().map_err(|_| bad())?;
        if index.to_string() != text {
            return Err(bad());
        }
        Self::new(index)
    }
}

/// What one slot's processes may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The guest's memory, bytes. The cgroup gets [`SlotConfig::memory_overhead_bytes`] more.
    pub memory_bytes: u64,
    /// Most processes and threads at one time.
    pub pids: u32,
}

/// How the slots of one installation are made. Two installations on a host differ in `tag` and in
/// `network`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotConfig {
    /// The installation's tag: 1 to 8 characters of `a-z0-9`. All names made here carry it.
    pub tag: String,
    /// Uid and gid of slot 0; slot `n` has `first_uid + n`.
    pub first_uid: u32,
    /// First address of the /16 whose /31 pairs link the slots to the host, e.g. 10.213.0.0. Must
    /// be private, so that slots refuse to forward to it.
    pub network: Ipv4Addr,
    /// Memory for the VMM itself (translation cache, device buffers), bytes, on top of the guest's.
    pub memory_overhead_bytes: u64,
    /// Outbound rate per slot, bytes per second, 1 B/s to 1 TiB/s. What exceeds it waits for up to
    /// 10 ms, then is dropped.
    pub rate_bytes_per_s: u64,
    /// How far a slot may run ahead of its rate, bytes: from 128 KiB, so that the largest packet
    /// passes, to 4 GiB - 1 (the kernel's field).
    pub burst_bytes: u64,
    /// The name server that guests use. It gets no exception: a private address is refused.
    pub dns: Ipv4Addr,
    /// The network namespace that plays the host; `None` is the caller's own. For tests, and for
    /// agents that run inside a namespace.
    pub host_netns: Option<PathBuf>,
}

impl SlotConfig {
    /// The defaults of an installation whose tag is `tag`.
    #[must_use]
    pub fn new(tag: impl Into<String>) -> Self {
        Self {
            tag: tag.into(),
            first_uid: 700_000,
            network: Ipv4Addr::new(10, 213, 0, 0),
            memory_overhead_bytes: 256 << 20,
            rate_bytes_per_s: 200_000_000,
            burst_bytes: 100_000_000,
            dns: Ipv4Addr::new(1, 1, 1, 1),
            host_netns: None,
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    ///
    /// The first [`ConfigError`] found.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let tag_ok = (1..=8).contains(&self.tag.len())
            && self.tag.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !tag_ok {
            return Err(ConfigError::BadTag { tag: self.tag.clone() });
        }
        let [_, _, c, d] = self.network.octets();
        if c != 0 || d != 0 || !self.network.is_private() {
            return Err(ConfigError::BadNetwork { network: self.network });
        }
        // 0 is root; the last uid must exist. `u32::MAX` means "unchanged" to the kernel.
        if self.first_uid == 0 || self.first_uid.checked_add(u32::from(MAX_INDEX) + 1).is_none() {
            return Err(ConfigError::BadUid { first_uid: self.first_uid });
        }
        let burst_ok = (MIN_BURST_BYTES..=u64::from(u32::MAX)).contains(&self.burst_bytes);
        if self.rate_bytes_per_s == 0 || self.rate_bytes_per_s > 1 << 40 || !burst_ok {
            return Err(ConfigError::BadRate {
                rate_bytes_per_s: self.rate_bytes_per_s,
                burst_bytes: self.burst_bytes,
            });
        }
        Ok(())
    }

    /// Whether guests are refused their own name server, which an operator should hear of.
    pub(crate) fn dns_is_refused(&self) -> bool {
        self.dns.is_private() || self.dns.is_loopback() || self.dns.is_link_local()
    }

    /// What every name of a slot starts with: netns and host-side interface.
    pub(crate) fn prefix(&self) -> String {
        format!("w{}-", self.tag)
    }

    /// Name of the slot's network namespace and of its interface on the host.
    pub(crate) fn slot_name(&self, index: SlotIndex) -> String {
        format!("{}{index}", self.prefix())
    }

    /// The index in a name that [`Self::slot_name`] made; `None` for anybody else's.
    pub(crate) fn index_of(&self, name: &str) -> Option<SlotIndex> {
        name.strip_prefix(&self.prefix())?.parse().ok()
    }

    /// Name of the nftables table on the host.
    pub(crate) fn table(&self) -> String {
        format!("wrenn_{}", self.tag)
    }

    /// Name of the cgroup that holds the slots' cgroups.
    pub(crate) fn cgroup(&self) -> String {
        format!("wrenn-{}", self.tag)
    }

    /// What may wait for the rate limit: 10 ms of it, and at least two of the largest packets.
    pub(crate) fn rate_queue_bytes(&self) -> u32 {
        let queue = (self.rate_bytes_per_s / 100).max(MIN_BURST_BYTES);
        u32::try_from(queue).unwrap_or(u32::MAX)
    }

    /// The host's address on the slot's link.
    pub(crate) fn host_ip(&self, index: SlotIndex) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) + 2 * u32::from(index.get()))
    }

    /// The slot's address on its link; what its guest's packets carry on the host.
    pub(crate) fn slot_ip(&self, index: SlotIndex) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) + 2 * u32::from(index.get()) + 1)
    }

    /// Uid and gid of the slot's processes.
    pub(crate) fn uid(&self, index: SlotIndex) -> u32 {
        self.first_uid + u32::from(index.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_fit_an_interface_name_at_their_longest() {
        let config = SlotConfig::new("abcdefgh");
        let name = config.slot_name(SlotIndex(MAX_INDEX));
        assert!(config.validate().is_ok());
        assert!(name.len() <= 15, "{name}");
    }

    #[test]
    fn bad_values_are_refused_by_name() {
        let with = |change: fn(&mut SlotConfig)| {
            let mut config = SlotConfig::new("ab12");
            change(&mut config);
            config.validate().unwrap_err()
        };
        assert!(matches!(with(|c| c.tag = "a-b".into()), ConfigError::BadTag { .. }));
        assert!(matches!(with(|c| c.tag = String::new()), ConfigError::BadTag { .. }));
        let public = with(|c| c.network = Ipv4Addr::new(8, 8, 0, 0));
        assert!(matches!(public, ConfigError::BadNetwork { .. }));
        assert!(matches!(with(|c| c.first_uid = 0), ConfigError::BadUid { .. }));
        assert!(matches!(with(|c| c.first_uid = u32::MAX - 5), ConfigError::BadUid { .. }));
        assert!(matches!(with(|c| c.burst_bytes = 1 << 32), ConfigError::BadRate { .. }));
        assert!(matches!(with(|c| c.burst_bytes = 1500), ConfigError::BadRate { .. }));
        assert!(matches!(with(|c| c.rate_bytes_per_s = 0), ConfigError::BadRate { .. }));
    }

    #[test]
    fn other_installations_names_are_not_ours() {
        let config = SlotConfig::new("ab");
        for name in ["wabc-1", "wab-", "wab-01", "wab-+1", "wab-40000", "eth0", "ab-1"] {
            assert_eq!(config.index_of(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn names_and_addresses_are_one_to_one(a in 0..=MAX_INDEX, b in 0..=MAX_INDEX) {
            let config = SlotConfig::new("ab12");
            let (a, b) = (SlotIndex(a), SlotIndex(b));
            prop_assert_eq!(config.index_of(&config.slot_name(a)), Some(a));
            prop_assert_eq!(a == b, config.host_ip(a) == config.host_ip(b));
            prop_assert!(config.host_ip(a) != config.slot_ip(b));
            prop_assert_eq!(config.slot_ip(a).octets()[..2].to_vec(), vec![10, 213]);
        }
    }
}
