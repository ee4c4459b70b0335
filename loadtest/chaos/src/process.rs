//! Finds the process that a file names, and signals it and no other.
//!
//! # Invariants
//!
//! - A process is held by a pidfd, opened between two looks at its start time: from then on its id
//!   may be given to another, its handle can't.
//! - Nobody's but the target's processes: not ours, not our ancestors', not the first.

use std::{
    fs,
    io::{self, Read as _},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, PidfdFlags, Signal};

/// Most bytes of a file that names a process.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a process can't be disturbed.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The file can't be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no JSON.
    #[error("{} is not JSON, as `#/...` after its name says", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where it isn't.
        source: serde_json::Error,
    },
    /// There is something else in it, or nothing.
    #[error("{file} holds {found}; expected the id of a process")]
    NotAPid {
        /// The file, and where in it.
        file: String,
        /// What is there instead.
        found: String,
    },
    /// It has ended.
    #[error("process {pid}, which {file} names, is not alive")]
    Dead {
        /// Its id.
        pid: i32,
        /// The file, and where in it.
        file: String,
    },
    /// It runs another program than when the run was prepared: the id was given to another.
    #[error("process {pid} is {found}; expected {expected}, as before")]
    Another {
        /// Its id.
        pid: i32,
        /// Its program.
        found: String,
        /// The program it had.
        expected: String,
    },
    /// It is one of those that the harness itself needs.
    #[error("process {pid} is {whom}; expected one of the target")]
    Ours {
        /// Its id.
        pid: i32,
        /// Who it is.
        whom: &'static str,
    },
    /// The system doesn't let us.
    #[error("cannot signal process {pid}")]
    Signal {
        /// Its id.
        pid: i32,
        /// What it said.
        source: io::Error,
    },
    /// The helper that wakes a stopped process if we can't didn't start.
    #[error("cannot start the guard of process {pid}")]
    Guard {
        /// The id of whom it was to guard.
        pid: i32,
        /// What the system said.
        source: io::Error,
    },
}

impl ProcessError {
    /// Whether waiting may help: a supervisor restarts what was killed.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Read { .. }
            | Self::Json { .. }
            | Self::NotAPid { .. }
            | Self::Dead { .. }
            | Self::Another { .. } => true,
            Self::Ours { .. } | Self::Signal { .. } | Self::Guard { .. } => false,
        }
    }
}

/// A file that names a process: `path`, or `path#/json/pointer`.
#[derive(Debug, Clone)]
pub(crate) struct PidFile {
    path: PathBuf,
    pointer: Option<String>,
}

/// A living process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// When it started, in the kernel's ticks: with its id, it names it for ever.
    pub(crate) start: u64,
    pub(crate) program: String,
    handle: OwnedFd,
}

impl PidFile {
    pub(crate) fn new(name: &Path) -> Self {
        let plain = Self { path: name.to_owned(), pointer: None };
        let Some((path, pointer)) = name.to_str().and_then(|text| text.split_once("#/")) else {
            return plain;
        };
        if name.exists() {
            return plain;
        }
        Self { path: path.into(), pointer: Some(format!("/{pointer}")) }
    }

    /// Finds the process that it names at this moment.
    pub(crate) fn find(&self) -> Result<Process, ProcessError> {
        let pid = self.pid()?;
        refuse_ours(pid)?;
        let dead = || ProcessError::Dead { pid, file: self.to_string() };
        let raw = Pid::from_raw(pid).ok_or_else(dead)?;
        let before = Stat::of(pid).filter(Stat::is_alive).ok_or_else(dead)?;
        let handle = rustix::process::pidfd_open(raw, PidfdFlags::empty()).map_err(|_| dead())?;
        // The same as before it was opened: then it is that one's handle.
        Stat::of(pid).filter(|now| now.start == before.start && now.is_alive()).ok_or_else(dead)?;
        match rustix::process::test_kill_process(raw) {
            Ok(()) => {}
            Err(rustix::io::Errno::SRCH) => return Err(dead()),
            Err(errno) => return Err(ProcessError::Signal { pid, source: errno.into() }),
        }
        Ok(Process { pid, start: before.start, program: program(pid, before.name), handle })
    }

    fn pid(&self) -> Result<i32, ProcessError> {
        let path = &self.path;
        let failed = |source| ProcessError::Read { path: path.clone(), source };
        let mut text = String::new();
        fs::File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
            .map_err(failed)?;
        let found = match &self.pointer {
            // The first line: some write more after it.
            None => text.lines().next().unwrap_or_default().trim().to_owned(),
            Some(pointer) => {
                let json: serde_json::Value = serde_json::from_str(&text)
                    .map_err(|source| ProcessError::Json { path: path.clone(), source })?;
                json.pointer(pointer).map_or_else(|| "nothing".to_owned(), ToString::to_string)
            }
        };
        // Negative ids are groups, 0 is ours.
        let pid = found.trim_matches('"').parse().ok().filter(|pid| *pid > 0);
        pid.ok_or_else(|| ProcessError::NotAPid { file: self.to_string(), found: shown(&found) })
    }
}

impl std::fmt::Display for PidFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.display())?;
        self.pointer.as_ref().map_or(Ok(()), |pointer| write!(f, "#{pointer}"))
    }
}

impl Process {
    /// Refuses it if it runs something else than `expected`.
    pub(crate) fn same_program(self, expected: &str) -> Result<Self, ProcessError> {
        if self.program == expected {
            return Ok(self);
        }
        let expected = expected.to_owned();
        Err(ProcessError::Another { pid: self.pid, found: self.program, expected })
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        rustix::process::pidfd_send_signal(&self.handle, signal)
            .map_err(|errno| ProcessError::Signal { pid: self.pid, source: errno.into() })
    }

    /// As a report names it: the program's own name and the id.
    pub(crate) fn title(&self) -> String {
        let name = self.program.rsplit('/').next().unwrap_or_default();
        format!("{name} (process {})", self.pid)
    }
}

/// What `/proc/<pid>/stat` says.
struct Stat {
    name: String,
    state: char,
    parent: i32,
    start: u64,
}

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name may hold anything, parentheses and spaces too; nothing after it does.
    fn parse(text: &str) -> Option<Self> {
        let (head, tail) = text.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = tail.split_whitespace().collect();
        Some(Self {
            name,
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            // The 22nd of all; the first here is the 3rd.
            start: fields.get(19)?.parse().ok()?,
        })
    }

    fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// The program's path, or the process's name where we may not see that.
fn program(pid: i32, name: String) -> String {
    let Ok(exe) = fs::read_link(format!("/proc/{pid}/exe")) else { return name };
    let exe = exe.to_string_lossy();
    // So it says after a new version was put in its place.
    exe.strip_suffix(" (deleted)").unwrap_or(&exe).to_owned()
}

fn refuse_ours(pid: i32) -> Result<(), ProcessError> {
    let ours = |whom| Err(ProcessError::Ours { pid, whom });
    if pid == 1 {
        return ours("the first of the system");
    }
    let own = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
    if pid == own {
        return ours("the harness itself");
    }
    let mut at = own;
    while let Some(stat) = Stat::of(at).filter(|stat| stat.parent > 1) {
        at = stat.parent;
        if at == pid {
            return ours("an ancestor of the harness");
        }
    }
    Ok(())
}

/// So much of it as an error may show.
fn shown(text: &str) -> String {
    let start: String = text.chars().take(40).collect();
    if text.is_empty() { "nothing".to_owned() } else { format!("`{}`", start.escape_debug()) }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::unix::process::parent_id};

    use super::*;
    use crate::stop::tests::Sleeper;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn found(text: &str) -> Result<Process, ProcessError> {
        PidFile::new(file(text).path()).find()
    }

    #[test]
    fn process_is_found_by_line_and_by_pointer() {
        let sleeper = Sleeper::start();
        let plain = found(&format!("{}\nmore\n", sleeper.pid())).unwrap();
        assert_eq!((plain.pid, plain.title().contains("sleep")), (sleeper.pid(), true));
        let json = file(&format!(r#"{{"pids":{{"agent":{},"edge":null}}}}"#, sleeper.pid()));
        let pointed = |pointer: &str| {
            let name = format!("{}#/{pointer}", json.path().display());
            PidFile::new(Path::new(&name)).find()
        };
        assert_eq!(pointed("pids/agent").unwrap().pid, sleeper.pid());
        for (pointer, says) in [("pids/edge", "`null`"), ("pids/pool", "`nothing`")] {
            let error = pointed(pointer).unwrap_err();
            assert!(error.to_string().contains(says) && error.may_pass(), "{error}");
        }
    }

    #[test]
    fn nobody_of_ours_is_found() {
        let own = std::process::id();
        for (pid, says) in [(1, "first"), (own, "harness itself"), (parent_id(), "ancestor")] {
            let error = found(&pid.to_string()).unwrap_err();
            assert!(error.to_string().contains(says) && !error.may_pass(), "{error}");
        }
    }

    #[test]
    fn files_without_a_process_are_told_by_what_they_hold() {
        let dead = Sleeper::start().end();
        let dead = dead.to_string();
        for (text, says) in
            [("", "nothing"), ("-5", "`-5`"), ("0", "`0`"), ("x\0y", "`x\\0y`"), (&dead, "alive")]
        {
            let error = found(text).unwrap_err();
            assert!(error.to_string().contains(says) && error.may_pass(), "{text:?}: {error}");
        }
        let missing = PidFile::new(Path::new("/nonexistent/pid")).find().unwrap_err();
        assert!(missing.to_string().contains("/nonexistent/pid"), "{missing}");
    }

    #[test]
    fn another_program_is_not_the_one_expected() {
        let sleeper = Sleeper::start();
        let process = found(&sleeper.pid().to_string()).unwrap();
        let program = process.program.clone();
        let process = process.same_program(&program).unwrap();
        let error = process.same_program("/bin/agent").unwrap_err();
        assert!(error.to_string().contains("expected /bin/agent"), "{error}");
    }

    #[test]
    fn names_may_look_like_fields() {
        let tail = (4..=22).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        let stat = Stat::parse(&format!("7 (a) S 1 (b) Z {tail}")).unwrap();
        assert_eq!((stat.name.as_str(), stat.state), ("a) S 1 (b", 'Z'));
        assert_eq!((stat.parent, stat.start, stat.is_alive()), (4, 22, false));
        assert!(Stat::parse("7 (a) S 1").is_none());
    }
}
