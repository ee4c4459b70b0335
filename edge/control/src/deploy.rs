//! A deploy, from an archive to a snapshot whose server is listening.
//!
//! ```text
//! booting -> extracting -> starting -> waiting -> snapshotting -> publishing -> done
//!    \___________\____________\__________\_____________\_____________/
//!                 any failure: the build sandbox and the new snapshot go
//! ```
//!
//! The operation's row is written before the agent is asked for anything and removed when nothing
//! is left to clean up. A row that is found at start is a crash: `reconcile` does the same clean-up.
//!
//! A function that exists serves its old version until the pool has the new snapshot; the store
//! follows within the same lock (`rollout`). If the store fails, the pool is set back.

use std::{sync::Arc, time::Duration};

use agent_api::v1::{self, __buffa::oneof::create_sandbox_request::Source};
use bytes::Bytes;
use edge_api::{DeployConfig, ExecEvent, Function};
use edge_store::{
    LiveFunction, NewVersion, OperationKind, OperationRecord, SnapshotKind, SnapshotRecord,
};
use pool_model::{ErrorCode, FunctionId, RequestId, SandboxId, TeamId, TemplateId};

use tokio::sync::OwnedSemaphorePermit;

use crate::{
    ApiError, Control, archive, capsules::rpc_on_timeout, control::now, http::DeployForm,
    snapshots::snapshot_record, validate,
};

/// Where the code is unpacked and the start command runs.
const CODE_DIR: &str = "/home/user/app";
/// Who it runs as.
const CODE_USER: &str = "user";
/// What a build sandbox lives on top of its readiness timeout if nobody destroys it.
const BUILD_GRACE_MS: u64 = 600_000;
/// Longest wait for the start command's first sign of life.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// Most characters of the start command's output in an error.
const TAIL_CHARS: usize = 2000;

/// One deploy under way.
struct Deploy {
    control: Arc<Control>,
    operation: OperationRecord,
    config: DeployConfig,
    template: TemplateId,
}

impl Control {
    /// Deploys code as a new function or a new version of a team's own.
    pub(crate) async fn deploy(
        self: &Arc<Self>,
        request: RequestId,
        team: TeamId,
        form: DeployForm,
        place: OwnedSemaphorePermit,
    ) -> Result<Function, ApiError> {
        let DeployForm { config, code } = form;
        validate::deploy(&config)?;
        if let Some(policy) = &config.invocation {
            validate::invocation(policy, &self.outside)?;
        }
        archive::check(code.clone()).await?;
        let name = config.name.as_str();
        let present = self.store().live_function_by_name(name).await?;
        if present.as_ref().is_some_and(|present| present.function.team != team) {
            let why = format!("the function name `{name}` belongs to another team");
            return Err(ApiError::new(ErrorCode::NameTaken, why));
        }
        // Asked again when it is published; here it costs no build.
        validate::deploy_tag(&config, present.as_ref())?;
        validate::deploy_policy(&config, present.map(|present| present.function.policy))?;
        let template = self.template(team, config.template.as_deref()).await?;
        let operation = OperationRecord {
            id: request,
            team,
            kind: OperationKind::Deploy,
            function: Some(name.to_owned()),
            sandbox: SandboxId::from_u128(rand::random()),
            step: "begun".to_owned(),
            created_at: now(),
        };
        let control = Arc::clone(self);
        let deploy = Deploy { control, operation, config, template };
        self.to_the_end(async move {
            let _place = place; // held to the end, whether or not the client waits for it
            deploy.run(code).await
        })
        .await
    }
}

impl Deploy {
    async fn run(self, code: Bytes) -> Result<Function, ApiError> {
        let store = self.control.store();
        store.begin_operation(&self.operation).await?;
        let deployed = self.build_and_publish(code).await;
        // Either way the build sandbox has done its work. If it can't be destroyed now the row
        // stays, and with it the reconciler's order to do it.
        match self.control.agent().destroy(self.operation.sandbox).await {
            Ok(_) => store.end_operation(self.operation.id).await?,
            Err(error) => self.warn("the build sandbox was not destroyed", &error),
        }
        // The replaced version's snapshot, or this one's if it was not published. After the build
        // sandbox, which may hold it.
        if let Err(error) = self.control.collect_snapshots().await {
            self.warn("unused snapshots were not deleted; the reconciler will", &error);
        }
        deployed.and_then(|live| self.control.function_of(live))
    }

    async fn build_and_publish(&self, code: Bytes) -> Result<LiveFunction, ApiError> {
        self.step("booting").await?;
        self.control.agent().create(self.build_sandbox()).await?;
        self.step("extracting").await?;
        self.control.agent().extract(self.extraction(code)).await?;
        self.step("starting").await?;
        let pid = self.start().await?;
        self.step("waiting").await?;
        self.wait_ready(pid).await?;
        self.step("snapshotting").await?;
        let _unswept = self.control.snapshots.read().await;
        let made = self.control.agent().snapshot(self.operation.sandbox).await?;
        let OperationRecord { team, sandbox, .. } = self.operation;
        let snapshot = snapshot_record(&made, team, SnapshotKind::Function, None, sandbox)?;
        let published = async {
            self.step("publishing").await?;
            self.publish(snapshot.clone()).await
        };
        let published = published.await;
        if published.is_err() {
            // With a record and without a function it is garbage, and collected as that.
            self.control.store().add_snapshot(&snapshot).await?;
        }
        published
    }

    fn build_sandbox(&self) -> v1::CreateSandboxRequest {
        v1::CreateSandboxRequest {
            sandbox_id: self.operation.sandbox.to_string(),
            source: Some(Source::TemplateId(self.template.to_string())),
            team_id: self.operation.team.to_string(),
            timeout_ms: self.config.ready_timeout_ms + BUILD_GRACE_MS,
            on_timeout: rpc_on_timeout(pool_model::OnTimeout::Kill).into(),
            memory_mib: self.config.memory_mib.unwrap_or(0),
            vcpus: self.config.vcpus.unwrap_or(0),
            internet: true,
            ..Default::default()
        }
    }

    fn extraction(&self, code: Bytes) -> v1::ExtractArchiveRequest {
        v1::ExtractArchiveRequest {
            sandbox_id: self.operation.sandbox.to_string(),
            path: CODE_DIR.to_owned(),
            user: CODE_USER.to_owned(),
            tar_gz: code.into(),
            ..Default::default()
        }
    }

    /// Starts the server and leaves it running.
    async fn start(&self) -> Result<u32, ApiError> {
        let mut env = self.config.env.clone();
        env.insert("PORT".to_owned(), self.config.port.to_string());
        let request = v1::ExecRequest {
            sandbox_id: self.operation.sandbox.to_string(),
            command: self.config.start.clone(),
            env: env.into_iter().collect(),
            cwd: CODE_DIR.to_owned(),
            user: CODE_USER.to_owned(),
            background: true,
            ..Default::default()
        };
        let mut events = self.control.agent().exec(request, START_DEADLINE).await?;
        while let Some(event) = events.next().await? {
            match event {
                ExecEvent::Start { pid } => return Ok(pid),
                ExecEvent::Exit { code, .. } => return Err(self.exited(code, "")),
                _ => {}
            }
        }
        Err(ApiError::internal("the agent ended the stream before the start command's event"))
    }

    async fn wait_ready(&self, pid: u32) -> Result<(), ApiError> {
        let DeployConfig { port, ready_path, ready_timeout_ms, .. } = &self.config;
        let request = v1::WaitReadyRequest {
            sandbox_id: self.operation.sandbox.to_string(),
            port: u32::from(port.get()),
            path: ready_path.clone(),
            timeout_ms: *ready_timeout_ms,
            pid,
            ..Default::default()
        };
        let answer = self.control.agent().wait_ready(request).await?;
        if answer.ready {
            return Ok(());
        }
        if answer.process_exited {
            return Err(self.exited(answer.exit_code, &answer.output_tail));
        }
        let mut why = format!(
            "port {port} did not answer `{ready_path}` with 2xx within {ready_timeout_ms} ms"
        );
        if !answer.last_error.is_empty() {
            why.push_str(&format!(" ({})", answer.last_error));
        }
        push_tail(&mut why, &answer.output_tail);
        Err(ApiError::new(ErrorCode::NotReady, why))
    }

    fn exited(&self, code: i32, output: &str) -> ApiError {
        let mut why = format!("the start command ended with exit code {code}");
        push_tail(&mut why, output);
        ApiError::new(ErrorCode::StartCommandExited, why)
    }

    /// Sets the pools and then the record, under the lock that keeps the reconciler out.
    async fn publish(&self, snapshot: SnapshotRecord) -> Result<LiveFunction, ApiError> {
        let Deploy { control, operation, config, .. } = self;
        let _pools = control.pools.lock().await;
        let name = config.name.as_str();
        let before = control.store().live_function(operation.team, name).await?;
        let present = before.as_ref().map(|before| &before.function);
        let random = || FunctionId::from_u128(rand::random());
        let new = NewVersion {
            id: present.map_or_else(random, |present| present.id),
            team: operation.team,
            name: name.to_owned(),
            template: self.template,
            snapshot,
            port: config.port,
            start: config.start.clone(),
            ready_path: config.ready_path.clone(),
            timeout_ms: config.timeout_ms,
            internet: config.internet,
            policy: validate::deploy_policy(config, present.map(|p| p.policy.clone()))?,
            invocation: config.invocation.clone().unwrap_or_else(|| {
                present.map(|present| present.invocation.clone()).unwrap_or_default()
            }),
            tag: config.tag.as_ref().map(ToString::to_string),
            promote: config.promote,
            spare: random(),
            at: now(),
        };
        let after = match &before {
            Some(before) => before.publish(&new)?,
            None => LiveFunction::first(&new)?,
        };
        let commit = async { Ok(control.store().publish(&new).await?.live) };
        control.roll_out(before.as_ref(), &after, commit).await
    }

    async fn step(&self, step: &'static str) -> Result<(), ApiError> {
        let OperationRecord { id, sandbox, .. } = self.operation;
        tracing::info!(
            request.id = %id, sandbox.id = %sandbox, function.name = self.config.name.as_str(), step,
            "deploy"
        );
        Ok(self.control.store().operation_step(id, step).await?)
    }

    fn warn(&self, what: &'static str, error: &ApiError) {
        let OperationRecord { id, sandbox, .. } = self.operation;
        let error = error as &dyn std::error::Error;
        tracing::warn!(request.id = %id, sandbox.id = %sandbox, error, "{what}");
    }
}

/// Adds the end of a command's output to an error.
fn push_tail(why: &mut String, output: &str) {
    let output = output.trim();
    if output.is_empty() {
        return;
    }
    let skipped = output.chars().count().saturating_sub(TAIL_CHARS);
    why.push_str("; its output ends with:\n");
    why.extend(output.chars().skip(skipped));
}
