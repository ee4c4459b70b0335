//! Memory files: a VMM's log, a guest's console, a booted guest's memory, what stands for a
//! clone's, the stub kernel.
//!
//! Log and console are of fixed size and sealed: what does not fit is refused by the kernel and
//! dropped by QEMU. So a guest that floods its console, or makes QEMU complain without end,
//! fills neither a disk nor memory, and the beginning (boot, the first complaint) is kept.
//! They need no agent to be alive, and vanish with their last holder.

use std::{
    ffi::CStr,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::FileExt,
    },
};

use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
    unistd::{Gid, Uid, fchown},
};

/// Size of a log and of a console, bytes.
const LOG_BYTES: u64 = 64 << 10;
/// How much of a log goes into an error message, characters.
const TAIL_CHARS: usize = 1500;

/// A text of limited size that another process writes.
#[derive(Debug)]
pub(crate) struct Log(File);

impl Log {
    /// Makes an empty one; also returns its write end.
    pub(crate) fn create(name: &CStr) -> io::Result<(Self, File)> {
        let file = sealed(name, LOG_BYTES)?;
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        let writer = OpenOptions::new().write(true).open(own)?;
        Ok((Self(file), writer))
    }

    /// Opens the one that process `pid` has as its descriptor `fd`.
    pub(crate) fn of_process(pid: i32, fd: i32) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/fd/{fd}")).map(Self)
    }

    /// What is in it, made printable.
    pub(crate) fn text(&self) -> String {
        let mut bytes = Vec::with_capacity(4096);
        let mut chunk = [0_u8; 4096];
        let mut offset = 0;
        while let Ok(read) = self.0.read_at(&mut chunk, offset)
            && read > 0
            && offset < LOG_BYTES
        {
            bytes.extend_from_slice(&chunk[..read]);
            offset += read as u64;
        }
        let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        let text = String::from_utf8_lossy(&bytes[..end]);
        text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
    }

    /// The end of it, on one line.
    pub(crate) fn tail(&self) -> String {
        let text = self.text();
        let text = text.trim_end();
        let skipped = text.chars().count().saturating_sub(TAIL_CHARS);
        text.chars().skip(skipped).map(|c| if c == '\n' { '|' } else { c }).collect()
    }
}

/// Guest memory of a booted machine: sparse, of fixed size, its VMM's own. For a clone the same
/// file stands for its memory, and stays empty.
pub(crate) fn guest_memory(bytes: u64, uid: u32, gid: u32) -> io::Result<OwnedFd> {
    let file = sealed(c"wrenn-guest-memory", bytes)?;
    fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(file.into())
}

/// A file in memory that holds `content`.
pub(crate) fn with_content(name: &CStr, content: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC)?);
    file.write_all(content)?;
    Ok(file.into())
}

fn sealed(name: &CStr, bytes: u64) -> io::Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = File::from(memfd_create(name, flags)?);
    file.set_len(bytes)?;
    let seals = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_keeps_its_beginning_and_refuses_the_rest() {
        let (log, mut writer) = Log::create(c"test").unwrap();
        writer.write_all(b"first\n").unwrap();
        let flood = vec![b'x'; 4096];
        let refused = (0..100).find_map(|_| writer.write_all(&flood).err());
        assert!(refused.is_some(), "it is of limited size");
        assert!(log.text().starts_with("first\nxxx"));
        assert!(log.text().len() as u64 <= LOG_BYTES);
    }

    #[test]
    fn tail_is_the_end_on_one_line_without_control_characters() {
        let (log, mut writer) = Log::create(c"test").unwrap();
        writer.write_all(&vec![b'a'; 5000]).unwrap();
        writer.write_all(b"\nbad\x1b[31mkernel\n").unwrap();
        assert!(log.tail().ends_with("aa|bad [31mkernel"), "{}", log.tail());
        assert_eq!(log.tail().chars().count(), TAIL_CHARS);
    }
}
