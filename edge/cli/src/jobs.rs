//! Asynchronous invocations and schedules: list, look up, retry, remove.

use edge_api::{CronStatus, Invocation};
use serde_json::json;

use crate::{
    args::{CronCommand, JobCommand},
    connection::Connection,
    failure::Failure,
    functions::pretty,
    output::Out,
};

/// `wrenn job ...`.
pub(crate) async fn job(
    connection: &Connection,
    command: JobCommand,
    out: &Out,
) -> Result<(), Failure> {
    let client = &connection.client;
    match command {
        JobCommand::Ls { function, state, before, limit } => {
            let state = state.map(crate::args::JobState::as_str);
            let found = client.invocations(&function, state, before.as_deref(), limit).await?;
            let columns = ["job", "source", "state", "status", "attempts", "created"];
            out.listing(&found, columns, |job: &Invocation| {
                [
                    job.id.clone(),
                    job.source.clone(),
                    job.state.clone(),
                    job.status.map(|status| status.to_string()).unwrap_or_default(),
                    format!("{}/{}", job.attempts, job.attempts_max),
                    job.created_at.to_string(),
                ]
            })
        }
        JobCommand::Get { id } => out.result(&client.job(&id).await?, pretty),
        JobCommand::Retry { id } => {
            let job = client.retry_job(&id).await?;
            out.result(&job, |job| format!("{} is {}", job.id, job.state))
        }
        JobCommand::Rm { id } => {
            client.remove_job(&id).await?;
            out.result(&json!({ "removed": id }), |_| format!("removed {id}"))
        }
    }
}

/// `wrenn cron ...`.
pub(crate) async fn cron(
    connection: &Connection,
    command: CronCommand,
    out: &Out,
) -> Result<(), Failure> {
    let CronCommand::Ls { function } = command;
    let columns = ["name", "schedule", "timezone", "last", "next"];
    out.listing(&connection.client.cron(&function).await?, columns, |cron: &CronStatus| {
        [
            cron.name.clone(),
            cron.schedule.clone(),
            cron.timezone.clone(),
            time(cron.last_at),
            time(cron.next_at),
        ]
    })
}

fn time<T: ToString>(at: Option<T>) -> String {
    at.map(|at| at.to_string()).unwrap_or_default()
}
