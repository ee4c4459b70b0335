//! What the agent answers: each call in a few lines of bookkeeping.

use std::sync::atomic::Ordering;

use agent_api::v1::{self, __buffa::oneof::create_sandbox_request::Source, Agent};
use connectrpc::{RequestContext, Response, ServiceRequest, ServiceResult, ServiceStream};
use futures::stream;
use jiff::Timestamp;
use pool_model::{ErrorCode, SnapshotId, TeamId, TemplateId};

use super::{Service, gone};

impl Agent for Service {
    async fn get_host(
        &self,
        _: RequestContext,
        _: ServiceRequest<'_, v1::GetHostRequest>,
    ) -> ServiceResult<v1::GetHostResponse> {
        self.check("get_host")?;
        Response::ok(v1::GetHostResponse {
            host_id: pool_model::HostId::from_u128(77).to_string(),
            version: "0.1.0".into(),
            vmm: "none".into(),
            ..Default::default()
        })
    }

    async fn list_templates(
        &self,
        _: RequestContext,
        _: ServiceRequest<'_, v1::ListTemplatesRequest>,
    ) -> ServiceResult<v1::ListTemplatesResponse> {
        self.check("list_templates")?;
        let template = v1::Template {
            template_id: TemplateId::DEFAULT.to_string(),
            team_id: TeamId::PLATFORM.to_string(),
            name: "minimal-debian".into(),
            memory_mib: 256,
            vcpus: 1,
            ..Default::default()
        };
        Response::ok(v1::ListTemplatesResponse { templates: vec![template], ..Default::default() })
    }

    async fn create_sandbox(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, v1::CreateSandboxRequest>,
    ) -> ServiceResult<v1::SandboxResponse> {
        self.check("create_sandbox")?;
        let request = request.to_owned_message();
        let (template_id, snapshot_id) = match request.source.clone().unwrap() {
            Source::TemplateId(id) => (id, String::new()),
            Source::SnapshotId(id) => (String::new(), id),
        };
        let now = Timestamp::now().as_millisecond();
        let sandbox = v1::Sandbox {
            sandbox_id: request.sandbox_id.clone(),
            team_id: request.team_id.clone(),
            template_id,
            snapshot_id,
            state: "running".into(),
            generation: 1,
            created_at_ms: now,
            expires_at_ms: now + i64::try_from(request.timeout_ms).unwrap(),
            memory_mib: if request.memory_mib == 0 { 256 } else { request.memory_mib },
            on_timeout: request.on_timeout,
            internet: request.internet,
            ..Default::default()
        };
        self.state().sandboxes.insert(request.sandbox_id.clone(), sandbox.clone());
        self.state().created.push(request);
        self.done("create_sandbox").await;
        Response::ok(v1::SandboxResponse { sandbox: sandbox.into(), ..Default::default() })
    }

    async fn get_sandbox(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, v1::SandboxRequest>,
    ) -> ServiceResult<v1::SandboxResponse> {
        self.change(request.sandbox_id, |_| {})
    }

    async fn list_sandboxes(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, v1::ListSandboxesRequest>,
    ) -> ServiceResult<v1::ListSandboxesResponse> {
        let team = request.team_id.to_owned();
        let mut sandboxes: Vec<_> = self.state().sandboxes.values().cloned().collect();
        sandboxes.retain(|sandbox| team.is_empty() || sandbox.team_id == team);
        Response::ok(v1::ListSandboxesResponse { sandboxes, ..Default::default() })
    }

    async fn pause_sandbox(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, v1::SandboxRequest>,
    ) -> ServiceResult<v1::SandboxResponse> {
        self.check("pause_sandbox")?;
        self.change(request.sandbox_id, |sandbox| {
            sandbox.state = "paused".into();
            sandbox.expires_at_ms = 0;
        })
    }

    async fn resume_sandbox(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, v1::ResumeSandboxRequest>,
    ) -> ServiceResult<v1::SandboxResponse> {
        self.change(request.sandbox_id, |sandbox| {
            sandbox.state = "running".into();
            sandbox.generation += 1;
        })
    }

    async fn snapshot_sandbox(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, v1::SandboxRequest>,
    ) -> ServiceResult<v1::SnapshotSandboxResponse> {
        self.check("snapshot_sandbox")?;
        let sandbox = self.find(request.sandbox_id)?;
        let number = u128::from(self.serial.fetch_add(1, Ordering::Relaxed)) + 1_000;
        let snapshot = v1::Snapshot {
            snapshot_id: SnapshotId::from_u128(number).to_string(),
            team_id: sandbox.team_id,
            template_id: TemplateId::DEFAULT.to_string(),
            created_at_ms: Timestamp::now().as_millisecond(),
            memory_bytes: 256 << 20,
            stored_bytes: 40 << 20,
            ..Default::default()
        };
        self.state().snapshots.insert(snapshot.snapshot_id.clone(), snapshot.clone());
        self.done("snapshot_sandbox").await;
        Response::ok(v1::SnapshotSandboxResponse {
            snapshot: snapshot.into(),
            ..Default::default()
        })
    }

    async fn destroy_sandbox(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, v1::SandboxRequest>,
    ) -> ServiceResult<v1::DestroySandboxResponse> {
        self.check("destroy_sandbox")?;
        let removed = self.state().sandboxes.remove(request.sandbox_id);
        removed.ok_or_else(|| gone(ErrorCode::SandboxNotFound))?;
        self.done("destroy_sandbox").await;
        Response::ok(v1::DestroySandboxResponse::default())
    }

    async fn set_timeout(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, v1::SetTimeoutRequest>,
    ) -> ServiceResult<v1::SandboxResponse> {
        let ends = Timestamp::now().as_millisecond() + i64::try_from(request.timeout_ms).unwrap();
        self.change(request.sandbox_id, |sandbox| sandbox.expires_at_ms = ends)
    }

    async fn exec(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, v1::ExecRequest>,
    ) -> ServiceResult<ServiceStream<v1::ExecEvent>> {
        self.check("exec")?;
        let request = request.to_owned_message();
        self.find(&request.sandbox_id)?;
        let background = request.background;
        self.state().execs.push(request);
        self.done("exec").await;
        let started = v1::exec_event::Started { pid: 42, ..Default::default() };
        let mut events = vec![started.into()];
        if !background {
            events.extend(self.state().output.clone());
        }
        let events = events
            .into_iter()
            .map(|event| v1::ExecEvent { event: Some(event), ..Default::default() });
        Response::stream_ok(stream::iter(events.map(Ok).collect::<Vec<_>>()))
    }

    async fn extract_archive(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, v1::ExtractArchiveRequest>,
    ) -> ServiceResult<v1::ExtractArchiveResponse> {
        self.check("extract_archive")?;
        self.find(request.sandbox_id)?;
        let request = request.to_owned_message();
        self.state().extracted.push(request);
        self.done("extract_archive").await;
        Response::ok(v1::ExtractArchiveResponse::default())
    }

    async fn wait_ready(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, v1::WaitReadyRequest>,
    ) -> ServiceResult<v1::WaitReadyResponse> {
        self.check("wait_ready")?;
        assert_eq!(request.pid, 42, "the start command's");
        self.done("wait_ready").await;
        Response::ok(self.state().ready.clone())
    }

    async fn list_snapshots(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, v1::ListSnapshotsRequest>,
    ) -> ServiceResult<v1::ListSnapshotsResponse> {
        let team = request.team_id.to_owned();
        let mut snapshots: Vec<_> = self.state().snapshots.values().cloned().collect();
        snapshots.retain(|snapshot| snapshot.team_id == team);
        Response::ok(v1::ListSnapshotsResponse { snapshots, ..Default::default() })
    }

    async fn delete_snapshot(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, v1::DeleteSnapshotRequest>,
    ) -> ServiceResult<v1::DeleteSnapshotResponse> {
        self.check("delete_snapshot")?;
        let id = request.snapshot_id;
        let mut state = self.state();
        let pooled = state.pools.values().any(|pool| pool.snapshot_id == id);
        let restored = state.sandboxes.values().any(|sandbox| sandbox.snapshot_id == id);
        if pooled || restored || state.busy_snapshots.contains(id) {
            return Err(agent_api::error::to_rpc(ErrorCode::Conflict, "it is in use"));
        }
        state.snapshots.remove(id).ok_or_else(|| gone(ErrorCode::SnapshotNotFound))?;
        Response::ok(v1::DeleteSnapshotResponse::default())
    }

    async fn set_pool(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, v1::SetPoolRequest>,
    ) -> ServiceResult<v1::PoolResponse> {
        self.check("set_pool")?;
        let pool = request.to_owned_message().pool.into_option().unwrap();
        self.state().pools.insert(pool.function_id.clone(), pool.clone());
        self.done("set_pool").await;
        Response::ok(v1::PoolResponse { pool: pool.into(), ..Default::default() })
    }

    async fn get_pool(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, v1::PoolRequest>,
    ) -> ServiceResult<v1::PoolResponse> {
        self.check("get_pool")?;
        self.done("get_pool").await;
        Response::ok(self.find_pool(request.function_id)?)
    }

    async fn list_pools(
        &self,
        _: RequestContext,
        _: ServiceRequest<'_, v1::ListPoolsRequest>,
    ) -> ServiceResult<v1::ListPoolsResponse> {
        self.check("list_pools")?;
        let ids: Vec<_> = self.state().pools.keys().cloned().collect();
        let pools = ids.iter().map(|id| self.find_pool(id)).collect::<Result<_, _>>()?;
        Response::ok(v1::ListPoolsResponse { pools, ..Default::default() })
    }

    async fn prewarm_pool(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, v1::PrewarmPoolRequest>,
    ) -> ServiceResult<v1::PoolResponse> {
        self.check("prewarm_pool")?;
        let request = request.to_owned_message();
        let pool = self.find_pool(&request.function_id)?;
        self.state().prewarmed.push(request);
        self.done("prewarm_pool").await;
        Response::ok(pool)
    }

    async fn drain_pool(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, v1::PoolRequest>,
    ) -> ServiceResult<v1::DrainPoolResponse> {
        self.check("drain_pool")?;
        self.find_pool(request.function_id)?;
        let drained = std::mem::take(&mut self.state().stats.warm);
        self.done("drain_pool").await;
        Response::ok(v1::DrainPoolResponse { drained, ..Default::default() })
    }

    async fn remove_pool(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, v1::PoolRequest>,
    ) -> ServiceResult<v1::RemovePoolResponse> {
        self.check("remove_pool")?;
        let removed = self.state().pools.remove(request.function_id);
        removed.ok_or_else(|| gone(ErrorCode::FunctionNotFound))?;
        Response::ok(v1::RemovePoolResponse::default())
    }

    async fn sync_pools(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, v1::SyncPoolsRequest>,
    ) -> ServiceResult<v1::ListPoolsResponse> {
        self.check("sync_pools")?;
        let pools = request.to_owned_message().pools;
        self.state().pools =
            pools.into_iter().map(|pool| (pool.function_id.clone(), pool)).collect();
        Response::ok(v1::ListPoolsResponse::default())
    }
}
