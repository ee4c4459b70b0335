//! Sandboxes that are made for a test and removed after it.

use std::time::Duration;

use edge_api::{Client, CreateCapsule, ExecEvent, ExecRequest, SetTimeout};
use pool_model::SandboxId;
use rand::RngCore;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::request::Peer;
use crate::Stack;

/// What a sandbox serves.
const SERVER: &str = include_str!("guest_server.py");
/// Where.
const PORT: u16 = 8000;
/// A sandbox outlives its test by this at most, if the harness is killed.
const LIFE: Duration = Duration::from_secs(600);
/// How often that is put off while the harness lives.
const RENEW: Duration = Duration::from_secs(120);
/// Longest for a server to listen: guests may be interpreted on a busy host.
const LISTEN_MAX: Duration = Duration::from_secs(60);
/// Longest to put the server there.
const EXEC_MAX: Duration = Duration::from_secs(120);

/// Sandboxes under load.
#[derive(Debug)]
pub(crate) struct Guests {
    api: Client,
    ids: Vec<SandboxId>,
    /// Puts off their end; it ends with this.
    renewals: JoinSet<()>,
}

impl Guests {
    /// Makes some, each with a server that says who it is.
    ///
    /// # Errors
    ///
    /// In full, after removing those that had been made.
    pub(crate) async fn create(stack: &Stack, count: u32) -> Result<(Self, Vec<Peer>), String> {
        let mut guests =
            Self { api: stack.api().clone(), ids: Vec::new(), renewals: JoinSet::new() };
        let mut peers = Vec::new();
        for _ in 0..count {
            match guests.add(stack).await {
                Ok(peer) => peers.push(peer),
                Err(error) => {
                    let cleared = guests.clear().await.err();
                    return Err(match cleared {
                        Some(left) => format!("{error}; {left}"),
                        None => error,
                    });
                }
            }
        }
        Ok((guests, peers))
    }

    /// Removes them.
    ///
    /// # Errors
    ///
    /// In full: which is left and why.
    pub(crate) async fn clear(&self) -> Result<(), String> {
        let mut left = Vec::new();
        for id in &self.ids {
            if let Err(error) = self.api.delete_capsule(*id).await {
                left.push(format!("{id} is left: {}", crate::chain(&error)));
            }
        }
        if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
    }

    async fn add(&mut self, stack: &Stack) -> Result<Peer, String> {
        let asked = CreateCapsule { timeout_s: Some(LIFE.as_secs()), ..CreateCapsule::default() };
        let created = self.api.create_capsule(&asked).await;
        let id = created.map_err(|error| format!("no sandbox: {}", crate::chain(&error)))?.id;
        self.ids.push(id);
        self.renewals.spawn(renew(self.api.clone(), id));
        let token = format!("{:016x}", rand::rng().next_u64());
        let failed = |what: &str, error: String| format!("{id}: {what}: {error}");
        let write = ExecRequest {
            cmd: Some("cat > guest_server.py".to_owned()),
            stdin: Some(SERVER.to_owned()),
            ..ExecRequest::default()
        };
        self.exec(id, &write).await.map_err(|error| failed("put the server there", error))?;
        let serve = ExecRequest {
            args: Some(
                ["python3", "guest_server.py", &PORT.to_string(), &token].map(str::to_owned).into(),
            ),
            background: true,
            ..ExecRequest::default()
        };
        self.exec(id, &serve).await.map_err(|error| failed("start the server", error))?;
        let origin = stack.origin(&stack.port_host(id, PORT));
        listening(&origin).await.map_err(|error| failed("wait for the server", error))?;
        Ok(Peer { origin, token: Some(token) })
    }

    async fn exec(&self, id: SandboxId, request: &ExecRequest) -> Result<(), String> {
        let follow = async {
            let mut events = self.api.exec(id, request).await?;
            let mut last = None;
            while let Some(event) = events.next().await? {
                last = Some(event);
            }
            Ok::<_, edge_api::ClientError>(last)
        };
        match timeout(EXEC_MAX, follow).await {
            Err(_) => Err(format!("took over {EXEC_MAX:?}")),
            Ok(Err(error)) => Err(crate::chain(&error)),
            Ok(Ok(Some(ExecEvent::Exit { code: 0, .. } | ExecEvent::Start { .. }))) => Ok(()),
            Ok(Ok(end)) => Err(format!("ended with {end:?}")),
        }
    }
}

/// Puts off a sandbox's end again and again.
async fn renew(api: Client, id: SandboxId) {
    let life = SetTimeout { timeout_s: LIFE.as_secs() };
    loop {
        sleep(RENEW).await;
        // A target that is being killed does not answer; there are several tries in a life.
        let _ = api.set_timeout(id, &life).await;
    }
}

async fn listening(origin: &loadtest_wire::Origin) -> Result<(), String> {
    let deadline = Instant::now() + LISTEN_MAX;
    loop {
        let asked = async {
            let opened =
                loadtest_wire::Connection::open(origin, loadtest_model::Protocol::H1).await;
            let mut connection = opened.map_err(|error| error.in_full())?.connection;
            let request = loadtest_wire::Request::get("/?n=1");
            let answer = connection.call(&request).await.map_err(|error| error.in_full())?;
            if answer.status == 200 {
                return Ok(());
            }
            Err(format!("it answers {}: {}", answer.status, String::from_utf8_lossy(&answer.body)))
        };
        match asked.await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}
