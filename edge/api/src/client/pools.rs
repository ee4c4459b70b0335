//! The calls about pools.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, header};

use super::{Answer, Client, LONG, PoolEvents, SHORT, checked, to_json};
use crate::{Drained, FunctionName, POOL_EVENTS_INTERVAL_MS, PoolInfo, PoolPatch, Prewarm};

impl Client {
    /// Lists the pools, without histograms and series.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`](crate::ClientError).
    pub async fn pools(&self) -> Answer<Vec<PoolInfo>> {
        self.list("/v1/pools").await
    }

    /// Looks a function's pool up.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`](crate::ClientError).
    pub async fn pool(&self, function: &FunctionName) -> Answer<PoolInfo> {
        self.get(&format!("/v1/pools/{function}")).await
    }

    /// Changes what a function's pool aims for.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`](crate::ClientError).
    pub async fn patch_pool(&self, function: &FunctionName, body: &PoolPatch) -> Answer<PoolInfo> {
        let request = self
            .request(Method::PATCH, &format!("/v1/pools/{function}"))
            .header(header::CONTENT_TYPE, "application/json");
        self.json(request, Bytes::from(to_json(body)?), SHORT).await
    }

    /// Makes warm sandboxes until there are `count`, 1 to the pool's `max_warm`. They are idle ones
    /// like others after that. Answers at once: the restores go on.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`](crate::ClientError).
    pub async fn prewarm_pool(&self, function: &FunctionName, count: u32) -> Answer<PoolInfo> {
        self.post(&format!("/v1/pools/{function}/prewarm"), Some(&Prewarm { count }), LONG).await
    }

    /// Destroys a pool's warm sandboxes; answers with how many when they are gone.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`](crate::ClientError).
    pub async fn drain_pool(&self, function: &FunctionName) -> Answer<u32> {
        let path = format!("/v1/pools/{function}/drain");
        let answer: Drained = self.post(&path, None::<&()>, LONG).await?;
        Ok(answer.drained)
    }

    /// Follows a function's pool, or all of them, with one event per pool and `interval` (200 ms to
    /// 60 s; 1 s if none is given).
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`](crate::ClientError).
    pub async fn pool_events(
        &self,
        function: Option<&FunctionName>,
        interval: Option<Duration>,
    ) -> Answer<PoolEvents> {
        let interval = interval.unwrap_or(Duration::from_millis(POOL_EVENTS_INTERVAL_MS));
        let of = function.map_or_else(String::new, |function| format!("{function}/"));
        let path = format!("/v1/pools/{of}events?interval_ms={}", interval.as_millis());
        let request = self.request(Method::GET, &path).header(header::ACCEPT, "text/event-stream");
        let response = self.send(request, Bytes::new(), SHORT).await?;
        Ok(PoolEvents::new(checked(response).await?, interval + SHORT))
    }
}
