//! The one line told to the agent, made without allocating.

use std::fmt::{self, Write};

/// Room for the longest line: four 20-digit numbers and their names.
const LINE_BYTES: usize = 256;

/// A line in the making; what doesn't fit is cut off.
#[derive(Debug)]
pub(crate) struct Line {
    bytes: [u8; LINE_BYTES],
    len: usize,
}

impl Line {
    fn of(text: fmt::Arguments<'_>) -> Self {
        let mut line = Self { bytes: [0; LINE_BYTES], len: 0 };
        // Writing to a line can't fail: it cuts.
        let _ = line.write_fmt(text);
        line
    }

    /// Memory is mapped and registered.
    pub(crate) fn mapped(uffd: i32, addr: usize, len: usize, base: i32) -> Self {
        Self::of(format_args!(
            "{{\"uffd\":{uffd},\"addr\":{addr},\"len\":{len},\"base\":{base}}}\n"
        ))
    }

    /// `step` failed with `errno`; the process is about to abort. `step` needs no escaping.
    pub(crate) fn error(step: &'static str, errno: i32) -> Self {
        Self::of(format_args!("{{\"error\":\"cannot {step}: errno {errno}\"}}\n"))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.bytes[self.len..];
        let fits = text.len().min(room.len());
        room[..fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.len += fits;
        Ok(())
    }
}

/// Reads a descriptor's number as the environment has it.
pub(crate) fn descriptor(text: &[u8]) -> Option<i32> {
    std::str::from_utf8(text).ok()?.parse().ok().filter(|number| *number >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_these_very_bytes() {
        let line = Line::mapped(21, 0x7f00_0000_0000, 1 << 28, 20);
        let golden: &[u8] =
            b"{\"uffd\":21,\"addr\":139637976727552,\"len\":268435456,\"base\":20}\n";
        assert_eq!(line.as_bytes(), golden);
        let golden: &[u8] = b"{\"error\":\"cannot register: errno 22\"}\n";
        assert_eq!(Line::error("register", 22).as_bytes(), golden);
    }

    #[test]
    fn longest_line_fits() {
        let line = Line::mapped(i32::MIN, usize::MAX, usize::MAX, i32::MIN);
        assert_eq!(line.as_bytes().last(), Some(&b'\n'));
    }

    #[test]
    fn only_numbers_of_descriptors_are_read() {
        assert_eq!(descriptor(b"20"), Some(20));
        for text in ["", "-1", "x", " 3", "99999999999"] {
            assert_eq!(descriptor(text.as_bytes()), None, "{text:?}");
        }
    }
}
