//! How do numbers and addresses become text without the standard formatter? Each request has a dozen
//! of them to write, and what the formatter does around the digits costs ten times what they cost.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
};

/// All numbers of two digits: half as many divisions as digit by digit.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let (mut tens, mut at) = (b'0', 0);
    while at < 100 {
        let mut ones = b'0';
        while ones <= b'9' {
            pairs[at] = [tens, ones];
            (ones, at) = (ones + 1, at + 1);
        }
        tens += 1;
    }
    pairs
};

/// Appends a decimal number.
pub fn number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends thousandths as a number with three decimals: `1500` is `1.500`.
pub fn thousandths(out: &mut Vec<u8>, count: u64) {
    number(out, count / 1000);
    let rest = count % 1000;
    let [tens, ones] = *pair(rest % 100);
    out.extend_from_slice(&[b'.', pair(rest / 100)[1], tens, ones]);
}

/// Appends three digits, zeroes before them: `7` is `007`. Of larger numbers the last three.
pub(crate) fn three(out: &mut Vec<u8>, number: u64) {
    let [tens, ones] = *pair(number % 100);
    out.extend_from_slice(&[pair(number / 100 % 10)[1], tens, ones]);
}

/// Longest text of an octet, and of the mark behind it.
const OCTET_MAX: usize = 4;

/// All octets with a dot behind them, and how long that is.
const OCTETS: [([u8; OCTET_MAX], u8); 256] = {
    let mut octets = [([0; OCTET_MAX], 0); 256];
    let mut octet = 0;
    while octet < 256 {
        let [tens, ones] = PAIRS[octet % 100];
        octets[octet] = match octet {
            0..10 => ([ones, b'.', 0, 0], 2),
            10..100 => ([tens, ones, b'.', 0], 3),
            _ => ([PAIRS[octet / 100][1], tens, ones, b'.'], 4),
        };
        octet += 1;
    }
    octets
};

/// Appends an address as `Display` writes it.
pub fn ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            // Put together here, each octet with all its bytes: how many of them count is seen after.
            let (mut text, mut end) = ([0; 4 * OCTET_MAX], 0);
            for octet in ip.octets() {
                let (digits, len) = OCTETS[usize::from(octet)];
                text[end..end + OCTET_MAX].copy_from_slice(&digits);
                end += usize::from(len);
            }
            out.extend_from_slice(&text[..end - 1]); // the last dot is none
        }
        IpAddr::V6(ip) => {
            let _ = write!(out, "{ip}"); // a vector takes everything
        }
    }
}

/// Appends an address and its port as `Display` writes them.
pub fn address(out: &mut Vec<u8>, address: SocketAddr) {
    match address {
        SocketAddr::V4(v4) => {
            ip(out, IpAddr::V4(*v4.ip()));
            out.push(b':');
            number(out, v4.port().into());
        }
        SocketAddr::V6(v6) => {
            let _ = write!(out, "{v6}"); // a vector takes everything
        }
    }
}

/// The two digits of a number below 100.
fn pair(number: u64) -> &'static [u8; 2] {
    &PAIRS[usize::try_from(number).unwrap_or_default() % PAIRS.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_written_as_the_formatter_writes_them() {
        let powers = (0..20).map(|digits| 10_u64.pow(digits));
        let near = powers.flat_map(|power| [power - 1, power, power + 1, power / 2 + 7]);
        for value in near.chain([u64::MAX]) {
            assert_eq!(written(|out| number(out, value)), value.to_string());
            let expected = format!("{}.{:03}", value / 1000, value % 1000);
            assert_eq!(written(|out| thousandths(out, value)), expected);
            assert_eq!(written(|out| three(out, value)), format!("{:03}", value % 1000));
        }
    }

    #[test]
    fn addresses_are_written_as_the_formatter_writes_them() {
        for text in ["0.0.0.0:0", "255.10.9.100:65535", "[2001:db8::1]:80", "[::ffff:1.2.3.4]:9"] {
            let parsed: SocketAddr = text.parse().unwrap();
            assert_eq!(written(|out| address(out, parsed)), text);
            assert_eq!(written(|out| ip(out, parsed.ip())), parsed.ip().to_string());
        }
    }
}
