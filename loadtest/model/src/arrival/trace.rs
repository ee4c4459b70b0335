//! Files of recorded times.

use std::time::Duration;

/// Most times of a file: 160 MB of memory.
const MAX_TIMES: usize = 10_000_000;

/// Why a file holds no times.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTrace {
    /// Nothing but comments.
    #[error("no times; expected one number per line, seconds since the begin")]
    Empty,
    /// Too much of it.
    #[error("line {line}: one time too many; expected at most {MAX_TIMES}")]
    TooMany {
        /// Where, from 1.
        line: usize,
    },
    /// What stands in a line is no time, or none that can come there.
    #[error("line {line}: `{text}`; expected {expected}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What stands there, cut to 80 characters.
        text: String,
        /// What should.
        expected: &'static str,
    },
}

/// Reads times: one number per line, seconds since the begin, ascending. `#` begins a comment.
///
/// # Errors
///
/// [`BadTrace`] naming the first line that is wrong.
pub fn parse_trace(text: &str) -> Result<Vec<Duration>, BadTrace> {
    let mut times = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let content = line.split_once('#').map_or(line, |(before, _)| before).trim();
        if content.is_empty() {
            continue;
        }
        if times.len() == MAX_TIMES {
            return Err(BadTrace::TooMany { line: index + 1 });
        }
        let bad = |expected| BadTrace::Line {
            line: index + 1,
            text: content.chars().take(80).collect(),
            expected,
        };
        let seconds: f64 = content.parse().map_err(|_| bad("a number of seconds"))?;
        // Refuses what is negative, not a number or past the end of time.
        let time = Duration::try_from_secs_f64(seconds)
            .map_err(|_| bad("a finite number of seconds, at least 0"))?;
        if times.last().is_some_and(|last| time < *last) {
            return Err(bad("at least the time before it"));
        }
        times.push(time);
    }
    if times.is_empty() { Err(BadTrace::Empty) } else { Ok(times) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_past_comments_and_blanks() {
        let times = parse_trace("# recorded\n0\n\n 0.25 # first\r\n0.25\n1e1\n").unwrap();
        assert_eq!(times, [0, 250, 250, 10_000].map(Duration::from_millis));
    }

    #[test]
    fn what_is_no_ascending_time_is_refused_by_its_line() {
        for (text, message) in [
            ("0\nx\n", "line 2: `x`; expected a number of seconds"),
            ("0 1", "line 1: `0 1`; expected a number of seconds"),
            ("# a\n-1", "line 2: `-1`; expected a finite number of seconds, at least 0"),
            ("NaN", "line 1: `NaN`; expected a finite number of seconds, at least 0"),
            ("0\ninf", "line 2: `inf`; expected a finite number of seconds, at least 0"),
            ("1e300", "line 1: `1e300`; expected a finite number of seconds, at least 0"),
            ("2\n\n1.9", "line 3: `1.9`; expected at least the time before it"),
            ("", "no times; expected one number per line, seconds since the begin"),
            ("# only this", "no times; expected one number per line, seconds since the begin"),
        ] {
            assert_eq!(parse_trace(text).unwrap_err().to_string(), message, "of {text:?}");
        }
    }
}
