//! What the control plane leaves to others: reading schedules, asking for TXT records.

use std::sync::Arc;

use pool_model::{RequestId, TeamId};

use crate::{Resolver, TxtLookup};

/// Says what is wrong with a schedule of five fields and the name of its time zone.
pub type ScheduleCheck = fn(&str, Option<&str>) -> Result<(), String>;

/// What others do for the control plane.
#[derive(Debug, Clone)]
pub struct Outside {
    /// Finds TXT records.
    pub txt: Arc<dyn TxtLookup>,
    /// Judges schedules; without one, no function may have any.
    pub schedules: Option<ScheduleCheck>,
    /// Remembers requests; without, none is found.
    pub records: Option<Arc<dyn RequestRecords>>,
}

/// The data plane's memory of single requests.
pub trait RequestRecords: Send + Sync + std::fmt::Debug {
    /// The record of a team's request, as JSON.
    fn find(&self, team: TeamId, id: RequestId) -> Option<String>;

    /// The newest of a team's, newest first, each as JSON.
    fn recent(&self, team: TeamId, limit: usize) -> Vec<String>;
}

impl Default for Outside {
    /// The system's name servers, and nobody for schedules.
    fn default() -> Self {
        Self { txt: Arc::new(Resolver::system()), schedules: None, records: None }
    }
}
