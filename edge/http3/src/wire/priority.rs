//! How urgent a client says that a response is (RFC 9218).

use std::convert::Infallible;

use sfv::{
    BareItemFromInput, KeyRef, Parser,
    visitor::{
        DictionaryVisitor, EntryVisitor, Ignored, InnerListVisitor, ItemVisitor, ParameterVisitor,
    },
};

/// The least urgent level.
pub const URGENCY_MAX: u8 = 7;

/// The parameters of the `priority` field that RFC 9218 4 defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Priority {
    /// `u`: 0, the most urgent, to 7.
    pub urgency: u8,
    /// `i`: whether the client can use the response piece by piece, so that those of the same
    /// urgency should share the connection.
    pub incremental: bool,
}

impl Default for Priority {
    /// What holds for a request that says nothing: urgency 3, not incremental.
    fn default() -> Self {
        Self { urgency: 3, incremental: false }
    }
}

impl Priority {
    /// Reads a client's `priority` field or PRIORITY_UPDATE. What is missing, of the wrong kind or
    /// out of range has its default; a field that is no dictionary says nothing at all.
    #[must_use]
    pub fn parse(value: &[u8]) -> Self {
        Self::default().merged(value)
    }

    /// These parameters with those replaced that a server's `priority` field has (RFC 9218 8).
    #[must_use]
    pub fn merged(self, value: &[u8]) -> Self {
        let merge = Merge { base: self, merged: self };
        Parser::new(value).parse_dictionary_with_visitor(merge).unwrap_or(self)
    }
}

/// Collects the parameters over those that hold without them.
struct Merge {
    base: Priority,
    merged: Priority,
}

impl<'de> DictionaryVisitor<'de> for Merge {
    type Out = Priority;
    type Error = Infallible;

    fn entry(&mut self, key: &'de KeyRef) -> Result<impl EntryVisitor<'de>, Infallible> {
        // Of a key given twice only the last counts, even if it says nothing useful.
        let slot = match key.as_str() {
            "u" => {
                self.merged.urgency = self.base.urgency;
                Slot::Urgency(&mut self.merged.urgency)
            }
            "i" => {
                self.merged.incremental = self.base.incremental;
                Slot::Incremental(&mut self.merged.incremental)
            }
            _ => Slot::Other,
        };
        Ok(slot)
    }

    fn finish(self) -> Result<Priority, Infallible> {
        Ok(self.merged)
    }
}

/// Where the value of a key goes.
enum Slot<'a> {
    Urgency(&'a mut u8),
    Incremental(&'a mut bool),
    Other,
}

impl<'de> EntryVisitor<'de> for Slot<'_> {
    type Error = Infallible;

    fn item(self) -> Result<impl ItemVisitor<'de>, Infallible> {
        Ok(self)
    }

    fn inner_list(self) -> Result<impl InnerListVisitor<'de>, Infallible> {
        Ok(Ignored)
    }
}

impl<'de> ItemVisitor<'de> for Slot<'_> {
    type Out = ();
    type Error = Infallible;

    fn bare_item(
        self,
        item: BareItemFromInput<'de>,
    ) -> Result<impl ParameterVisitor<'de, Out = ()>, Infallible> {
        match (self, item) {
            (Slot::Urgency(slot), BareItemFromInput::Integer(urgency)) => {
                let urgency = u8::try_from(i64::from(urgency)).ok();
                *slot = urgency.filter(|urgency| *urgency <= URGENCY_MAX).unwrap_or(*slot);
            }
            (Slot::Incremental(slot), BareItemFromInput::Boolean(incremental)) => {
                *slot = incremental;
            }
            _ => {}
        }
        Ok(Ignored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn priority(urgency: u8, incremental: bool) -> Priority {
        Priority { urgency, incremental }
    }

    #[test]
    fn both_parameters_are_read_in_any_order_among_others() {
        for (value, expected) in [
            ("", priority(3, false)),
            ("u=0", priority(0, false)),
            ("u=7, i", priority(7, true)),
            ("i=?1,u=5", priority(5, true)),
            ("i=?0", priority(3, false)),
            ("u=1;x=2, new=(a b), i;y", priority(1, true)),
            ("u=1, u=2", priority(2, false)),
        ] {
            assert_eq!(Priority::parse(value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn what_is_wrong_about_one_parameter_leaves_its_default() {
        for value in
            ["u=8", "u=-1", "u=1.0", "u=a", "u", "u=999999999999999", "u=(1)", "i=1", "u=1, u=9"]
        {
            assert_eq!(Priority::parse(value.as_bytes()), Priority::default(), "{value}");
        }
        assert_eq!(Priority::parse(b"u=9, i"), priority(3, true));
    }

    #[test]
    fn what_is_no_dictionary_says_nothing() {
        for value in [&b"u=1,"[..], b"u=1 i", b"U=1", b"u=1, \xff", b"=", b"u=", b"u=1, i=?2"] {
            assert_eq!(Priority::parse(value), Priority::default(), "{value:?}");
        }
    }

    #[test]
    fn a_response_replaces_only_what_it_has() {
        assert_eq!(priority(5, true).merged(b"u=1"), priority(1, true));
        assert_eq!(priority(5, true).merged(b"i=?0"), priority(5, false));
        assert_eq!(priority(5, true).merged(b"u=9"), priority(5, true));
        assert_eq!(priority(5, true).merged(b"u=1,"), priority(5, true));
    }
}
