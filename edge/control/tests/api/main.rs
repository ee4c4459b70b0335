//! The API over real sockets, on a real database, against an agent that keeps its word but has no
//! virtual machines.

#![allow(clippy::unwrap_used, reason = "fixtures may fail loudly")]

#[allow(refining_impl_trait, reason = "the fake names what it answers with")]
mod agent;
mod capsules;
mod deploys;
mod directory;
mod dns;
mod domains;
mod edge;
mod events;
mod exec;
mod invocations;
mod jobs;
mod pools;
mod recovery;
mod refusals;
mod versions;
