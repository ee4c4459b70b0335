//! The calls into the kernel that no safe wrapper offers.
//!
//! The crate's only unsafe code: two ioctls of the random generator, pidfds, the hook that runs
//! between fork and exec, and an allocator that leaves no secret in freed memory.
#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    ffi::{CStr, CString},
    fs::File,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::Command,
};

use nix::{
    errno::Errno,
    unistd::{self, Gid, Uid},
};

/// `RNDADDENTROPY`: `_IOW('R', 0x03, int[2])`, from the kernel's `random.h`.
const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;

/// `RNDRESEEDCRNG`: `_IO('R', 0x07)`, from the kernel's `random.h`.
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;

/// Most bytes that one call mixes in; the API refuses more.
const ENTROPY_MAX: usize = 4096;

/// The kernel's `struct rand_pool_info` with room for the most bytes.
#[repr(C)]
struct RandPoolInfo {
    entropy_count: libc::c_int,
    buf_size: libc::c_int,
    buf: [u8; ENTROPY_MAX],
}

const _: () = assert!(size_of::<RandPoolInfo>() == 8 + ENTROPY_MAX, "must match the kernel's");

/// Mixes bytes into the kernel's pool and credits all their bits; at most 4096 bytes.
pub(crate) fn add_entropy(random: &File, bytes: &[u8]) -> io::Result<()> {
    let count = |n: usize| libc::c_int::try_from(n).map_err(|_| io::ErrorKind::InvalidInput);
    if bytes.len() > ENTROPY_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut info = Box::new(RandPoolInfo {
        entropy_count: count(bytes.len() * 8)?,
        buf_size: count(bytes.len())?,
        buf: [0; ENTROPY_MAX],
    });
    info.buf[..bytes.len()].copy_from_slice(bytes);
    // SAFETY: `info` is live, not shared, and laid out as the kernel's struct (asserted above); the
    // kernel reads `buf_size` bytes of `buf`, which is at least as long. `random` is an open file.
    let rc = unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY, &raw const *info) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes the kernel's generator start over from its pool.
pub(crate) fn reseed(random: &File) -> io::Result<()> {
    // SAFETY: the request takes no argument and touches no memory of ours; `random` is open.
    let rc = unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Opens a handle on a process that was not reaped yet, immune to the reuse of its id.
pub(crate) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0) };
    let fd = i32::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal through a handle; `ESRCH` when the process has ended.
pub(crate) fn pidfd_signal(pidfd: &OwnedFd, signal: libc::c_int) -> io::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: `pidfd` is open; a null info is allowed and means what kill(2) would send.
    let rc =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets this process's scheduling priority.
pub(crate) fn set_nice(nice: libc::c_int) -> io::Result<()> {
    // SAFETY: the call takes three integers and touches no memory of ours.
    let rc = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Who a child becomes between fork and exec.
#[derive(Debug)]
pub(crate) struct ChildSetup {
    /// `cgroup.procs` of the group it joins, open for writing.
    pub(crate) cgroup_procs: Option<OwnedFd>,
    /// User id.
    pub(crate) uid: u32,
    /// Group id.
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
    /// Working directory, entered as the user.
    pub(crate) cwd: CString,
}

/// The step at which a child failed before exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum ChildStep {
    /// `execve` itself.
    Exec = 0,
    /// Getting a session of its own.
    Session = 1,
    /// Joining the cgroup.
    Cgroup = 2,
    /// Setting the badness for the out-of-memory killer.
    OutOfMemoryScore = 3,
    /// Becoming the user.
    Identity = 4,
    /// Entering the working directory.
    Directory = 5,
}

/// Bits that an errno takes in a child's report; the kernel's largest is 4095.
const ERRNO_BITS: u32 = 12;

impl ChildStep {
    /// Takes a child's report apart: where it failed, and the true error.
    pub(crate) fn decode(error: &io::Error) -> (Self, io::Error) {
        let code = error.raw_os_error().unwrap_or(0);
        let step = match code >> ERRNO_BITS {
            1 => Self::Session,
            2 => Self::Cgroup,
            3 => Self::OutOfMemoryScore,
            4 => Self::Identity,
            5 => Self::Directory,
            _ => Self::Exec,
        };
        (step, io::Error::from_raw_os_error(code & ((1 << ERRNO_BITS) - 1)))
    }

    fn report(self, errno: Errno) -> io::Error {
        io::Error::from_raw_os_error((self as i32) << ERRNO_BITS | errno as i32)
    }
}

/// Makes `command` apply `setup` in the child, right before exec.
pub(crate) fn set_up_child(command: &mut Command, setup: ChildSetup) {
    let groups: Vec<Gid> = setup.groups.iter().copied().map(Gid::from_raw).collect();
    let hook = move || become_user(&setup, &groups);
    // SAFETY: the hook runs in a forked child of a process that may have threads, so it makes
    // async-signal-safe system calls only: it allocates nothing, takes no lock, and its captures
    // were built before the fork. An error carries a number, which allocates nothing either.
    unsafe { command.pre_exec(hook) };
}

/// Runs in the child: every line is one system call.
fn become_user(setup: &ChildSetup, groups: &[Gid]) -> io::Result<()> {
    let at = |step: ChildStep| move |errno: Errno| step.report(errno);
    unistd::setsid().map_err(at(ChildStep::Session))?;
    if let Some(procs) = &setup.cgroup_procs {
        unistd::write(procs, b"0").map_err(at(ChildStep::Cgroup))?;
    }
    write_file(c"/proc/self/oom_score_adj", b"100").map_err(at(ChildStep::OutOfMemoryScore))?;
    // Refused only where this process has no higher priority to give up.
    let _ = set_nice(0);
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    if unistd::geteuid().is_root() {
        unistd::setgroups(groups).map_err(at(ChildStep::Identity))?;
        let gid = Gid::from_raw(setup.gid);
        unistd::setresgid(gid, gid, gid).map_err(at(ChildStep::Identity))?;
        let uid = Uid::from_raw(setup.uid);
        unistd::setresuid(uid, uid, uid).map_err(at(ChildStep::Identity))?;
    }
    unistd::chdir(setup.cwd.as_c_str()).map_err(at(ChildStep::Directory))
}

fn write_file(path: &CStr, text: &[u8]) -> Result<(), Errno> {
    use nix::{fcntl, sys::stat::Mode};
    let flags = fcntl::OFlag::O_WRONLY | fcntl::OFlag::O_CLOEXEC;
    let file = fcntl::open(path, flags, Mode::empty())?;
    unistd::write(&file, text).map(drop)
}

/// The system's allocator, wiping memory before it is freed.
///
/// Access tokens pass through many short-lived buffers (sockets, headers, JSON). A snapshot taken
/// after they were forgotten must not hold their bytes, wherever they were copied.
#[derive(Debug)]
pub struct WipingAllocator;

// SAFETY: every call goes to the system's allocator with the arguments it came with; wiping writes
// only to a block that its owner has just given up, within the size it was allocated with.
// `realloc` is the trait's own: allocate, copy, `dealloc`, so moved blocks are wiped too.
unsafe impl GlobalAlloc for WipingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps `alloc`'s contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `block` is a live block of `layout.size()` bytes that its owner gives up now.
        // Unlike a plain write, this one is never optimised away.
        unsafe { libc::explicit_bzero(block.cast(), layout.size()) };
        // SAFETY: the caller keeps `dealloc`'s contract, which is the same.
        unsafe { System.dealloc(block, layout) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_of_a_child_names_step_and_error() {
        for step in [ChildStep::Exec, ChildStep::Cgroup, ChildStep::Directory] {
            let (decoded, error) = ChildStep::decode(&step.report(Errno::EACCES));
            assert_eq!(decoded, step);
            assert_eq!(error.raw_os_error(), Some(libc::EACCES));
        }
    }
}
