//! What the builder is told.

use std::path::PathBuf;

pool_config::settings! {
    /// What `wrenn-images build` needs.
    pub struct ImagesConfig in "images" {
        /// The guest daemon to put into the template (a static binary).
        envd: PathBuf = "target/release/envd",
        /// The guest's first program (a static binary).
        init: PathBuf = "target/x86_64-unknown-linux-gnu/release/guest-init",
        /// Where downloads and intermediate images are kept; empty means `cache/images` of the installation.
        work_dir: Option<PathBuf> = "",
        /// Looks for newer packages in the archive instead of building again what was built before.
        refresh: bool = "false",
    }
}
