//! Invocations without a waiting client: how the edge's parts meet the queue.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use edge_control::{ApiError, Control, Public};
use edge_jobs::{
    ANSWER_BYTES_MAX, Clock, Invocation, Invoke, InvokeError, Jobs, Outcome, Poster, PosterConfig,
    RunnerConfig, Secrets, Target,
};
use edge_proxy::{Inside, Submission, SubmitError, Submitted};
use edge_store::StoreError;
use pool_model::{ErrorCode, FunctionId, TeamId};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::config::EdgeConfig;

pub use edge_jobs::check_schedule;

/// The longest that an attempt may take, its answer's body included. What it takes until its head is
/// the function's own limit, of an hour at most.
const ATTEMPT_MAX: Duration = Duration::from_secs(2 * 60 * 60);
/// How often what expired is forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// The queue, as the data plane sees it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Queue {
    jobs: Jobs,
    public: Public,
}

impl Queue {
    /// The control plane's queue, so that what is retried there wakes the runner here.
    #[must_use]
    pub fn new(control: &Control) -> Self {
        Self { jobs: control.queue().clone(), public: control.public().clone() }
    }

    /// Takes an invocation; it is on disk when this returns.
    pub(crate) async fn submit(
        &self,
        _: &Arc<Control>,
        submission: Submission,
    ) -> Result<Submitted, SubmitError> {
        let Submission { route, tag, parts, body } = submission;
        let target = Target {
            function: route.function,
            team: route.team,
            name: route.name.to_string(),
            tag,
            policy: route.policy.asynchronous.clone(),
        };
        let id = self.jobs.submit(&target, &parts, &body).await.map_err(refused)?;
        Ok(Submitted { id: id.to_string(), status_url: self.status_url(&id.to_string()) })
    }

    fn status_url(&self, id: &str) -> String {
        let Public { scheme, domain, port } = &self.public;
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{scheme}://api.{domain}{port}/v1/invocations/{id}")
    }
}

fn refused(error: edge_jobs::SubmitError) -> SubmitError {
    match &error {
        edge_jobs::SubmitError::Full { .. } => SubmitError::Full,
        edge_jobs::SubmitError::Body { .. } | edge_jobs::SubmitError::Headers { .. } => {
            SubmitError::TooLarge { reason: error.to_string() }
        }
        edge_jobs::SubmitError::Store(_) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "an invocation could not be recorded");
            SubmitError::Unavailable
        }
    }
}

/// What works the queue off.
#[derive(Debug)]
pub struct Runner {
    stop: CancellationToken,
}

impl Runner {
    /// Takes nothing new from now on. What is under way has three quarters of the time for draining;
    /// the tasks are their tracker's.
    pub fn stop(self) {
        self.stop.cancel();
    }
}

/// Starts the runner, the webhooks, the clock and the sweeper; they end with `cancel`, or before it
/// with [`Runner::stop`].
pub fn start(
    config: &EdgeConfig,
    control: &Arc<Control>,
    queue: &Queue,
    inside: Inside,
    tasks: &TaskTracker,
    cancel: &CancellationToken,
) -> Runner {
    let stop = cancel.child_token();
    let jobs = &queue.jobs;
    let runner = RunnerConfig {
        concurrency_max: config.async_concurrency_max.max(1),
        grace: Duration::from_millis(config.drain_ms) * 3 / 4,
        ..RunnerConfig::default()
    };
    let gateway = Arc::new(Gateway { control: Arc::clone(control), inside });
    let runner = edge_jobs::Runner::new(jobs, gateway, runner);
    let secrets = Arc::new(SigningSecrets(Arc::clone(control)));
    let posts =
        PosterConfig { allow_private: config.allow_private_targets, ..PosterConfig::default() };
    tasks.spawn(runner.run(stop.clone()));
    tasks.spawn(Poster::new(jobs, secrets, posts).run(stop.clone()));
    tasks.spawn(Clock::new(jobs.clone()).run(stop.clone()));
    let store = control.store().clone();
    tasks.spawn(edge_jobs::sweep_forever(store, SWEEP_EVERY, stop.clone()));
    Runner { stop }
}

/// Invokes by the gateway's own path.
#[derive(Debug)]
struct Gateway {
    control: Arc<Control>,
    inside: Inside,
}

#[async_trait]
impl Invoke for Gateway {
    async fn invoke(&self, invocation: Invocation) -> Result<Outcome, InvokeError> {
        let Invocation { function, name, tag, request, .. } = invocation;
        // The name may be another team's by now, who must not get this request.
        let found = self.control.directory().function(&name).await;
        let found = found.map_err(|error| {
            let error = &*error as &dyn std::error::Error;
            tracing::error!(error, "the function of an invocation cannot be looked up");
            failed("the function cannot be looked up", true)
        })?;
        if found.is_none_or(|target| target.id != function) {
            return Err(failed("its function was deleted", false));
        }
        let tag = tag.as_deref();
        let (response, truncated) = self
            .inside
            .invoke((function, &name), tag, request, ANSWER_BYTES_MAX, ATTEMPT_MAX)
            .await
            .map_err(|error| failed(&error.to_string(), true))?;
        Ok(Outcome { response, truncated })
    }
}

fn failed(reason: &str, retryable: bool) -> InvokeError {
    InvokeError { reason: reason.to_owned(), retryable, retry_after: None }
}

/// Signing secrets by way of the control plane, so that the data plane learns of new ones.
#[derive(Debug)]
struct SigningSecrets(Arc<Control>);

#[async_trait]
impl Secrets for SigningSecrets {
    async fn secret(
        &self,
        function: FunctionId,
        team: TeamId,
        name: &str,
    ) -> Result<Option<Arc<str>>, StoreError> {
        match self.0.signing_secret(team, name).await {
            Ok(secret) => Ok(Some(Arc::clone(secret.expose()))),
            Err(error) if is_gone(&error) => Ok(None),
            // The same question without the way around tells what is wrong.
            Err(_) => self.0.store().secret(function, team, name).await,
        }
    }
}

fn is_gone(error: &ApiError) -> bool {
    error.code() == ErrorCode::FunctionNotFound
}
