//! Processes that this one may not be the parent of: found by pid file, stopped by signal.

use std::{fs, path::Path, time::Duration};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pool_config::Layout;
use tokio::time::{Instant, sleep};

/// How often a process is looked at while its end is waited for.
const POLL: Duration = Duration::from_millis(20);

/// How long the kernel may take to end a killed process.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

/// What a process of a stack is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Supervisor,
    Agent,
    Edge,
    Pager,
}

impl Role {
    /// The name of its pid file and of its log.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Supervisor => "supervisor",
            Self::Agent => "agent",
            Self::Edge => "edge",
            Self::Pager => "pager",
        }
    }

    const fn binary(self) -> &'static str {
        match self {
            Self::Supervisor => "wrenn",
            other => other.name(),
        }
    }
}

/// The process that `run/{role}.pid` names, if it lives and is what the file says.
///
/// A number alone proves nothing after a reboot or a crash: the program's name and the
/// installation must match too.
pub(super) fn recorded(layout: &Layout, role: Role) -> Option<i32> {
    let text = fs::read_to_string(layout.pid_file(role.name())).ok()?;
    let pid = text.split_whitespace().next()?.parse().ok()?;
    is_role(pid, role, layout.root()).then_some(pid)
}

fn is_role(pid: i32, role: Role, root: &Path) -> bool {
    if pid <= 1 || !is_alive(pid) {
        return false;
    }
    let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let arguments = read("cmdline");
    // A script's own path comes after its interpreter's.
    let named = arguments.split(|byte| *byte == 0).take(2).any(|text| {
        let path = String::from_utf8_lossy(text).into_owned();
        Path::new(&path).file_name().is_some_and(|name| name == role.binary())
    });
    let root = root.as_os_str().as_encoded_bytes();
    let mentions = |bytes: &[u8]| bytes.split(|byte| *byte == 0).any(|text| text.ends_with(root));
    named && (mentions(&arguments) || mentions(&read("environ")))
}

/// Whether the process exists and has not ended. A zombie has ended: it holds nothing any more.
pub(super) fn is_alive(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The state follows the name, which is in parentheses and may hold anything.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// Asks the process to stop, and kills it if it has not within `grace`.
pub(super) async fn stop(pid: i32, grace: Duration) -> Result<(), String> {
    for (signal, wait) in [(Signal::SIGTERM, grace), (Signal::SIGKILL, KILL_DEADLINE)] {
        match kill(Pid::from_raw(pid), signal) {
            Ok(()) => {}
            Err(Errno::ESRCH) => return Ok(()),
            Err(e) => return Err(format!("could not send {signal} to process {pid}: {e}")),
        }
        let deadline = Instant::now() + wait;
        while Instant::now() < deadline {
            if !is_alive(pid) {
                return Ok(());
            }
            sleep(POLL).await;
        }
    }
    Err(format!("process {pid} does not end"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stubborn_process_is_killed_after_its_grace() {
        let script = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
        let mut child = tokio::process::Command::new("sh")
            .args(["-c", script])
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        let stdout = child.stdout.as_mut().unwrap();
        tokio::io::AsyncReadExt::read_exact(stdout, &mut ready).await.unwrap();
        let pid = i32::try_from(child.id().unwrap()).unwrap();
        stop(pid, Duration::from_millis(200)).await.unwrap();
        assert!(!is_alive(pid));
        assert_eq!(child.wait().await.unwrap().code(), None);
    }

    #[test]
    fn pid_file_of_another_program_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        fs::create_dir_all(layout.run_dir()).unwrap();
        let own = std::process::id();
        fs::write(layout.pid_file("agent"), format!("{own}\n")).unwrap();
        assert_eq!(recorded(&layout, Role::Agent), None);
        fs::write(layout.pid_file("edge"), "nonsense").unwrap();
        assert_eq!(recorded(&layout, Role::Edge), None);
        assert_eq!(recorded(&layout, Role::Pager), None);
    }
}
