//! How much memory a clone costs: what the kernel says about its guest-memory mapping.

use std::{fs, io};

use crate::record::{MachineRecord, MemoryRecord};

/// Memory of one clone's guest-memory mapping.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CloneUsage {
    /// Mapped now, shared or not.
    pub resident_bytes: u64,
    /// The clone's own pages (`Anonymous`): what it wrote, or had copied for it. Its price.
    pub private_bytes: u64,
    /// `Private_Clean` + `Private_Dirty`: also base pages that no other clone has mapped yet.
    pub unshared_bytes: u64,
}

/// Measures a clone's guest memory. TCG's cache and QEMU's own heap are not in it.
///
/// # Errors
///
/// The process is gone, or the machine is no clone.
pub fn clone_usage(record: &MachineRecord) -> io::Result<CloneUsage> {
    let MemoryRecord::Clone { addr, len, .. } = record.memory else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a clone"));
    };
    let smaps = fs::read_to_string(format!("/proc/{}/smaps", record.pid))?;
    Ok(sum(&smaps, addr, addr.saturating_add(len)))
}

/// The clone's own pages, bytes; see [`CloneUsage::private_bytes`].
///
/// # Errors
///
/// As [`clone_usage`].
pub fn clone_private_bytes(record: &MachineRecord) -> io::Result<u64> {
    clone_usage(record).map(|usage| usage.private_bytes)
}

/// Sums up all mappings that lie in `start..end`: the kernel may have split ours.
fn sum(smaps: &str, start: u64, end: u64) -> CloneUsage {
    let mut usage = CloneUsage::default();
    let mut inside = false;
    for line in smaps.lines() {
        if let Some((from, to)) = range(line) {
            inside = from >= start && to <= end;
            continue;
        }
        let Some((name, value)) = line.split_once(':').filter(|_| inside) else { continue };
        let kib = value.trim().strip_suffix(" kB").and_then(|number| number.parse::<u64>().ok());
        let bytes = kib.unwrap_or(0) << 10;
        match name {
            "Rss" => usage.resident_bytes += bytes,
            "Anonymous" => usage.private_bytes += bytes,
            "Private_Clean" | "Private_Dirty" => usage.unshared_bytes += bytes,
            _ => {}
        }
    }
    usage
}

/// The addresses in a mapping's first line, e.g. `7f00-7f10 rw-p 00000000 00:01 7 /memfd:x`.
fn range(line: &str) -> Option<(u64, u64)> {
    let (from, to) = line.split_whitespace().next()?.split_once('-')?;
    Some((u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_guests_mapping_counts() {
        let smaps = "1000-2000 rw-p 00000000 00:00 0\nRss: 4 kB\nAnonymous: 4 kB\n\
            a000-c000 rw-p 00000000 00:01 9 /memfd:base\nRss: 8 kB\nPrivate_Clean: 4 kB\n\
            Private_Dirty: 4 kB\nAnonymous: 4 kB\n\
            c000-d000 rw-p 00002000 00:01 9 /memfd:base\nRss: 4 kB\nAnonymous: 4 kB\n\
            f000-ffff rw-p 00000000 00:00 0\nRss: 64 kB\n";
        let usage = sum(smaps, 0xa000, 0xd000);
        assert_eq!(usage.resident_bytes, 12 << 10);
        assert_eq!(usage.private_bytes, 8 << 10);
        assert_eq!(usage.unshared_bytes, 8 << 10);
    }
}
