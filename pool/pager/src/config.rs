//! What the `pager` binary can be told.

use crate::limits::HugePages;

pool_config::settings! {
    /// What the pager needs to start.
    pub struct PagerConfig in "pager" {
        /// Most clones served at a time; each costs one thread and one block of memory.
        max_clones: u32 = "1024",
        /// Most snapshots with base memory at a time.
        max_bases: u32 = "256",
        /// Threads that fill base memory ahead of faults, for all snapshots together.
        prefetch_threads: u32 = "2",
        /// How long a page fault may take, milliseconds; past it the guest is killed.
        fault_deadline_ms: u64 = "10000",
        /// Most that is asked of the object store for one fault, neighbours included, KiB.
        remote_read_kib: u32 = "512",
        /// Pages that base memory is made of: `off` (4 KiB) or `2m` (the host's reserved ones).
        huge_pages: HugePages = "off",
        /// Where layers are that this host has not: s3://bucket/prefix. Empty: nowhere. Credentials
        /// are taken from the environment, AWS_ACCESS_KEY_ID and so on.
        object_store_url: String = "",
        /// Its endpoint, http(s)://host:port. Empty: AWS.
        object_store_endpoint: Option<String> = "",
        /// Its region.
        object_store_region: String = "us-east-1",
        /// Whether it may be talked to without TLS.
        object_store_allow_http: bool = "false",
        /// Most that is kept of what was read from it, MiB.
        cache_mib: u64 = "4096",
        /// What is logged: a level, or targets with levels.
        log: String = "info",
    }
}
