//! Which query parameter carries the token, and what is the query without it?

use percent_encoding::percent_decode_str;

use super::{PARAMETER, TrafficToken};

/// A query without our parameter.
pub(super) struct Cleaned {
    /// Whether the parameter was the token.
    pub(super) good: bool,
    /// The others, as they came; `None` if there are none.
    pub(super) rest: Option<String>,
}

/// Takes our parameters out of `query`; `None` if there are none. A name is also ours if it was
/// written with percent signs: a guest would decode it.
pub(super) fn take(token: &TrafficToken, query: &str) -> Option<Cleaned> {
    let mut found = 0_usize;
    let mut good = false;
    let mut rest: Vec<&str> = Vec::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if percent_decode_str(name).eq(PARAMETER.bytes()) {
            found += 1;
            let value: Vec<u8> = percent_decode_str(value).collect();
            good |= token.matches(&value);
        } else {
            rest.push(pair);
        }
    }
    let rest = (!rest.is_empty()).then(|| rest.join("&"));
    (found > 0).then_some(Cleaned { good: good && found == 1, rest })
}
