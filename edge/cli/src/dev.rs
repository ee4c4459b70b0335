//! `wrenn dev`: the whole gateway on this machine, on embedded defaults.
//!
//! ```text
//! wrenn dev up --> supervisor (detached) --> agent --> pager
//!                                        \-> edge
//! ```
//!
//! The supervisor restarts what dies and keeps `dev.json` true; `up` waits until all of it serves
//! and deploys the sample; `down` stops the supervisor, which stops the rest and then lets
//! `agent reap` destroy every machine and slot.

mod backoff;
mod file;
mod log;
mod plan;
mod process;
mod supervisor;

use std::{
    path::{Path, PathBuf},
    process::{Child, ExitCode},
    time::Duration,
};

use serde_json::json;
use tokio::time::{Instant, sleep};

pub(crate) use file::DevFile;

use crate::{
    args::{Connect, DeployArgs, DevDir, StackArgs, UpArgs},
    connection::{self, Connection},
    deploy,
    failure::Failure,
    output::Out,
};
use plan::Plan;
use process::Role;

/// How often a state is looked at while it is waited for.
const POLL: Duration = Duration::from_millis(100);

/// The longest `down` waits for the supervisor: two drains, the pager and the reaping.
const DOWN_DEADLINE: Duration = Duration::from_secs(120);

/// Where the sample function is in a clone.
const SAMPLE: &str = "images/functions/hello";

/// `wrenn dev supervise`: runs the services until told to stop.
pub(crate) async fn supervise(args: &StackArgs) -> Result<ExitCode, Failure> {
    supervisor::run(&Plan::new(args)?).await?;
    Ok(ExitCode::SUCCESS)
}

/// `wrenn dev up`.
pub(crate) async fn up(args: &UpArgs, out: &Out) -> Result<ExitCode, Failure> {
    let plan = Plan::new(&args.stack)?;
    plan.check()?;
    let deadline = Instant::now() + Duration::from_millis(args.timeout_ms);
    if supervisor_of(&plan).is_some() {
        plan.check_same_ports()?;
    }
    let step = out.step("starting agent and edge");
    let connection = match serving(&plan, deadline).await {
        Ok(connection) => connection,
        Err(failure) => {
            out.note(&plan.log_tails());
            return Err(failure);
        }
    };
    step.done();
    let sample = if args.no_sample { None } else { sample_dir(args)? };
    let function = match sample {
        Some(dir) => Some(deploy_if_absent(&connection, dir, out).await?),
        None => None,
    };
    announce(&plan, function.as_deref(), out)?;
    Ok(ExitCode::SUCCESS)
}

/// `wrenn dev down`. Fine if nothing runs.
pub(crate) async fn down(args: &DevDir, out: &Out) -> Result<ExitCode, Failure> {
    let plan = Plan::of_dir(args)?;
    if !plan.layout.root().is_dir() {
        out.result(&json!({ "stopped": true }), |_| "nothing to stop".to_owned())?;
        return Ok(ExitCode::SUCCESS);
    }
    let step = out.step("stopping everything");
    if let Some(pid) = supervisor_of(&plan) {
        process::stop(pid, DOWN_DEADLINE).await.map_err(Failure::Gave)?;
    }
    // What a killed supervisor could not stop; finds nothing after an orderly stop.
    let _lock = plan.lock()?;
    supervisor::stop_leftovers(&plan).await?;
    supervisor::reap(&plan).await?;
    supervisor::forget(&plan);
    step.done();
    out.result(&json!({ "stopped": true }), |_| "stopped".to_owned())?;
    Ok(ExitCode::SUCCESS)
}

/// `wrenn dev status`: exit status 1 if it does not serve.
pub(crate) async fn status(args: &DevDir, out: &Out) -> Result<ExitCode, Failure> {
    let plan = Plan::of_dir(args)?;
    let running = supervisor_of(&plan).is_some();
    let dev = if running { DevFile::read(&plan.layout.dev_file()).ok() } else { None };
    let healthy = match &dev {
        Some(dev) => is_healthy(dev).await.is_some(),
        None => false,
    };
    let state = json!({ "running": running, "healthy": healthy, "dev": dev });
    out.result(&state, |_| match &dev {
        Some(dev) => format!(
            "{} at {}\n{}",
            if healthy { "serving" } else { "running, not serving" },
            dev.api_url,
            crate::functions::pretty(&dev.pids)
        ),
        None => "not running".to_owned(),
    })?;
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The supervisor's process, if it lives.
fn supervisor_of(plan: &Plan) -> Option<i32> {
    process::recorded(&plan.layout, Role::Supervisor)
}

/// Starts the supervisor as a process that outlives us.
fn start(plan: &Plan) -> Result<Child, Failure> {
    let failed = |e| Failure::local("start the supervisor", e);
    let log = log::open(&plan.layout, "supervisor").map_err(failed)?;
    let own = std::env::current_exe().map_err(failed)?;
    std::process::Command::new(own)
        .args(plan.supervise_args())
        .stdin(std::process::Stdio::null())
        .stdout(log.try_clone().map_err(failed)?)
        .stderr(log)
        .spawn()
        .map_err(failed)
}

/// Waits until the API answers, sees its agent, and `dev.json` names the processes that run now;
/// starts a supervisor if there is none.
async fn serving(plan: &Plan, deadline: Instant) -> Result<Connection, Failure> {
    let logs = plan.layout.log_dir();
    let mut started = None;
    loop {
        match (supervisor_of(plan), &mut started) {
            (supervisor @ Some(_), _) => {
                if let Ok(dev) = DevFile::read(&plan.layout.dev_file())
                    && dev.pids.supervisor == supervisor
                    && dev.pids.agent.is_some()
                    && dev.pids.edge.is_some()
                    && let Some(connection) = is_healthy(&dev).await
                {
                    return Ok(connection);
                }
            }
            (None, None) => started = Some(start(plan)?),
            (None, Some(child)) => {
                let ended = child.try_wait().map_err(|e| Failure::local("start", e))?;
                if let Some(status) = ended {
                    let text = format!("the supervisor ended with {status}");
                    return Err(Failure::Gave(format!("{text}; its log is in {}", logs.display())));
                }
            }
        }
        if Instant::now() >= deadline {
            let text = format!("it does not serve in time; its logs are in {}", logs.display());
            return Err(Failure::Gave(text));
        }
        sleep(POLL).await;
    }
}

/// A connection, if the stack's API says that all is well.
async fn is_healthy(dev: &DevFile) -> Option<Connection> {
    let connection = Connection::of_dev(dev.clone(), &Connect::default()).ok()?;
    let asked = tokio::time::timeout(Duration::from_secs(2), connection.client.health()).await;
    asked.ok()?.ok().filter(|health| health.agent_reachable).map(|_| connection)
}

/// The sample given, else the one of the clone that we are in or were built in.
fn sample_dir(args: &UpArgs) -> Result<Option<PathBuf>, Failure> {
    if args.sample.is_some() {
        return Ok(args.sample.clone());
    }
    let here = std::env::current_dir().map_err(|e| Failure::local("find this directory", e))?;
    let own = std::env::current_exe().map_err(|e| Failure::local("find this program", e))?;
    let find = |start: &Path| connection::upwards(start, Path::new(SAMPLE));
    Ok(find(&here).or_else(|| find(&own)))
}

async fn deploy_if_absent(
    connection: &Connection,
    dir: PathBuf,
    out: &Out,
) -> Result<String, Failure> {
    let args = DeployArgs::of_dir(dir);
    let name = crate::manifest::read(&args)?.config.name;
    let known = connection.client.functions().await?;
    if !known.iter().any(|function| function.name == name) {
        deploy::deploy(connection, &args, out).await?;
    }
    Ok(name.to_string())
}

fn announce(plan: &Plan, function: Option<&str>, out: &Out) -> Result<(), Failure> {
    let dev = DevFile::read(&plan.layout.dev_file())?;
    let name = function.unwrap_or("NAME");
    let host = format!("{name}.fn.{}", dev.domain);
    let secure =
        format!("curl --cacert {} https://{host}:{}/", dev.ca_file.display(), dev.https_port);
    let plain = format!("curl http://{host}:{}/", dev.http_port);
    out.result(&json!({ "dev": dev, "curl": [secure, plain] }), |_| {
        format!("The API is at {}\nTry:\n  {secure}\n  {plain}", dev.api_url)
    })
}
