//! What the `pager` binary can be told.

pool_config::settings! {
    /// What the pager needs to start.
    pub struct PagerConfig in "pager" {
        /// Bytes put into base memory per fault, in KiB; a multiple of 4.
        block_kib: u32 = "64",
        /// Most clones served at a time; each costs one thread and one block of memory.
        max_clones: u32 = "1024",
        /// Most snapshots with base memory at a time.
        max_bases: u32 = "256",
        /// What is logged: a level, or targets with levels.
        log: String = "info",
    }
}
