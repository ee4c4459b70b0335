//! A question for TXT records and its answer, byte by byte (RFC 1035, 4). Nothing that is not an
//! answer to the very question is believed.

/// Bytes of a message's head.
const HEAD_BYTES: usize = 12;
/// Most bytes of a name on the wire (RFC 1035, 2.3.4).
const NAME_BYTES_MAX: usize = 255;
/// Most compression pointers of one name.
const POINTERS_MAX: usize = 32;
/// Most records of an answer that are looked at.
const RECORDS_MAX: u16 = 128;
/// Most steps of a chain of aliases.
const ALIASES_MAX: usize = 8;
/// Most bytes of texts that are kept of one answer.
const TEXT_BYTES_MAX: usize = 16 << 10;

const TYPE_CNAME: u16 = 5;
const TYPE_TXT: u16 = 16;
const CLASS_IN: u16 = 1;
const FLAG_RESPONSE: u16 = 0x8000;
const FLAG_TRUNCATED: u16 = 0x0200;
const FLAG_RECURSE: u16 = 0x0100;
const OPCODE: u16 = 0x7800;
const RCODE: u16 = 0x000f;
const RCODE_NO_NAME: u16 = 3;

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// These texts, perhaps none.
    Texts(Vec<String>),
    /// It did not fit; to be asked again over TCP.
    Truncated,
    /// The server could not say, with this code.
    Failed(u16),
}

/// Why some bytes are no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoAnswer {
    /// They belong to another question, if to any: whoever waits goes on waiting.
    #[error("it answers another question")]
    NotOurs,
    /// They belong to the question and make no sense.
    #[error("the answer is malformed")]
    Malformed,
}

/// The question for a name's TXT records; none if it can't be a name.
pub(super) fn question(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + name.len() + 6);
    for word in [id, FLAG_RECURSE, 1, 0, 0, 0] {
        bytes.extend_from_slice(&word.to_be_bytes());
    }
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        bytes.push(length);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    if bytes.len() - HEAD_BYTES > NAME_BYTES_MAX {
        return None;
    }
    for word in [TYPE_TXT, CLASS_IN] {
        bytes.extend_from_slice(&word.to_be_bytes());
    }
    Some(bytes)
}

/// Reads the answer to the question with this id and name.
pub(super) fn answer(bytes: &[u8], id: u16, name: &str) -> Result<Answer, NoAnswer> {
    let mut reader = Reader { bytes, at: 0 };
    let mut head = [0; 6];
    for word in &mut head {
        *word = reader.word().ok_or(NoAnswer::NotOurs)?;
    }
    let [its_id, flags, questions, answers, _, _] = head;
    if its_id != id || flags & FLAG_RESPONSE == 0 || flags & OPCODE != 0 || questions != 1 {
        return Err(NoAnswer::NotOurs);
    }
    let asked = (reader.name(), reader.word(), reader.word());
    let ours = asked.0.is_some_and(|asked| asked.eq_ignore_ascii_case(name.as_bytes()));
    if !ours || (asked.1, asked.2) != (Some(TYPE_TXT), Some(CLASS_IN)) {
        return Err(NoAnswer::NotOurs);
    }
    if flags & FLAG_TRUNCATED != 0 {
        return Ok(Answer::Truncated);
    }
    match flags & RCODE {
        0 => {}
        RCODE_NO_NAME => return Ok(Answer::Texts(Vec::new())),
        code => return Ok(Answer::Failed(code)),
    }
    let records = (0..answers.min(RECORDS_MAX)).map(|_| reader.record());
    let records = records.collect::<Option<Vec<_>>>().ok_or(NoAnswer::Malformed)?;
    Ok(Answer::Texts(follow(name, &records)))
}

/// A record of the kinds that matter; its owner in lower case.
enum Record {
    Text(Vec<u8>, String),
    Alias(Vec<u8>, Vec<u8>),
    Other,
}

/// The texts of a name, or of what it is an alias of.
fn follow(name: &str, records: &[Record]) -> Vec<String> {
    let mut name = name.to_ascii_lowercase().into_bytes();
    for _ in 0..=ALIASES_MAX {
        let mut left = TEXT_BYTES_MAX;
        let texts: Vec<String> = records
            .iter()
            .filter_map(|record| match record {
                Record::Text(owner, text) if *owner == name && text.len() <= left => {
                    left -= text.len();
                    Some(text.clone())
                }
                _ => None,
            })
            .collect();
        let alias = records.iter().find_map(|record| match record {
            Record::Alias(owner, alias) if *owner == name => Some(alias.clone()),
            _ => None,
        });
        match alias {
            Some(alias) if texts.is_empty() => name = alias,
            _ => return texts,
        }
    }
    Vec::new()
}

/// Reads on from a place; `None` past the end or for what can't be.
struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn word(&mut self) -> Option<u16> {
        self.take(2).map(|two| u16::from_be_bytes([two[0], two[1]]))
    }

    /// A name, lower case, its labels joined by dots. Pointers lead backwards only.
    fn name(&mut self) -> Option<Vec<u8>> {
        let mut name = Vec::new();
        let mut after = None;
        let mut pointers = 0;
        loop {
            let start = self.at;
            let length = *self.take(1)?.first()?;
            match length {
                0 => break,
                1..=63 => {
                    let label = self.take(length.into())?;
                    if label.contains(&b'.') || name.len() + label.len() + 1 > NAME_BYTES_MAX {
                        return None;
                    }
                    if !name.is_empty() {
                        name.push(b'.');
                    }
                    name.extend(label.iter().map(u8::to_ascii_lowercase));
                }
                0xc0.. => {
                    let low = *self.take(1)?.first()?;
                    let to = usize::from(length & 0x3f) << 8 | usize::from(low);
                    pointers += 1;
                    if to >= start || pointers > POINTERS_MAX {
                        return None;
                    }
                    after.get_or_insert(self.at);
                    self.at = to;
                }
                _ => return None,
            }
        }
        if let Some(after) = after {
            self.at = after;
        }
        Some(name)
    }

    fn record(&mut self) -> Option<Record> {
        let owner = self.name()?;
        let (kind, class) = (self.word()?, self.word()?);
        self.take(4)?; // how long it may be kept: it isn't
        let length = self.word()?;
        let end = self.at.checked_add(length.into())?;
        let data = self.bytes.get(self.at..end)?;
        let record = match (kind, class) {
            (TYPE_TXT, CLASS_IN) => text(data)?.map_or(Record::Other, |t| Record::Text(owner, t)),
            (TYPE_CNAME, CLASS_IN) => {
                let alias = self.name()?;
                if self.at != end {
                    return None;
                }
                Record::Alias(owner, alias)
            }
            _ => Record::Other,
        };
        self.at = end;
        Some(record)
    }
}

/// The parts of a TXT record put together (RFC 1035, 3.3.14); none inside if it is no UTF-8.
fn text(mut data: &[u8]) -> Option<Option<String>> {
    let mut whole = Vec::new();
    while let Some((&length, rest)) = data.split_first() {
        let (part, rest) = rest.split_at_checked(length.into())?;
        whole.extend_from_slice(part);
        data = rest;
    }
    Some(String::from_utf8(whole).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "_c.Example.org";

    /// An answer to the question with id 7, flags and records as given.
    fn message(flags: u16, count: u16, records: &[u8]) -> Vec<u8> {
        let mut bytes = question(7, NAME).unwrap();
        bytes[2..4].copy_from_slice(&(FLAG_RESPONSE | flags).to_be_bytes());
        bytes[6..8].copy_from_slice(&count.to_be_bytes());
        bytes.extend_from_slice(records);
        bytes
    }

    fn record(owner: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
        let mut bytes = owner.to_vec();
        for word in [kind, CLASS_IN, 0, 60, u16::try_from(data.len()).unwrap()] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        bytes.extend_from_slice(data);
        bytes
    }

    /// Points to the question's name.
    const OWNER: &[u8] = &[0xc0, 12];

    fn texts(found: &[&str]) -> Result<Answer, NoAnswer> {
        Ok(Answer::Texts(found.iter().map(|&text| text.to_owned()).collect()))
    }

    #[test]
    fn parts_are_put_together_and_aliases_followed() {
        let records = [
            record(OWNER, TYPE_TXT, b"\x03one\x03two"),
            record(OWNER, TYPE_TXT, b""),
            record(b"\x05other\0", TYPE_TXT, b"\x01x"),
        ];
        assert_eq!(answer(&message(0, 3, &records.concat()), 7, NAME), texts(&["onetwo", ""]));
        let alias = [
            record(b"\x01B\x01c\0", TYPE_TXT, b"\x04here"),
            record(OWNER, TYPE_CNAME, b"\x01b\x01C\0"),
        ];
        assert_eq!(answer(&message(0, 2, &alias.concat()), 7, NAME), texts(&["here"]));
        let ring = record(OWNER, TYPE_CNAME, OWNER);
        assert_eq!(answer(&message(0, 1, &ring), 7, NAME), texts(&[]));
    }

    #[test]
    fn codes_and_truncation_are_told_apart() {
        assert_eq!(answer(&message(RCODE_NO_NAME, 0, b""), 7, NAME), texts(&[]));
        assert_eq!(answer(&message(2, 0, b""), 7, NAME), Ok(Answer::Failed(2)));
        assert_eq!(answer(&message(FLAG_TRUNCATED, 9, b""), 7, NAME), Ok(Answer::Truncated));
    }

    #[test]
    fn what_answers_another_question_is_not_ours() {
        let good = message(0, 0, b"");
        assert_eq!(answer(&good, 8, NAME), Err(NoAnswer::NotOurs), "id");
        assert_eq!(answer(&good, 7, "_c.example.net"), Err(NoAnswer::NotOurs), "name");
        assert_eq!(answer(&question(7, NAME).unwrap(), 7, NAME), Err(NoAnswer::NotOurs), "asks");
        let mut kind = good.clone();
        let at = kind.len() - 3;
        kind[at] = 1;
        assert_eq!(answer(&kind, 7, NAME), Err(NoAnswer::NotOurs), "type");
        for cut in 0..good.len() {
            assert_eq!(answer(&good[..cut], 7, NAME), Err(NoAnswer::NotOurs), "{cut}");
        }
    }

    #[test]
    fn records_that_lie_are_malformed_and_none_panics() {
        let there = u8::try_from(message(0, 0, b"").len()).unwrap();
        for bad in [
            record(&[0xc0, there], TYPE_TXT, b""),  // points at itself
            record(&[0xc0, 0xff], TYPE_TXT, b""),   // points ahead
            record(&[0x41], TYPE_TXT, b""),         // no such label
            record(OWNER, TYPE_TXT, b"\x05ab"),     // a part longer than the record
            record(OWNER, TYPE_CNAME, b"\x01a\0x"), // an alias shorter than it
            record(OWNER, TYPE_TXT, b"\x02ab")[..14].to_vec(),
        ] {
            assert_eq!(answer(&message(0, 1, &bad), 7, NAME), Err(NoAnswer::Malformed), "{bad:?}");
        }
        assert_eq!(answer(&message(0, 9, b""), 7, NAME), Err(NoAnswer::Malformed), "fewer");
        let binary = record(OWNER, TYPE_TXT, b"\x01\xff");
        assert_eq!(answer(&message(0, 1, &binary), 7, NAME), texts(&[]));
        let mut whole = message(0, 1, &record(OWNER, TYPE_TXT, b"\x02ab"));
        for at in 0..whole.len() {
            for flip in 1..=u8::MAX {
                whole[at] ^= flip;
                let _ = answer(&whole, 7, NAME);
                whole[at] ^= flip;
            }
        }
    }

    #[test]
    fn what_cannot_be_a_name_is_not_asked_for() {
        for bad in ["", "a..b", ".a", "a.", &"a".repeat(64), &["a"; 130].join(".")] {
            assert_eq!(question(1, bad), None, "{bad}");
        }
    }
}
