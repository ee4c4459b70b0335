//! How much memory a machine costs, by kind: what the kernel says about its VMM's mappings.

use std::{fs, io, ops::Range};

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

/// Memory of one clone's VMM process by kind, all in bytes.
///
/// What one more clone costs is `guest_private + vmm_private`, and what the kernel needs for it:
/// `kernel` where it is known, else `page_tables`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VmmUsage {
    /// Guest memory that the clone wrote, or had copied for it, also where it is swapped out.
    pub guest_private: u64,
    /// Guest memory that is mapped from base memory.
    pub guest_shared_resident: u64,
    /// The VMM's own heap, stacks, and translated code, also where they are swapped out.
    pub vmm_private: u64,
    /// The VMM's program, its libraries, and other files that it maps.
    pub vmm_shared: u64,
    /// Page tables (`VmPTE`).
    pub page_tables: u64,
    /// Kernel memory of the process's cgroup, page tables among it. 0 if the cgroup is also this
    /// process's, so not the clone's alone, or does not say.
    pub kernel: u64,
}

/// Measures a clone's guest memory. TCG's cache and QEMU's own heap are not in it.
///
/// # Errors
///
/// The process is gone, or the machine is no clone.
pub fn clone_usage(record: &MachineRecord) -> io::Result<CloneUsage> {
    let (guest, _) = mappings(record)?;
    Ok(CloneUsage {
        resident_bytes: guest.resident,
        private_bytes: guest.anonymous,
        unshared_bytes: guest.unshared,
    })
}

/// The clone's own pages, bytes; see [`CloneUsage::private_bytes`].
///
/// # Errors
///
/// As [`clone_usage`].
pub fn clone_private_bytes(record: &MachineRecord) -> io::Result<u64> {
    clone_usage(record).map(|usage| usage.private_bytes)
}

/// Measures all of a clone's VMM process, reading each of the kernel's accounts once.
///
/// # Errors
///
/// The process is gone, or the machine is no clone.
pub fn vmm_usage(record: &MachineRecord) -> io::Result<VmmUsage> {
    let (guest, vmm) = mappings(record)?;
    let status = fs::read_to_string(format!("/proc/{}/status", record.pid))?;
    let page_tables = status.lines().filter_map(field).find(|(name, _)| *name == "VmPTE");
    Ok(VmmUsage {
        guest_private: guest.anonymous + guest.swapped,
        guest_shared_resident: guest.resident.saturating_sub(guest.anonymous),
        vmm_private: vmm.anonymous + vmm.swapped,
        vmm_shared: vmm.resident.saturating_sub(vmm.anonymous),
        page_tables: page_tables.map_or(0, |(_, bytes)| bytes),
        kernel: kernel_bytes(record.pid)?,
    })
}

/// What several mappings have in common accounts, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    resident: u64,
    anonymous: u64,
    unshared: u64,
    swapped: u64,
}

/// Sums of the guest-memory mapping and of all others.
fn mappings(record: &MachineRecord) -> io::Result<(Sum, Sum)> {
    let MemoryRecord::Clone { addr, len, .. } = record.memory else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a clone"));
    };
    let smaps = fs::read_to_string(format!("/proc/{}/smaps", record.pid))?;
    Ok(sums(&smaps, &(addr..addr.saturating_add(len))))
}

/// Sums up the mappings inside `guest` (the kernel may have split ours) and those outside.
fn sums(smaps: &str, guest: &Range<u64>) -> (Sum, Sum) {
    let (mut inside, mut outside) = (Sum::default(), Sum::default());
    let mut is_inside = false;
    for line in smaps.lines() {
        if let Some((from, to)) = range(line) {
            is_inside = from >= guest.start && to <= guest.end;
            continue;
        }
        let Some((name, bytes)) = field(line) else { continue };
        let sum = if is_inside { &mut inside } else { &mut outside };
        match name {
            "Rss" => sum.resident += bytes,
            "Anonymous" => sum.anonymous += bytes,
            "Private_Clean" | "Private_Dirty" => sum.unshared += bytes,
            "Swap" => sum.swapped += bytes,
            _ => {}
        }
    }
    (inside, outside)
}

/// The addresses in a mapping's first line, e.g. `7f00-7f10 rw-p 00000000 00:01 7 /memfd:x`.
fn range(line: &str) -> Option<(u64, u64)> {
    let (from, to) = line.split_whitespace().next()?.split_once('-')?;
    Some((u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?))
}

/// An account's name and bytes, e.g. of `VmPTE:      96 kB`.
fn field(line: &str) -> Option<(&str, u64)> {
    let (name, value) = line.split_once(':')?;
    let kib = value.trim().strip_suffix(" kB")?.parse::<u64>().ok()?;
    Some((name, kib << 10))
}

/// Kernel memory charged to the cgroup of `pid`, if that is not this process's cgroup as well.
fn kernel_bytes(pid: i32) -> io::Result<u64> {
    let theirs = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let ours = fs::read_to_string("/proc/self/cgroup")?;
    let Some(account) =
        kernel_account(&theirs).filter(|found| kernel_account(&ours) != Some(*found))
    else {
        return Ok(0);
    };
    Ok(match account {
        Account::V1(group) => {
            let file = format!("/sys/fs/cgroup/memory{group}/memory.kmem.usage_in_bytes");
            fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok())
        }
        Account::V2(group) => {
            let file = format!("/sys/fs/cgroup{group}/memory.stat");
            fs::read_to_string(file).ok().and_then(|text| {
                let kernel = text.lines().find_map(|line| line.strip_prefix("kernel "));
                kernel.and_then(|number| number.trim().parse().ok())
            })
        }
    }
    .unwrap_or(0))
}

/// Which cgroup accounts for a process's memory, in which version of cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Account<'a> {
    V1(&'a str),
    V2(&'a str),
}

/// Reads `/proc/<pid>/cgroup`: a v1 memory hierarchy, where there is one, has the accounts.
fn kernel_account(cgroup: &str) -> Option<Account<'_>> {
    let mut v2 = None;
    for line in cgroup.lines() {
        let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
        if controllers.split(',').any(|name| name == "memory") {
            return Some(Account::V1(group));
        }
        if controllers.is_empty() {
            v2 = Some(Account::V2(group));
        }
    }
    v2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_mapping_and_the_rest_are_told_apart() {
        let smaps = "1000-2000 rw-p 00000000 00:00 0\nRss: 4 kB\nAnonymous: 4 kB\nSwap: 2 kB\n\
            a000-c000 rw-p 00000000 00:01 9 /memfd:base\nRss: 8 kB\nPrivate_Clean: 4 kB\n\
            Private_Dirty: 4 kB\nAnonymous: 4 kB\nSwap: 1 kB\n\
            c000-d000 rw-p 00002000 00:01 9 /memfd:base\nRss: 4 kB\nAnonymous: 4 kB\n\
            f000-ffff r-xp 00000000 00:07 0 /usr/bin/vmm\nRss: 64 kB\nVmFlags: rd ex mr\n";
        let (guest, vmm) = sums(smaps, &(0xa000..0xd000));
        let kib = |resident, anonymous, unshared, swapped| {
            let [resident, anonymous, unshared, swapped] =
                [resident, anonymous, unshared, swapped].map(|kib: u64| kib << 10);
            Sum { resident, anonymous, unshared, swapped }
        };
        assert_eq!(guest, kib(12, 8, 8, 1));
        assert_eq!(vmm, kib(68, 4, 0, 2));
    }

    #[test]
    fn cgroup_that_accounts_is_found_in_both_versions() {
        let v1 = "9:name=systemd:/\n4:cpu,memory:/wrenn-a/7\n0::/\n";
        assert_eq!(kernel_account(v1), Some(Account::V1("/wrenn-a/7")));
        assert_eq!(kernel_account("0::/wrenn-a/7\n"), Some(Account::V2("/wrenn-a/7")));
        assert_eq!(kernel_account("9:name=systemd:/\n"), None);
    }

    #[test]
    fn cgroup_of_this_process_is_not_charged_to_a_clone() {
        let pid = std::process::id().try_into().unwrap();
        assert_eq!(kernel_bytes(pid).unwrap(), 0);
    }

    #[test]
    fn own_process_is_measured_as_if_it_were_a_vmm() {
        use crate::sys::test_mapping::Mapping;
        let base = tempfile::tempfile().unwrap();
        base.set_len(64 << 12).unwrap();
        let mapping = Mapping::of(&base);
        (0..10).for_each(|page| mapping.fill(page, 1));
        let addresses = mapping.addresses();
        let mut record = MachineRecord {
            sandbox: pool_model::SandboxId::from_u128(1),
            pid: std::process::id().try_into().unwrap(),
            start_ticks: 0,
            memory: MemoryRecord::Clone {
                uffd_fd: -1,
                base_fd: -1,
                addr: addresses.start,
                len: addresses.end - addresses.start,
            },
            qmp_socket: "/nowhere".into(),
            dir: "/nowhere".into(),
        };
        let usage = vmm_usage(&record).unwrap();
        assert_eq!(usage.guest_private, 10 << 12, "{usage:?}");
        assert_eq!(clone_private_bytes(&record).unwrap(), 10 << 12);
        assert!(usage.vmm_private > 0 && usage.vmm_shared > 0 && usage.page_tables > 0);
        record.memory = MemoryRecord::Owned { fd: 3, bytes: 1 << 20 };
        assert!(vmm_usage(&record).is_err(), "a booted machine shares nothing");
    }
}
