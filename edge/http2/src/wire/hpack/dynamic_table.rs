//! The fields that a client has asked to remember (RFC 7541 2.3.2, 4).

use std::collections::VecDeque;

use bytes::Bytes;
use edge_fields::{Field, Name, Value};

/// Most bytes of the table, as RFC 7541 4.1 counts them: what holds until a SETTINGS says otherwise
/// (RFC 9113 6.5.2), and ours say nothing.
pub(super) const MAX_BYTES: usize = 4096;

/// A remembered field. Its bytes are its own: a section's would be held as a whole.
#[derive(Debug, Clone)]
struct Remembered {
    name: Name,
    value: Bytes,
}

impl Remembered {
    /// RFC 7541 4.1.
    fn size(&self) -> usize {
        self.name.as_bytes().len() + self.value.len() + 32
    }
}

/// The newest field first.
#[derive(Debug)]
pub(super) struct DynamicTable {
    fields: VecDeque<Remembered>,
    bytes: usize,
    max_bytes: usize,
}

impl DynamicTable {
    pub(super) const fn new() -> Self {
        Self { fields: VecDeque::new(), bytes: 0, max_bytes: MAX_BYTES }
    }

    /// The field with this number, from 0.
    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<Field> {
        let field = self.fields.get(index)?;
        let (name, value) = (field.name.clone(), Value::Literal(field.value.clone()));
        Some(Field { name, value, never_indexed: false })
    }

    /// The name of the field with this number, from 0.
    pub(super) fn name(&self, index: usize) -> Option<Name> {
        Some(self.fields.get(index)?.name.clone())
    }

    /// Remembers a field, and forgets the oldest ones for it. One that has no room empties the table
    /// (RFC 7541 4.4).
    pub(super) fn insert(&mut self, field: &Field) {
        let name = match &field.name {
            Name::Static(entry) => Name::Static(entry),
            Name::Literal(name) => Name::Literal(Bytes::copy_from_slice(name)),
        };
        let value = match &field.value {
            Value::Static(entry) => Bytes::from_static(entry.value.as_bytes()),
            Value::Literal(value) => Bytes::copy_from_slice(value),
        };
        let remembered = Remembered { name, value };
        let size = remembered.size();
        self.shrink_to(self.max_bytes.saturating_sub(size));
        if size <= self.max_bytes {
            self.bytes += size;
            self.fields.push_front(remembered);
        }
    }

    /// Follows a dynamic table size update. False: it is more than we allow.
    pub(super) fn resize(&mut self, max_bytes: u64) -> bool {
        match usize::try_from(max_bytes) {
            Ok(max_bytes) if max_bytes <= MAX_BYTES => {
                self.max_bytes = max_bytes;
                self.shrink_to(max_bytes);
                true
            }
            _ => false,
        }
    }

    fn shrink_to(&mut self, bytes: usize) {
        while self.bytes > bytes {
            let Some(oldest) = self.fields.pop_back() else { return };
            self.bytes -= oldest.size();
        }
    }
}
