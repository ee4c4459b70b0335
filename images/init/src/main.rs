//! PID 1 of the initramfs: from a bare kernel to `envd` on a writable root.
//!
//! ```text
//! kernel --> /init: early mounts --> modules --> disks --> overlay --> network --> switch root --> tini -- envd
//! ```
//!
//! # Invariants
//!
//! - The base disk is only ever mounted read-only: it is shared by every sandbox of its template.
//! - No step is skipped: what fails is named on the console and the machine goes down (the kernel's
//!   `panic=-1` does the same should we die), so a half-made guest never answers.
//! - Nothing of the initramfs stays: its files are deleted before the real root takes over.
//!
//! # Limits
//!
//! Disks have 10 s to appear, the network interface 5 s. It is built static, because the initramfs has no libraries:
//!
//! ```text
//! cargo rustc -p guest-init --release --target x86_64-unknown-linux-gnu -- -C target-feature=+crt-static
//! ```
//!
//! `images` puts it into the initramfs as `/init`; the kernel runs it once per boot.

use nix::libc;
use std::convert::Infallible;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

mod cmdline;
mod disk;
mod failure;
mod fs;
mod module;
mod network;
mod root;
mod sys;

use cmdline::Cmdline;
use failure::InitError;

/// The guest daemon and how it is started: `tini` reaps what it leaves behind.
const HANDOVER: [&str; 5] = ["/usr/bin/tini", "--", "/usr/local/bin/envd", "--port", "49983"];

fn main() {
    let Err(error) = start();
    say(Level::Emergency, &format!("fatal: {}", failure::chain(&error)));
    failure::power_off();
}

/// Runs every step in order; comes back only when one failed.
fn start() -> Result<Infallible, InitError> {
    fs::mount_early()?;
    let cmdline = Cmdline::read()?;
    let modules = module::insert_all()?;
    let disks = disk::wait_for_disks()?;
    root::assemble(&disks)?;
    network::set_up(&cmdline)?;
    root::write_resolv_conf(cmdline.dns)?;
    root::write_hostname()?;
    fs::mount_system(root::NEW_ROOT)?;
    say(Level::Notice, &format!("{modules} modules, root assembled, starting envd"));
    root::switch()?;
    root::hand_over(&HANDOVER)
}

/// How loud a line on the console is (the kernel's log levels).
#[derive(Clone, Copy)]
enum Level {
    Emergency = 0,
    Notice = 5,
}

/// Writes one line to the kernel log, which reaches the console synchronously.
fn say(level: Level, text: &str) {
    let kmsg =
        std::fs::OpenOptions::new().write(true).custom_flags(libc::O_CLOEXEC).open("/dev/kmsg");
    // One write is one record of the log.
    let record = format!("<{}>wrenn-init: {text}\n", level as u8);
    match kmsg {
        // Losing a log line must not stop a boot, and there is nowhere else to tell.
        Ok(mut kmsg) => drop(kmsg.write_all(record.as_bytes())),
        Err(_) => eprintln!("wrenn-init: {text}"),
    }
}
