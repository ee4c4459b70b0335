//! Capsules: records here, machines at the agent.

use std::{collections::HashMap, sync::Arc};

use agent_api::v1::{self, __buffa::oneof::create_sandbox_request::Source};
use edge_api::{Capsule, CreateCapsule};
use edge_store::{CapsuleRecord, Secret};
use jiff::Timestamp;
use pool_model::{
    ErrorCode, Generation, OnTimeout, SandboxId, SandboxState, TeamId, TrafficPolicy,
};

use crate::{ApiError, Control, control::now, validate};

/// Seconds until a capsule's timeout if its creator names none.
const TIMEOUT_S: u64 = 3600;

impl Control {
    /// Creates a capsule. Its record comes first, so that a crash leaves nothing without one.
    pub(crate) async fn create_capsule(
        self: &Arc<Self>,
        team: TeamId,
        request: CreateCapsule,
    ) -> Result<Capsule, ApiError> {
        validate::capsule(&request)?;
        let source = match request.snapshot {
            Some(id) => match self.store().snapshot(team, id).await? {
                Some(_) => Source::SnapshotId(id.to_string()),
                None => return Err(no_snapshot(id)),
            },
            None => {
                let template = self.template(team, request.template.as_deref()).await?;
                Source::TemplateId(template.to_string())
            }
        };
        let traffic = request.traffic.unwrap_or_default();
        let record = CapsuleRecord {
            id: SandboxId::from_u128(rand::random()),
            team,
            metadata: request.metadata,
            traffic_token: traffic.has_private().then(Secret::generate),
            traffic,
            created_at: now(),
        };
        let call = v1::CreateSandboxRequest {
            sandbox_id: record.id.to_string(),
            source: Some(source),
            team_id: team.to_string(),
            timeout_ms: request.timeout_s.unwrap_or(TIMEOUT_S) * 1000,
            on_timeout: rpc_on_timeout(request.on_timeout).into(),
            memory_mib: request.memory_mib.unwrap_or(0),
            vcpus: request.vcpus.unwrap_or(0),
            env: request.env.into_iter().collect(),
            internet: request.internet.unwrap_or(true),
            ..Default::default()
        };
        let control = Arc::clone(self);
        self.to_the_end(async move { control.create_recorded(record, call).await }).await
    }

    async fn create_recorded(
        &self,
        record: CapsuleRecord,
        call: v1::CreateSandboxRequest,
    ) -> Result<Capsule, ApiError> {
        let _creating = self.creating(record.id);
        self.store().add_capsule(&record).await?;
        let made = match self.agent().create(call).await {
            Ok(sandbox) => self.capsule_of(&record, &sandbox),
            Err(error) => Err(error),
        };
        self.directory().forget_sandbox(record.id);
        if made.is_err() {
            // The agent may have made it and its answer got lost: it goes now, or by its timeout.
            if let Err(error) = self.agent().destroy(record.id).await {
                tracing::warn!(sandbox.id = %record.id, error = &error as &dyn std::error::Error, "a failed capsule was not destroyed");
            }
            self.store().remove_capsule(record.id).await?;
            self.directory().forget_sandbox(record.id);
        }
        made
    }

    /// A team's capsules that its agent has.
    pub(crate) async fn capsules(&self, team: TeamId) -> Result<Vec<Capsule>, ApiError> {
        let records = self.store().capsules(team).await?;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let running = self.agent().sandboxes(Some(team)).await?;
        let running: HashMap<&str, &v1::Sandbox> =
            running.iter().map(|sandbox| (sandbox.sandbox_id.as_str(), sandbox)).collect();
        records
            .iter()
            .filter_map(|record| {
                let sandbox = running.get(record.id.to_string().as_str())?;
                Some(self.capsule_of(record, sandbox))
            })
            .collect()
    }

    /// A team's capsule.
    pub(crate) async fn capsule(&self, team: TeamId, id: SandboxId) -> Result<Capsule, ApiError> {
        let record = self.owned_capsule(team, id).await?;
        let sandbox = self.seen(id, self.agent().sandbox(id).await).await?;
        self.capsule_of(&record, &sandbox)
    }

    /// Destroys a team's capsule.
    pub(crate) async fn delete_capsule(
        self: &Arc<Self>,
        team: TeamId,
        id: SandboxId,
    ) -> Result<(), ApiError> {
        self.owned_capsule(team, id).await?;
        let control = Arc::clone(self);
        self.to_the_end(async move {
            control.agent().destroy(id).await?;
            control.store().remove_capsule(id).await?;
            control.directory().forget_sandbox(id);
            Ok(())
        })
        .await
    }

    /// Writes a team's capsule to disk.
    pub(crate) async fn pause(
        self: &Arc<Self>,
        team: TeamId,
        id: SandboxId,
    ) -> Result<Capsule, ApiError> {
        let record = self.owned_capsule(team, id).await?;
        let control = Arc::clone(self);
        self.to_the_end(async move {
            let sandbox = control.seen(id, control.agent().pause(id).await).await?;
            control.capsule_of(&record, &sandbox)
        })
        .await
    }

    /// Brings a team's capsule back.
    pub(crate) async fn resume(
        self: &Arc<Self>,
        team: TeamId,
        id: SandboxId,
    ) -> Result<Capsule, ApiError> {
        let record = self.owned_capsule(team, id).await?;
        let control = Arc::clone(self);
        self.to_the_end(async move {
            let sandbox = control.seen(id, control.agent().resume(id).await).await?;
            control.capsule_of(&record, &sandbox)
        })
        .await
    }

    /// Sets a team's capsule's timeout, from now.
    pub(crate) async fn set_timeout(
        &self,
        team: TeamId,
        id: SandboxId,
        timeout_s: u64,
    ) -> Result<Capsule, ApiError> {
        validate::timeout_s(timeout_s)?;
        let record = self.owned_capsule(team, id).await?;
        let sandbox = self.seen(id, self.agent().set_timeout(id, timeout_s * 1000).await).await?;
        self.capsule_of(&record, &sandbox)
    }

    /// Sets how a team's capsule's ports may be reached: the next request is judged by it.
    pub(crate) async fn set_traffic(
        self: &Arc<Self>,
        team: TeamId,
        id: SandboxId,
        traffic: TrafficPolicy,
    ) -> Result<Capsule, ApiError> {
        validate::traffic(&traffic)?;
        self.owned_capsule(team, id).await?;
        let control = Arc::clone(self);
        self.to_the_end(async move {
            let set = control.store().set_traffic(team, id, &traffic).await;
            control.directory().forget_sandbox(id);
            let record = set?.ok_or_else(|| no_sandbox(id))?;
            let sandbox = control.seen(id, control.agent().sandbox(id).await).await?;
            control.capsule_of(&record, &sandbox)
        })
        .await
    }

    /// The record of a capsule, if it is this team's.
    pub(crate) async fn owned_capsule(
        &self,
        team: TeamId,
        id: SandboxId,
    ) -> Result<CapsuleRecord, ApiError> {
        self.store().capsule(team, id).await?.ok_or_else(|| no_sandbox(id))
    }

    /// Passes the agent's answer on; if the agent has no such sandbox, the record goes too.
    pub(crate) async fn seen<T>(
        &self,
        id: SandboxId,
        answer: Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        match answer {
            Err(error) if error.code() == ErrorCode::SandboxNotFound && !self.is_creating(id) => {
                self.store().remove_capsule(id).await?;
                self.directory().forget_sandbox(id);
                Err(no_sandbox(id))
            }
            answer => answer,
        }
    }

    fn capsule_of(
        &self,
        record: &CapsuleRecord,
        sandbox: &v1::Sandbox,
    ) -> Result<Capsule, ApiError> {
        Ok(Capsule {
            id: record.id,
            state: state(&sandbox.state)?,
            template: optional_id(&sandbox.template_id)?,
            snapshot: optional_id(&sandbox.snapshot_id)?,
            created_at: record.created_at,
            expires_at: match sandbox.expires_at_ms {
                0 => None,
                ms => Some(Timestamp::from_millisecond(ms).map_err(ApiError::internal)?),
            },
            on_timeout: match sandbox.on_timeout.as_known() {
                Some(v1::OnTimeout::Pause) => OnTimeout::Pause,
                _ => OnTimeout::Kill,
            },
            internet: sandbox.internet,
            metadata: record.metadata.clone(),
            generation: Generation(sandbox.generation),
            memory_mib: sandbox.memory_mib,
            url_pattern: self.public().capsule_url(record.id),
            traffic: record.traffic.clone(),
            traffic_token: record
                .traffic_token
                .as_ref()
                .filter(|_| record.traffic.has_private())
                .map(|token| token.expose().to_string()),
        })
    }
}

pub(crate) fn no_sandbox(id: SandboxId) -> ApiError {
    ApiError::new(ErrorCode::SandboxNotFound, format!("there is no capsule {id}"))
}

pub(crate) fn no_snapshot(id: pool_model::SnapshotId) -> ApiError {
    ApiError::new(ErrorCode::SnapshotNotFound, format!("there is no snapshot {id}"))
}

pub(crate) const fn rpc_on_timeout(on_timeout: OnTimeout) -> v1::OnTimeout {
    match on_timeout {
        OnTimeout::Kill => v1::OnTimeout::Kill,
        OnTimeout::Pause => v1::OnTimeout::Pause,
    }
}

/// Reads an id that the agent may leave out.
fn optional_id<T>(text: &str) -> Result<Option<T>, ApiError>
where
    T: std::str::FromStr<Err = pool_model::BadId>,
{
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(ApiError::internal) }
}

fn state(text: &str) -> Result<SandboxState, ApiError> {
    use SandboxState as S;
    [S::Starting, S::Running, S::Pausing, S::Paused, S::Resuming, S::Stopping]
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or_else(|| ApiError::internal(format!("the agent reports the state `{text}`")))
}
