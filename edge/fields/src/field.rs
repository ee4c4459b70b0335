//! One field of a section: a name and a value, each out of a table or spelled out.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

/// What a field counts beside its name and value (RFC 9113 6.5.2, RFC 9114 4.2.2).
const OVERHEAD_BYTES: usize = 32;

/// One field of a static table.
#[derive(Debug)]
pub struct Entry {
    /// The name, in lower case.
    pub name: &'static str,
    /// The value, perhaps empty.
    pub value: &'static str,
    /// The name as a header field's; `None` for a pseudo-header field.
    pub header_name: Option<HeaderName>,
    /// The value as a header field's.
    pub header_value: HeaderValue,
}

impl Entry {
    /// An entry, made by the compiler.
    ///
    /// # Panics
    ///
    /// If the name is empty, or name or value are none of a header field's.
    #[must_use]
    pub const fn new(name: &'static str, value: &'static str) -> Self {
        let header_name =
            if name.as_bytes()[0] == b':' { None } else { Some(HeaderName::from_static(name)) };
        Self { name, value, header_name, header_value: HeaderValue::from_static(value) }
    }
}

/// A field's name.
#[derive(Debug, Clone)]
pub enum Name {
    /// That of an entry.
    Static(&'static Entry),
    /// As the peer wrote it.
    Literal(Bytes),
}

impl Name {
    /// The name as it was sent.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Static(entry) => entry.name.as_bytes(),
            Self::Literal(bytes) => bytes,
        }
    }
}

/// A field's value.
#[derive(Debug, Clone)]
pub enum Value {
    /// That of an entry.
    Static(&'static Entry),
    /// As the peer wrote it.
    Literal(Bytes),
}

impl Value {
    /// The value as it was sent.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Static(entry) => entry.value.as_bytes(),
            Self::Literal(bytes) => bytes,
        }
    }
}

/// One field of a section.
#[derive(Debug, Clone)]
pub struct Field {
    /// Its name.
    pub name: Name,
    /// Its value.
    pub value: Value,
    /// Whether the peer asks to keep it spelled out (RFC 7541 7.1.3, RFC 9204 4.5.4): the value is a
    /// secret.
    pub never_indexed: bool,
}

impl Field {
    /// A field that is an entry.
    #[must_use]
    pub const fn of_entry(entry: &'static Entry) -> Self {
        Self { name: Name::Static(entry), value: Value::Static(entry), never_indexed: false }
    }

    /// The name as it was sent.
    #[inline]
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.name.as_bytes()
    }

    /// The value as it was sent.
    #[inline]
    #[must_use]
    pub fn value(&self) -> &[u8] {
        self.value.as_bytes()
    }

    /// The value as bytes that share memory with the section.
    #[must_use]
    pub fn into_value_bytes(self) -> Bytes {
        match self.value {
            Value::Static(entry) => Bytes::from_static(entry.value.as_bytes()),
            Value::Literal(bytes) => bytes,
        }
    }

    /// The name as a header field's; `None` if it can't be one, or has upper case in it.
    #[inline]
    #[must_use]
    pub fn header_name(&self) -> Option<HeaderName> {
        match &self.name {
            Name::Static(entry) => entry.header_name.clone(),
            Name::Literal(bytes) => HeaderName::from_lowercase(bytes).ok(),
        }
    }

    /// The value as a header field's; `None` if it has bytes that no value may have.
    #[inline]
    #[must_use]
    pub fn into_header_value(self) -> Option<HeaderValue> {
        let mut value = match self.value {
            Value::Static(entry) => entry.header_value.clone(),
            Value::Literal(bytes) => HeaderValue::from_maybe_shared(bytes).ok()?,
        };
        value.set_sensitive(self.never_indexed);
        Some(value)
    }

    /// What it counts towards a limit, in bytes: 32 more than it is long.
    #[inline]
    #[must_use]
    pub fn size(&self) -> usize {
        self.name().len() + self.value().len() + OVERHEAD_BYTES
    }
}
