//! How wrong the harness is: its figures beside those of a server that knows its own delays.
//!
//! Two questions are answered with the built-in server, over each protocol. *Delays*: the server
//! answers after a time that it measures itself; what the harness says on top of that is the error
//! (the way over loopback included). *Stalls*: the server stops for a known time now and then; an
//! open loop has to show the wait of everyone who came meanwhile, as arithmetic says, and not only
//! of the request that met the stall.

use std::{fmt, net::SocketAddr, time::Duration};

use loadtest_model::{
    Arrivals, Budgets, Load, Part, Plan, Protocol, RunReport, Scenario, TargetPlan, Work, names,
};
use loadtest_server::{Server, ServerConfig};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::{Runner, error::RunError};

/// Delays that the server is asked for, milliseconds.
const DELAYS_MS: [u64; 4] = [1, 5, 20, 100];
/// Requests per second while delays are measured.
const RATE: f64 = 100.0;
/// Requests per second while it stalls, how long a stall is, and after how many requests.
const STALL_RATE: f64 = 200.0;
const STALL: Duration = Duration::from_millis(200);
const STALL_EVERY: u64 = 200;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub enum Size {
    /// Enough for figures to be published.
    Full,
    /// Enough to see that it works.
    Small,
}

/// How wrong the harness is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Calibration {
    /// One per protocol and delay.
    pub delays: Vec<Delay>,
    /// One per protocol.
    pub stalls: Vec<Stall>,
}

/// What was said of one delay.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Delay {
    /// Over what.
    pub protocol: Protocol,
    /// What the server was asked for.
    pub asked_ms: u64,
    /// Requests.
    pub count: u64,
    /// What the server measured, mean.
    pub server_mean_ms: f64,
    /// What the harness measured on top, mean: the way there and back and the harness's own error.
    pub error_mean_ms: f64,
    /// The same of the medians.
    pub error_p50_ms: f64,
    /// The same of the 99th percentiles.
    pub error_p99_ms: f64,
    /// How late requests were sent, 99th percentile.
    pub send_lag_p99_ms: f64,
}

/// What was said of stalls.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stall {
    /// Over what.
    pub protocol: Protocol,
    /// Requests.
    pub count: u64,
    /// The share of requests that had to wait for more than half a stall.
    pub expected_share: f64,
    /// The share whose latency says so, in an open loop.
    pub open_share: f64,
    /// The same in a closed loop of one user: what coordinated omission hides.
    pub closed_share: f64,
}

/// Measures it.
///
/// # Errors
///
/// [`RunError`] if the server or the harness could not work, or answers failed.
pub async fn run(size: Size) -> Result<Calibration, RunError> {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = ServerConfig { h1_h2_clear: None, tls: Some(loopback), ..ServerConfig::default() };
    // On a thread of its own, as a server is elsewhere.
    let server = Peer::start(config)?;
    let mut calibration = Calibration { delays: Vec::new(), stalls: Vec::new() };
    for protocol in Protocol::ALL {
        let delays = server.measure(plan_of_delays(protocol, size, &server)).await?;
        for (asked_ms, part) in DELAYS_MS.into_iter().zip(&delays.parts) {
            calibration.delays.push(delay(protocol, asked_ms, part)?);
        }
        let stalls = server.measure(plan_of_stalls(protocol, size, &server)).await?;
        calibration.stalls.push(stall(protocol, &stalls)?);
    }
    Ok(calibration)
}

/// The server and what it takes to reach it.
struct Peer {
    address: SocketAddr,
    ca_file: std::path::PathBuf,
    dir: std::path::PathBuf,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Peer {
    fn start(config: ServerConfig) -> Result<Self, RunError> {
        let failed = |step| move |source| RunError::Harness { step, source };
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("calibration".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                let server = match Server::start(config).await {
                    Ok(server) => server,
                    Err(error) => {
                        let _ = tell.send(Err(crate::chain(&error)));
                        return;
                    }
                };
                let _ = tell.send(Ok((server.tls_address(), server.ca_pem().to_owned())));
                stopped.cancelled().await;
                server.shutdown().await;
            });
        });
        let thread = thread.map_err(failed("start a thread"))?;
        let (address, ca) = match told.recv() {
            Ok(Ok((Some(address), ca))) => (address, ca),
            Ok(Err(error)) => return Err(RunError::Target(format!("no test server: {error}"))),
            _ => return Err(RunError::Target("no test server".to_owned())),
        };
        let dir = std::env::temp_dir().join(format!("loadtest-{}", std::process::id()));
        let ca_file = dir.join("ca.pem");
        std::fs::create_dir_all(&dir)
            .and_then(|()| std::fs::write(&ca_file, ca))
            .map_err(failed("write the test server's certificate"))?;
        Ok(Self { address, ca_file, dir, stop, thread: Some(thread) })
    }

    async fn measure(&self, plan: Plan) -> Result<RunReport, RunError> {
        Runner::new(plan, Budgets::default())?.run(&CancellationToken::new()).await
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // It ends by itself; a panic in it was printed.
            let _ = thread.join();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn plan_of_delays(protocol: Protocol, size: Size, peer: &Peer) -> Plan {
    let duration_ms = match size {
        Size::Full => 10_000,
        Size::Small => 2_000,
    };
    let scenarios = DELAYS_MS.map(|ms| {
        let arrivals = Arrivals::Poisson { rate_per_s: RATE };
        let load = Load::Open { arrivals, duration_ms, max_in_flight: 1024 };
        Scenario::new(format!("delay-{ms}"), Work::get(format!("/delay?ms={ms}")), Some(load))
    });
    plan(protocol, peer, scenarios.into())
}

fn plan_of_stalls(protocol: Protocol, size: Size, peer: &Peer) -> Plan {
    let duration_ms = match size {
        Size::Full => 20_000,
        Size::Small => 5_000,
    };
    let path = format!("/stall?every={STALL_EVERY}&ms={}", STALL.as_millis());
    let arrivals = Arrivals::Constant { rate_per_s: STALL_RATE };
    let open = Load::Open { arrivals, duration_ms, max_in_flight: 1024 };
    let closed =
        Load::Closed { concurrency: 1, duration_ms: Some(duration_ms / 4), requests: None };
    let stalled = |name, load| Scenario::new(name, Work::get(path.clone()), Some(load));
    plan(protocol, peer, vec![stalled("open", open), stalled("closed", closed)])
}

fn plan(protocol: Protocol, peer: &Peer, scenarios: Vec<Scenario>) -> Plan {
    Plan {
        name: "calibration".to_owned(),
        target: TargetPlan {
            url: Some(format!("https://localhost:{}/", peer.address.port())),
            ca_file: Some(peer.ca_file.clone()),
            ..TargetPlan::default()
        },
        protocols: vec![protocol],
        rounds: 1,
        seed: 1,
        workers: 1,
        warmup_ms: 200,
        scenarios,
        chaos: Vec::new(),
        slow_proxies: Vec::new(),
    }
}

fn delay(protocol: Protocol, asked_ms: u64, part: &Part) -> Result<Delay, RunError> {
    let figures = |name: &str| {
        let found = part.timings.get(name).map(|histogram| histogram.summary());
        found.ok_or_else(|| {
            RunError::Target(format!("{}: no timing {name}: {:?}", part.id(), part.samples))
        })
    };
    let (server, service) = (figures("server.delay")?, figures(names::SERVICE)?);
    Ok(Delay {
        protocol,
        asked_ms,
        count: service.count,
        server_mean_ms: server.mean_ms,
        error_mean_ms: service.mean_ms - server.mean_ms,
        error_p50_ms: service.p50_ms - server.p50_ms,
        error_p99_ms: service.p99_ms - server.p99_ms,
        send_lag_p99_ms: figures(names::SEND_LAG)?.p99_ms,
    })
}

fn stall(protocol: Protocol, report: &RunReport) -> Result<Stall, RunError> {
    let [open, closed] = &report.parts[..] else {
        return Err(RunError::Target("a part is missing".to_owned()));
    };
    let arrivals_per_stall = STALL_RATE * STALL.as_secs_f64();
    Ok(Stall {
        protocol,
        count: open.succeeded,
        // Those who come in the first half of a stall wait for more than half of it. While the
        // server is stopped nothing is counted, so the next stall comes that many requests later.
        #[allow(clippy::cast_precision_loss)]
        expected_share: arrivals_per_stall / 2.0 / STALL_EVERY as f64,
        open_share: share_over(open, STALL / 2),
        closed_share: share_over(closed, STALL / 2),
    })
}

/// The share of latencies over a bound.
#[allow(clippy::cast_precision_loss)]
fn share_over(part: &Part, bound: Duration) -> f64 {
    let Some(latency) = part.timings.get(names::LATENCY) else { return 0.0 };
    let bound = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
    let over: u64 = latency.counts().filter(|(ns, _)| *ns > bound).map(|(_, count)| count).sum();
    over as f64 / latency.len().max(1) as f64
}

impl fmt::Display for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Delays that the server measured, and what the harness said on top (ms)\n")?;
        writeln!(
            f,
            "| protocol | asked | requests | server, mean | error, mean | error, p50 | error, p99 | sent late, p99 |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|")?;
        for delay in &self.delays {
            writeln!(
                f,
                "| {} | {} | {} | {:.3} | {:.3} | {:.3} | {:.3} | {:.3} |",
                delay.protocol,
                delay.asked_ms,
                delay.count,
                delay.server_mean_ms,
                delay.error_mean_ms,
                delay.error_p50_ms,
                delay.error_p99_ms,
                delay.send_lag_p99_ms
            )?;
        }
        writeln!(
            f,
            "\nRequests that waited for more than half of a {} ms stall\n",
            STALL.as_millis()
        )?;
        writeln!(f, "| protocol | requests | by arithmetic | open loop | closed loop |")?;
        writeln!(f, "|---|---|---|---|---|")?;
        for Stall { protocol, count, expected_share, open_share, closed_share } in &self.stalls {
            let [expected, open, closed] =
                [expected_share, open_share, closed_share].map(|share| share * 100.0);
            writeln!(
                f,
                "| {protocol} | {count} | {expected:.1} % | {open:.1} % | {closed:.1} % |"
            )?;
        }
        Ok(())
    }
}
