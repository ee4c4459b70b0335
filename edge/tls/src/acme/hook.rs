//! How is the operator's program run that sets DNS records?

use std::{env, process::Stdio};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Command,
    time::timeout,
};

use super::DnsHook;
use crate::error::TlsError;

/// How much of what the program says on stderr is kept, in bytes.
const STDERR_MAX_BYTES: u64 = 2048;

impl DnsHook {
    /// Runs `<program> <action> <name> <value>`. Dropping it kills the program and its children.
    pub(crate) async fn run(&self, action: &str, name: &str, value: &str) -> Result<(), TlsError> {
        let failed = |detail: String| TlsError::Hook { program: self.program.clone(), detail };
        let mut child = Command::new(&self.program)
            .args([action, name, value])
            .env_clear()
            .envs(env::var_os("PATH").map(|path| ("PATH", path)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let _group = child.id().and_then(|id| i32::try_from(id).ok()).map(Group);
        let stderr = child.stderr.take();
        let whole = async {
            let (status, said) = tokio::join!(child.wait(), tail(stderr));
            (status, said)
        };
        match timeout(self.time_limit, whole).await {
            Err(_) => {
                Err(failed(format!("{action} {name} took longer than {:?}", self.time_limit)))
            }
            Ok((Err(error), _)) => Err(failed(error.to_string())),
            Ok((Ok(status), _)) if status.success() => Ok(()),
            Ok((Ok(status), said)) => {
                Err(failed(format!("{action} {name}: {status}: {}", said.trim())))
            }
        }
    }
}

/// Ends whatever the program has left running.
struct Group(i32);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.0), Signal::SIGKILL); // mostly it is gone already
    }
}

/// Reads to the end, so that the program never blocks, but keeps only the beginning.
async fn tail(stderr: Option<impl AsyncRead + Unpin>) -> String {
    let Some(stderr) = stderr else { return String::new() };
    let mut kept = Vec::new();
    let mut stderr = stderr.take(STDERR_MAX_BYTES);
    let _ = stderr.read_to_end(&mut kept).await; // what was read until then is kept
    let _ = tokio::io::copy(&mut stderr.into_inner(), &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

    use std::{
        fs,
        path::Path,
        time::{Duration, Instant},
    };

    use super::*;

    fn hook(dir: &Path, script: &str) -> DnsHook {
        let path = dir.join("hook");
        edge_testing::program(&path, &format!("#!/bin/sh\n{script}\n"));
        DnsHook::new(path)
    }

    #[tokio::test]
    async fn arguments_arrive_as_they_are_and_the_environment_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let script = r#"printf '%s|' "$@" > "$(dirname "$0")/args"; env > "$(dirname "$0")/env""#;
        hook(dir.path(), script).run("present", "_acme-challenge.x", "a $(b) 'c'").await.unwrap();
        let args = fs::read_to_string(dir.path().join("args")).unwrap();
        assert_eq!(args, "present|_acme-challenge.x|a $(b) 'c'|");
        let env = fs::read_to_string(dir.path().join("env")).unwrap();
        let is_known = |line: &str| {
            ["PATH=", "PWD=", "_=", "SHLVL=", "OLDPWD="].iter().any(|k| line.starts_with(k))
        };
        assert!(env.contains("PATH=") && env.lines().all(is_known), "{env}");
    }

    #[tokio::test]
    async fn failure_tells_the_status_and_what_was_said() {
        let dir = tempfile::tempdir().unwrap();
        let noisy = "echo no such zone >&2; head -c 1000000 /dev/zero >&2; exit 3";
        let error = hook(dir.path(), noisy).run("present", "n", "v").await.unwrap_err().chain();
        assert!(error.contains("no such zone") && error.contains('3'), "{error}");
        assert!(error.len() < 4096, "only the beginning is kept");
        let missing = DnsHook::new(dir.path().join("absent")).run("present", "n", "v").await;
        assert!(missing.unwrap_err().chain().contains("absent"));
    }

    #[tokio::test]
    async fn program_that_hangs_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let mut hook = hook(dir.path(), r#"sleep 600 & echo $! > "$(dirname "$0")/pid"; wait"#);
        hook.time_limit = Duration::from_secs(3);
        let start = Instant::now();
        let error = hook.run("present", "n", "v").await.unwrap_err();
        assert!(error.to_string().contains("took longer"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(60));
        let pid = fs::read_to_string(dir.path().join("pid")).unwrap();
        let stat = format!("/proc/{}/stat", pid.trim());
        let is_running = || fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z"));
        for _ in 0..100 {
            if !is_running() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the hook's child still runs");
    }
}
