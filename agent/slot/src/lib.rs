//! Slots: the places on a host that sandboxes run in, one after another.
//!
//! ```text
//! Host::setup ── Slot::create ─┬─ open_tap ── (a VMM runs) ── reset ─┬─ destroy
//!      │              ▲        └──────────────◀──────────────────────┘
//!      └─ existing ── adopt | sweep            set_internet, dial, dialer at any time
//! ```
//!
//! A slot is a network namespace with a tap and a link to the host, firewall rules, and cgroups.
//! Making one costs one process (`nft`) and some netlink messages; a used one is reset without any.
//!
//! # Invariants
//!
//! - A guest reaches the internet, if allowed, and nothing else: no other slot, no service of the
//!   host or of its namespace, no private, link-local, multicast or metadata address.
//! - All names carry the installation's tag; nothing without it is touched.
//! - All guests have the same addresses and see the same gateway, down to its MAC address.
//! - Nothing needs to be remembered: what exists is read from the system.
//!
//! # Limits
//!
//! 32,768 slots; 16,384 tracked connections and the configured outbound rate per slot.
//!
//! # Decisions
//!
//! - Internet on or off is the slot's default route: a route or "prohibited". One netlink message
//!   of microseconds, atomic, and with strict reverse-path filtering it holds in both directions;
//!   rewriting rules would cost a process each time.
//! - Own netlink messages instead of a crate: eight kinds are needed, blocking, on threads that
//!   change namespaces, where an async client is in the way.

mod build;
mod cgroup;
mod config;
mod dial;
mod error;
mod host;
mod link;
mod netlink;
mod netns;
mod rules;
mod slot;
mod sys;

pub use config::{
    GATEWAY_IP, GATEWAY_MAC, GUEST_IP, GUEST_MAC, GUEST_PREFIX, Limits, MAX_INDEX, SlotConfig,
    SlotIndex, TAP_NAME, TAP_QUEUE_LEN, UPLINK_NAME,
};
pub use dial::Dialer;
pub use error::{ConfigError, HostError, SlotError};
pub use host::Host;
pub use slot::{DIAL_TIMEOUT, Slot};
