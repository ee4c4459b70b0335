//! Errors in words.

use std::error::Error;

/// An error with all of its causes, on one line. A cause that its error repeats is said once.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the outer")]
    struct Outer(#[source] std::fmt::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("everything: {0}")]
    struct Repeats(#[source] Outer);

    #[test]
    fn causes_follow_what_they_caused_and_are_said_once() {
        let inner = std::fmt::Error.to_string();
        assert_eq!(chain(&Outer(std::fmt::Error)), format!("the outer: {inner}"));
        let all = chain(&Repeats(Outer(std::fmt::Error)));
        assert_eq!(all, format!("everything: the outer: {inner}"));
    }
}
