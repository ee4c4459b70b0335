//! Builds what a sandbox boots from: kernel, initramfs and the template `minimal-debian`.
//!
//! ```text
//! Debian archive --apt----> linux-image --> vmlinux (ELF) --------------------> kernels/vmlinux-{semver}
//!                                      \--> modules + guest-init (cpio) ------> kernels/initramfs-{semver}
//!                --mmdebstrap--> tree --> base.ext4 (cached) --+ envd --> images/teams/../rootfs.ext4
//! ```
//!
//! # Invariants
//!
//! - Only packages that the distribution's own key signed are used; no container engine, no other download.
//! - Every output is keyed by a digest of its inputs: unchanged inputs build nothing.
//! - An output is complete before it has its name; one that sandboxes use is replaced, never changed.
//! - One build at a time per work directory (a lock); a killed build leaves nothing that the next one trusts.
//!
//! # Limits
//!
//! Needs root (device nodes, ownership) and about 1 GiB in the work directory. Every tool has a deadline: 15 minutes for the
//! bootstrap, 5 for any other.

mod apt;
mod builder;
mod bzimage;
mod cpio;
mod digest;
mod disk;
mod elf;
mod error;
mod initramfs;
mod kernel;
mod lz4;
mod module;
mod recipe;
mod rootfs;
mod settings;
mod sources;
mod template;
mod tool;
mod workspace;

pub use builder::{Built, build};
pub use error::BuildError;
pub use settings::ImagesConfig;
pub use template::Template;
