//! What the host says about an installation, whatever its API says.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use pool_model::{SandboxId, SandboxState};
use serde_json::Value;

use crate::{fixture::eventually, teststack::TestStack};

/// Where network namespaces have their names.
const NETNS_DIR: &str = "/run/netns";
/// Where control groups may be mounted.
const CGROUP_DIRS: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids"];

/// Most blanks that an agent keeps when it is not told otherwise.
const BLANKS_MAX: usize = 2;

/// A virtual machine's process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Vmm {
    /// The label of its sandbox, as the journal says.
    pub(crate) label: String,
    pub(crate) pid: i32,
    /// It waits for a snapshot and is nobody's yet.
    pub(crate) blank: bool,
    /// The function whose pool it is in.
    pub(crate) function: Option<String>,
    /// What it was started for: a blank keeps its own label for life, whoever claims it.
    name: String,
    /// The number of its slot.
    slot: String,
}

/// The machines of an installation: QEMU processes in one of its control groups. One that the
/// journal does not name has the label that it was started with.
pub(crate) fn vmms(stack: &TestStack) -> BTreeSet<Vmm> {
    let group = format!("/wrenn-{}/", stack.tag());
    let owners = journal(stack);
    let vmm = |pid: i32| {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let slot = groups.lines().find_map(|line| line.split_once(&group))?.1.to_owned();
        let arguments = arguments(pid);
        let name = arguments.iter().position(|text| text == "-name")? + 1;
        let name = arguments.get(name)?.strip_prefix("wrenn-")?.to_owned();
        let unknown = || (name.clone(), Value::Null);
        let (label, purpose) = owners.get(&pid).cloned().unwrap_or_else(unknown);
        let function = purpose["warm"].as_str().map(str::to_owned);
        Some(Vmm { label, pid, blank: purpose == "blank", function, name, slot })
    };
    pids().into_iter().filter_map(vmm).collect()
}

/// Whose each process is by the journal: its directory's name, and what for.
fn journal(stack: &TestStack) -> BTreeMap<i32, (String, Value)> {
    let dir = stack.layout().sandboxes_dir();
    let mut owners = BTreeMap::new();
    for label in names(&dir) {
        let bytes = fs::read(dir.join(&label).join("sandbox.json")).unwrap_or_default();
        let Ok(record) = serde_json::from_slice::<Value>(&bytes) else { continue };
        let Some(pid) = record["machine"]["pid"].as_i64().and_then(|pid| pid.try_into().ok())
        else {
            continue;
        };
        let purpose = record["purpose"].clone();
        // While it is being claimed two records name it, and the claimer's is the later one.
        if purpose != "blank" || !owners.contains_key(&pid) {
            owners.insert(pid, (label, purpose));
        }
    }
    owners
}

/// The machines that wait for a snapshot.
pub(crate) fn blanks(stack: &TestStack) -> Vec<Vmm> {
    vmms(stack).into_iter().filter(|vmm| vmm.blank).collect()
}

/// The machine of one sandbox.
pub(crate) fn vmm_of(stack: &TestStack, sandbox: SandboxId) -> anyhow::Result<Vmm> {
    let found = vmms(stack).into_iter().find(|vmm| vmm.label == sandbox.label());
    found.with_context(|| format!("{sandbox} has no VMM"))
}

/// The layers of all memory that is kept on the host.
pub(crate) fn layers(stack: &TestStack) -> BTreeSet<String> {
    let names = names(&stack.layout().layers_dir());
    names.iter().filter_map(|name| Some(name.strip_suffix(".blocks")?.to_owned())).collect()
}

/// Whether a process exists and has not ended.
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// A file that exists only in memory: device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MemoryFile(u64, u64);

/// The memory files that a process holds open.
pub(crate) fn memory_of(pid: i32) -> BTreeSet<MemoryFile> {
    let dir = PathBuf::from(format!("/proc/{pid}/fd"));
    let file = |name: &String| {
        let path = dir.join(name);
        let target = fs::read_link(&path).ok()?;
        target.to_str()?.starts_with("/memfd:").then_some(())?;
        let meta = fs::metadata(&path).ok()?;
        Some(MemoryFile(meta.dev(), meta.ino()))
    };
    names(&dir).iter().filter_map(file).collect()
}

/// A process that holds a memory file open. With the last one its pages are free.
pub(crate) fn holder_of(memory: MemoryFile) -> Option<i32> {
    pids().into_iter().find(|pid| memory_of(*pid).contains(&memory))
}

/// What is left of a sandbox that had this machine: processes, files, sockets, mounts.
pub(crate) fn traces_of(stack: &TestStack, vmm: &Vmm) -> Vec<String> {
    let mut traces = Vec::new();
    let its = |text: &str| text.contains(&vmm.label) || text.contains(&vmm.name);
    for pid in pids() {
        if arguments(pid).iter().any(|text| its(text)) {
            traces.push(format!("process {pid}"));
        }
    }
    for table in ["/proc/self/mountinfo", "/proc/net/unix"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        traces.extend(text.lines().filter(|line| its(line)).map(str::to_owned));
    }
    find(stack.layout().root(), &its, &mut traces);
    traces
}

/// What is left of the slot that a machine was in.
pub(crate) fn traces_of_slot(stack: &TestStack, vmm: &Vmm) -> Vec<String> {
    let name = format!("w{}-{}", stack.tag(), vmm.slot);
    let mut paths = vec![Path::new(NETNS_DIR).join(&name), Path::new("/sys/class/net").join(&name)];
    let group = format!("wrenn-{}/{}", stack.tag(), vmm.slot);
    paths.extend(CGROUP_DIRS.map(|dir| Path::new(dir).join(&group)));
    let mut traces: Vec<_> =
        paths.iter().filter(|path| path.exists()).map(|path| path.display().to_string()).collect();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let ends = |line: &&str| line.split(' ').any(|word| word.ends_with(&format!("/{name}")));
    traces.extend(mounts.lines().filter(ends).map(str::to_owned));
    traces
}

/// What is left on the host of a whole installation that was stopped.
pub(crate) fn traces_of_all(stack: &TestStack) -> Vec<String> {
    let (tag, root) = (stack.tag(), stack.layout().root().display().to_string());
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let mut traces = Vec::new();
    for pid in pids().into_iter().filter(|pid| *pid != own) {
        let arguments = arguments(pid);
        // The guard waits to do what the test has just done.
        let guard = arguments.iter().any(|text| text == "guard");
        if !guard && is_alive(pid) && arguments.iter().any(|text| text.contains(&root)) {
            traces.push(format!("process {pid}: {}", arguments.join(" ")));
        }
    }
    traces.extend(vmms(stack).iter().map(|vmm| format!("{vmm:?}")));
    for dir in [NETNS_DIR, "/sys/class/net"] {
        traces
            .extend(names(Path::new(dir)).into_iter().filter(|n| n.starts_with(&slot_prefix(tag))));
    }
    let groups = CGROUP_DIRS.map(|dir| Path::new(dir).join(format!("wrenn-{tag}")));
    traces.extend(groups.iter().filter(|dir| dir.exists()).map(|dir| dir.display().to_string()));
    let tables = Command::new("nft").args(["list", "tables"]).output();
    let tables = tables.map(|output| output.stdout).unwrap_or_default();
    let tables = String::from_utf8_lossy(&tables).into_owned();
    traces.extend(tables.lines().filter(|l| l.ends_with(&format!("_{tag}"))).map(str::to_owned));
    for table in ["/proc/self/mountinfo", "/proc/net/unix"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        let ours = |line: &&str| line.contains(&root) || line.contains(&slot_prefix(tag));
        traces.extend(text.lines().filter(ours).map(str::to_owned));
    }
    traces
}

/// Waits until machines and directories are those that the API knows of and the pools count, and
/// nothing half-made is left. With `slots`, network slots too: a free one is kept for seconds.
pub(crate) async fn no_orphans(
    stack: &TestStack,
    slots: bool,
    limit: Duration,
) -> anyhow::Result<()> {
    eventually("no orphans", limit, || async { compare(stack, slots).await }).await
}

async fn compare(stack: &TestStack, slots: bool) -> anyhow::Result<()> {
    let warm = warm_and_quiet(stack).await?;
    let capsules = stack.api().capsules().await?;
    let running = capsules.iter().filter(|capsule| capsule.state == SandboxState::Running).count();
    let machines = vmms(stack);
    let labels: BTreeSet<_> = machines.iter().map(|vmm| vmm.label.clone()).collect();
    ensure!(labels.len() == machines.len(), "two machines of one sandbox: {machines:?}");
    let blank = machines.iter().filter(|vmm| vmm.blank).count();
    let used = machines.len() - blank;
    ensure!(blank <= BLANKS_MAX, "{blank} machines wait for a snapshot: {machines:?}");
    ensure!(
        used == running + warm as usize,
        "{used} machines, but {running} sandboxes run and {warm} are warm: {machines:?}"
    );
    for capsule in &capsules {
        let (label, state) = (capsule.id.label(), capsule.state);
        let runs = state == SandboxState::Running;
        ensure!(labels.contains(&label) == runs, "{label} is {state}; machines: {labels:?}");
    }
    let dirs = names(&stack.layout().sandboxes_dir());
    let known: BTreeSet<_> = capsules.iter().map(|capsule| capsule.id.label()).collect();
    let known: BTreeSet<_> = known.union(&labels).cloned().collect();
    ensure!(dirs == known, "directories {dirs:?}, sandboxes {known:?}");
    let mut drafts = Vec::new();
    let is_draft = |name: &str| name.starts_with(".tmp-");
    find(&stack.layout().snapshots_dir(), &is_draft, &mut drafts);
    find(&stack.layout().sandboxes_dir(), &is_draft, &mut drafts);
    ensure!(drafts.is_empty(), "drafts are left: {drafts:?}");
    if slots {
        let prefix = slot_prefix(stack.tag());
        let used: BTreeSet<_> =
            machines.iter().map(|vmm| format!("{prefix}{}", vmm.slot)).collect();
        for dir in [NETNS_DIR, "/sys/class/net"] {
            let there: BTreeSet<_> =
                names(Path::new(dir)).into_iter().filter(|n| n.starts_with(&prefix)).collect();
            ensure!(there == used, "{dir} has {there:?}, machines are in {used:?}");
        }
        let used: BTreeSet<_> = machines.iter().map(|vmm| vmm.slot.clone()).collect();
        for dir in CGROUP_DIRS.map(|dir| Path::new(dir).join(format!("wrenn-{}", stack.tag()))) {
            let there: BTreeSet<_> =
                names(&dir).into_iter().filter(|n| n.parse::<u16>().is_ok()).collect();
            ensure!(there.is_empty() || there == used, "{} has {there:?}", dir.display());
        }
    }
    Ok(())
}

/// How many sandboxes are warm, if all pools have what they aim for and nothing goes on in them.
async fn warm_and_quiet(stack: &TestStack) -> anyhow::Result<u32> {
    let mut warm = 0;
    for pool in stack.api().pools().await? {
        let stats =
            pool.stats.with_context(|| format!("no numbers of {}'s pool", pool.function))?;
        let busy = stats.restoring + stats.leased + stats.reaping;
        ensure!(busy == 0 && stats.warm >= pool.policy.min_warm, "{}: {stats:?}", pool.function);
        warm += stats.warm;
    }
    Ok(warm)
}

fn slot_prefix(tag: &str) -> String {
    format!("w{tag}-")
}

/// Names in a directory; none if it isn't there.
pub(crate) fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn find(dir: &Path, wanted: &dyn Fn(&str) -> bool, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path: PathBuf = entry.path();
        if wanted(&entry.file_name().to_string_lossy()) {
            found.push(path.display().to_string());
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find(&path, wanted, found);
        }
    }
}

fn pids() -> Vec<i32> {
    names(Path::new("/proc")).iter().filter_map(|name| name.parse().ok()).collect()
}

fn arguments(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}
