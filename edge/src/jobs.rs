//! Invocations without a waiting client: how the edge's parts meet the queue.

use std::sync::Arc;

use edge_control::{Control, Public};
use edge_proxy::{Inside, Submission, SubmitError, Submitted};
use edge_store::Store;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::config::EdgeConfig;

/// PLACEHOLDER
#[derive(Debug, Clone)]
pub struct Queue;
/// PLACEHOLDER
#[derive(Debug)]
pub struct Runner;
impl Runner {
    /// PLACEHOLDER
    pub fn stop(self) {}
}
impl Queue {
    /// PLACEHOLDER
    pub fn new(_store: Store, _public: Public) -> Self { Self }
    pub(crate) async fn submit(&self, _c: &Arc<Control>, _s: Submission) -> Result<Submitted, SubmitError> { Err(SubmitError::Unavailable) }
}
/// PLACEHOLDER
pub fn start(_config: &EdgeConfig, _control: &Arc<Control>, _queue: &Queue, _inside: Inside, _tasks: &TaskTracker, _cancel: &CancellationToken) -> Runner { Runner }
/// PLACEHOLDER
pub fn check_schedule(_: &str, _: Option<&str>) -> Result<(), String> { Ok(()) }
