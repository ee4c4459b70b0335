//! Running a command in a capsule: one request, a stream of events as lines of JSON.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

/// The body of `POST /v1/capsules/{id}/exec`. Exactly one of `cmd` and `args`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// A command line, run by `/bin/bash -l -c`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<String>,
    /// A program and its arguments, run as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// Environment on top of the capsule's.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Where to run; the user's home if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Who to run as; `user` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Longest time until its exit, milliseconds; 60000 if absent. 0 means as long as the capsule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// What it reads on its standard input; nothing if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Answer as soon as it has started and leave it running.
    #[serde(default)]
    pub background: bool,
}

/// One line of the answer (`application/x-ndjson`). The last one is `exit` or `error`, or `start`
/// if the command was to run in the background.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ExecEvent {
    /// It runs.
    Start {
        /// Its process id in the guest.
        pid: u32,
    },
    /// It wrote to its standard output.
    Stdout(Chunk),
    /// It wrote to its standard error.
    Stderr(Chunk),
    /// It ended.
    Exit {
        /// Its exit code; -1 if a signal ended it.
        code: i32,
        /// The signal that ended it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<String>,
    },
    /// It can't be followed any more.
    Error {
        /// A code of [`crate::ErrorCode`].
        code: String,
        /// For people.
        message: String,
    },
}

/// A piece of output. UTF-8 goes as it is, anything else (a cut character too) as base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The text or its base64.
    pub data: String,
    /// Which of the two.
    #[serde(default)]
    pub encoding: Encoding,
}

/// How [`Chunk::data`] is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// As it is.
    #[default]
    Utf8,
    /// Base64, standard alphabet, padded.
    Base64,
}

/// A chunk whose base64 is none.
#[derive(Debug, Clone, thiserror::Error)]
#[error("a chunk of output is not base64")]
pub struct BadChunk(#[source] base64::DecodeError);

impl Chunk {
    /// Wraps bytes of output.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self { data: text.to_owned(), encoding: Encoding::Utf8 },
            Err(_) => Self { data: STANDARD.encode(bytes), encoding: Encoding::Base64 },
        }
    }

    /// The bytes of output.
    ///
    /// # Errors
    ///
    /// [`BadChunk`] if it says base64 and isn't.
    pub fn into_bytes(self) -> Result<Vec<u8>, BadChunk> {
        match self.encoding {
            Encoding::Utf8 => Ok(self.data.into_bytes()),
            Encoding::Base64 => STANDARD.decode(self.data).map_err(BadChunk),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_survives_whatever_its_bytes_are() {
        for bytes in [&b"plain\n"[..], b"\xff\x00\x80", "gr\u{fc}n".as_bytes(), b"", b"\xc3"] {
            let event = ExecEvent::Stdout(Chunk::from_bytes(bytes));
            let line = serde_json::to_string(&event).unwrap();
            let Ok(ExecEvent::Stdout(chunk)) = serde_json::from_str(&line) else {
                panic!("{line}")
            };
            assert_eq!(chunk.into_bytes().unwrap(), bytes, "{line}");
        }
    }
}
