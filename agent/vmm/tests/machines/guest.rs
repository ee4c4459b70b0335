//! A guest that counts, and leaves a trail in memory by which a copy of it can be checked.
//!
//! Count `c` goes into page `c % 1024` of the trail as `c`, or as 0 in every other round, so
//! that pages turn to zeroes and back; then `c` goes into the counter.

use std::{fs::File, io, os::unix::fs::FileExt};

use agent_vmm::{MachineRecord, MemoryRecord};

/// Guest memory.
pub(crate) const MEMORY_BYTES: u64 = 32 << 20;
/// What it writes to its console first.
pub(crate) const GREETING: &str = "counting";

const COUNTER_AT: u64 = 0x20_0000;
const TRAIL_AT: u64 = 0x40_0000;
const TRAIL_PAGES: u32 = 1024;

/// The program, loaded and entered at 1 MiB in 32-bit protected mode.
#[rustfmt::skip]
pub(crate) const PROGRAM: &[u8] = &[
    0xBE, 0x41, 0x00, 0x10, 0x00,       //        mov esi, greeting
    0x66, 0xBA, 0xF8, 0x03,             //        mov dx, 0x3f8
    0xAC,                               // greet: lodsb
    0x84, 0xC0,                         //        test al, al
    0x74, 0x03,                         //        jz begin
    0xEE,                               //        out dx, al
    0xEB, 0xF8,                         //        jmp greet
    0xBB, 0x00, 0x00, 0x20, 0x00,       // begin: mov ebx, COUNTER_AT
    0x8B, 0x03,                         // count: mov eax, [ebx]
    0x40,                               //        inc eax
    0x89, 0xC1,                         //        mov ecx, eax
    0x81, 0xE1, 0xFF, 0x03, 0x00, 0x00, //        and ecx, TRAIL_PAGES - 1
    0xC1, 0xE1, 0x0C,                   //        shl ecx, 12
    0x89, 0xC2,                         //        mov edx, eax
    0xA9, 0x00, 0x04, 0x00, 0x00,       //        test eax, TRAIL_PAGES
    0x75, 0x02,                         //        jnz write
    0x31, 0xD2,                         //        xor edx, edx
    0x89, 0x91, 0x00, 0x00, 0x40, 0x00, // write: mov [ecx + TRAIL_AT], edx
    0x89, 0x03,                         //        mov [ebx], eax
    0xB9, 0x20, 0x4E, 0x00, 0x00,       //        mov ecx, 20000
    0x49,                               // delay: dec ecx
    0x75, 0xFD,                         //        jnz delay
    0xEB, 0xD5,                         //        jmp count
    b'c', b'o', b'u', b'n', b't', b'i', b'n', b'g', b'\n', 0,
];

/// A program that writes to the console for ever, and counts what it wrote.
#[rustfmt::skip]
pub(crate) const FLOOD: &[u8] = &[
    0xBB, 0x00, 0x00, 0x20, 0x00, //       mov ebx, COUNTER_AT
    0x66, 0xBA, 0xF8, 0x03,       //       mov dx, 0x3f8
    0xB0, 0x78,                   //       mov al, 'x'
    0xEE,                         // next: out dx, al
    0xFF, 0x03,                   //       inc dword ptr [ebx]
    0xEB, 0xFB,                   //       jmp next
];

/// The count of a living machine; 0 if its page has not been touched on this host.
pub(crate) fn count(record: &MachineRecord) -> u32 {
    let (path, at) = match record.memory {
        MemoryRecord::Owned { fd, .. } => (format!("/proc/{}/fd/{fd}", record.pid), 0),
        MemoryRecord::Clone { addr, .. } => (format!("/proc/{}/mem", record.pid), addr),
        MemoryRecord::Blank { .. } => panic!("a blank has no guest: {record:?}"),
    };
    match try_word(&File::open(path).unwrap(), at + COUNTER_AT) {
        // A debugger's read does not wait for the page server.
        Err(error) if error.raw_os_error() == Some(libc::EIO) => 0,
        count => count.unwrap(),
    }
}

/// Checks that memory holds exactly what the guest had written, and returns its count.
pub(crate) fn check(memory: &[u8]) -> u32 {
    assert_eq!(memory.len() as u64, MEMORY_BYTES);
    let count = word(memory, COUNTER_AT);
    for page in 0..TRAIL_PAGES {
        let found = word(memory, TRAIL_AT + u64::from(page) * 4096);
        let back = count.wrapping_sub(page) % TRAIL_PAGES;
        let last = count.checked_sub(back).map_or(0, trail);
        // It may have been stopped between the two writes of the next count.
        let next = (count + 1) % TRAIL_PAGES == page && found == trail(count + 1);
        assert!(found == last || next, "page {page} holds {found}, expected {last} at {count}");
    }
    count
}

fn trail(count: u32) -> u32 {
    if count & TRAIL_PAGES == 0 { 0 } else { count }
}

fn word(memory: &[u8], at: u64) -> u32 {
    let at = usize::try_from(at).unwrap();
    u32::from_le_bytes(memory[at..at + 4].try_into().unwrap())
}

fn try_word(file: &File, at: u64) -> io::Result<u32> {
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, at)?;
    Ok(u32::from_le_bytes(bytes))
}
