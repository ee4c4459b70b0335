//! Which traces go to an OpenTelemetry collector: OTLP over HTTP, protobuf, in batches.

mod queue;
mod send;
mod spans;

use std::{sync::Arc, time::Duration};

use http::Uri;
use tokio::{runtime::Handle, time::timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

pub(crate) use self::queue::SpanQueue;
use self::send::Sender;

/// How long a span waits for company.
const BATCH_WAIT: Duration = Duration::from_secs(5);

/// Where traces go.
#[derive(Debug, Clone, PartialEq)]
pub struct OtlpConfig {
    /// The collector, e.g. `http://127.0.0.1:4318/v1/traces`.
    pub endpoint: String,
    /// Share of traces that begin here and are recorded, 0 to 1.
    pub ratio: f64,
    /// `service.name`.
    pub service: String,
}

/// A configuration that can't work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OtlpError {
    /// The endpoint is no `http` URL.
    #[error("`{endpoint}` is not an http:// URL of a collector")]
    Endpoint {
        /// What was given.
        endpoint: String,
    },
    /// There is no runtime that the exporter could run on.
    #[error("there is no runtime to export traces on")]
    Runtime,
}

/// The task that sends spans; aborted when this is dropped.
#[derive(Debug)]
pub(crate) struct Exporter {
    queue: Arc<SpanQueue>,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Exporter {
    pub(crate) fn start(config: OtlpConfig) -> Result<Self, OtlpError> {
        let OtlpConfig { endpoint, service, .. } = config;
        let uri = endpoint.parse::<Uri>().ok();
        let uri = uri.filter(|uri| uri.scheme_str() == Some("http") && uri.authority().is_some());
        let Some(uri) = uri else { return Err(OtlpError::Endpoint { endpoint }) };
        let runtime = Handle::try_current().map_err(|_| OtlpError::Runtime)?;
        let queue = Arc::new(SpanQueue::default());
        let stop = CancellationToken::new();
        let task = run(Sender::new(uri, service), Arc::clone(&queue), stop.clone());
        let task = AbortOnDropHandle::new(runtime.spawn(task));
        Ok(Self { queue, stop, task })
    }

    pub(crate) fn queue(&self) -> Arc<SpanQueue> {
        Arc::clone(&self.queue)
    }

    /// Sends what waits, for at most `within`; the rest is counted as dropped.
    pub(crate) async fn stop(mut self, within: Duration) {
        self.stop.cancel();
        if timeout(within, &mut self.task).await.is_err() {
            tracing::warn!("the trace collector is slower than the shutdown may be");
            self.task.abort();
            let _ = (&mut self.task).await; // at its next wait, and it waits already
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.queue.close(); // what comes now is dropped at once, and counted
    }
}

async fn run(sender: Sender, queue: Arc<SpanQueue>, stop: CancellationToken) {
    loop {
        let stopping = tokio::select! {
            () = stop.cancelled() => true,
            () = queue.filled() => false,
            () = tokio::time::sleep(BATCH_WAIT) => false,
        };
        while let Some(batch) = queue.take() {
            if let Some(rejected) = sender.send(batch.records(), &stop).await {
                batch.sent(rejected);
            }
        }
        if stopping {
            return;
        }
    }
}
