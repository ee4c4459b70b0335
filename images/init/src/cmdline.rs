//! The `wrenn.` keys of the kernel command line.
//!
//! ```text
//! wrenn.ip=172.16.0.2/30 wrenn.gw=172.16.0.1 wrenn.dns=1.1.1.1
//! ```
//!
//! All are optional: without `wrenn.ip` the machine has no network but loopback. A key of ours that
//! we don't know is an error, so that a typing mistake is seen at the first boot.

use crate::failure::InitError;
use std::net::Ipv4Addr;
use std::path::PathBuf;

const PATH: &str = "/proc/cmdline";
const PREFIX: &str = "wrenn.";

/// What the agent tells the guest before it boots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cmdline {
    /// The guest's address and the length of its network's prefix.
    pub(crate) address: Option<(Ipv4Addr, u8)>,
    /// The default route.
    pub(crate) gateway: Option<Ipv4Addr>,
    /// The name server.
    pub(crate) dns: Option<Ipv4Addr>,
}

impl Cmdline {
    /// Reads the running kernel's command line.
    ///
    /// # Errors
    ///
    /// If `/proc` isn't mounted, or a key is unknown or has a wrong value.
    pub(crate) fn read() -> Result<Self, InitError> {
        let text = std::fs::read_to_string(PATH).map_err(|source| InitError::File {
            action: "read",
            path: PathBuf::from(PATH),
            source,
        })?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self, InitError> {
        let mut cmdline = Self::default();
        for (key, value) in text.split_ascii_whitespace().filter_map(ours) {
            match key {
                "ip" => cmdline.address = Some(parse_network(value)?),
                "gw" => cmdline.gateway = Some(parse_address("gw", value)?),
                "dns" => cmdline.dns = Some(parse_address("dns", value)?),
                _ => return Err(bad(key, value, "a key that init knows (ip, gw, dns)")),
            }
        }
        Ok(cmdline)
    }
}

fn ours(word: &str) -> Option<(&str, &str)> {
    word.strip_prefix(PREFIX).map(|word| word.split_once('=').unwrap_or((word, "")))
}

fn parse_network(value: &str) -> Result<(Ipv4Addr, u8), InitError> {
    let expected = "an address with its prefix length, as 172.16.0.2/30";
    let (address, length) = value.split_once('/').ok_or_else(|| bad("ip", value, expected))?;
    let length: u8 = length.parse().map_err(|_| bad("ip", value, expected))?;
    let address = address.parse().map_err(|_| bad("ip", value, expected))?;
    if length > 32 {
        return Err(bad("ip", value, expected));
    }
    Ok((address, length))
}

fn parse_address(key: &str, value: &str) -> Result<Ipv4Addr, InitError> {
    value.parse().map_err(|_| bad(key, value, "an IPv4 address"))
}

fn bad(key: &str, value: &str, expected: &'static str) -> InitError {
    InitError::Cmdline { key: format!("{PREFIX}{key}"), value: value.to_owned(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_command_line_is_understood() {
        let text =
            "console=ttyS0 quiet wrenn.ip=172.16.0.2/30 wrenn.gw=172.16.0.1 wrenn.dns=9.9.9.9\n";
        let cmdline = Cmdline::parse(text).unwrap();
        assert_eq!(cmdline.address, Some((Ipv4Addr::new(172, 16, 0, 2), 30)));
        assert_eq!(cmdline.gateway, Some(Ipv4Addr::new(172, 16, 0, 1)));
        assert_eq!(cmdline.dns, Some(Ipv4Addr::new(9, 9, 9, 9)));
    }

    #[test]
    fn without_our_keys_there_is_no_network() {
        assert_eq!(Cmdline::parse("console=ttyS0 panic=-1").unwrap(), Cmdline::default());
    }

    #[test]
    fn wrong_values_and_unknown_keys_are_refused_by_name() {
        for (word, key) in [
            ("wrenn.ip=172.16.0.2", "wrenn.ip"),
            ("wrenn.ip=172.16.0.2/33", "wrenn.ip"),
            ("wrenn.gw=host", "wrenn.gw"),
            ("wrenn.dns", "wrenn.dns"),
            ("wrenn.ipp=1", "wrenn.ipp"),
        ] {
            let message = Cmdline::parse(word).unwrap_err().to_string();
            assert!(message.contains(key), "{message}");
        }
    }
}
