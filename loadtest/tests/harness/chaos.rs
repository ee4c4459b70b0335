//! A server that is killed, or slow, while it is under load.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use loadtest_model::{Arrivals, ChaosPlan, Fault, Load, Plan, SlowProxy, Work};

use crate::peer::{Peer, run, scenario};

/// Runs `loadtest serve` again and again, as a supervisor would, and leaves its pid in a file.
struct Supervised {
    shell: Child,
}

impl Supervised {
    fn start(dir: &Path, port: u16) -> Self {
        let script = format!(
            "cd '{dir}'; trap 'kill $p; exit' TERM; while :; do '{bin}' serve --clear 127.0.0.1:{port} --tls \
             127.0.0.1:0 >/dev/null 2>&1 & p=$!; echo $p > pid.new; mv pid.new pid; wait $p; sleep 0.3; done",
            dir = dir.display(),
            bin = env!("CARGO_BIN_EXE_loadtest"),
        );
        let shell = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap();
        Self { shell }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        // The shell ends its child; without it nothing starts another.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.shell.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.shell.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn answers(address: SocketAddr) {
    for _ in 0..300 {
        if tokio::net::TcpStream::connect(address).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("nothing listens at {address}");
}

fn under_load(address: SocketAddr, chaos: Vec<ChaosPlan>) -> Plan {
    let arrivals = Arrivals::Constant { rate_per_s: 50.0 };
    let load = Load::Open { arrivals, duration_ms: 4000, max_in_flight: 512 };
    let toml = format!(
        "name = \"chaos\"\n[target]\nurl = \"http://{address}/\"\n[[scenario]]\nname = \"x\"\nwork = {{ kind = \"http\" }}\nload = {{ kind = \"closed\", concurrency = 1, requests = 1 }}\n"
    );
    let mut plan = Plan::from_toml(&toml).unwrap();
    plan.scenarios = vec![scenario("load", Work::get("/"), load)];
    plan.chaos = chaos;
    plan
}

#[tokio::test]
async fn a_killed_server_costs_requests_until_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let _server = Supervised::start(dir.path(), address.port());
    answers(address).await;
    let fault = Fault::Kill { pid_file: dir.path().join("pid") };
    let report =
        run(under_load(address, vec![ChaosPlan { at_ms: 1000, every_ms: None, fault }])).await;
    let [killed] = &report.disturbances[..] else { panic!("{:?}", report.disturbances) };
    assert_eq!(killed.failed, None);
    assert!((killed.at_s - 1.0).abs() < 0.9, "{killed:?}");
    // It is away for 0.3 s at least, and 50 requests come per second.
    assert!(killed.lost >= 5, "{killed:?}");
    let recovery = killed.recovery_ms.expect("it came back");
    assert!(recovery >= killed.outage_ms && recovery >= 250.0, "{killed:?}");
    assert_eq!(killed.lost, report.parts[0].failed(), "nothing else failed");
}

#[tokio::test]
async fn a_slow_way_makes_answers_late_and_loses_none() {
    let peer = Peer::start().await;
    let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let fault = Fault::Slow {
        proxy: "way".to_owned(),
        delay_ms: 300,
        bytes_per_s: None,
        cut: false,
        for_ms: 1000,
    };
    let mut plan = under_load(listen, vec![ChaosPlan { at_ms: 1000, every_ms: None, fault }]);
    plan.slow_proxies = vec![SlowProxy { name: "way".to_owned(), listen, upstream: peer.clear() }];
    let report = run(plan).await;
    let part = &report.parts[0];
    assert_eq!((part.succeeded, part.failed()), (200, 0), "{:?}", part.samples);
    let latency = &part.timings["latency"];
    // A quarter of the requests fell into the slow second.
    assert!(latency.quantile_ms(0.95) >= 295.0, "{:?}", latency.summary());
    let [slow] = &report.disturbances[..] else { panic!("{:?}", report.disturbances) };
    assert_eq!((slow.lost, slow.failed.as_deref()), (0, None));
}
