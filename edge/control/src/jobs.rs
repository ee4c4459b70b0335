//! Invocations that nobody waits for, and schedules, as their owner sees them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use edge_api::{CronStatus, FunctionName, Invocation, InvocationResult, WebhookStatus};
use edge_jobs::Timetable;
use edge_store::{InvocationId, InvocationRecord, InvocationState};
use pool_model::{ErrorCode, TeamId};

use crate::{ApiError, Control, control::now};

impl Control {
    /// A team's invocation, with its answer.
    pub(crate) async fn job(&self, team: TeamId, id: InvocationId) -> Result<Invocation, ApiError> {
        let record = self.store().invocation(team, id).await?.ok_or_else(|| no_job(id))?;
        let truncated = record.truncated;
        let answer = self.store().invocation_answer(team, id).await?;
        let result = answer.map(|answer| InvocationResult {
            headers: answer
                .headers
                .into_iter()
                .map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned()))
                .collect(),
            body: STANDARD.encode(&answer.body),
            truncated,
        });
        Ok(Invocation { result, ..job_of(record)? })
    }

    /// A function's invocations, newest first.
    pub(crate) async fn jobs(
        &self,
        team: TeamId,
        name: &FunctionName,
        state: Option<InvocationState>,
        before: Option<InvocationId>,
        limit: u32,
    ) -> Result<Vec<Invocation>, ApiError> {
        let function = self.owned_function(team, name.as_str()).await?;
        let found = self.store().invocations(function.id, state, before, limit).await?;
        found.into_iter().map(job_of).collect()
    }

    /// Puts a dead letter back into the queue, whose runner is woken.
    pub(crate) async fn retry_job(
        &self,
        team: TeamId,
        id: InvocationId,
    ) -> Result<Invocation, ApiError> {
        if let Some(record) = self.queue().retry(team, id).await? {
            return job_of(record);
        }
        let record = self.store().invocation(team, id).await?.ok_or_else(|| no_job(id))?;
        Err(conflict(&record, "only a dead one can be tried again"))
    }

    /// Cancels an invocation that waits, removes one that is finished.
    pub(crate) async fn remove_job(&self, team: TeamId, id: InvocationId) -> Result<(), ApiError> {
        if self.store().cancel_invocation(team, id, now()).await?
            || self.store().remove_invocation(team, id).await?
        {
            return Ok(());
        }
        let record = self.store().invocation(team, id).await?.ok_or_else(|| no_job(id))?;
        Err(conflict(&record, "wait until its attempt has ended"))
    }

    /// A function's schedules with their times.
    pub(crate) async fn cron(
        &self,
        team: TeamId,
        name: &FunctionName,
    ) -> Result<Vec<CronStatus>, ApiError> {
        let function = self.owned_function(team, name.as_str()).await?;
        let fires = self.store().cron_fires(Some(function.id)).await?;
        let status = |cron: pool_model::Cron| {
            let table = Timetable::new(&cron.schedule, cron.timezone.as_deref()).ok();
            CronStatus {
                next_at: table.and_then(|table| table.after(now())),
                last_at: fires.iter().find(|f| f.name == cron.name).and_then(|f| f.last_fired),
                timezone: cron.timezone.unwrap_or_else(|| "UTC".to_owned()),
                schedule: cron.schedule,
                name: cron.name,
            }
        };
        Ok(function.invocation.cron.into_iter().map(status).collect())
    }
}

fn job_of(record: InvocationRecord) -> Result<Invocation, ApiError> {
    let queued = record.state == InvocationState::Queued;
    let webhook = record.webhook_state.map(|state| WebhookStatus {
        state: state.as_str().to_owned(),
        attempts: record.webhook_attempts,
        error: record.webhook_error,
    });
    Ok(Invocation {
        id: record.id.to_string(),
        function: record.name.parse().map_err(ApiError::internal)?,
        tag: record.tag,
        source: record.source.as_str().to_owned(),
        state: record.state.as_str().to_owned(),
        method: record.method,
        path: record.path,
        attempts: record.attempts,
        attempts_max: record.attempts_max,
        next_attempt_at: queued.then_some(record.next_attempt_at),
        status: record.status,
        error: record.error,
        result: None,
        webhook,
        created_at: record.created_at,
        started_at: record.started_at,
        finished_at: record.finished_at,
        expires_at: record.expires_at,
    })
}

fn no_job(id: InvocationId) -> ApiError {
    ApiError::new(ErrorCode::InvocationNotFound, format!("there is no invocation {id}"))
}

fn conflict(record: &InvocationRecord, why: &str) -> ApiError {
    let state = record.state.as_str();
    ApiError::new(ErrorCode::Conflict, format!("the invocation is {state}: {why}"))
}
