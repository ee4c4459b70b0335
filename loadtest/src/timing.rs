//! Where the time went: `Server-Timing` and percentiles.

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
}

fn entry(text: &str) -> Option<(String, f64)> {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next()?.to_owned();
    let dur = parts.find_map(|part| part.strip_prefix("dur="))?;
    Some((name, dur.parse().ok()?))
}

/// Measured values.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds one.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The smallest value that at least `percent` of them don't exceed (nearest rank).
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent.min(100)).div_ceil(100).max(1);
        sorted.get(rank - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn entries_of_all_headers_are_found() {
        let mut headers = HeaderMap::new();
        for value in ["lease;dur=0.125, restore;dur=291.0", "route;desc=\"x\";dur=0.5", "odd"] {
            headers.append("server-timing", HeaderValue::from_static(value));
        }
        let timing = ServerTiming::of(&headers);
        assert_eq!(timing.get("lease"), Some(0.125));
        assert_eq!(timing.get("restore"), Some(291.0));
        assert_eq!(timing.get("route"), Some(0.5));
        assert_eq!(timing.get("odd"), None);
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let mut samples = Samples::default();
        assert_eq!(samples.percentile(50), None);
        (1..=10).rev().for_each(|value| samples.push(f64::from(value)));
        assert_eq!(samples.percentile(50), Some(5.0));
        assert_eq!(samples.percentile(99), Some(10.0));
        assert_eq!(samples.percentile(0), Some(1.0));
    }
}
