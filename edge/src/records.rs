//! Requests that are remembered, for the API.

use std::sync::Arc;

use edge_control::RequestRecords;
use edge_telemetry::Telemetry;
use pool_model::{RequestId, TeamId};

/// The data plane's records.
#[derive(Debug)]
pub struct Records(pub Arc<Telemetry>);

impl RequestRecords for Records {
    fn find(&self, team: TeamId, id: RequestId) -> Option<String> {
        self.0.find(id, Some(team))
    }

    fn recent(&self, team: TeamId, limit: usize) -> Vec<String> {
        self.0.recent(Some(team), limit)
    }
}
