//! What a SETTINGS frame says (RFC 9114 7.2.4): ours written, the peer's read.

use bytes::BytesMut;

use super::{Code, Limits, varint, write_frame_header};

/// SETTINGS_QPACK_MAX_TABLE_CAPACITY (RFC 9204 5).
const QPACK_MAX_TABLE_CAPACITY: u64 = 0x01;
/// SETTINGS_MAX_FIELD_SECTION_SIZE (RFC 9114 7.2.4.1).
const MAX_FIELD_SECTION_SIZE: u64 = 0x06;
/// SETTINGS_QPACK_BLOCKED_STREAMS (RFC 9204 5).
const QPACK_BLOCKED_STREAMS: u64 = 0x07;
/// SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 9220 3).
const ENABLE_CONNECT_PROTOCOL: u64 = 0x08;
/// A reserved identifier, 0x1f * N + 0x21, so that peers keep ignoring what they don't know.
const GREASE: u64 = 0x1f * 0x2b_5dea + 0x21;

/// Most settings that are read: there are about a dozen in the registry.
const SETTINGS_MAX: usize = 64;

/// Most bytes of the payload of a SETTINGS frame that is read.
pub const PAYLOAD_BYTES_MAX: usize = SETTINGS_MAX * 2 * varint::MAX_BYTES;

/// What the peer told us, as far as it concerns a server with a stateless QPACK.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerSettings {
    /// The largest field section that the peer wants to get, in bytes; `None` is without limit.
    pub max_field_section_bytes: Option<u64>,
    /// Whether the peer said that it takes extended CONNECT (of no meaning from a client).
    pub connect_protocol: bool,
}

/// Why a SETTINGS frame is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// An identifier that HTTP/2 used (RFC 9114 7.2.4.1).
    #[error("the setting {0:#x} is one of HTTP/2")]
    Reserved(u64),
    /// The same identifier twice.
    #[error("the setting {0:#x} is given twice")]
    Duplicate(u64),
    /// A value that this setting can't have.
    #[error("the setting {id:#x} has the value {value}")]
    Value {
        /// The setting.
        id: u64,
        /// What it was given.
        value: u64,
    },
    /// The payload ends inside of a setting.
    #[error("a setting is cut short")]
    Truncated,
    /// More settings than anybody needs.
    #[error("there are more than {SETTINGS_MAX} settings")]
    TooMany,
}

impl SettingsError {
    /// The code to close the connection with.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::Truncated => Code::H3_FRAME_ERROR,
            Self::TooMany => Code::H3_EXCESSIVE_LOAD,
            Self::Reserved(_) | Self::Duplicate(_) | Self::Value { .. } => Code::H3_SETTINGS_ERROR,
        }
    }
}

impl PeerSettings {
    /// Reads the payload of a SETTINGS frame.
    ///
    /// # Errors
    ///
    /// [`SettingsError`]; all of them end the connection.
    pub fn decode(mut payload: &[u8]) -> Result<Self, SettingsError> {
        let mut settings = Self::default();
        let mut seen = Vec::new();
        while !payload.is_empty() {
            let id = take(&mut payload)?;
            let value = take(&mut payload)?;
            if seen.contains(&id) {
                return Err(SettingsError::Duplicate(id));
            }
            if seen.len() == SETTINGS_MAX {
                return Err(SettingsError::TooMany);
            }
            seen.push(id);
            settings.apply(id, value)?;
        }
        Ok(settings)
    }

    fn apply(&mut self, id: u64, value: u64) -> Result<(), SettingsError> {
        match (id, value) {
            (0x02..=0x05, _) => return Err(SettingsError::Reserved(id)),
            (MAX_FIELD_SECTION_SIZE, _) => self.max_field_section_bytes = Some(value),
            (ENABLE_CONNECT_PROTOCOL, 0 | 1) => self.connect_protocol = value == 1,
            (ENABLE_CONNECT_PROTOCOL, _) => return Err(SettingsError::Value { id, value }),
            // Our encoder makes no use of the peer's table, and the rest is unknown.
            _ => {}
        }
        Ok(())
    }
}

fn take(payload: &mut &[u8]) -> Result<u64, SettingsError> {
    let (value, len) = varint::decode(payload).ok_or(SettingsError::Truncated)?;
    *payload = &payload[len..];
    Ok(value)
}

/// Writes our SETTINGS frame: no dynamic table, extended CONNECT, the limit for field sections, and
/// one reserved setting.
pub fn write_settings(limits: &Limits, out: &mut BytesMut) {
    let size = limits.field_section_bytes as u64;
    let settings = [
        (QPACK_MAX_TABLE_CAPACITY, 0),
        (MAX_FIELD_SECTION_SIZE, size),
        (QPACK_BLOCKED_STREAMS, 0),
        (ENABLE_CONNECT_PROTOCOL, 1),
        (GREASE, 0),
    ];
    let len: usize =
        settings.iter().map(|(id, value)| varint::len(*id) + varint::len(*value)).sum();
    write_frame_header(super::frame::SETTINGS, len as u64, out);
    for (id, value) in settings {
        varint::encode(id, out);
        varint::encode(value, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(settings: &[(u64, u64)]) -> BytesMut {
        let mut out = BytesMut::new();
        for (id, value) in settings {
            varint::encode(*id, &mut out);
            varint::encode(*value, &mut out);
        }
        out
    }

    #[test]
    fn ours_can_be_read_by_the_rules_for_the_peers() {
        let mut out = BytesMut::new();
        write_settings(&Limits::default(), &mut out);
        assert_eq!(out[0], 4);
        assert_eq!(usize::from(out[1]), out.len() - 2);
        let ours = PeerSettings::decode(&out[2..]).unwrap();
        assert_eq!(ours.max_field_section_bytes, Some(32 * 1024));
        assert!(ours.connect_protocol);
        assert!(out[2..].starts_with(&[1, 0]), "no dynamic table");
        assert_eq!((GREASE - 0x21) % 0x1f, 0);
    }

    #[test]
    fn unknown_settings_are_ignored_and_an_empty_frame_says_nothing() {
        assert_eq!(PeerSettings::decode(&[]), Ok(PeerSettings::default()));
        let unknown = payload(&[(0x21, 5), (0x33, 1), (0x2b60_3742, 1), (1, 4096), (7, 100)]);
        assert_eq!(PeerSettings::decode(&unknown), Ok(PeerSettings::default()));
    }

    #[test]
    fn settings_of_http2_are_refused() {
        for id in 2..=5 {
            let error = PeerSettings::decode(&payload(&[(id, 0)])).unwrap_err();
            assert_eq!(error, SettingsError::Reserved(id));
            assert_eq!(error.code(), Code::H3_SETTINGS_ERROR);
        }
    }

    #[test]
    fn a_setting_given_twice_is_refused_even_an_unknown_one() {
        for id in [6, 0x21] {
            let error = PeerSettings::decode(&payload(&[(id, 1), (1, 1), (id, 1)])).unwrap_err();
            assert_eq!(error, SettingsError::Duplicate(id));
        }
    }

    #[test]
    fn extended_connect_is_0_or_1() {
        assert!(!PeerSettings::decode(&payload(&[(8, 0)])).unwrap().connect_protocol);
        let error = PeerSettings::decode(&payload(&[(8, 2)])).unwrap_err();
        assert_eq!(error.code(), Code::H3_SETTINGS_ERROR);
    }

    #[test]
    fn what_is_cut_short_or_too_much_is_refused() {
        let cut = PeerSettings::decode(&[6]).unwrap_err();
        assert_eq!((cut, cut.code()), (SettingsError::Truncated, Code::H3_FRAME_ERROR));
        let many: Vec<_> = (0..=SETTINGS_MAX as u64).map(|n| (0x1000 + n, 0)).collect();
        let error = PeerSettings::decode(&payload(&many)).unwrap_err();
        assert_eq!((error, error.code()), (SettingsError::TooMany, Code::H3_EXCESSIVE_LOAD));
    }
}
