//! The developer stack's supervisor, with scripts in place of agent and edge.
//!
//! A server of the test's own plays the edge's part on the wire.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which want to fail loudly")]

mod support;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::json;
use support::{Fake, Ran, Seen, json as answer, wrenn};

/// Runs until SIGTERM; `reap` leaves a mark. Every step goes to `{root}/steps`.
const SERVICE: &str = r#"#!/bin/sh
name=$(basename "$0")
dir=
command=
while [ $# -gt 0 ]; do
    case "$1" in
        --wrenn-dir) dir=$2; shift ;;
        reap) command=reap ;;
    esac
    shift
done
if [ "$command" = reap ]; then echo "reap" >> "$dir/steps"; exit 0; fi
echo $$ > "$dir/run/$name.pid"
trap 'echo "stop $name" >> "$dir/steps"; exit 0' TERM
echo "start $name" >> "$dir/steps"
while :; do sleep 0.05; done
"#;

struct Stack {
    fake: Fake,
    bin: tempfile::TempDir,
}

impl Stack {
    async fn new() -> Self {
        let fake = Fake::start(|request: &Seen| match request.path.as_str() {
            "/healthz" => {
                answer(200, json!({ "status": "ok", "version": "0", "agent_reachable": true }))
            }
            _ => answer(200, json!({ "items": [] })),
        })
        .await;
        fs::remove_file(fake.dir.path().join("dev.json")).unwrap();
        let zeros = "0".repeat(25);
        let image = fake.dir.path().join("images/teams").join(&zeros).join(&zeros);
        fs::create_dir_all(&image).unwrap();
        fs::write(image.join("rootfs.ext4"), "").unwrap();
        let bin = tempfile::tempdir().unwrap();
        for name in ["agent", "edge"] {
            edge_testing::program(&bin.path().join(name), SERVICE);
        }
        fs::write(bin.path().join("pager"), "").unwrap();
        fs::write(bin.path().join("libqemu_uffd.so"), "").unwrap();
        Self { fake, bin }
    }

    fn root(&self) -> &Path {
        self.fake.dir.path()
    }

    async fn dev(&self, args: &[&str]) -> Ran {
        let (root, bin) = (self.root().to_str().unwrap(), self.bin.path().to_str().unwrap());
        let at = ["--json", "--wrenn-dir", root, "--bin-dir", bin];
        wrenn(&[&["dev"], args, &at[..]].concat()).await
    }

    async fn up(&self) -> Ran {
        let port = self.fake.port.to_string();
        self.dev(&["up", "--no-sample", "--https-port", &port, "--timeout-ms", "20000"]).await
    }

    fn dev_json(&self) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.root().join("dev.json")).unwrap()).unwrap()
    }

    fn pid(&self, name: &str) -> i32 {
        let pid = self.dev_json()["pids"][name].as_i64();
        pid.and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0)
    }

    fn steps(&self) -> Vec<String> {
        let text = fs::read_to_string(self.root().join("steps")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    async fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds(self) {
            assert!(Instant::now() < deadline, "never: {what}; steps {:?}", self.steps());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A test that fails halfway leaves nothing running either.
impl Drop for Stack {
    fn drop(&mut self) {
        for name in ["supervisor", "edge", "agent"] {
            let file = self.root().join("run").join(name).with_extension("pid");
            let pid = fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
            if let Some(pid) = pid.filter(|pid| alive(*pid)) {
                kill(pid);
            }
        }
    }
}

fn kill(pid: i32) {
    assert!(pid > 1, "no pid");
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

fn alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[tokio::test]
async fn up_is_idempotent_and_down_leaves_nothing_running() {
    let stack = Stack::new().await;
    let first = stack.up().await;
    assert_eq!(first.code, 0, "{first:?}");
    let port = stack.fake.port;
    let curl = first.json()["curl"][0].as_str().unwrap().to_owned();
    assert!(curl.starts_with("curl --cacert ") && curl.contains(&format!(":{port}/")), "{curl}");
    stack.until("services started", |stack| stack.steps().len() == 2).await;
    let (agent, supervisor) = (stack.pid("agent"), stack.pid("supervisor"));
    let second = stack.up().await;
    assert_eq!((second.code, stack.pid("agent")), (0, agent), "{second:?}");
    let other = stack.dev(&["up", "--no-sample", "--https-port", "9"]).await;
    assert_eq!(other.code, 64, "other ports are refused: {other:?}");
    let status = stack.dev(&["status"]).await;
    assert_eq!((status.code, &status.json()["healthy"]), (0, &json!(true)));

    let down = stack.dev(&["down"]).await;
    assert_eq!(down.code, 0, "{down:?}");
    assert!(!alive(agent) && !alive(supervisor));
    assert!(!stack.root().join("dev.json").exists());
    let steps = stack.steps();
    assert_eq!(steps[2..5], ["stop edge", "stop agent", "reap"], "{steps:?}");
    assert_eq!(stack.dev(&["status"]).await.code, 1);
    assert_eq!(stack.dev(&["down"]).await.code, 0, "a second time is fine");
}

#[tokio::test]
async fn killed_service_is_started_again_and_its_new_pid_published() {
    let stack = Stack::new().await;
    assert_eq!(stack.up().await.code, 0);
    stack.until("services started", |stack| stack.steps().len() == 2).await;
    for name in ["agent", "edge"] {
        let old = stack.pid(name);
        kill(old);
        stack.until("a new pid", |stack| ![0, old].contains(&stack.pid(name))).await;
        assert!(alive(stack.pid(name)));
    }
    assert_eq!(stack.dev(&["down"]).await.code, 0);
}

#[tokio::test]
async fn what_a_killed_supervisor_left_is_stopped_by_down_and_replaced_by_up() {
    let stack = Stack::new().await;
    assert_eq!(stack.up().await.code, 0);
    stack.until("services started", |stack| stack.steps().len() == 2).await;
    let (agent, edge) = (stack.pid("agent"), stack.pid("edge"));
    kill(stack.pid("supervisor"));
    assert_eq!(stack.up().await.code, 0);
    stack.until("replaced", |stack| ![0, agent].contains(&stack.pid("agent"))).await;
    assert!(!alive(agent) && !alive(edge), "two agents must never run at once");
    let (agent, edge) = (stack.pid("agent"), stack.pid("edge"));
    kill(stack.pid("supervisor"));
    let down = stack.dev(&["down"]).await;
    assert_eq!(down.code, 0, "{down:?}");
    assert!(!alive(agent) && !alive(edge));
}

#[tokio::test]
async fn up_says_what_is_missing() {
    let stack = Stack::new().await;
    fs::remove_file(stack.bin.path().join("pager")).unwrap();
    let up = stack.up().await;
    assert_eq!(up.code, 64);
    assert!(up.stderr.contains("pager is missing: run `make build`"), "{up:?}");
}
