//! What the agent needs to start, and what it decides from it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

pool_config::settings! {
    /// Settings of the agent.
    pub struct AgentConfig in "agent" {
        /// Where the RPC server listens (Connect over HTTP/2).
        rpc_listen: SocketAddr = "127.0.0.1:7401",
        /// Where the proxy listener listens (HTTP/1.1, and HTTP/2 without TLS).
        proxy_listen: SocketAddr = "127.0.0.1:7402",
        /// The QEMU binary.
        qemu: PathBuf = "/usr/bin/qemu-system-x86_64",
        /// How guests are executed: auto, tcg or kvm. auto uses KVM only if a timed guest loop proves it fast.
        accel: String = "auto",
        /// Most memory that QEMU's translation cache takes per guest under TCG, MiB.
        tb_size_mib: u32 = "64",
        /// The library preloaded into QEMU; empty: libqemu_uffd.so beside this binary.
        qemu_uffd: Option<PathBuf> = "",
        /// The page server's binary; empty: pager beside this binary.
        pager: Option<PathBuf> = "",
        /// How clones get pages: shared maps one base memory, copy gives each its own (to compare with).
        population: String = "shared",
        /// Guest memory that may be promised in all, MiB; 0: three quarters of the host's.
        memory_budget_mib: u64 = "0",
        /// Most sandboxes that run at once.
        sandboxes_max: u32 = "256",
        /// Starts (boots, restores, resumes) that run at once; 0: one per processor.
        starts_max: u32 = "0",
        /// VMM processes kept ready for any snapshot of the size last restored; 0: none.
        blank_vmms: u32 = "2",
        /// Where snapshots are kept beside this host's disk, e.g. s3://bucket/prefix; empty: nowhere.
        object_store_url: Option<String> = "",
        /// The object store's address where it is not AWS's, e.g. http://127.0.0.1:9000.
        object_store_endpoint: Option<String> = "",
        /// The object store's region.
        object_store_region: String = "us-east-1",
        /// Whether the object store may be talked to without TLS.
        object_store_allow_http: bool = "false",
        /// Most memory blocks of the object store's snapshots that this host's disk caches, MiB.
        cache_mib: u64 = "4096",
        /// Longest that a guest may wait for a page before it is killed, milliseconds.
        fault_deadline_ms: u64 = "10000",
        /// Base memory of pages that the host has reserved: off or 2m.
        huge_pages: String = "off",
        /// Lifetime of a sandbox that asks for none, milliseconds.
        timeout_default_ms: u64 = "300000",
        /// Longest lifetime that may be asked for, milliseconds.
        timeout_max_ms: u64 = "86400000",
        /// Longest a request waits for a sandbox of its function, milliseconds.
        lease_wait_ms: u64 = "15000",
        /// Longest from a request to the first byte of its response, milliseconds.
        response_wait_ms: u64 = "60000",
        /// Longest a request waits for its paused sandbox to be resumed, milliseconds.
        resume_wait_ms: u64 = "30000",
        /// Idle connections kept into all guests.
        guest_idle_max: u32 = "1024",
        /// Unused network slots are taken apart after this, milliseconds.
        slot_idle_ttl_ms: u64 = "5000",
        /// The /16 that slots' host-side addresses come from; empty: 10.64.0.0 to 10.127.0.0 by installation.
        slot_network: Option<Ipv4Addr> = "",
        /// First of the users that VMMs run as, one per slot; empty: 700000 upwards by installation.
        first_uid: Option<u32> = "",
        /// Outbound bytes per second of one sandbox.
        egress_bytes_per_s: u64 = "200000000",
        /// Outbound burst of one sandbox, bytes.
        egress_burst_bytes: u64 = "100000000",
        /// Name server that guests with internet access use.
        dns: Ipv4Addr = "1.1.1.1",
        /// Connections the proxy listener serves at once.
        proxy_connections_max: u32 = "4096",
        /// Connections the RPC listener serves at once.
        rpc_connections_max: u32 = "256",
    }
}

/// The sub-commands of the `agent` binary.
pub const COMMANDS: &[(&str, &str)] =
    &[("reap", "destroy every sandbox, slot and VMM of this installation, then exit")];
