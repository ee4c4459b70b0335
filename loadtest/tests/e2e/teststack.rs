//! A stack in a directory of its own, and its certain end.
//!
//! ```text
//! this process --pipe--> guard (sh): at the pipe's end, `wrenn dev down`, then the directory goes
//! ```
//!
//! The guard is not our child's child: whether we end well, panic, are interrupted or killed, the
//! pipe ends and the stack is taken down.

use std::{
    fs,
    io::Read as _,
    net::{TcpListener, UdpSocket},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use edge_api::Client;
use loadtest::{DevFile, Stack};
use pool_config::Layout;
use rand::Rng as _;
use tokio::time::timeout;

/// Longest for a CLI call that boots or writes out a machine.
const COMMAND_MAX: Duration = Duration::from_secs(120);
/// Most bytes of each log that are shown after a failure.
const LOG_TAIL_BYTES: usize = 6000;

/// `$1` wrenn, `$2` the directory, `$3` not empty: leave the directory for a person to look at.
const GUARD: &str = r#"
cat > /dev/null
"$1" dev down --wrenn-dir "$2" > "$2.down.log" 2>&1 || { cat "$2.down.log" >&2; exit 1; }
rm -f "$2.down.log"
[ -z "$3" ] || exit 0
if mountpoint -q "$2"; then umount "$2" || umount --lazy "$2"; fi
rm -rf "$2"
"#;

/// How a stack is to be made.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// Deploy `hello`.
    pub(crate) sample: bool,
    /// Put the whole directory on a disk of this size.
    pub(crate) tmpfs_mib: Option<u32>,
    /// Its `config.toml`.
    pub(crate) config: String,
    /// Environment of its processes, beside ours.
    pub(crate) env: Vec<(&'static str, String)>,
    /// The directory of a stack whose edge's records it begins with: functions, keys, snapshots.
    pub(crate) records_of: Option<PathBuf>,
}

/// A running stack.
pub(crate) struct TestStack {
    tag: String,
    cli: Cli,
    up: Vec<String>,
    stack: Stack,
    guard: Option<Child>,
}

/// `wrenn`, for one directory.
#[derive(Debug, Clone)]
struct Cli {
    bin_dir: PathBuf,
    layout: Layout,
    env: Vec<(&'static str, String)>,
}

impl TestStack {
    /// Starts one; answers when it serves.
    pub(crate) async fn start(options: &Options) -> anyhow::Result<Self> {
        let bin_dir = bin_dir()?;
        let root = make_root(options)?;
        let layout = Layout::new(&root);
        let guard = guard(&bin_dir, layout.root())?;
        let up = up_arguments(options)?;
        let cli = Cli { bin_dir, layout, env: options.env.clone() };
        let begun = Begun { cli, up, guard: Some(guard) };
        begun.up().await
    }

    /// Where its files are.
    pub(crate) fn layout(&self) -> &Layout {
        &self.cli.layout
    }

    /// The installation's tag, which all names of the host carry that belong to it.
    pub(crate) fn tag(&self) -> &str {
        &self.tag
    }

    /// How to reach it. Ports and keys don't change while it runs.
    pub(crate) fn stack(&self) -> &Stack {
        &self.stack
    }

    /// Calls its API.
    pub(crate) fn api(&self) -> &Client {
        self.stack.api()
    }

    /// What `dev.json` says now.
    pub(crate) fn dev(&self) -> anyhow::Result<DevFile> {
        Ok(DevFile::read(&self.layout().dev_file())?)
    }

    /// Runs `wrenn dev up` as at the start.
    pub(crate) async fn up(&self) -> anyhow::Result<serde_json::Value> {
        let arguments = self.up.iter().map(String::as_str);
        self.wrenn(["dev", "up"].into_iter().chain(arguments)).await
    }

    /// Runs `wrenn dev down`.
    pub(crate) async fn down(&self) -> anyhow::Result<()> {
        self.wrenn(["dev", "down"]).await.map(drop)
    }

    /// Runs `wrenn --json ...` and gives the last line of what it prints.
    pub(crate) async fn wrenn<'a>(
        &self,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> anyhow::Result<serde_json::Value> {
        self.cli.run(arguments).await
    }

    /// Prints the ends of its logs.
    pub(crate) fn show_logs(&self) {
        show_logs(self.layout());
    }
}

impl Drop for TestStack {
    fn drop(&mut self) {
        end(&mut self.guard);
    }
}

/// A stack that has a guard and does not serve yet.
struct Begun {
    cli: Cli,
    up: Vec<String>,
    guard: Option<Child>,
}

impl Begun {
    async fn up(mut self) -> anyhow::Result<TestStack> {
        let arguments = ["dev", "up"].into_iter().chain(self.up.iter().map(String::as_str));
        if let Err(error) = self.cli.run(arguments).await {
            show_logs(&self.cli.layout);
            return Err(error);
        }
        let stack = Stack::open(&self.cli.layout.dev_file())?;
        let (up, guard) = (std::mem::take(&mut self.up), self.guard.take());
        let cli = self.cli.clone();
        Ok(TestStack { tag: cli.layout.instance_tag(), cli, up, stack, guard })
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        end(&mut self.guard);
    }
}

/// Lets the guard do its work and waits for it: `wrenn dev down` is bounded.
fn end(guard: &mut Option<Child>) {
    let Some(mut guard) = guard.take() else { return };
    drop(guard.stdin.take());
    match guard.wait() {
        Ok(status) if status.success() => {}
        Ok(status) => eprintln!("the stack was not taken down: {status}"),
        Err(error) => eprintln!("the stack's guard was lost: {error}"),
    }
}

fn guard(bin_dir: &Path, root: &Path) -> anyhow::Result<Child> {
    let keep = std::env::var_os("WRENN_KEEP").unwrap_or_default();
    Command::new("sh")
        .args(["-c", GUARD, "guard"])
        .args([bin_dir.join("wrenn").as_os_str(), root.as_os_str(), &keep])
        .stdin(Stdio::piped())
        // Not interrupted with us.
        .process_group(0)
        .spawn()
        .context("cannot start the guard")
}

impl Cli {
    async fn run<'a>(
        &self,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> anyhow::Result<serde_json::Value> {
        let arguments: Vec<&str> = arguments.into_iter().collect();
        let shown = arguments.join(" ");
        let mut command = tokio::process::Command::new(self.bin_dir.join("wrenn"));
        command
            .arg("--json")
            .args(&arguments)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .env("WRENN_DIR", self.layout.root())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        for name in ["WRENN_API_URL", "WRENN_API_KEY", "WRENN_API_KEY_FILE", "WRENN_CA_FILE"] {
            command.env_remove(name);
        }
        let output = timeout(COMMAND_MAX, command.output())
            .await
            .with_context(|| format!("`wrenn {shown}` took over {COMMAND_MAX:?}"))?
            .with_context(|| format!("`wrenn {shown}` did not start"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`wrenn {shown}` ended with {}: {said}", output.status);
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.trim_end().rsplit('\n').next().unwrap_or_default();
        if line.is_empty() {
            return Ok(serde_json::Value::Null);
        }
        serde_json::from_str(line).with_context(|| format!("`wrenn {shown}` printed {line:?}"))
    }
}

/// The directory with the programs: beside our own, one up from `deps/`.
fn bin_dir() -> anyhow::Result<PathBuf> {
    let dir = match std::env::var_os("WRENN_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => {
            let own = std::env::current_exe()?;
            own.ancestors().nth(2).context("this program has no place")?.to_owned()
        }
    };
    for name in ["agent", "edge", "pager", "wrenn", "libqemu_uffd.so"] {
        ensure!(dir.join(name).exists(), "{} is missing in {}", name, dir.display());
    }
    Ok(dir)
}

/// A fresh directory with links to the built kernel and image.
fn make_root(options: &Options) -> anyhow::Result<PathBuf> {
    let built = match std::env::var_os("WRENN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => clone_dir().join(".wrenn"),
    };
    let built = built.canonicalize().with_context(|| format!("no {}", built.display()))?;
    let root = tempfile::Builder::new().prefix("wrenn-e2e-").tempdir()?.keep();
    if let Some(mib) = options.tmpfs_mib {
        mount_tmpfs(&root, mib)?;
    }
    // VMMs are users of their own and must get through.
    fs::set_permissions(&root, fs::Permissions::from_mode(0o711))?;
    for name in ["kernels", "images"] {
        let target = built.join(name);
        ensure!(target.is_dir(), "{} is missing: run `make images`", target.display());
        std::os::unix::fs::symlink(target, root.join(name))?;
    }
    let layout = Layout::new(&root);
    fs::write(layout.config_file(), &options.config)?;
    if let Some(other) = &options.records_of {
        copy_records(&Layout::new(other), &layout)?;
    }
    Ok(root)
}

/// Copies an edge's database as it is now, and the API key that it knows.
fn copy_records(from: &Layout, to: &Layout) -> anyhow::Result<()> {
    const COPY: &str = "import sqlite3, sys; \
        sqlite3.connect(sys.argv[1]).backup(sqlite3.connect(sys.argv[2]))";
    let mut command = Command::new("python3");
    command.args(["-c", COPY]).args([from.database_file(), to.database_file()]);
    let output = command.output().context("python3 did not start")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the records were not copied: {said}");
    fs::create_dir(to.secrets_dir())?;
    fs::set_permissions(to.secrets_dir(), fs::Permissions::from_mode(0o700))?;
    fs::copy(from.api_key_file(), to.api_key_file()).context("copy the API key")?;
    Ok(())
}

fn mount_tmpfs(at: &Path, mib: u32) -> anyhow::Result<()> {
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(at);
    let output = command.output().context("mount did not start")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "mount failed: {said}");
    Ok(())
}

/// The clone we were built in.
pub(crate) fn clone_dir() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

fn up_arguments(options: &Options) -> anyhow::Result<Vec<String>> {
    let mut arguments = Vec::new();
    for flag in ["--http-port", "--https-port", "--admin-port", "--rpc-port", "--proxy-port"] {
        let port = loop {
            let port = free_port()?.to_string();
            if !arguments.contains(&port) {
                break port;
            }
        };
        arguments.extend([flag.to_owned(), port]);
    }
    if options.sample {
        let sample = clone_dir().join("images/functions/hello");
        arguments.extend(["--sample".to_owned(), sample.display().to_string()]);
    } else {
        arguments.push("--no-sample".to_owned());
    }
    Ok(arguments)
}

/// A port that is free by TCP and UDP, and below those that connections take their own from: the
/// services are killed in these tests and must find their ports free again.
fn free_port() -> anyhow::Result<u16> {
    for _ in 0..100 {
        let port = rand::rng().random_range(15_000..30_000);
        let free = TcpListener::bind(("127.0.0.1", port)).is_ok()
            && UdpSocket::bind(("127.0.0.1", port)).is_ok();
        if free {
            return Ok(port);
        }
    }
    bail!("no free port")
}

fn show_logs(layout: &Layout) {
    for name in ["supervisor", "edge", "agent"] {
        let mut bytes = Vec::new();
        let path = layout.log_dir().join(format!("{name}.log"));
        if fs::File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)).is_ok() {
            let tail = &bytes[bytes.len().saturating_sub(LOG_TAIL_BYTES)..];
            eprintln!("--- {name}.log\n{}", String::from_utf8_lossy(tail));
        }
    }
}
