//! A stopped process, and its certain awakening.
//!
//! ```text
//! this process --pipe--> guard (sh): at the pipe's end, SIGCONT, if it still is that process
//! ```
//!
//! The guard is in a process group of its own: whether we end well, panic, are interrupted or
//! killed, the pipe ends and the process goes on.

use std::{
    io,
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
};

use rustix::process::Signal;

use crate::process::{Process, ProcessError};

/// `$1` the process's id, `$2` its start time: field 22 of its stat, the 20th after its name.
const GUARD: &str = r#"
trap '' HUP INT QUIT TERM
read -r _
pid="$1" start="$2"
stat=$(cat "/proc/$pid/stat") || exit 0
set -f
set -- ${stat##*\)}
[ "${20}" = "$start" ] && kill -CONT "$pid"
"#;

/// A guard that is watching, before there is anything to guard.
#[derive(Debug)]
pub(crate) struct Guarded {
    process: Process,
    guard: Child,
}

/// A process that we stopped. Dropped, it goes on.
#[derive(Debug)]
pub(crate) struct Stopped(Option<Guarded>);

impl Guarded {
    /// Starts the guard of a process.
    pub(crate) fn new(process: Process) -> Result<Self, ProcessError> {
        let guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .args([process.pid.to_string(), process.start.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Not interrupted with us.
            .process_group(0)
            .spawn()
            .map_err(|source| ProcessError::Guard { pid: process.pid, source })?;
        Ok(Self { process, guard })
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// Stops the process.
    pub(crate) fn stop(mut self) -> Result<Stopped, ProcessError> {
        match self.guard.try_wait() {
            Ok(None) => {}
            ended => {
                let source = ended.map(|_| io::Error::other("it has ended")).unwrap_or_else(|e| e);
                return Err(ProcessError::Guard { pid: self.process.pid, source });
            }
        }
        self.process.signal(Signal::STOP)?;
        Ok(Stopped(Some(self)))
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Nothing is left to guard. It ends at once, so the wait is short.
        let _ = self.guard.kill();
        let _ = self.guard.wait();
    }
}

impl Stopped {
    /// Lets it go on. That it has ended meanwhile is fine.
    pub(crate) fn wake(mut self) -> Result<(), ProcessError> {
        self.0.take().map_or(Ok(()), |guarded| wake(&guarded))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if let Some(guarded) = self.0.take() {
            let _ = wake(&guarded);
        }
    }
}

fn wake(guarded: &Guarded) -> Result<(), ProcessError> {
    match guarded.process.signal(Signal::CONT) {
        Err(ProcessError::Signal { source, .. })
            if source.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) =>
        {
            Ok(())
        }
        sent => sent,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{fs, io::Write as _, thread, time::Duration};

    use super::*;
    use crate::process::PidFile;

    /// A process of its own, which ends with this.
    pub(crate) struct Sleeper(Child);

    impl Sleeper {
        pub(crate) fn start() -> Self {
            Self(Command::new("sleep").arg("600").spawn().unwrap())
        }

        pub(crate) fn pid(&self) -> i32 {
            self.0.id().try_into().unwrap()
        }

        /// Its state, as `/proc` names it.
        pub(crate) fn state(&self) -> char {
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
            stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
        }

        pub(crate) fn reaches(&self, state: char) -> bool {
            (0..3000).any(|_| {
                thread::sleep(Duration::from_millis(10));
                self.state() == state
            })
        }

        pub(crate) fn end(mut self) -> i32 {
            let _ = self.0.kill();
            self.0.wait().unwrap();
            self.pid()
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn guarded(sleeper: &Sleeper) -> Guarded {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "{}", sleeper.pid()).unwrap();
        Guarded::new(PidFile::new(file.path()).find().unwrap()).unwrap()
    }

    #[test]
    fn stopped_process_goes_on_when_woken_and_when_dropped() {
        let sleeper = Sleeper::start();
        let stopped = guarded(&sleeper).stop().unwrap();
        assert!(sleeper.reaches('T'));
        stopped.wake().unwrap();
        assert!(sleeper.reaches('S'));
        let stopped = guarded(&sleeper).stop().unwrap();
        assert!(sleeper.reaches('T'));
        drop(stopped);
        assert!(sleeper.reaches('S'));
    }

    #[test]
    fn guard_wakes_it_when_the_pipe_ends() {
        let sleeper = Sleeper::start();
        let mut guarded = guarded(&sleeper);
        guarded.process.signal(Signal::STOP).unwrap();
        assert!(sleeper.reaches('T'));
        drop(guarded.guard.stdin.take());
        assert!(sleeper.reaches('S'));
    }

    #[test]
    fn guard_leaves_another_process_alone() {
        let sleeper = Sleeper::start();
        let guarded = guarded(&sleeper);
        guarded.process.signal(Signal::STOP).unwrap();
        assert!(sleeper.reaches('T'));
        let status = Command::new("sh")
            .args(["-c", GUARD, "guard", &sleeper.pid().to_string()])
            .arg((guarded.process.start + 1).to_string())
            .stdin(Stdio::null())
            .status()
            .unwrap();
        assert_eq!((status.code(), sleeper.state()), (Some(1), 'T'));
    }

    #[test]
    fn process_that_ended_meanwhile_needs_no_waking() {
        let sleeper = Sleeper::start();
        let stopped = guarded(&sleeper).stop().unwrap();
        sleeper.end();
        stopped.wake().unwrap();
    }

    #[test]
    fn without_a_guard_nothing_is_stopped() {
        let sleeper = Sleeper::start();
        let mut guarded = guarded(&sleeper);
        guarded.guard.kill().unwrap();
        guarded.guard.wait().unwrap();
        assert!(guarded.stop().unwrap_err().to_string().contains("guard"));
        assert_ne!(sleeper.state(), 'T');
    }
}
