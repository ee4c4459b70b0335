//! The steps of a life between create and kill, each timed, and what is checked of them.

use std::time::Duration;

use tokio::time::Instant;

use super::{Created, ExecEnd, Life, Sandboxes, content};
use crate::outcome::{Failure, Outcome, Timing};

/// The variable that a process in the sandbox remembers.
const VARIABLE: &str = "LOADTEST_WORD";

/// What has come of a life so far.
#[derive(Debug, Default)]
pub(super) struct Record {
    outcome: Outcome,
    step: &'static str,
    last: Duration,
}

impl Record {
    /// Does one step and notes how long it took, if it was done.
    pub(super) async fn step<T>(
        &mut self,
        name: &'static str,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.step = name;
        self.outcome.connections += 1;
        let began = Instant::now();
        let done = work.await?;
        self.last = began.elapsed();
        self.outcome.timings.push((Timing::Step(name), self.last));
        Ok(done)
    }

    /// Everything between create and kill.
    pub(super) async fn run(
        &mut self,
        api: &dyn Sandboxes,
        sandbox: &Created,
        life: &Life,
        nonce: &str,
    ) -> Result<(), Failure> {
        let created = self.last;
        let end = self.call("exec", api.exec(sandbox, &life.command, None)).await?;
        self.outcome.timings.push((Timing::Step("interactive"), created + self.last));
        self.received(end.stdout.len());
        self.check("command", wrong_end(&life.command, &end))?;
        let file =
            File { path: content::path(nonce), content: content::file(nonce, life.file_bytes) };
        if life.file_bytes > 0 {
            let content = file.content.clone();
            self.outcome.bytes_sent += bytes(content.len());
            self.call("write", api.write(sandbox, &file.path, content)).await?;
            self.read("read", api, sandbox, &file).await?;
        }
        if life.pause {
            self.pause(api, sandbox, nonce).await?;
            if life.file_bytes > 0 {
                self.read("read_after", api, sandbox, &file).await?;
            }
        }
        Ok(())
    }

    async fn read(
        &mut self,
        name: &'static str,
        api: &dyn Sandboxes,
        sandbox: &Created,
        file: &File,
    ) -> Result<(), Failure> {
        let came = self.call(name, api.read(sandbox, &file.path)).await?;
        self.received(came.len());
        let wrong = content::difference(&file.content, &came);
        self.check("file", wrong.map(|wrong| format!("{name} of {}: {wrong}", file.path)))
    }

    /// Pauses and resumes, and looks for a process that ran before.
    async fn pause(
        &mut self,
        api: &dyn Sandboxes,
        sandbox: &Created,
        nonce: &str,
    ) -> Result<(), Failure> {
        let word = content::word(nonce);
        // A process's environment is a part of its own memory, and the kernel lets us read it.
        // Nothing of it may hang on our pipes, or the command would not end.
        let remember =
            format!("{VARIABLE}={word} nohup sleep 3600 </dev/null >/dev/null 2>&1 & echo $!");
        let end = self.call("remember", api.exec(sandbox, &remember, None)).await?;
        let pid = process_id(&end)?;
        self.call("pause", api.pause(sandbox)).await?;
        self.call("resume", api.resume(sandbox)).await?;
        let look = format!("cat /proc/{pid}/environ");
        let end = self.call("exec_after", api.exec(sandbox, &look, None)).await?;
        self.received(end.stdout.len());
        let wanted = format!("{VARIABLE}={word}");
        let there = end.stdout.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes());
        let wrong = (!there).then(|| {
            let ExecEnd { code, stderr, .. } = &end;
            format!(
                "process {pid} does not hold the word that it was given before the pause \
                 (`{look}` ended with {code}: {stderr})"
            )
        });
        self.check("memory", wrong)
    }

    /// The same, and a failure names the step.
    pub(super) async fn call<T>(
        &mut self,
        name: &'static str,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let done = self.step(name, work).await;
        done.map_err(|failure| Failure::new(failure.kind, format!("{name}: {}", failure.message)))
    }

    fn check(&mut self, name: &'static str, wrong: Option<String>) -> Result<(), Failure> {
        self.outcome.checks.push((name, wrong.clone()));
        match wrong {
            None => Ok(()),
            Some(wrong) => Err(Failure::new(format!("check_{name}"), wrong)),
        }
    }

    fn received(&mut self, length: usize) {
        self.outcome.bytes_received += bytes(length);
    }

    /// The failure of a life whose time was up.
    pub(super) fn overdue(&self, timeout: Duration) -> Failure {
        let step = self.step;
        Failure::new("timeout", format!("{step}: the life took longer than {timeout:?}"))
    }

    /// The outcome of a life that had no sandbox to kill.
    pub(super) fn ended(mut self, done: Result<(), Failure>) -> Outcome {
        self.outcome.failure = done.err();
        self.outcome
    }

    /// The outcome of a life. What went wrong first is its failure; a failed kill shows anyway.
    pub(super) fn killed(
        mut self,
        done: Result<(), Failure>,
        killed: Result<(), Failure>,
    ) -> Outcome {
        let wrong = killed.as_ref().err().map(|failure| failure.message.clone());
        self.outcome.checks.push(("killed", wrong));
        self.ended(done.and(killed))
    }
}

struct File {
    path: String,
    content: bytes::Bytes,
}

fn bytes(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn wrong_end(command: &str, end: &ExecEnd) -> Option<String> {
    let ExecEnd { code, stderr, .. } = end;
    (*code != 0).then(|| format!("exec: `{command}` ended with {code} instead of 0: {stderr}"))
}

fn process_id(end: &ExecEnd) -> Result<u32, Failure> {
    let text = String::from_utf8_lossy(&end.stdout);
    text.trim().parse().map_err(|_| {
        let ExecEnd { code, stderr, .. } = end;
        let came = text.chars().take(100).collect::<String>();
        let text = format!(
            "remember: expected the id of a process, got `{came}` (ended with {code}: {stderr})"
        );
        Failure::new("exec_failed", text)
    })
}
