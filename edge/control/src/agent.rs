//! The edge's view of an agent: typed calls, each with a deadline, errors as [`ApiError`].

use std::{net::SocketAddr, time::Duration};

use agent_api::v1;
use connectrpc::{
    ConnectError,
    client::{CallOptions, HttpClient},
};
use pool_model::{ErrorCode, FunctionId, SandboxId, SnapshotId, TeamId};

use crate::{ApiError, exec::ExecStream};

/// Deadline of calls that only look things up or change a setting.
const SHORT: Duration = Duration::from_secs(10);
/// Deadline of calls that may take warm sandboxes down.
const POOLS: Duration = Duration::from_secs(60);
/// Deadline of calls that boot, restore, pause or snapshot.
const LONG: Duration = Duration::from_secs(240);

/// Where an agent listens: two listeners that never share a connection.
#[derive(Debug, Clone)]
pub struct AgentAddress {
    /// Its RPC listener.
    pub rpc: http::Uri,
    /// Its proxy listener.
    pub proxy: SocketAddr,
}

/// An agent. Cheap to clone; connects on the first call and again when the connection broke.
#[derive(Clone)]
pub struct Agent {
    address: AgentAddress,
    client: v1::AgentClient<HttpClient>,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("address", &self.address).finish_non_exhaustive()
    }
}

type Answer<T> = Result<T, ApiError>;

impl Agent {
    /// An agent at `address`.
    #[must_use]
    pub fn new(address: AgentAddress, token: &agent_api::Token) -> Self {
        let client = agent_api::connect(address.rpc.clone(), token);
        Self { address, client }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> &AgentAddress {
        &self.address
    }

    pub(crate) async fn host(&self) -> Answer<v1::GetHostResponse> {
        let request = v1::GetHostRequest::default();
        let answer = self.client.get_host_with_options(request, within(SHORT)).await;
        Ok(answer.map_err(failed)?.into_owned())
    }

    pub(crate) async fn templates(&self, team: TeamId) -> Answer<Vec<v1::Template>> {
        let request = v1::ListTemplatesRequest { team_id: team.to_string(), ..Default::default() };
        let answer = self.client.list_templates_with_options(request, within(SHORT)).await;
        Ok(answer.map_err(failed)?.into_owned().templates)
    }

    pub(crate) async fn create(&self, request: v1::CreateSandboxRequest) -> Answer<v1::Sandbox> {
        let answer = self.client.create_sandbox_with_options(request, within(LONG)).await;
        sandbox(answer.map_err(failed)?.into_owned())
    }

    pub(crate) async fn sandbox(&self, id: SandboxId) -> Answer<v1::Sandbox> {
        let answer = self.client.get_sandbox_with_options(named(id), within(SHORT)).await;
        sandbox(answer.map_err(failed)?.into_owned())
    }

    /// Sandboxes of a team, or of all.
    pub(crate) async fn sandboxes(&self, team: Option<TeamId>) -> Answer<Vec<v1::Sandbox>> {
        let team_id = team.map(|team| team.to_string()).unwrap_or_default();
        let request = v1::ListSandboxesRequest { team_id, ..Default::default() };
        let answer = self.client.list_sandboxes_with_options(request, within(SHORT)).await;
        Ok(answer.map_err(failed)?.into_owned().sandboxes)
    }

    pub(crate) async fn pause(&self, id: SandboxId) -> Answer<v1::Sandbox> {
        let answer = self.client.pause_sandbox_with_options(named(id), within(LONG)).await;
        sandbox(answer.map_err(failed)?.into_owned())
    }

    pub(crate) async fn resume(&self, id: SandboxId) -> Answer<v1::Sandbox> {
        let request = v1::ResumeSandboxRequest { sandbox_id: id.to_string(), ..Default::default() };
        let answer = self.client.resume_sandbox_with_options(request, within(LONG)).await;
        sandbox(answer.map_err(failed)?.into_owned())
    }

    pub(crate) async fn snapshot(&self, id: SandboxId) -> Answer<v1::Snapshot> {
        let answer = self.client.snapshot_sandbox_with_options(named(id), within(LONG)).await;
        let answer = answer.map_err(failed)?.into_owned();
        answer.snapshot.into_option().ok_or_else(|| missing("snapshot"))
    }

    /// Destroys a sandbox. One that isn't there is as good as destroyed: false.
    pub(crate) async fn destroy(&self, id: SandboxId) -> Answer<bool> {
        let answer = self.client.destroy_sandbox_with_options(named(id), within(LONG)).await;
        unless_gone(answer.map(|_| ()).map_err(failed))
    }

    pub(crate) async fn set_timeout(&self, id: SandboxId, ms: u64) -> Answer<v1::Sandbox> {
        let request = v1::SetTimeoutRequest {
            sandbox_id: id.to_string(),
            timeout_ms: ms,
            ..Default::default()
        };
        let answer = self.client.set_timeout_with_options(request, within(SHORT)).await;
        sandbox(answer.map_err(failed)?.into_owned())
    }

    pub(crate) async fn exec(
        &self,
        request: v1::ExecRequest,
        deadline: Duration,
    ) -> Answer<ExecStream> {
        let answer = self.client.exec_with_options(request, within(deadline)).await;
        Ok(ExecStream::new(answer.map_err(failed)?))
    }

    pub(crate) async fn extract(&self, request: v1::ExtractArchiveRequest) -> Answer<()> {
        let answer = self.client.extract_archive_with_options(request, within(LONG)).await;
        answer.map(|_| ()).map_err(failed)
    }

    pub(crate) async fn wait_ready(
        &self,
        request: v1::WaitReadyRequest,
    ) -> Answer<v1::WaitReadyResponse> {
        let deadline = Duration::from_millis(request.timeout_ms) + SHORT;
        let answer = self.client.wait_ready_with_options(request, within(deadline)).await;
        Ok(answer.map_err(failed)?.into_owned())
    }

    pub(crate) async fn snapshots(&self, team: TeamId) -> Answer<Vec<v1::Snapshot>> {
        let request = v1::ListSnapshotsRequest { team_id: team.to_string(), ..Default::default() };
        let answer = self.client.list_snapshots_with_options(request, within(SHORT)).await;
        Ok(answer.map_err(failed)?.into_owned().snapshots)
    }

    /// Deletes a snapshot. One that isn't there is as good as deleted: false.
    pub(crate) async fn delete_snapshot(&self, id: SnapshotId) -> Answer<bool> {
        let request =
            v1::DeleteSnapshotRequest { snapshot_id: id.to_string(), ..Default::default() };
        let answer = self.client.delete_snapshot_with_options(request, within(SHORT)).await;
        unless_gone(answer.map(|_| ()).map_err(failed))
    }

    pub(crate) async fn set_pool(&self, pool: v1::Pool) -> Answer<()> {
        let request = v1::SetPoolRequest { pool: pool.into(), ..Default::default() };
        let answer = self.client.set_pool_with_options(request, within(SHORT)).await;
        answer.map(|_| ()).map_err(failed)
    }

    pub(crate) async fn pool(&self, id: FunctionId) -> Answer<v1::PoolResponse> {
        let answer = self.client.get_pool_with_options(pool_of(id), within(SHORT)).await;
        Ok(answer.map_err(failed)?.into_owned())
    }

    pub(crate) async fn pools(&self) -> Answer<Vec<v1::PoolResponse>> {
        let request = v1::ListPoolsRequest::default();
        let answer = self.client.list_pools_with_options(request, within(SHORT)).await;
        Ok(answer.map_err(failed)?.into_owned().pools)
    }

    /// Makes warm sandboxes until there are `count`; the restores go on after the answer.
    pub(crate) async fn prewarm_pool(
        &self,
        id: FunctionId,
        count: u32,
    ) -> Answer<v1::PoolResponse> {
        let function_id = id.to_string();
        let request = v1::PrewarmPoolRequest { function_id, count, ..Default::default() };
        let answer = self.client.prewarm_pool_with_options(request, within(POOLS)).await;
        Ok(answer.map_err(failed)?.into_owned())
    }

    /// Destroys a pool's warm sandboxes; answers with how many when they are gone.
    pub(crate) async fn drain_pool(&self, id: FunctionId) -> Answer<u32> {
        let answer = self.client.drain_pool_with_options(pool_of(id), within(POOLS)).await;
        Ok(answer.map_err(failed)?.into_owned().drained)
    }

    /// Removes a pool. One that isn't there is as good as removed: false.
    pub(crate) async fn remove_pool(&self, id: FunctionId) -> Answer<bool> {
        let answer = self.client.remove_pool_with_options(pool_of(id), within(POOLS)).await;
        unless_gone(answer.map(|_| ()).map_err(failed))
    }

    pub(crate) async fn sync_pools(&self, pools: Vec<v1::Pool>) -> Answer<()> {
        let request = v1::SyncPoolsRequest { pools, ..Default::default() };
        let answer = self.client.sync_pools_with_options(request, within(POOLS)).await;
        answer.map(|_| ()).map_err(failed)
    }
}

fn within(deadline: Duration) -> CallOptions {
    CallOptions::default().with_timeout(deadline)
}

fn named(id: SandboxId) -> v1::SandboxRequest {
    v1::SandboxRequest { sandbox_id: id.to_string(), ..Default::default() }
}

fn pool_of(id: FunctionId) -> v1::PoolRequest {
    v1::PoolRequest { function_id: id.to_string(), ..Default::default() }
}

fn sandbox(answer: v1::SandboxResponse) -> Answer<v1::Sandbox> {
    answer.sandbox.into_option().ok_or_else(|| missing("sandbox"))
}

fn missing(what: &'static str) -> ApiError {
    ApiError::internal(format!("the agent's answer has no {what}"))
}

fn unless_gone(answer: Answer<()>) -> Answer<bool> {
    match answer {
        Ok(()) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Passes the agent's code on, but not what is between it and us: a wrong token is our failure, and
/// how the transport failed is for the log.
pub(crate) fn failed(error: ConnectError) -> ApiError {
    let code = agent_api::error::from_rpc(&error);
    let message = match code {
        ErrorCode::Unauthorized | ErrorCode::Forbidden | ErrorCode::Internal => {
            return ApiError::internal(error);
        }
        ErrorCode::AgentUnavailable => "the agent does not answer".to_owned(),
        _ => error.message.clone().unwrap_or_else(|| code.to_string()),
    };
    ApiError::new(code, message).with_source(error)
}
