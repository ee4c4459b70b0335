//! The nftables rules: one table in each slot, one on the host.
//!
//! Scripts go to `nft -f -` on its standard input, so nothing passes a shell, and each script is
//! one transaction: there is no moment with half of the rules.
//!
//! # Invariants
//!
//! - A guest's packet is refused here for what it *is* (private destination, forged
//!   source, too many connections); whether a slot may reach the internet at all is the slot's default route.
//! - The host's table only drops what concerns this installation's slots. Everything else passes
//!   it untouched, so it can stand beside any other firewall.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::config::{GUEST_IP, SlotConfig, TAP_NAME, UPLINK_NAME};
use crate::sys;

/// Destinations that no guest reaches: this network, private, shared, loopback, link-local (with
/// the metadata addresses), protocol assignments, multicast, reserved and broadcast; and Azure's
/// metadata address, which is a public one.
const REFUSED: &str = "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 168.63.129.16, \
     169.254.0.0/16, 172.16.0.0/12, 192.0.0.0/24, 192.168.0.0/16, 224.0.0.0/3";

/// Connections that one guest may have open through the host: bounds the memory that it can make
/// the kernel spend on tracking them (about 320 bytes each, here and on the host).
const MAX_CONNECTIONS: u32 = 16_384;

/// `nft` needs about 10 ms; a busy host gets a thousand times that.
const NFT_TIMEOUT: Duration = Duration::from_secs(10);

/// The rules inside a slot.
pub(crate) fn slot_script() -> String {
    format!(
        r#"table inet wrenn {{
    set refused {{
        type ipv4_addr
        flags interval
        elements = {{ {REFUSED} }}
    }}
    counter refused_host {{ }}
    counter refused_spoofed {{ }}
    counter refused_private {{ }}
    counter refused_connections {{ }}
    counter outbound {{ }}
    counter inbound {{ }}

    # Towards the slot itself: the answers to what the host dialled, and ping.
    chain input {{
        type filter hook input priority filter; policy drop;
        iifname "{TAP_NAME}" ip saddr {GUEST_IP} ct state established,related accept
        iifname "{TAP_NAME}" ip saddr {GUEST_IP} icmp type echo-request limit rate 50/second accept
        counter name refused_host drop
    }}

    # Between guest and internet. Only the guest opens connections.
    chain forward {{
        type filter hook forward priority filter; policy drop;
        iifname "{UPLINK_NAME}" oifname "{TAP_NAME}" ct state established,related counter name inbound accept
        iifname != "{TAP_NAME}" drop
        ip saddr != {GUEST_IP} counter name refused_spoofed drop
        meta nfproto != ipv4 drop
        ip daddr @refused counter name refused_private reject with icmp type admin-prohibited
        ct state invalid drop
        ct state new ct count over {MAX_CONNECTIONS} counter name refused_connections drop
        oifname "{UPLINK_NAME}" counter name outbound accept
    }}

    # The slot itself has no business beyond the guest.
    chain output {{
        type filter hook output priority filter; policy accept;
        oifname "{UPLINK_NAME}" ct state new counter name refused_host drop
    }}

    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "{UPLINK_NAME}" masquerade
    }}
}}
"#
    )
}

/// The rules on the host; replaces those of an earlier run.
pub(crate) fn host_script(config: &SlotConfig) -> String {
    let (table, slots, network) = (config.table(), format!("{}*", config.prefix()), config.network);
    format!(
        r#"add table inet {table}
delete table inet {table}
table inet {table} {{
    # No slot reaches any service of the host, on whatever address.
    chain input {{
        type filter hook input priority filter - 5; policy accept;
        iifname "{slots}" counter drop
    }}

    # No slot reaches another, and nobody opens a connection to a slot.
    chain forward {{
        type filter hook forward priority filter - 5; policy accept;
        iifname "{slots}" oifname "{slots}" counter drop
        iifname "{slots}" ip saddr != {network}/16 counter drop
        iifname "{slots}" meta nfproto != ipv4 counter drop
        iifname "{slots}" tcp flags syn tcp option maxseg size set rt mtu
        oifname "{slots}" ct state != {{ established, related }} counter drop
    }}

    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {network}/16 oifname != "{slots}" masquerade
    }}
}}
"#
    )
}

/// Removes the host's rules; none there is fine.
pub(crate) fn host_removal_script(config: &SlotConfig) -> String {
    let table = config.table();
    format!("add table inet {table}\ndelete table inet {table}\n")
}

/// Applies a script in the calling thread's network namespace.
///
/// # Errors
///
/// `nft` is missing, refused the script (its first line of complaint is in the error), or did not
/// end in time.
pub(crate) fn apply(script: &str) -> io::Result<()> {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let fed = feed(&mut nft, script);
    let ended = fed.and_then(|()| wait(&nft));
    if ended.is_err() {
        // Not reaped by itself: end it, then fall through to the wait below.
        nft.kill()?;
    }
    let status = nft.wait()?;
    ended?;
    if status.success() {
        return Ok(());
    }
    let mut complaint = String::new();
    if let Some(stderr) = nft.stderr.take() {
        // The process has ended, so this reads what is in the pipe and returns.
        stderr.take(4096).read_to_string(&mut complaint)?;
    }
    let first = complaint.lines().next().unwrap_or_default();
    Err(io::Error::other(format!("nft ended with {status}: {first}")))
}

/// Writes the script and closes the pipe. It fits the pipe's 64 KiB, so this never blocks.
fn feed(nft: &mut Child, script: &str) -> io::Result<()> {
    match nft.stdin.take() {
        Some(mut stdin) => stdin.write_all(script.as_bytes()),
        None => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

fn wait(nft: &Child) -> io::Result<()> {
    let pidfd = sys::pidfd_open(i32::try_from(nft.id()).map_err(io::Error::other)?)?;
    let timeout = PollTimeout::try_from(NFT_TIMEOUT).map_err(io::Error::other)?;
    let mut polled = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    if poll(&mut polled, timeout)? == 0 {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "nft did not end in time"));
    }
    Ok(())
}
