//! Times a guest loop through `/dev/kvm`, to learn whether it is hardware or an interpreter.

use std::{
    fs::OpenOptions,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr::NonNull,
    time::{Duration, Instant},
};

const KVM_GET_API_VERSION: libc::Ioctl = 0xAE00;
const KVM_CREATE_VM: libc::Ioctl = 0xAE01;
const KVM_GET_VCPU_MMAP_SIZE: libc::Ioctl = 0xAE04;
const KVM_CREATE_VCPU: libc::Ioctl = 0xAE41;
const KVM_SET_USER_MEMORY_REGION: libc::Ioctl = 0x4020_AE46;
const KVM_RUN: libc::Ioctl = 0xAE80;
const KVM_SET_REGS: libc::Ioctl = 0x4090_AE82;
const KVM_GET_SREGS: libc::Ioctl = 0x8138_AE83;
const KVM_SET_SREGS: libc::Ioctl = 0x4138_AE84;

/// `exit_reason` of a port access.
const KVM_EXIT_IO: u32 = 2;
/// Where `struct kvm_run` has its `exit_reason`.
const EXIT_REASON_OFFSET: usize = 8;
/// The only API version there has been since 2007.
const API_VERSION: i32 = 12;
/// One page of guest memory, at guest address 0.
const PAGE: usize = 4096;
/// Instructions per round of [`LOOP`]. An interpreter seen at half a million a second takes 0.1 s
/// for one; where leaving the guest costs 50 µs (nested hardware), a round still passes for fast.
const ROUND: u64 = 50_002;

/// `mov cx, 25000; again: dec cx; jnz again; out 0x10, al; jmp start` in real mode.
const LOOP: [u8; 10] = [0xB9, 0xA8, 0x61, 0x49, 0x75, 0xFD, 0xE6, 0x10, 0xEB, 0xF6];

/// `struct kvm_userspace_memory_region`.
#[repr(C)]
struct MemoryRegion {
    slot: u32,
    flags: u32,
    guest_phys_addr: u64,
    memory_size: u64,
    userspace_addr: u64,
}

const _: () = assert!(size_of::<MemoryRegion>() == 32, "must match the kernel's struct");

/// `struct kvm_regs`: 16 general registers, then `rip` and `rflags`.
type Regs = [u64; 18];
/// `struct kvm_sregs`; it begins with `cs` (base: u64, limit: u32, selector: u16, ...).
type Sregs = [u8; 312];

const _: () = assert!(size_of::<Regs>() == 144 && size_of::<Sregs>() == 312);

/// Executes a guest loop for about `budget` and returns instructions per second.
///
/// The budget is checked between rounds of [`ROUND`] instructions. A kernel that never returns
/// from a round blocks the calling thread for ever, so the caller waits with a deadline.
pub(crate) fn time_guest_loop(budget: Duration) -> io::Result<f64> {
    let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm")?;
    if ioctl(&kvm, KVM_GET_API_VERSION, 0)? != API_VERSION {
        return Err(io::Error::other("/dev/kvm speaks another version"));
    }
    let vm = owned(ioctl(&kvm, KVM_CREATE_VM, 0)?);
    let memory = Mapping::new(None, PAGE)?;
    memory.write(&LOOP);
    let region = MemoryRegion {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: PAGE as u64,
        userspace_addr: memory.at.as_ptr() as u64,
    };
    ioctl(&vm, KVM_SET_USER_MEMORY_REGION, &raw const region as libc::c_ulong)?;
    let vcpu = owned(ioctl(&vm, KVM_CREATE_VCPU, 0)?);
    let run_size =
        usize::try_from(ioctl(&kvm, KVM_GET_VCPU_MMAP_SIZE, 0)?).map_err(io::Error::other)?;
    if run_size < EXIT_REASON_OFFSET + size_of::<u32>() {
        return Err(io::Error::other("/dev/kvm has no room for an exit reason"));
    }
    let run = Mapping::new(Some(&vcpu), run_size)?;
    start_at_zero(&vcpu)?;

    let start = Instant::now();
    let mut rounds = 0_u64;
    loop {
        ioctl(&vcpu, KVM_RUN, 0)?;
        if run.exit_reason() != KVM_EXIT_IO {
            return Err(io::Error::other("the guest loop left its loop"));
        }
        rounds += 1;
        let elapsed = start.elapsed();
        if elapsed >= budget {
            #[expect(clippy::cast_precision_loss, reason = "a rate, compared with a threshold")]
            return Ok((rounds * ROUND) as f64 / elapsed.as_secs_f64());
        }
    }
}

/// Points the processor, which wakes in real mode, at guest address 0.
fn start_at_zero(vcpu: &OwnedFd) -> io::Result<()> {
    let mut sregs: Sregs = [0; 312];
    ioctl(vcpu, KVM_GET_SREGS, &raw mut sregs as libc::c_ulong)?;
    sregs[..8].fill(0); // cs.base
    sregs[12..14].fill(0); // cs.selector
    ioctl(vcpu, KVM_SET_SREGS, &raw const sregs as libc::c_ulong)?;
    let mut regs: Regs = [0; 18];
    regs[17] = 2; // rflags: bit 1 is always set
    ioctl(vcpu, KVM_SET_REGS, &raw const regs as libc::c_ulong)?;
    Ok(())
}

/// One of the requests above; `argument` is an integer or the address of its live struct.
fn ioctl(fd: &impl AsRawFd, request: libc::Ioctl, argument: libc::c_ulong) -> io::Result<i32> {
    // SAFETY: private to this module, whose calls pass 0 or the address of a live local of the
    // size that the request number encodes; KVM keeps no such address after the call. The
    // memory region is the exception: its pages belong to a `Mapping` declared before (so
    // unmapped after) the vcpu that uses it.
    let rc = unsafe { libc::ioctl(fd.as_raw_fd(), request, argument) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}

/// Takes a descriptor that an ioctl has just returned.
fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Mapped memory, unmapped on drop.
struct Mapping {
    at: NonNull<u8>,
    len: usize,
}

impl Mapping {
    /// Maps the start of `fd`, shared; without one, anonymous memory.
    fn new(fd: Option<&OwnedFd>, len: usize) -> io::Result<Self> {
        let (flags, fd) = match fd {
            Some(fd) => (libc::MAP_SHARED, fd.as_raw_fd()),
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
        };
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address that the kernel picks replaces no other.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, access, flags, fd, 0) };
        match NonNull::new(at.cast::<u8>()) {
            Some(at) if at.as_ptr().cast() != libc::MAP_FAILED => Ok(Self { at, len }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Copies `code` to the start; called before any processor exists.
    fn write(&self, code: &[u8]) {
        let len = code.len().min(self.len);
        // SAFETY: `len` bytes are readable at `code` and writable at `at`; they do not overlap.
        unsafe { self.at.as_ptr().copy_from_nonoverlapping(code.as_ptr(), len) };
    }

    /// Reads `exit_reason`, the mapping being a `struct kvm_run`.
    fn exit_reason(&self) -> u32 {
        // SAFETY: the caller checked that the mapping reaches past the field.
        let field = unsafe { self.at.as_ptr().add(EXIT_REASON_OFFSET) };
        // SAFETY: in bounds and 4-aligned (8 bytes into a page); volatile as the kernel writes it.
        unsafe { field.cast::<u32>().read_volatile() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `new` mapped; no reference to it exists.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.len) };
    }
}
