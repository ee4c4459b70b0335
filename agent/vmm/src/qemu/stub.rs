//! The kernel that a clone is started with: an ELF file of a few hundred bytes.
//!
//! A restored guest already has its kernel in memory, yet QEMU must be given one of the same
//! kind, since the kind decides which boot ROM the machine has and a device state only fits a
//! machine with the same ROMs. A clone that is given the real `vmlinux` reads tens of megabytes
//! and throws them away; the stub makes the same ROM without them.

/// Note type of the 32-bit entry point (`XEN_ELFNOTE_PHYS32_ENTRY`).
const PHYS32_ENTRY: u32 = 18;
/// Where the stub would be loaded and entered, were it ever run: a `hlt`.
const LOAD_AT: u32 = 1 << 20;

/// Whether a kernel is booted by its PVH entry, so that [`pvh_kernel`] can stand for it.
pub(crate) fn is_elf(first_bytes: &[u8]) -> bool {
    first_bytes.starts_with(b"\x7fELF")
}

/// A kernel of nothing but `code`: a 32-bit ELF file that loads it at 1 MiB and enters it there.
///
/// It is entered in protected mode with flat segments, without a stack and without interrupts.
/// Good for clones, which never run it, and for tests that need a guest in milliseconds.
#[must_use]
pub fn pvh_kernel(code: &[u8]) -> Vec<u8> {
    const HEADER: u32 = 52;
    const SEGMENT: u32 = 32;
    const NOTE: u32 = 20;
    let note_at = HEADER + 2 * SEGMENT;
    let code_at = note_at + NOTE;
    let code_len = u32::try_from(code.len()).unwrap_or(u32::MAX);

    let mut elf = Vec::with_capacity(code.len() + 256);
    // Identification: 32 bits, little endian, version 1.
    elf.extend_from_slice(b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0");
    // Executable, i386, version 1, entry, program headers at 52, no sections, no flags.
    half(&mut elf, &[2, 3]);
    word(&mut elf, &[1, LOAD_AT, HEADER, 0, 0]);
    half(&mut elf, &[52, 32, 2, 0, 0, 0]);
    // PT_LOAD: type, offset, virtual, physical, size in file, in memory, read + execute, align.
    word(&mut elf, &[1, code_at, LOAD_AT, LOAD_AT, code_len, code_len, 5, 4]);
    // PT_NOTE, as above; it holds name size, value size, type, name, value.
    word(&mut elf, &[4, note_at, 0, 0, NOTE, NOTE, 4, 4]);
    word(&mut elf, &[4, 4, PHYS32_ENTRY]);
    elf.extend_from_slice(b"Xen\0");
    word(&mut elf, &[LOAD_AT]);
    elf.extend_from_slice(code);
    elf
}

/// The stub: it stops at once.
pub(crate) fn stub_kernel() -> Vec<u8> {
    pvh_kernel(&[0xF4; 64])
}

fn half(elf: &mut Vec<u8>, values: &[u16]) {
    elf.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

fn word(elf: &mut Vec<u8>, values: &[u32]) {
    elf.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}
