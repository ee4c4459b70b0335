//! What both sides say about themselves (RFC 9113 6.5, RFC 8441 3).

use bytes::{BufMut as _, BytesMut};

use super::{
    Code,
    frame::{MAX_31_BITS, PAYLOAD_MAX_BYTES, kind, put_header},
};
use crate::Config;

const HEADER_TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;
const MAX_HEADER_LIST_SIZE: u16 = 6;
const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// A window before any SETTINGS (RFC 9113 6.9.2).
pub(crate) const DEFAULT_WINDOW: u32 = 65_535;
/// The dynamic table before any SETTINGS (RFC 9113 6.5.2).
const DEFAULT_TABLE_BYTES: u32 = 4096;
/// The largest frame that a setting may allow (RFC 9113 6.5.2).
const MAX_FRAME_SIZE_MAX: u32 = (1 << 24) - 1;

/// Writes our SETTINGS.
pub(crate) fn put_settings(out: &mut BytesMut, config: &Config) {
    let settings = [
        (MAX_CONCURRENT_STREAMS, config.max_concurrent_streams),
        (INITIAL_WINDOW_SIZE, config.stream_window_bytes.min(MAX_31_BITS)),
        (MAX_HEADER_LIST_SIZE, config.max_header_list_bytes),
        (ENABLE_CONNECT_PROTOCOL, 1),
    ];
    put_header(out, settings.len() * 6, kind::SETTINGS, 0, 0);
    for (id, value) in settings {
        out.put_u16(id);
        out.put_u32(value);
    }
}

/// What a SETTINGS frame of the client says that concerns us.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// The window of each stream that we send on.
    pub(crate) window: Option<u32>,
    /// The client has made its dynamic table smaller than it was at the beginning.
    pub(crate) smaller_table: bool,
}

/// Reads a SETTINGS frame. What we never do by ourselves (push, large frames) is checked and left.
pub(crate) fn read(payload: &[u8]) -> Result<Change, Code> {
    let (settings, rest) = payload.as_chunks::<6>();
    if !rest.is_empty() {
        return Err(Code::FRAME_SIZE_ERROR);
    }
    let mut change = Change::default();
    for [a, b, c, d, e, f] in settings {
        let value = u32::from_be_bytes([*c, *d, *e, *f]);
        match u16::from_be_bytes([*a, *b]) {
            HEADER_TABLE_SIZE => change.smaller_table |= value < DEFAULT_TABLE_BYTES,
            ENABLE_PUSH | ENABLE_CONNECT_PROTOCOL if value > 1 => return Err(Code::PROTOCOL_ERROR),
            INITIAL_WINDOW_SIZE if value > MAX_31_BITS => return Err(Code::FLOW_CONTROL_ERROR),
            INITIAL_WINDOW_SIZE => change.window = Some(value),
            MAX_FRAME_SIZE
                if !(PAYLOAD_MAX_BYTES as u64..=u64::from(MAX_FRAME_SIZE_MAX))
                    .contains(&u64::from(value)) =>
            {
                return Err(Code::PROTOCOL_ERROR);
            }
            _ => {}
        }
    }
    Ok(change)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::HEADER_BYTES;

    fn setting(id: u16, value: u32) -> Vec<u8> {
        [id.to_be_bytes().as_slice(), &value.to_be_bytes()].concat()
    }

    #[test]
    fn the_last_of_a_setting_counts_and_unknown_ones_do_not() {
        let payload =
            [setting(4, 1), setting(0xbe, 7), setting(4, 2), setting(1, 100), setting(1, 4096)];
        let change = Change { window: Some(2), smaller_table: true };
        assert_eq!(read(&payload.concat()), Ok(change));
        assert_eq!(read(b""), Ok(Change::default()));
    }

    #[test]
    fn values_out_of_their_range_are_refused() {
        for (id, value, code) in [
            (2, 2, Code::PROTOCOL_ERROR),
            (4, 1 << 31, Code::FLOW_CONTROL_ERROR),
            (5, 16_383, Code::PROTOCOL_ERROR),
            (5, 1 << 24, Code::PROTOCOL_ERROR),
            (8, 2, Code::PROTOCOL_ERROR),
        ] {
            assert_eq!(read(&setting(id, value)), Err(code), "{id} {value}");
        }
        for (id, value) in [(2, 0), (2, 1), (5, 16_384), (5, (1 << 24) - 1), (4, MAX_31_BITS)] {
            assert!(read(&setting(id, value)).is_ok(), "{id} {value}");
        }
        assert_eq!(read(&[0; 7]), Err(Code::FRAME_SIZE_ERROR));
    }

    #[test]
    fn ours_can_be_read() {
        let mut out = BytesMut::new();
        let config = Config { stream_window_bytes: 70_000, ..Config::default() };
        put_settings(&mut out, &config);
        let change = read(&out[HEADER_BYTES..]).unwrap();
        assert_eq!(change, Change { window: Some(70_000), smaller_table: false });
    }
}
