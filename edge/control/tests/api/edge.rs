//! An edge on a real socket and a real database, on a runtime of its own so that it can be killed.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use edge_api::{Client, DeployConfig, Endpoint, ErrorBody};
use edge_control::{Agent, AgentAddress, Control, Outside, Public, Resolver};
use edge_store::{ApiKey, Store};
use flate2::{Compression, write::GzEncoder};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use pool_model::TeamId;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};

use crate::{agent::FakeAgent, dns::FakeDns};

/// An edge, its agent, and a key of each of two teams.
pub(crate) struct TestEdge {
    pub(crate) agent: FakeAgent,
    pub(crate) control: Arc<Control>,
    pub(crate) dns: FakeDns,
    pub(crate) key: ApiKey,
    pub(crate) other_key: ApiKey,
    pub(crate) address: SocketAddr,
    dir: tempfile::TempDir,
    runtime: Option<Runtime>,
}

impl TestEdge {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("wrenn.db")).await.unwrap();
        let keys = [ApiKey::generate(), ApiKey::generate()];
        for (n, key) in (1..).zip(&keys) {
            let id = TeamId::from_u128(n);
            store.create_team(id, "test", key, Timestamp::UNIX_EPOCH).await.unwrap();
        }
        store.close().await;
        let agent = FakeAgent::start().await;
        let dns = FakeDns::start().await;
        let (runtime, control, address) = launch(dir.path(), agent.rpc, &dns);
        let [key, other_key] = keys;
        Self { agent, control, dns, key, other_key, address, dir, runtime: Some(runtime) }
    }

    /// As by `kill -9`: every task of the edge ends where it is.
    pub(crate) async fn kill(&mut self) {
        let runtime = self.runtime.take().unwrap();
        let ended = move || runtime.shutdown_timeout(Duration::from_secs(5));
        tokio::task::spawn_blocking(ended).await.unwrap();
    }

    /// A new edge on the same database.
    pub(crate) fn restart(&mut self) {
        let (runtime, control, address) = launch(self.dir.path(), self.agent.rpc, &self.dns);
        self.runtime = Some(runtime);
        self.control = control;
        self.address = address;
    }

    pub(crate) fn client(&self) -> Client {
        client(self.address, &self.key)
    }

    pub(crate) fn other_client(&self) -> Client {
        client(self.address, &self.other_key)
    }

    /// A call with whatever is wrong about it.
    pub(crate) async fn call(&self, method: Method, path: &str, body: &str) -> (StatusCode, Bytes) {
        let key = self.key.expose();
        let request = Request::builder().method(method).uri(path).header("x-api-key", key);
        let request = request.header("content-type", "application/json");
        send(self.address, request.body(Full::from(body.to_owned())).unwrap()).await
    }

    /// A call that is refused: its code.
    pub(crate) async fn refusal(&self, method: Method, path: &str, body: &str) -> ErrorBody {
        let (status, body) = self.call(method, path, body).await;
        let error: ErrorBody = serde_json::from_slice(&body).unwrap();
        let code: pool_model::ErrorCode = error.code.parse().unwrap();
        assert_eq!(status, code.http_status(), "{error:?}");
        assert!(error.request_id.starts_with("req_"), "{error:?}");
        error
    }
}

impl Drop for TestEdge {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn launch(dir: &Path, rpc: SocketAddr, dns: &FakeDns) -> (Runtime, Arc<Control>, SocketAddr) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (answer, answered) = std::sync::mpsc::channel();
    let database = dir.join("wrenn.db");
    let txt = Arc::new(Resolver::new(vec![dns.address]));
    let outside = Outside { txt, schedules: Some(five_fields), records: None };
    runtime.spawn(async move {
        let store = Store::open(&database).await.unwrap();
        let rpc = format!("http://{rpc}").parse().unwrap();
        let address = AgentAddress { rpc, proxy: "127.0.0.1:1".parse().unwrap() };
        let agent = Agent::new(address, &agent_api::Token::new("test"));
        let public = Public {
            scheme: "https".to_owned(),
            domain: "wrenn.localhost".to_owned(),
            port: Some(8443),
        };
        let control = Control::new(store, agent, public, outside);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        answer.send((Arc::clone(&control), address)).unwrap();
        axum::serve(listener, edge_control::router(control)).await.unwrap();
    });
    let (control, address) = answered.recv_timeout(Duration::from_secs(20)).unwrap();
    (runtime, control, address)
}

fn five_fields(schedule: &str, _: Option<&str>) -> Result<(), String> {
    match schedule.split(' ').count() {
        5 => Ok(()),
        fields => Err(format!("{fields} fields are not 5")),
    }
}

pub(crate) fn client(address: SocketAddr, key: &ApiKey) -> Client {
    let url = format!("http://{address}").parse().unwrap();
    Client::new(Endpoint { url, connect: None, tls: None }, key.expose())
}

pub(crate) async fn send(
    address: SocketAddr,
    mut request: Request<Full<Bytes>>,
) -> (StatusCode, Bytes) {
    let host = address.to_string().parse().unwrap();
    request.headers_mut().insert("host", host);
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let response = sender.send_request(request).await.unwrap();
    assert!(response.headers().contains_key("x-request-id"));
    let status = response.status();
    (status, response.into_body().collect().await.unwrap().to_bytes())
}

pub(crate) fn hello() -> DeployConfig {
    let mut config = DeployConfig::new("hello".parse().unwrap(), "python3 main.py");
    config.env.insert("COLOUR".to_owned(), "blue".to_owned());
    config.min_warm = Some(2);
    config
}

/// A tar.gz with one file.
pub(crate) fn code() -> Vec<u8> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o644);
    archive.append_data(&mut header, "main.py", &b"pass\n"[..]).unwrap();
    archive.into_inner().unwrap().finish().unwrap()
}
