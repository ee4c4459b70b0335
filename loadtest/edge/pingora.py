"""Can Pingora be had? A proxy of its library, built in a project of its own outside of this workspace."""

import os
import subprocess

BUILD_S = 480

MANIFEST = """
[package]
name = "pingora-bench"
version = "0.0.0"
edition = "2021"
[workspace]
[dependencies]
async-trait = "0.1"
pingora-core = { version = "0.9", features = ["rustls"] }
pingora-http = "0.9"
pingora-proxy = { version = "0.9", features = ["rustls"] }
[profile.release]
debug = false
"""

PROGRAM = """
use async_trait::async_trait;
use pingora_core::{
    listeners::tls::TlsSettings,
    prelude::HttpPeer,
    server::{configuration::ServerConf, Server},
    Result,
};
use pingora_http::RequestHeader;
use pingora_proxy::{http_proxy_service, ProxyHttp, Session};

struct Bench(String);

#[async_trait]
impl ProxyHttp for Bench {
    type CTX = ();
    fn new_ctx(&self) {}
    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(&self.0, false, String::new())))
    }
    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        _: &mut (),
    ) -> Result<()> {
        if let Some(client) = session.client_addr().and_then(|client| client.as_inet()) {
            request.insert_header("x-forwarded-for", client.ip().to_string())?;
        }
        Ok(())
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let conf = ServerConf { threads: 1, upstream_keepalive_pool_size: 512, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Bench(args[3].clone()));
    let mut tls = TlsSettings::intermediate(&args[0], &args[1]).unwrap();
    tls.enable_h2();
    service.add_tls_with_settings(&args[2], None, tls);
    server.add_service(service);
    server.run_forever();
}
"""


def built(directory):
    """Where the binary is, once it is."""
    return directory / "pingora/target/release/pingora-bench"


def build(directory, venv):
    """The binary, or `None` and why. One of its parts is built by cmake, which the venv has."""
    project, binary = directory / "pingora", built(directory)
    if binary.exists():
        return binary, ""
    (project / "src").mkdir(parents=True, exist_ok=True)
    (project / "Cargo.toml").write_text(MANIFEST)
    (project / "src/main.rs").write_text(PROGRAM)
    path = f"{venv / 'bin'}:{os.environ['PATH']}"
    env = {**os.environ, "CARGO_TARGET_DIR": str(project / "target"), "PATH": path}
    try:
        done = subprocess.run(
            ["cargo", "build", "--release"], cwd=project, env=env, timeout=BUILD_S,
            capture_output=True, text=True,
        )
    except subprocess.TimeoutExpired:
        return None, f"not built within {BUILD_S} s"
    return (binary, "") if done.returncode == 0 else (None, done.stderr)
