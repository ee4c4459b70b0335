//! What do the benches of the agent share? An agent of their own on real machines, and a function to restore.
#![allow(dead_code, reason = "each bench uses its own part of it")]

pub(crate) mod figures;
pub(crate) mod hello;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use agent::{
    agent::Agent,
    journal::Purpose,
    lifecycle::{CreateSandbox, Source},
    sandbox::Sandbox,
    start,
};
use anyhow::{Context as _, bail};
use pool_config::{Inputs, Outcome};
use pool_model::{OnTimeout, Prefetch, TeamId};
use tokio::time::sleep;

/// Longest to wait for the host to come to a state that it should reach by itself.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// A sandbox's lifetime, milliseconds: longer than any bench.
const LIFETIME_MS: u64 = 3_600_000;
/// Pause between looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The command line: `--name value`, each at most once.
#[derive(Debug)]
pub(crate) struct Options {
    /// Where built images and kernels are.
    pub(crate) wrenn_dir: PathBuf,
    /// Where the page server and the library preloaded into QEMU are.
    pub(crate) bin_dir: PathBuf,
    given: BTreeMap<String, String>,
}

impl Options {
    /// Reads the command line.
    ///
    /// # Errors
    ///
    /// In words: what is missing.
    pub(crate) fn read() -> anyhow::Result<Self> {
        let mut given: BTreeMap<String, String> = BTreeMap::new();
        let mut args = std::env::args().skip(1);
        while let Some(flag) = args.next() {
            let value = args.next().with_context(|| format!("{flag} needs a value"))?;
            given.insert(flag, value);
        }
        let beside = std::env::current_exe()?.ancestors().nth(2).map(Path::to_path_buf);
        let bin_dir = given.remove("--bin-dir").map(PathBuf::from).or(beside);
        let bin_dir = bin_dir.context("--bin-dir is needed")?;
        let wrenn_dir = given.remove("--wrenn-dir").context("--wrenn-dir is needed")?;
        Ok(Self { wrenn_dir: std::fs::canonicalize(wrenn_dir)?, bin_dir, given })
    }

    /// A path of the command line, if it was given.
    pub(crate) fn path(&self, flag: &str) -> Option<PathBuf> {
        self.given.get(flag).map(PathBuf::from)
    }

    /// A number of the command line, or what it is by itself.
    ///
    /// # Errors
    ///
    /// It is no number.
    pub(crate) fn number(&self, flag: &str, default: usize) -> anyhow::Result<usize> {
        let parsed = self.given.get(flag).map_or(Ok(default), |text| text.parse());
        parsed.with_context(|| format!("{flag} is no number"))
    }
}

/// An agent on a directory of its own, which goes when this is stopped.
pub(crate) struct Stage {
    /// The agent.
    pub(crate) agent: Agent,
    dir: tempfile::TempDir,
}

impl Stage {
    /// Starts an agent with these settings, e.g. `("blank-vmms", "0")`.
    ///
    /// # Errors
    ///
    /// What is missing on this host.
    pub(crate) async fn start(
        options: &Options,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("bench-").tempdir_in(&options.wrenn_dir)?;
        for shared in ["kernels", "images"] {
            std::os::unix::fs::symlink(options.wrenn_dir.join(shared), dir.path().join(shared))?;
        }
        let bin = |name: &str| options.bin_dir.join(name).display().to_string();
        let own = [
            ("wrenn-dir", dir.path().display().to_string()),
            ("pager", bin("pager")),
            ("qemu-uffd", bin("libqemu_uffd.so")),
        ];
        let settings = settings.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let args = own.into_iter().chain(settings);
        let args = args.flat_map(|(name, value)| [format!("--{name}"), value]).collect();
        let inputs = Inputs { args, ..Inputs::default() };
        let loader = pool_config::Loader::new("bench", "measures the agent");
        match loader.load_from(&inputs)? {
            Outcome::Run(loaded) => {
                let agent = start::agent(loaded.layout, loaded.config).await?;
                Ok(Self { agent, dir })
            }
            Outcome::Print(text) => bail!("{text}"),
        }
    }

    /// Creates a sandbox; also says how long that took.
    ///
    /// # Errors
    ///
    /// Those of the agent.
    pub(crate) async fn create(
        &self,
        source: Source,
        memory_mib: u32,
        prefetch: Prefetch,
    ) -> anyhow::Result<(Arc<Sandbox>, Duration)> {
        let began = Instant::now();
        let create = CreateSandbox {
            sandbox: None,
            source,
            team: TeamId::PLATFORM,
            purpose: Purpose::Sandbox,
            timeout_ms: LIFETIME_MS,
            on_timeout: OnTimeout::Kill,
            memory_mib,
            vcpus: 0,
            env: BTreeMap::new(),
            internet: false,
            prefetch,
        };
        let sandbox = self.agent.create(create).await?;
        Ok((sandbox, began.elapsed()))
    }

    /// Destroys a sandbox.
    ///
    /// # Errors
    ///
    /// Those of the agent.
    pub(crate) async fn destroy(&self, sandbox: &Sandbox) -> anyhow::Result<()> {
        Ok(self.agent.destroy(sandbox.id).await?)
    }

    /// Waits until so many blanks are ready.
    ///
    /// # Errors
    ///
    /// They do not come.
    pub(crate) async fn blanks(&self, count: usize) -> anyhow::Result<()> {
        let until = Instant::now() + SETTLE_MAX;
        while self.agent.host.blanks.count() < count {
            anyhow::ensure!(Instant::now() < until, "{count} blanks do not become ready");
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Ends everything that runs, the page server last, and removes the directory.
    ///
    /// # Errors
    ///
    /// What would not end.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        let host = &self.agent.host;
        self.agent.pools.close().await;
        for sandbox in self.agent.sandboxes(None) {
            self.agent.destroy(sandbox.id).await?;
        }
        host.blanks.close(host).await;
        // A blank that was being made is discarded by whoever makes it, as soon as it is there.
        let until = Instant::now() + SETTLE_MAX;
        while std::fs::read_dir(host.layout.sandboxes_dir())?.next().is_some() {
            anyhow::ensure!(Instant::now() < until, "something of a sandbox is left");
            sleep(LOOK_EVERY).await;
        }
        host.cancel.cancel();
        host.tasks.close();
        host.pager.stop().await?;
        host.tasks.wait().await;
        self.agent.reap_all().await?;
        Ok(self.dir.close()?)
    }
}
