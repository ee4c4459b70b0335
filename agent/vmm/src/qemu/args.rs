//! QEMU's command line. Pure: from numbers to text.
//!
//! Everything QEMU opens is a descriptor that it inherits. Disks go through descriptor sets
//! (`/dev/fdset/N`), which QEMU duplicates without asking the file system;
//! kernel, initramfs and memory are opened again through `/proc/self/fd`, which asks for the
//! right to the file itself but to none of the directories above it.

use pool_model::SandboxId;

use super::QemuConfig;
use crate::accel::Accel;

/// Kernel command line of every guest. A guest that panics or reboots ends its VMM.
const CMDLINE: &str =
    "console=ttyS0 quiet panic=-1 reboot=t tsc=reliable mitigations=off random.trust_cpu=on";

/// What QEMU may not do: no old system calls, no change of user, no new program, no priorities.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// The numbers of the descriptors that QEMU inherits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fds {
    pub(crate) qmp: i32,
    pub(crate) kernel: i32,
    pub(crate) initramfs: Option<i32>,
    pub(crate) base_disk: i32,
    pub(crate) scratch_disk: i32,
    pub(crate) tap: i32,
    pub(crate) memory: i32,
}

/// What the machine is, apart from its descriptors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape<'a> {
    pub(crate) sandbox: SandboxId,
    pub(crate) memory_bytes: u64,
    pub(crate) vcpus: u8,
    pub(crate) mac: [u8; 6],
    pub(crate) huge_pages: bool,
    pub(crate) start: Start<'a>,
}

/// How the machine begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start<'a> {
    /// With the kernel's first instruction, and this added to the command line.
    Boot { cmdline: &'a str, tsc_khz: u64 },
    /// Stopped and waiting for a device state.
    Blank,
}

/// The path under which the process opens an inherited descriptor again.
pub(crate) fn fd_path(fd: i32) -> String {
    format!("/proc/self/fd/{fd}")
}

/// All arguments of one machine.
pub(crate) fn arguments(config: &QemuConfig, shape: &Shape<'_>, fds: &Fds) -> Vec<String> {
    let mut args = Arguments(Vec::with_capacity(64));
    args.add("-name", format!("wrenn-{}", shape.sandbox.label()));
    args.add(
        "-M",
        "microvm,rtc=on,memory-backend=ram,isa-serial=on,dump-guest-core=off,mem-merge=off,\
         suppress-vmdesc=on",
    );
    match config.accel {
        Accel::Tcg => {
            args.add("-accel", format!("tcg,tb-size={}", config.tb_size_mib));
            args.add("-cpu", "max");
        }
        Accel::Kvm => {
            args.add("-accel", "kvm");
            args.add("-cpu", "host");
        }
    }
    args.add("-m", format!("size={}k", shape.memory_bytes >> 10));
    args.add("-smp", shape.vcpus.to_string());
    for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
        args.flag(flag);
    }
    args.add("-display", "none");
    args.add("-sandbox", SANDBOX);
    // Pages of 2 MiB can only be mapped where one begins.
    let align = if shape.huge_pages { ",align=2M" } else { "" };
    args.add(
        "-object",
        format!(
            "memory-backend-file,id=ram,size={},mem-path={},share=on,merge=off,dump=off{align}",
            shape.memory_bytes,
            fd_path(fds.memory)
        ),
    );
    args.add("-chardev", format!("socket,id=qmp,fd={},server=on,wait=off", fds.qmp));
    args.add("-mon", "chardev=qmp,mode=control");
    // Standard output is the console's file. A chardev of kind `file` would truncate it.
    args.add("-chardev", "stdio,id=console,signal=off");
    args.add("-serial", "chardev:console");
    args.devices(shape, fds);
    args.start(shape, fds);
    args.0
}

struct Arguments(Vec<String>);

impl Arguments {
    fn flag(&mut self, name: &str) {
        self.0.push(name.to_owned());
    }

    fn add(&mut self, name: &str, value: impl Into<String>) {
        self.flag(name);
        self.0.push(value.into());
    }

    /// Each device names its bus, so that guests find them always alike: Linux looks from the
    /// highest of 24 buses down, so the base is `vda` and the scratch disk `vdb`. (On bus 0,
    /// QEMU 7.2 loses interrupts: a disk there hangs at its first read.)
    fn devices(&mut self, shape: &Shape<'_>, fds: &Fds) {
        self.add("-global", "virtio-mmio.force-legacy=false");
        self.add("-add-fd", format!("fd={},set=1", fds.base_disk));
        // No lock: nobody may write this file, and locks of a reader would only get in the way.
        // A restore is no move from another host: what the page cache has of a disk is right, and
        // dropping it would make every clone of this base read the platter again.
        self.add(
            "-blockdev",
            "driver=file,filename=/dev/fdset/1,node-name=base,read-only=on,locking=off,\
             drop-cache=off",
        );
        self.add(
            "-device",
            "virtio-blk-device,drive=base,serial=wrenn-base,bus=virtio-mmio-bus.23",
        );
        self.add("-add-fd", format!("fd={},set=2", fds.scratch_disk));
        // No flush to the platter: a running sandbox does not survive its host anyway, and a
        // snapshot's copy is synced when it is committed.
        self.add(
            "-blockdev",
            "driver=file,filename=/dev/fdset/2,node-name=scratch,discard=unmap,\
             cache.no-flush=on,drop-cache=off",
        );
        self.add(
            "-device",
            "virtio-blk-device,drive=scratch,serial=wrenn-scratch,bus=virtio-mmio-bus.22",
        );
        self.add("-netdev", format!("tap,id=net,fd={}", fds.tap));
        let mac = shape.mac.map(|byte| format!("{byte:02x}")).join(":");
        self.add(
            "-device",
            format!("virtio-net-device,netdev=net,mac={mac},bus=virtio-mmio-bus.21"),
        );
        // The guest says which pages are free, and QEMU gives them back: a booted machine's memory
        // file gets a hole; a clone loses its copy, and a page that the guest takes again has the
        // snapshot's content. A guest may rely on no content of a page it reported free as long
        // as `PAGE_POISON` is not offered: offered, one that clears pages when it frees them
        // would count on zeroes. Without it such a guest does not report at all.
        self.add(
            "-device",
            "virtio-balloon-device,free-page-reporting=on,page-poison=off,\
             bus=virtio-mmio-bus.20",
        );
    }

    fn start(&mut self, shape: &Shape<'_>, fds: &Fds) {
        self.add("-kernel", fd_path(fds.kernel));
        if let Some(initramfs) = fds.initramfs {
            self.add("-initrd", fd_path(initramfs));
        }
        match shape.start {
            Start::Boot { cmdline, tsc_khz } => {
                self.add("-append", format!("{CMDLINE} tsc_early_khz={tsc_khz} {cmdline}"));
            }
            Start::Blank => {
                self.flag("-S");
                self.add("-incoming", "defer");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FDS: Fds = Fds {
        qmp: 10,
        kernel: 12,
        initramfs: Some(13),
        base_disk: 14,
        scratch_disk: 15,
        tap: 16,
        memory: 17,
    };

    fn line(start: Start<'_>) -> String {
        line_of(start, false)
    }

    fn line_of(start: Start<'_>, huge_pages: bool) -> String {
        let shape = Shape {
            sandbox: SandboxId::from_u128(1),
            memory_bytes: 256 << 20,
            vcpus: 1,
            mac: [2, 0x57, 0x52, 0, 0, 2],
            huge_pages,
            start,
        };
        arguments(&QemuConfig::default(), &shape, &FDS).join(" ")
    }

    #[test]
    fn memory_is_shared_in_every_machine_so_that_saving_skips_it() {
        for start in [Start::Boot { cmdline: "", tsc_khz: 1 }, Start::Blank] {
            assert!(line(start).contains(
                "memory-backend-file,id=ram,size=268435456,mem-path=/proc/self/fd/17,share=on"
            ));
        }
    }

    #[test]
    fn memory_begins_where_a_huge_page_can() {
        assert!(line_of(Start::Blank, true).contains(",dump=off,align=2M "));
        assert!(!line_of(Start::Blank, false).contains("align"));
    }

    #[test]
    fn no_path_of_the_host_is_named() {
        let line = line(Start::Boot { cmdline: "wrenn.ip=1", tsc_khz: 2_600_000 });
        assert!(line.contains("tsc_early_khz=2600000 wrenn.ip=1"), "{line}");
        assert!(line.contains("mac=02:57:52:00:00:02"), "{line}");
        let paths = line.split([' ', '=']).filter(|word| word.starts_with('/'));
        for path in paths {
            assert!(
                path.starts_with("/proc/self/fd/") || path.starts_with("/dev/fdset/"),
                "{path}"
            );
        }
    }

    #[test]
    fn blank_waits_stopped_for_its_state() {
        assert!(line(Start::Blank).ends_with("-S -incoming defer"));
    }

    #[test]
    fn guests_give_free_pages_back_and_are_promised_no_content() {
        for start in [Start::Boot { cmdline: "", tsc_khz: 1 }, Start::Blank] {
            let line = line(start);
            let balloon = line.split(' ').find(|word| word.starts_with("virtio-balloon")).unwrap();
            for option in ["free-page-reporting=on", "page-poison=off", "virtio-mmio-bus.20"] {
                assert!(balloon.contains(option), "{balloon}");
            }
        }
    }
}
