//! Which names, dates and numbers does a certificate carry?
//!
//! A reader for the few fields of a certificate (RFC 5280 section 4.1) that the edge shows, warns
//! about and renews by. TLS itself does not use it: nothing is trusted because of what it says.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

/// Tags of DER (X.690): those that a certificate is walked by.
mod tag {
    pub(super) const BOOLEAN: u8 = 0x01;
    pub(super) const INTEGER: u8 = 0x02;
    pub(super) const OCTETS: u8 = 0x04;
    pub(super) const OID: u8 = 0x06;
    pub(super) const SEQUENCE: u8 = 0x30;
    pub(super) const UTC_TIME: u8 = 0x17;
    pub(super) const GENERAL_TIME: u8 = 0x18;
    /// `[0]` of `TBSCertificate`: the version.
    pub(super) const VERSION: u8 = 0xa0;
    /// `[3]` of `TBSCertificate`: the extensions.
    pub(super) const EXTENSIONS: u8 = 0xa3;
    /// `[2]` of `GeneralName`: a DNS name.
    pub(super) const DNS_NAME: u8 = 0x82;
    /// `[0]` of `AuthorityKeyIdentifier`: the key's identifier.
    pub(super) const KEY_ID: u8 = 0x80;
}

/// `subjectAltName` (RFC 5280 section 4.2.1.6).
const OID_ALT_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
/// `authorityKeyIdentifier` (RFC 5280 section 4.2.1.1).
const OID_AUTHORITY_KEY: &[u8] = &[0x55, 0x1d, 0x23];
/// Most names taken from one certificate; public authorities allow 100.
const NAMES_MAX: usize = 1000;

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// DNS names, lower case, `*.` in front of wildcards.
    pub(crate) names: Vec<String>,
    /// Not valid before.
    pub(crate) not_before: Timestamp,
    /// Not valid after.
    pub(crate) not_after: Timestamp,
    /// The serial number as encoded.
    pub(crate) serial: Vec<u8>,
    /// The identifier of the authority's key, if given.
    pub(crate) authority_key: Option<Vec<u8>>,
}

impl Facts {
    /// Reads the fields out of a certificate in DER; `None` if it isn't one.
    pub(crate) fn of(der: &[u8]) -> Option<Self> {
        let mut tbs = Der(Der(Der(der).expect(tag::SEQUENCE)?).expect(tag::SEQUENCE)?);
        if tbs.peek() == Some(tag::VERSION) {
            tbs.next()?;
        }
        let serial = tbs.expect(tag::INTEGER)?.to_vec();
        tbs.expect(tag::SEQUENCE)?; // algorithm
        tbs.expect(tag::SEQUENCE)?; // issuer
        let mut validity = Der(tbs.expect(tag::SEQUENCE)?);
        let (not_before, not_after) = (time(validity.next()?)?, time(validity.next()?)?);
        let mut facts = Self { names: vec![], not_before, not_after, serial, authority_key: None };
        while let Some((tag, value)) = tbs.next() {
            if tag == tag::EXTENSIONS {
                facts.read_extensions(Der(Der(value).expect(tag::SEQUENCE)?))?;
            }
        }
        Some(facts)
    }

    fn read_extensions(&mut self, mut list: Der<'_>) -> Option<()> {
        while !list.0.is_empty() {
            let mut extension = Der(list.expect(tag::SEQUENCE)?);
            let oid = extension.expect(tag::OID)?;
            if extension.peek() == Some(tag::BOOLEAN) {
                extension.next()?; // critical
            }
            let mut inner = Der(Der(extension.expect(tag::OCTETS)?).expect_any()?);
            if oid == OID_ALT_NAMES {
                while let Some((tag, value)) = inner.next() {
                    if tag == tag::DNS_NAME && self.names.len() < NAMES_MAX {
                        self.names.push(std::str::from_utf8(value).ok()?.to_ascii_lowercase());
                    }
                }
            } else if oid == OID_AUTHORITY_KEY && inner.peek() == Some(tag::KEY_ID) {
                self.authority_key = Some(inner.next()?.1.to_vec());
            }
        }
        Some(())
    }

    /// Whether a client that asks for `name` accepts it; `*.` in front stands for itself.
    pub(crate) fn covers(&self, name: &str) -> bool {
        self.names.iter().any(|own| own == name)
            || name.split_once('.').is_some_and(|(label, rest)| {
                label != "*" && self.names.iter().any(|own| own.strip_prefix("*.") == Some(rest))
            })
    }
}

/// A cursor over DER; `None` from any method means that it isn't DER.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let length = if first < 0x80 {
            usize::from(first)
        } else {
            let (bytes, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
            rest = after;
            if bytes.is_empty() || bytes.len() > 4 {
                return None; // indefinite, or larger than anything we hold
            }
            bytes.iter().fold(0, |sum, &byte| (sum << 8) | usize::from(byte))
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, value))
    }

    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, value)| value)
    }

    fn expect_any(&mut self) -> Option<&'a [u8]> {
        self.next().map(|(_, value)| value)
    }
}

/// `UTCTime` or `GeneralizedTime` in the one form that certificates may use (RFC 5280 4.1.2.5).
fn time((tag, text): (u8, &[u8])) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let digits = match tag {
        tag::UTC_TIME if text.len() == 12 => {
            format!("{}{text}", if text < "50" { "20" } else { "19" })
        }
        tag::GENERAL_TIME if text.len() == 14 => text.to_owned(),
        _ => return None,
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let field = |from: usize, to: usize| digits[from..to].parse::<i8>().ok();
    let year = digits[..4].parse().ok()?;
    let date = DateTime::new(
        year,
        field(4, 6)?,
        field(6, 8)?,
        field(8, 10)?,
        field(10, 12)?,
        field(12, 14)?,
        0,
    );
    Some(date.ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SerialNumber, date_time_ymd};

    use super::*;

    fn sample() -> Vec<u8> {
        let names = ["Example.com", "*.example.com", "127.0.0.1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2024, 2, 29);
        params.not_after = date_time_ymd(2055, 1, 2);
        params.serial_number = Some(SerialNumber::from(0x0102_0304_u64));
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn names_dates_and_serial_are_read() {
        let facts = Facts::of(&sample()).unwrap();
        assert_eq!(facts.names, ["example.com", "*.example.com"]);
        assert_eq!(facts.not_before.to_string(), "2024-02-29T00:00:00Z");
        assert_eq!(facts.not_after.to_string(), "2055-01-02T00:00:00Z", "past 2050: another form");
        assert!(facts.serial.ends_with(&[1, 2, 3, 4]));
        assert!(facts.authority_key.is_some());
    }

    #[test]
    fn wildcard_covers_one_label() {
        let facts = Facts::of(&sample()).unwrap();
        let covered = ["example.com", "a.example.com", "*.example.com"];
        assert!(covered.iter().all(|name| facts.covers(name)));
        let foreign = ["a.b.example.com", "xample.com", "*.a.example.com", "com", ""];
        assert!(!foreign.iter().any(|name| facts.covers(name)));
    }

    #[test]
    fn cut_and_flipped_certificates_are_refused_or_read_but_never_panic() {
        let whole = sample();
        for length in 0..whole.len() {
            assert_eq!(Facts::of(&whole[..length]), None, "cut at {length}");
        }
        for index in 0..whole.len() {
            for bit in 0..8 {
                let mut bent = whole.clone();
                bent[index] ^= 1 << bit;
                let _ = Facts::of(&bent); // must return
            }
        }
    }
}
