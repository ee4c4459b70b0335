//! Where the time went, as the server says: `Server-Timing`.

use http::HeaderMap;

/// The entries of an answer's `Server-Timing` headers, in milliseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServerTiming(Vec<(String, f64)>);

impl ServerTiming {
    /// Reads the headers; what isn't understood is left out.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all("server-timing").into_iter().filter_map(|v| v.to_str().ok());
        Self(values.flat_map(|value| value.split(',')).filter_map(entry).collect())
    }

    /// The duration of an entry, milliseconds.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, dur)| *dur)
    }

    /// Names and durations, milliseconds, in the order they came.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, dur)| (name.as_str(), *dur))
    }
}

fn entry(text: &str) -> Option<(String, f64)> {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next()?.to_owned();
    let dur = parts.find_map(|part| part.strip_prefix("dur="))?;
    let dur: f64 = dur.parse().ok()?;
    (dur.is_finite() && dur >= 0.0).then_some((name, dur))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn entries_of_all_headers_are_found() {
        let mut headers = HeaderMap::new();
        for value in [
            "lease;dur=0.125, restore;dur=291.0",
            "route;desc=\"x\";dur=0.5",
            "odd, nan;dur=NaN, past;dur=-1",
        ] {
            headers.append("server-timing", HeaderValue::from_static(value));
        }
        let timing = ServerTiming::of(&headers);
        let all: Vec<_> = timing.iter().collect();
        assert_eq!(all, [("lease", 0.125), ("restore", 291.0), ("route", 0.5)]);
        assert_eq!(timing.get("restore"), Some(291.0));
        assert_eq!(timing.get("odd"), None);
    }
}
