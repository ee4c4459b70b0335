//! The part of a path after `?`.

use std::{ops::RangeInclusive, time::Duration};

/// The longest wait that can be asked for, milliseconds.
const WAIT_MAX_MS: f64 = 60_000.0;

/// Names and values, all known by name.
#[derive(Debug)]
pub(crate) struct Query<'a>(Vec<(&'a str, &'a str)>);

/// A query that a route doesn't take.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadQuery {
    #[error("{name}={value}: expected {expected}")]
    Value { name: String, value: String, expected: String },
    #[error("{name}: no such parameter, expected {known}")]
    Name { name: String, known: String },
}

impl<'a> Query<'a> {
    /// Splits it. A name that isn't known is refused: it is a slip of the pen more often than not.
    pub(crate) fn parse(text: Option<&'a str>, known: &[&str]) -> Result<Self, BadQuery> {
        let mut pairs = Vec::new();
        for pair in text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !known.contains(&name) {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(BadQuery::Name { name: name.to_owned(), known });
            }
            if pairs.iter().any(|(earlier, _)| *earlier == name) {
                return Err(bad(name, value, "it once".to_owned()));
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(found, _)| *found == name).map(|(_, value)| *value)
    }

    /// A whole number, if given.
    pub(crate) fn number(
        &self,
        name: &str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, BadQuery> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits && range.contains(&number) => Ok(Some(number)),
            _ => {
                let expected = format!("a whole number from {} to {}", range.start(), range.end());
                Err(bad(name, text, expected))
            }
        }
    }

    /// A time in milliseconds, fractions allowed, if given.
    pub(crate) fn milliseconds(&self, name: &str) -> Result<Option<Duration>, BadQuery> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.parse::<f64>() {
            Ok(ms) if (0.0..=WAIT_MAX_MS).contains(&ms) => {
                Ok(Some(Duration::from_secs_f64(ms / 1e3)))
            }
            _ => Err(bad(name, text, format!("milliseconds from 0 to {WAIT_MAX_MS}"))),
        }
    }
}

/// Refuses a value for a reason of the route's own.
pub(crate) fn bad(name: &str, value: impl ToString, expected: String) -> BadQuery {
    BadQuery::Value { name: name.to_owned(), value: value.to_string(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Result<Query<'_>, BadQuery> {
        Query::parse(Some(text), &["ms", "n"])
    }

    #[test]
    fn values_are_found_by_name() {
        let query = query("ms=1.5&n=7").unwrap();
        assert_eq!(query.milliseconds("ms"), Ok(Some(Duration::from_micros(1500))));
        assert_eq!(query.number("n", 1..=10), Ok(Some(7)));
        assert_eq!(query.number("absent", 1..=10), Ok(None));
    }

    #[test]
    fn bad_values_are_named_with_what_was_expected() {
        for text in ["ms=-1", "ms=NaN", "ms=inf", "ms=60001", "ms=", "ms"] {
            let error = query(text).unwrap().milliseconds("ms").unwrap_err().to_string();
            assert!(error.ends_with("expected milliseconds from 0 to 60000"), "{text}: {error}");
        }
        for text in ["n=0", "n=11", "n=+1", "n=1.0", "n=", "n=99999999999999999999"] {
            let error = query(text).unwrap().number("n", 1..=10).unwrap_err().to_string();
            assert_eq!(error, format!("{text}: expected a whole number from 1 to 10"));
        }
    }

    #[test]
    fn unknown_and_repeated_names_are_refused() {
        let error = query("delay=1").unwrap_err().to_string();
        assert_eq!(error, "delay: no such parameter, expected ms, n");
        assert_eq!(query("n=1&n=2").unwrap_err().to_string(), "n=2: expected it once");
    }
}
