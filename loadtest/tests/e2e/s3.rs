//! An object store of one's own on loopback, which ends with us or before.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, ensure};
use loadtest::{Protocol, Request};

use crate::teststack::clone_dir;

/// The bucket that stacks share.
const BUCKET: &str = "wrenn-e2e";

/// A running object store with one bucket.
pub(crate) struct ObjectStore {
    process: Child,
    port: u16,
}

impl ObjectStore {
    /// Starts it; the first time on a machine its program is installed beside the build.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let starting = tokio::task::spawn_blocking(|| {
            let script = clone_dir().join("pool/remote/tests/s3-server.sh");
            let mut process = Command::new("bash")
                .arg(script)
                .arg("0")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .context("the object store did not start")?;
            let stdout = process.stdout.take().context("it has no output")?;
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line)?;
            let port = line.trim().parse().with_context(|| format!("its port is {line:?}"))?;
            anyhow::Ok(Self { process, port })
        });
        let store = starting.await??;
        store.make_bucket().await?;
        Ok(store)
    }

    async fn make_bucket(&self) -> anyhow::Result<()> {
        let origin = loadtest_wire::Origin::new(
            "localhost",
            self.port,
            None,
            loadtest_wire::Guard::new([], false),
        )
        .connect_to(([127, 0, 0, 1], self.port).into());
        let mut connection =
            loadtest_wire::Connection::open(&origin, Protocol::H1).await?.connection;
        let request = Request::new(http::Method::PUT, format!("/{BUCKET}"));
        let made = connection.call(&request).await?;
        ensure!(made.status == 200, "making the bucket was answered with {}", made.status);
        Ok(())
    }

    /// What an agent's `config.toml` says to use it.
    pub(crate) fn config(&self) -> String {
        let port = self.port;
        format!(
            "[agent]\nobject_store_url = \"s3://{BUCKET}/snapshots\"\n\
             object_store_endpoint = \"http://127.0.0.1:{port}\"\nobject_store_allow_http = true\n"
        )
    }

    /// The credentials that it takes: any.
    pub(crate) fn env() -> Vec<(&'static str, String)> {
        ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(|name| (name, "e2e".to_owned())).into()
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        let ended = self.process.kill().and_then(|()| self.process.wait());
        if let Err(error) = ended {
            eprintln!("the object store was not ended: {error}");
        }
    }
}
