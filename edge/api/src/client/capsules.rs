//! The calls about how a capsule's ports are reached.

use pool_model::{SandboxId, TrafficPolicy};

use super::{Answer, Client};
use crate::Capsule;

impl Client {
    /// Sets how a capsule's ports may be reached, all of it.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`](crate::ClientError).
    pub async fn set_traffic(&self, id: SandboxId, traffic: &TrafficPolicy) -> Answer<Capsule> {
        self.put(&format!("/v1/capsules/{id}/traffic"), traffic).await
    }
}
