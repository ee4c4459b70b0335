//! How an end is told, in the words of Go's `os.ProcessState`, which E2B's clients know.

use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus};

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    /// Exit code; -1 when a signal ended it.
    pub(crate) exit_code: i32,
    /// Whether it ended by itself.
    pub(crate) exited: bool,
    /// `exit status 0`, `signal: killed`, ...
    pub(crate) status: String,
}

impl End {
    /// Reads what wait(2) said.
    pub(crate) fn of(status: ExitStatus) -> Self {
        if let Some(code) = status.code() {
            return Self { exit_code: code, exited: true, status: format!("exit status {code}") };
        }
        let signal = status.signal().unwrap_or_default();
        let core = if status.core_dumped() { " (core dumped)" } else { "" };
        let status = format!("signal: {}{core}", signal_name(signal));
        Self { exit_code: -1, exited: false, status }
    }

    /// The same text, when it didn't end well.
    pub(crate) fn error(&self) -> Option<String> {
        (self.exit_code != 0).then(|| self.status.clone())
    }
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGHUP => "hangup",
        libc::SIGINT => "interrupt",
        libc::SIGQUIT => "quit",
        libc::SIGILL => "illegal instruction",
        libc::SIGTRAP => "trace/breakpoint trap",
        libc::SIGABRT => "aborted",
        libc::SIGBUS => "bus error",
        libc::SIGFPE => "floating point exception",
        libc::SIGKILL => "killed",
        libc::SIGUSR1 => "user defined signal 1",
        libc::SIGSEGV => "segmentation fault",
        libc::SIGUSR2 => "user defined signal 2",
        libc::SIGPIPE => "broken pipe",
        libc::SIGALRM => "alarm clock",
        libc::SIGTERM => "terminated",
        libc::SIGXCPU => "CPU time limit exceeded",
        libc::SIGXFSZ => "file size limit exceeded",
        libc::SIGSYS => "bad system call",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_in_the_words_that_clients_know() {
        let of = |raw| End::of(ExitStatus::from_raw(raw));
        assert_eq!(of(0).status, "exit status 0");
        assert_eq!(of(0).error(), None);
        let failed = End { exit_code: 3, exited: true, status: "exit status 3".to_owned() };
        assert_eq!(of(3 << 8), failed);
        assert_eq!(of(3 << 8).error().as_deref(), Some("exit status 3"));
        let killed = End { exit_code: -1, exited: false, status: "signal: killed".to_owned() };
        assert_eq!(of(libc::SIGKILL), killed);
        assert_eq!(of(libc::SIGABRT | 0x80).status, "signal: aborted (core dumped)");
        assert_eq!(of(34).status, "signal: signal 34");
    }
}
