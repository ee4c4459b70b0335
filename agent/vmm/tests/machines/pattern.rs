//! A guest whose every page can be told right from wrong, and which looks itself, for ever.
//!
//! At boot it fills the pages from `FIRST_PAGE` on with a pattern of page number and version. Then
//! it walks all of them, each time in another scattered order, and compares every word.
//! What it finds is in its control page, where it is also told what to do. Some pages are noise,
//! some are one word all over (so that blocks get smaller), and some of those are zero.
//!
//! Generation `g` rewrites the pages whose number is `g` modulo 3: a page's version is the last
//! generation that wrote it, or 0.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    time::{Duration, Instant},
};

use agent_vmm::{Exit, Machine, MachineRecord, MemoryRecord};

/// Pages that are checked.
pub(crate) const PAGES: u32 = 7168;
/// Where the control page is.
const CONTROL_AT: u64 = 0x20_0000;
/// No guest takes longer for one page, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the guest can be told.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Command {
    /// Write the next generation.
    Write = 1,
    /// Have the balloon take all pages, and expect the content of generation `argument` after that.
    Give = 2,
    /// Begin the walk again.
    Again = 3,
}

/// The control page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Control {
    pub(crate) generation: u32,
    command: u32,
    /// Pages compared, of all walks.
    pub(crate) checked: u32,
    /// Walks that were finished.
    pub(crate) passes: u32,
    /// Pages that were not what they should be.
    pub(crate) wrong: u32,
    /// The last of them: its number, the word expected, the one found.
    last_wrong: [u32; 3],
    argument: u32,
    ready: u32,
}

/// What the guest has to say; `None` while its control page is not there, or when it is gone.
pub(crate) fn control(record: &MachineRecord) -> Option<Control> {
    let (file, at) = memory(record, false)?;
    let mut bytes = [0; 40];
    // A debugger's read does not wait for the page server.
    file.read_exact_at(&mut bytes, at + CONTROL_AT).ok()?;
    let word =
        |index: usize| u32::from_le_bytes(bytes[4 * index..4 * index + 4].try_into().unwrap());
    Some(Control {
        generation: word(0),
        command: word(1),
        checked: word(2),
        passes: word(3),
        wrong: word(4),
        last_wrong: [word(5), word(6), word(7)],
        argument: word(8),
        ready: word(9),
    })
}

fn memory(record: &MachineRecord, write: bool) -> Option<(File, u64)> {
    let (path, at) = match record.memory {
        MemoryRecord::Owned { fd, .. } => (format!("/proc/{}/fd/{fd}", record.pid), 0),
        MemoryRecord::Clone { addr, .. } => (format!("/proc/{}/mem", record.pid), addr),
        MemoryRecord::Blank { .. } => panic!("a blank has no guest: {record:?}"),
    };
    Some((File::options().read(true).write(write).open(path).ok()?, at))
}

fn put(record: &MachineRecord, word: u64, value: u32) -> io::Result<()> {
    let (file, at) = memory(record, true).ok_or(io::ErrorKind::NotFound)?;
    file.write_all_at(&value.to_le_bytes(), at + CONTROL_AT + 4 * word)
}

/// Tells a running guest something, without waiting until it has done it.
pub(crate) async fn tell(
    machine: &dyn Machine,
    command: Command,
    argument: u32,
) -> Result<(), Exit> {
    let record = machine.record();
    watch(machine, |control| control.ready == 1).await?;
    let told = put(&record, 8, argument).and_then(|()| put(&record, 1, command as u32));
    match told {
        Ok(()) => Ok(()),
        Err(error) if control(&record).is_some() => panic!("cannot tell the guest: {error}"),
        Err(_) => Err(machine.exited().await),
    }
}

/// Has a running guest do something.
pub(crate) async fn order(
    machine: &dyn Machine,
    command: Command,
    argument: u32,
) -> Result<(), Exit> {
    tell(machine, command, argument).await?;
    obeyed(machine).await
}

/// Waits until it has done what it was told.
pub(crate) async fn obeyed(machine: &dyn Machine) -> Result<(), Exit> {
    watch(machine, |control| control.command == 0).await.map(drop)
}

/// Waits until a running guest has compared every page, from now on. Err: how it ended instead.
///
/// Panics if one is wrong, or if the guest hangs.
pub(crate) async fn verified(machine: &dyn Machine) -> Result<Control, Exit> {
    order(machine, Command::Again, 0).await?;
    let begun = watch(machine, |_| true).await?;
    watch(machine, |control| control.passes > begun.passes).await
}

/// Waits until a guest's control page is as wanted.
pub(crate) async fn watch(
    machine: &dyn Machine,
    wanted: impl Fn(&Control) -> bool,
) -> Result<Control, Exit> {
    let record = machine.record();
    let (mut last, mut moved) = (None, Instant::now());
    loop {
        let seen = control(&record);
        if let Some(control) = seen {
            assert_eq!(control.wrong, 0, "{record:?} has a wrong page: {control:?}");
            if wanted(&control) {
                return Ok(control);
            }
        }
        if seen != last {
            (last, moved) = (seen, Instant::now());
        }
        assert!(moved.elapsed() < PATIENCE, "it hangs at {last:?}: {}", machine.log());
        let pause = Duration::from_millis(2);
        if let Ok(exit) = tokio::time::timeout(pause, machine.exited()).await {
            return Err(exit);
        }
    }
}

/// The program, loaded and entered at 1 MiB in 32-bit protected mode; in the assembler's words beside
/// it `CONTROL` is 0x200000, `FIRST` page 0x400, `PAGES` 7168, `LAST` the page after the last;
/// `BALLOON` is the device on bus 20, and its one queue is behind the stack.
#[rustfmt::skip]
pub(crate) const PROGRAM: &[u8] = &[
    0xBC, 0x00, 0x20, 0x20, 0x00,                                // start: mov esp, 0x202000
    0xBB, 0x00, 0x00, 0x20, 0x00,                                //        mov ebx, CONTROL
    0xBD, 0x00, 0x04, 0x00, 0x00,                                //        mov ebp, FIRST
    0xE8, 0xAA, 0x00, 0x00, 0x00,                                // 1:     call fill
    0x45,                                                        //        inc ebp
    0x81, 0xFD, 0x00, 0x20, 0x00, 0x00,                          //        cmp ebp, LAST
    0x72, 0xF2,                                                  //        jb 1b
    0xC7, 0x43, 0x24, 0x01, 0x00, 0x00, 0x00,                    //        mov [ebx+36], 1
    0x31, 0xF6,                                                  // pass:  xor esi, esi
    0xE8, 0xDD, 0x00, 0x00, 0x00,                                // next:  call obey
    0x69, 0xC6, 0x6B, 0x15, 0x00, 0x00,                          //        imul eax, esi, 5483
    0x69, 0x4B, 0x0C, 0xD5, 0x04, 0x00, 0x00,                    //        imul ecx, [ebx+12], 1237
    0x01, 0xC8,                                                  //        add eax, ecx
    0x31, 0xD2,                                                  //        xor edx, edx
    0xB9, 0x00, 0x1C, 0x00, 0x00,                                //        mov ecx, PAGES
    0xF7, 0xF1,                                                  //        div ecx
    0x8D, 0xAA, 0x00, 0x04, 0x00, 0x00,                          //        lea ebp, [edx+FIRST]
    0xE8, 0x8C, 0x00, 0x00, 0x00,                                //        call check
    0xFF, 0x43, 0x08,                                            //        inc [ebx+8]
    0x46,                                                        //        inc esi
    0x81, 0xFE, 0x00, 0x1C, 0x00, 0x00,                          //        cmp esi, PAGES
    0x72, 0xCC,                                                  //        jb next
    0xFF, 0x43, 0x0C,                                            //        inc [ebx+12]
    0xEB, 0xC5,                                                  //        jmp pass
    0x8B, 0x03,                                                  // seed:  mov eax, [ebx]
    0x05, 0x30, 0x75, 0x00, 0x00,                                //        add eax, 30000
    0x29, 0xE8,                                                  //        sub eax, ebp
    0x31, 0xD2,                                                  //        xor edx, edx
    0xB9, 0x03, 0x00, 0x00, 0x00,                                //        mov ecx, 3
    0xF7, 0xF1,                                                  //        div ecx
    0x8B, 0x03,                                                  //        mov eax, [ebx]
    0x29, 0xD0,                                                  //        sub eax, edx
    0x79, 0x02,                                                  //        jns 1f
    0x31, 0xC0,                                                  //        xor eax, eax
    0x89, 0xC7,                                                  // 1:     mov edi, eax
    0x69, 0xC0, 0x6B, 0xCA, 0xEB, 0x85,                          //        imul eax, eax, 0x85EBCA6B
    0x69, 0xCD, 0xB1, 0x79, 0x37, 0x9E,                          //        imul ecx, ebp, 0x9E3779B1
    0x31, 0xC8,                                                  //        xor eax, ecx
    0xB9, 0x0D, 0x66, 0x19, 0x00,                                //        mov ecx, 1664525
    0xBA, 0x5F, 0xF3, 0x6E, 0x3C,                                //        mov edx, 1013904223
    0xF7, 0xC5, 0x10, 0x00, 0x00, 0x00,                          //        test ebp, 0x10
    0x74, 0x1D,                                                  //        jz 2f
    0xB9, 0x01, 0x00, 0x00, 0x00,                                //        mov ecx, 1
    0x31, 0xD2,                                                  //        xor edx, edx
    0xF7, 0xD5,                                                  //        not ebp
    0xF7, 0xC5, 0x70, 0x00, 0x00, 0x00,                          //        test ebp, 0x70
    0x75, 0x0A,                                                  //        jnz 3f
    0xF7, 0xC7, 0x01, 0x00, 0x00, 0x00,                          //        test edi, 1
    0x75, 0x02,                                                  //        jnz 3f
    0x31, 0xC0,                                                  //        xor eax, eax
    0xF7, 0xD5,                                                  // 3:     not ebp
    0x89, 0xEF,                                                  // 2:     mov edi, ebp
    0xC1, 0xE7, 0x0C,                                            //        shl edi, 12
    0xC3,                                                        //        ret
    0xE8, 0x9C, 0xFF, 0xFF, 0xFF,                                // fill:  call seed
    0x56,                                                        //        push esi
    0x8D, 0xB7, 0x00, 0x10, 0x00, 0x00,                          //        lea esi, [edi+4096]
    0x89, 0x07,                                                  // 1:     mov [edi], eax
    0x0F, 0xAF, 0xC1,                                            //        imul eax, ecx
    0x01, 0xD0,                                                  //        add eax, edx
    0x83, 0xC7, 0x04,                                            //        add edi, 4
    0x39, 0xF7,                                                  //        cmp edi, esi
    0x72, 0xF2,                                                  //        jb 1b
    0x5E,                                                        //        pop esi
    0xC3,                                                        //        ret
    0xE8, 0x80, 0xFF, 0xFF, 0xFF,                                // check: call seed
    0x56,                                                        //        push esi
    0x8D, 0xB7, 0x00, 0x10, 0x00, 0x00,                          //        lea esi, [edi+4096]
    0x39, 0x07,                                                  // 1:     cmp [edi], eax
    0x75, 0x0E,                                                  //        jne 2f
    0x0F, 0xAF, 0xC1,                                            //        imul eax, ecx
    0x01, 0xD0,                                                  //        add eax, edx
    0x83, 0xC7, 0x04,                                            //        add edi, 4
    0x39, 0xF7,                                                  //        cmp edi, esi
    0x72, 0xF0,                                                  //        jb 1b
    0xEB, 0x0E,                                                  //        jmp 3f
    0xFF, 0x43, 0x10,                                            // 2:     inc [ebx+16]
    0x89, 0x6B, 0x14,                                            //        mov [ebx+20], ebp
    0x89, 0x43, 0x18,                                            //        mov [ebx+24], eax
    0x8B, 0x07,                                                  //        mov eax, [edi]
    0x89, 0x43, 0x1C,                                            //        mov [ebx+28], eax
    0x5E,                                                        // 3:     pop esi
    0xC3,                                                        //        ret
    0x8B, 0x43, 0x04,                                            // obey:  mov eax, [ebx+4]
    0x48,                                                        //        dec eax
    0x74, 0x0B,                                                  //        jz write
    0x48,                                                        //        dec eax
    0x74, 0x38,                                                  //        jz give
    0x48,                                                        //        dec eax
    0x74, 0x01,                                                  //        jz again
    0xC3,                                                        //        ret
    0x31, 0xF6,                                                  // again: xor esi, esi
    0xEB, 0x28,                                                  //        jmp done
    0xFF, 0x03,                                                  // write: inc [ebx]
    0x8B, 0x03,                                                  //        mov eax, [ebx]
    0x05, 0x30, 0x71, 0x00, 0x00,                                //        add eax, 30000-FIRST
    0x31, 0xD2,                                                  //        xor edx, edx
    0xB9, 0x03, 0x00, 0x00, 0x00,                                //        mov ecx, 3
    0xF7, 0xF1,                                                  //        div ecx
    0x8D, 0xAA, 0x00, 0x04, 0x00, 0x00,                          //        lea ebp, [edx+FIRST]
    0xE8, 0x88, 0xFF, 0xFF, 0xFF,                                // 1:     call fill
    0x83, 0xC5, 0x03,                                            //        add ebp, 3
    0x81, 0xFD, 0x00, 0x20, 0x00, 0x00,                          //        cmp ebp, LAST
    0x72, 0xF0,                                                  //        jb 1b
    0xC7, 0x43, 0x04, 0x00, 0x00, 0x00, 0x00,                    // done:  mov [ebx+4], 0
    0xC3,                                                        //        ret
    0xBF, 0x00, 0x00, 0x21, 0x00,                                // give:  mov edi, PFNS
    0xB8, 0x00, 0x04, 0x00, 0x00,                                //        mov eax, FIRST
    0x89, 0x07,                                                  // 1:     mov [edi], eax
    0x83, 0xC7, 0x04,                                            //        add edi, 4
    0x40,                                                        //        inc eax
    0x3D, 0x00, 0x20, 0x00, 0x00,                                //        cmp eax, LAST
    0x72, 0xF3,                                                  //        jb 1b
    0xC7, 0x05, 0x00, 0x30, 0x20, 0x00, 0x00, 0x00, 0x21, 0x00,  //        mov [DESC], PFNS
    0xC7, 0x05, 0x04, 0x30, 0x20, 0x00, 0x00, 0x00, 0x00, 0x00,  //        mov [DESC+4], 0
    0xC7, 0x05, 0x08, 0x30, 0x20, 0x00, 0x00, 0x70, 0x00, 0x00,  //        mov [DESC+8], PAGES*4
    0xC7, 0x05, 0x0C, 0x30, 0x20, 0x00, 0x00, 0x00, 0x00, 0x00,  //        mov [DESC+12], 0
    0xC7, 0x05, 0x00, 0x34, 0x20, 0x00, 0x01, 0x00, 0x01, 0x00,  //        mov [AVAIL], 0x10001
    0xC7, 0x05, 0x04, 0x34, 0x20, 0x00, 0x00, 0x00, 0x00, 0x00,  //        mov [AVAIL+4], 0
    0xC7, 0x05, 0x00, 0x38, 0x20, 0x00, 0x00, 0x00, 0x00, 0x00,  //        mov [USED], 0
    0xBF, 0x00, 0x28, 0xB0, 0xFE,                                //        mov edi, BALLOON
    0xC7, 0x47, 0x70, 0x00, 0x00, 0x00, 0x00,                    //        mov [edi+0x70], 0
    0xC7, 0x47, 0x70, 0x03, 0x00, 0x00, 0x00,                    //        mov [edi+0x70], 3
    0xC7, 0x47, 0x24, 0x01, 0x00, 0x00, 0x00,                    //        mov [edi+0x24], 1
    0xC7, 0x47, 0x20, 0x01, 0x00, 0x00, 0x00,                    //        mov [edi+0x20], 1
    0xC7, 0x47, 0x70, 0x0B, 0x00, 0x00, 0x00,                    //        mov [edi+0x70], 11
    0xC7, 0x47, 0x30, 0x00, 0x00, 0x00, 0x00,                    //        mov [edi+0x30], 0
    0xC7, 0x47, 0x38, 0x08, 0x00, 0x00, 0x00,                    //        mov [edi+0x38], 8
    0xC7, 0x87, 0x80, 0x00, 0x00, 0x00, 0x00, 0x30, 0x20, 0x00,  //        mov [edi+0x80], DESC
    0xC7, 0x87, 0x90, 0x00, 0x00, 0x00, 0x00, 0x34, 0x20, 0x00,  //        mov [edi+0x90], AVAIL
    0xC7, 0x87, 0xA0, 0x00, 0x00, 0x00, 0x00, 0x38, 0x20, 0x00,  //        mov [edi+0xa0], USED
    0xC7, 0x47, 0x44, 0x01, 0x00, 0x00, 0x00,                    //        mov [edi+0x44], 1
    0xC7, 0x47, 0x70, 0x0F, 0x00, 0x00, 0x00,                    //        mov [edi+0x70], 15
    0xC7, 0x47, 0x50, 0x00, 0x00, 0x00, 0x00,                    //        mov [edi+0x50], 0
    0x83, 0x3D, 0x00, 0x38, 0x20, 0x00, 0x00,                    // 1:     cmp [USED], 0
    0x74, 0xF7,                                                  //        je 1b
    0x8B, 0x43, 0x20,                                            //        mov eax, [ebx+32]
    0x89, 0x03,                                                  //        mov [ebx], eax
    0xE9, 0x1F, 0xFF, 0xFF, 0xFF,                                //        jmp done
];
