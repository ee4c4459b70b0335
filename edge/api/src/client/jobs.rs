//! The calls about invocations that nobody waits for, and schedules.

use super::{Answer, Client, SHORT};
use crate::{CronStatus, FunctionName, Invocation};

impl Client {
    /// Lists a function's invocations, newest first: those of one state, those before one.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`](crate::ClientError).
    pub async fn invocations(
        &self,
        name: &FunctionName,
        state: Option<&str>,
        before: Option<&str>,
        limit: u32,
    ) -> Answer<Vec<Invocation>> {
        let mut path = format!("/v1/functions/{name}/invocations?limit={limit}");
        for (key, value) in [("state", state), ("before", before)] {
            if let Some(value) = value {
                path = format!("{path}&{key}={value}");
            }
        }
        self.list(&path).await
    }

    /// Looks an invocation up, with its answer.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`](crate::ClientError).
    pub async fn job(&self, id: &str) -> Answer<Invocation> {
        self.get(&format!("/v1/invocations/{id}")).await
    }

    /// Puts a dead letter back into the queue.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`](crate::ClientError).
    pub async fn retry_job(&self, id: &str) -> Answer<Invocation> {
        self.post(&format!("/v1/invocations/{id}/retry"), None::<&()>, SHORT).await
    }

    /// Cancels an invocation that waits, or removes one that is finished.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`](crate::ClientError).
    pub async fn remove_job(&self, id: &str) -> Answer<()> {
        self.delete(&format!("/v1/invocations/{id}")).await
    }

    /// Lists a function's schedules with their times.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`](crate::ClientError).
    pub async fn cron(&self, name: &FunctionName) -> Answer<Vec<CronStatus>> {
        self.list(&format!("/v1/functions/{name}/cron")).await
    }
}
