//! The edge's control plane: the API, deploys, and what the data plane asks ("where does this host
//! name lead?").
//!
//! ```text
//! http::router --> Control --> Store   (what should be)
//!                     |   \--> Agent   (what is)
//!                  Reconciler: makes what is into what should be, every few seconds
//! ```
//!
//! # Invariants
//!
//! - What an agent is asked to make is noted in the store first: after a crash at any point the
//!   reconciler finds it and cleans up.
//! - Work that changes something runs in a task of its own: a client that hangs up cuts nothing
//!   in half.
//! - Pools are set only under one lock, by the store's list: a deploy and the reconciler can't undo
//!   each other.
//! - What the directory answered before a change it does not answer once the change has been
//!   acknowledged.
//! - A caller sees its own team's things only; of another team's it can't even learn that they
//!   exist, but for function names, which are host names.
//!
//! # Limits
//!
//! 8 deploys at a time, each holding its archive (at most 64 MiB) in memory; one per function.
//! 64 event streams. 16 domains being verified at a time. 32 tags and 64 domains of a function.

mod agent;
mod archive;
mod capsules;
mod control;
mod deploy;
mod directory;
mod dns;
mod domains;
mod error;
mod events;
mod exec;
mod functions;
mod http;
mod invocations;
mod jobs;
mod outside;
mod pool_wire;
mod pools;
mod reconcile;
mod rollout;
mod snapshots;
mod validate;
mod versions;

pub use agent::{Agent, AgentAddress};
pub use control::{Control, Public};
pub use directory::{Attached, Directory, FunctionTarget, SandboxTarget, TagTarget, VersionTarget};
pub use dns::{LookupError, Resolver, TxtLookup};
pub use error::ApiError;
pub use http::router;
pub use outside::{Outside, RequestRecords, ScheduleCheck};
pub use reconcile::{Reconciler, Recovered};
