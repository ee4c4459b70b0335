//! The calls of the schema, each one line or two of our own words.

#![allow(refining_impl_trait, reason = "concrete answers are what the schema names")]

use agent_api::v1;
use connectrpc::{RequestContext, Response, ServiceRequest, ServiceResult, ServiceStream};
use pool_model::{SnapshotId, TeamId};

use super::{convert, exec, pools, ready};
use crate::{
    agent::Agent, error::AgentError, host::blocking, lifecycle::damaged, pools::Entry,
    sandbox::Sandbox, template,
};

/// Implements the schema's service over an [`Agent`].
#[derive(Debug)]
pub(super) struct Service {
    agent: Agent,
}

impl Service {
    pub(super) fn new(agent: Agent) -> Self {
        Self { agent }
    }

    fn show(&self, sandbox: &Sandbox) -> v1::SandboxResponse {
        let record = sandbox.record();
        let template = template::open(&self.agent.host.layout, record.team, record.template);
        let envd_version = template.map(|template| template.envd_version).unwrap_or_default();
        let sandbox = convert::sandbox(&record, envd_version);
        v1::SandboxResponse { sandbox: Some(sandbox).into(), ..Default::default() }
    }

    async fn snapshot_info(&self, id: SnapshotId) -> Result<v1::Snapshot, AgentError> {
        let store = self.agent.host.snapshots();
        blocking(move || {
            let snapshot = store.open(id).map_err(|error| damaged(id, error))?;
            let stored = snapshot.stored_bytes(store.layers());
            Ok(convert::snapshot(&snapshot.manifest, stored))
        })
        .await
    }

    async fn snapshots(&self, team: Option<TeamId>) -> Result<Vec<v1::Snapshot>, AgentError> {
        let store = self.agent.host.snapshots();
        let ids =
            blocking(move || store.list()).await.map_err(AgentError::store("list snapshots"))?;
        let team = team.map(|team| team.to_string());
        let mut found = Vec::new();
        for id in ids {
            match self.snapshot_info(id).await {
                Ok(info) if team.as_ref().is_none_or(|team| *team == info.team_id) => {
                    found.push(info);
                }
                // One may be deleted while we list.
                Ok(_) | Err(AgentError::SnapshotNotFound(_)) => {}
                Err(error @ AgentError::Incompatible { .. }) => {
                    tracing::warn!("not listed: {}", crate::error::chain(&error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    async fn pools(&self) -> v1::ListPoolsResponse {
        let mut pools = Vec::new();
        for entry in self.agent.pools.list() {
            let stats = entry.pool.stats().await;
            pools.push(pools::response(&entry, stats, None));
        }
        v1::ListPoolsResponse { pools, ..Default::default() }
    }

    async fn pool(&self, entry: &Entry) -> v1::PoolResponse {
        let memory = self.agent.pool_memory(entry).await;
        pools::response(entry, entry.pool.stats().await, Some(memory))
    }
}

type Req<'a, T> = ServiceRequest<'a, T>;

impl v1::Agent for Service {
    async fn get_host(
        &self,
        _: RequestContext,
        _: Req<'_, v1::GetHostRequest>,
    ) -> ServiceResult<v1::GetHostResponse> {
        let host = &self.agent.host;
        Response::ok(v1::GetHostResponse {
            host_id: host.layout.instance_tag(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            vmm: host.vmm.name(),
            accel: host.vmm.accel().to_owned(),
            memory_budget_mib: host.capacity.memory_bytes_max() >> 20,
            ..Default::default()
        })
    }

    async fn list_templates(
        &self,
        _: RequestContext,
        request: Req<'_, v1::ListTemplatesRequest>,
    ) -> ServiceResult<v1::ListTemplatesResponse> {
        let team = convert::team(request.team_id).map_err(convert::failed)?;
        let layout = self.agent.host.layout.clone();
        let found = blocking(move || template::list(&layout, team.unwrap_or(TeamId::PLATFORM)));
        let templates = found.await.map_err(convert::failed)?;
        let templates = templates.into_iter().map(|template| v1::Template {
            template_id: template.id.to_string(),
            team_id: template.team.to_string(),
            name: template.name,
            memory_mib: template.memory_mib,
            vcpus: u32::from(template.vcpus),
            kernel: template.kernel,
            envd_version: template.envd_version,
            ..Default::default()
        });
        let templates = templates.collect();
        Response::ok(v1::ListTemplatesResponse { templates, ..Default::default() })
    }

    async fn create_sandbox(
        &self,
        _: RequestContext,
        request: Req<'_, v1::CreateSandboxRequest>,
    ) -> ServiceResult<v1::SandboxResponse> {
        let create = convert::create(request.to_owned_message()).map_err(convert::failed)?;
        let sandbox = self.agent.create(create).await.map_err(convert::failed)?;
        Response::ok(self.show(&sandbox))
    }

    async fn get_sandbox(
        &self,
        _: RequestContext,
        request: Req<'_, v1::SandboxRequest>,
    ) -> ServiceResult<v1::SandboxResponse> {
        let id = convert::sandbox_id(request.sandbox_id).map_err(convert::failed)?;
        let sandbox = self.agent.sandbox(id).map_err(convert::failed)?;
        Response::ok(self.show(&sandbox))
    }

    async fn list_sandboxes(
        &self,
        _: RequestContext,
        request: Req<'_, v1::ListSandboxesRequest>,
    ) -> ServiceResult<v1::ListSandboxesResponse> {
        let team = convert::team(request.team_id).map_err(convert::failed)?;
        let all = self.agent.sandboxes(team);
        let created = all.iter().filter(|sandbox| {
            // Pool members are the pool's to show.
            matches!(sandbox.record().purpose, crate::journal::Purpose::Sandbox)
        });
        let sandboxes = created.filter_map(|sandbox| self.show(sandbox).sandbox.into_option());
        let sandboxes = sandboxes.collect();
        Response::ok(v1::ListSandboxesResponse { sandboxes, ..Default::default() })
    }

    async fn pause_sandbox(
        &self,
        _: RequestContext,
        request: Req<'_, v1::SandboxRequest>,
    ) -> ServiceResult<v1::SandboxResponse> {
        let id = convert::sandbox_id(request.sandbox_id).map_err(convert::failed)?;
        let sandbox = self.agent.pause(id).await.map_err(convert::failed)?;
        Response::ok(self.show(&sandbox))
    }

    async fn resume_sandbox(
        &self,
        _: RequestContext,
        request: Req<'_, v1::ResumeSandboxRequest>,
    ) -> ServiceResult<v1::SandboxResponse> {
        let id = convert::sandbox_id(request.sandbox_id).map_err(convert::failed)?;
        let sandbox = self.agent.resume(id, request.timeout_ms).await.map_err(convert::failed)?;
        Response::ok(self.show(&sandbox))
    }

    async fn snapshot_sandbox(
        &self,
        _: RequestContext,
        request: Req<'_, v1::SandboxRequest>,
    ) -> ServiceResult<v1::SnapshotSandboxResponse> {
        let id = convert::sandbox_id(request.sandbox_id).map_err(convert::failed)?;
        let snapshot = self.agent.snapshot(id).await.map_err(convert::failed)?;
        let snapshot = self.snapshot_info(snapshot).await.map_err(convert::failed)?;
        let snapshot = Some(snapshot).into();
        Response::ok(v1::SnapshotSandboxResponse { snapshot, ..Default::default() })
    }

    async fn destroy_sandbox(
        &self,
        _: RequestContext,
        request: Req<'_, v1::SandboxRequest>,
    ) -> ServiceResult<v1::DestroySandboxResponse> {
        let id = convert::sandbox_id(request.sandbox_id).map_err(convert::failed)?;
        self.agent.destroy(id).await.map_err(convert::failed)?;
        Response::ok(v1::DestroySandboxResponse::default())
    }

    async fn set_timeout(
        &self,
        _: RequestContext,
        request: Req<'_, v1::SetTimeoutRequest>,
    ) -> ServiceResult<v1::SandboxResponse> {
        let id = convert::sandbox_id(request.sandbox_id).map_err(convert::failed)?;
        let changed = self.agent.set_timeout(id, request.timeout_ms).await;
        let sandbox = changed.map_err(convert::failed)?;
        Response::ok(self.show(&sandbox))
    }

    async fn exec(
        &self,
        _: RequestContext,
        request: Req<'_, v1::ExecRequest>,
    ) -> ServiceResult<ServiceStream<v1::ExecEvent>> {
        let events = exec::exec(&self.agent, request.to_owned_message()).await;
        Response::ok(events.map_err(convert::failed)?)
    }

    async fn extract_archive(
        &self,
        _: RequestContext,
        request: Req<'_, v1::ExtractArchiveRequest>,
    ) -> ServiceResult<v1::ExtractArchiveResponse> {
        let request = request.to_owned_message();
        exec::extract(&self.agent, request).await.map_err(convert::failed)?;
        Response::ok(v1::ExtractArchiveResponse::default())
    }

    async fn wait_ready(
        &self,
        _: RequestContext,
        request: Req<'_, v1::WaitReadyRequest>,
    ) -> ServiceResult<v1::WaitReadyResponse> {
        let waited = ready::wait(&self.agent, request.to_owned_message()).await;
        Response::ok(waited.map_err(convert::failed)?)
    }

    async fn list_snapshots(
        &self,
        _: RequestContext,
        request: Req<'_, v1::ListSnapshotsRequest>,
    ) -> ServiceResult<v1::ListSnapshotsResponse> {
        let team = convert::team(request.team_id).map_err(convert::failed)?;
        let snapshots = self.snapshots(team).await.map_err(convert::failed)?;
        Response::ok(v1::ListSnapshotsResponse { snapshots, ..Default::default() })
    }

    async fn delete_snapshot(
        &self,
        _: RequestContext,
        request: Req<'_, v1::DeleteSnapshotRequest>,
    ) -> ServiceResult<v1::DeleteSnapshotResponse> {
        let id = convert::id("snapshot_id", request.snapshot_id).map_err(convert::failed)?;
        self.agent.delete_snapshot(id).await.map_err(convert::failed)?;
        Response::ok(v1::DeleteSnapshotResponse::default())
    }

    async fn set_pool(
        &self,
        _: RequestContext,
        request: Req<'_, v1::SetPoolRequest>,
    ) -> ServiceResult<v1::PoolResponse> {
        let pool = request.to_owned_message().pool.into_option().unwrap_or_default();
        let spec = pools::spec(pool).map_err(convert::failed)?;
        let entry = self.agent.pools.set(&self.agent, spec).await.map_err(convert::failed)?;
        Response::ok(self.pool(&entry).await)
    }

    async fn get_pool(
        &self,
        _: RequestContext,
        request: Req<'_, v1::PoolRequest>,
    ) -> ServiceResult<v1::PoolResponse> {
        let id = convert::id("function_id", request.function_id).map_err(convert::failed)?;
        let entry = self.agent.pools.get(id).map_err(convert::failed)?;
        Response::ok(self.pool(&entry).await)
    }

    async fn prewarm_pool(
        &self,
        _: RequestContext,
        request: Req<'_, v1::PrewarmPoolRequest>,
    ) -> ServiceResult<v1::PoolResponse> {
        let id = convert::id("function_id", request.function_id).map_err(convert::failed)?;
        let entry = self.agent.pools.get(id).map_err(convert::failed)?;
        let max_warm = entry.spec.policy.max_warm;
        if !(1..=max_warm).contains(&request.count) {
            let reason = format!("{} is not 1 to max_warm, which is {max_warm}", request.count);
            let error = AgentError::InvalidArgument { field: "count", reason };
            return Err(convert::failed(error));
        }
        entry.pool.prewarm(request.count).await;
        Response::ok(self.pool(&entry).await)
    }

    async fn drain_pool(
        &self,
        _: RequestContext,
        request: Req<'_, v1::PoolRequest>,
    ) -> ServiceResult<v1::DrainPoolResponse> {
        let id = convert::id("function_id", request.function_id).map_err(convert::failed)?;
        let entry = self.agent.pools.get(id).map_err(convert::failed)?;
        let drained = self.agent.detached(async move { Ok(entry.pool.drain().await) }).await;
        let drained = drained.map_err(convert::failed)?;
        Response::ok(v1::DrainPoolResponse { drained, ..Default::default() })
    }

    async fn list_pools(
        &self,
        _: RequestContext,
        _: Req<'_, v1::ListPoolsRequest>,
    ) -> ServiceResult<v1::ListPoolsResponse> {
        Response::ok(self.pools().await)
    }

    async fn remove_pool(
        &self,
        _: RequestContext,
        request: Req<'_, v1::PoolRequest>,
    ) -> ServiceResult<v1::RemovePoolResponse> {
        let id = convert::id("function_id", request.function_id).map_err(convert::failed)?;
        let all = self.agent.pools.clone();
        let removed = self.agent.detached(async move { all.remove(id).await }).await;
        removed.map_err(convert::failed)?;
        Response::ok(v1::RemovePoolResponse::default())
    }

    async fn sync_pools(
        &self,
        _: RequestContext,
        request: Req<'_, v1::SyncPoolsRequest>,
    ) -> ServiceResult<v1::ListPoolsResponse> {
        let pools = request.to_owned_message().pools;
        let specs = pools.into_iter().map(pools::spec).collect::<Result<Vec<_>, _>>();
        let (agent, specs) = (self.agent.clone(), specs.map_err(convert::failed)?);
        let synced = async move { agent.pools.clone().sync(&agent, specs).await };
        self.agent.detached(synced).await.map_err(convert::failed)?;
        Response::ok(self.pools().await)
    }
}
