//! Budgets: what a run has to keep.
//!
//! ```toml
//! [[budget]]
//! part = "invoke/h2"       # as `Part::id` says; `*` stands for any characters
//! figure = "latency.p99_ms" # see `figure`
//! at_most = 20.0           # or at_least
//! ```
//!
//! # Invariants
//!
//! - What wasn't measured isn't kept: a budget of no part, of no figure or of a figure of nothing
//!   fails, so that a misspelt one can't pass.
//! - Few samples are no excuse.

use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct};

use crate::{
    RunReport,
    figure::{self, figure},
};

/// Most budgets of a file.
const MAX: usize = 10_000;

/// What one budget says of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The part it is about, see `Part::id`; the budget's own words if there is no such part.
    pub part: String,
    /// What was to be kept, e.g. `latency.p99_ms <= 20`.
    pub budget: String,
    /// What was measured; none if there is no such figure.
    pub measured: Option<f64>,
    /// The bound.
    pub bound: f64,
    /// Whether it was kept.
    pub kept: bool,
}

/// A figure and its bound.
#[derive(Debug, Clone, PartialEq)]
pub struct Budget {
    /// Which parts, see `Part::id`; `*` stands for any characters.
    pub part: String,
    /// Which figure of them, see [`figure`].
    pub figure: String,
    /// What it may be.
    pub bound: Bound,
}

/// What a figure may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// So much or less.
    AtMost(f64),
    /// So much or more.
    AtLeast(f64),
}

impl Budget {
    /// A figure that may be so much or less.
    #[must_use]
    pub fn at_most(part: &str, figure: &str, bound: f64) -> Self {
        Self { part: part.into(), figure: figure.into(), bound: Bound::AtMost(bound) }
    }

    /// A figure that has to be so much or more.
    #[must_use]
    pub fn at_least(part: &str, figure: &str, bound: f64) -> Self {
        Self { part: part.into(), figure: figure.into(), bound: Bound::AtLeast(bound) }
    }

    fn verdict(&self, part: String, measured: Option<f64>) -> Verdict {
        let (sign, bound) = match self.bound {
            Bound::AtMost(bound) => ("<=", bound),
            Bound::AtLeast(bound) => (">=", bound),
        };
        let budget = format!("{} {sign} {bound}", self.figure);
        let kept = measured.is_some_and(|measured| self.bound.allows(measured));
        Verdict { part, budget, measured, bound, kept }
    }
}

impl Bound {
    /// Whether a figure may be so. What is not a number may not.
    #[must_use]
    pub fn allows(self, measured: f64) -> bool {
        match self {
            Self::AtMost(bound) => measured <= bound,
            Self::AtLeast(bound) => measured >= bound,
        }
    }
}

impl Serialize for Budget {
    /// As it is read.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut budget = serializer.serialize_struct("Budget", 3)?;
        budget.serialize_field("part", &self.part)?;
        budget.serialize_field("figure", &self.figure)?;
        match self.bound {
            Bound::AtMost(bound) => budget.serialize_field("at_most", &bound)?,
            Bound::AtLeast(bound) => budget.serialize_field("at_least", &bound)?,
        }
        budget.end()
    }
}

/// Budgets, in the order they were written.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Budgets {
    /// Each of them.
    #[serde(rename = "budget")]
    pub all: Vec<Budget>,
}

/// Budgets as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBudgets {
    #[serde(default)]
    budget: Vec<RawBudget>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBudget {
    part: String,
    figure: String,
    at_most: Option<f64>,
    at_least: Option<f64>,
}

/// Why a text holds no budgets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadBudgets {
    /// It is none of them.
    #[error("{0}")]
    Syntax(String),
    /// A value can't be.
    #[error("{at}: {reason}")]
    Value {
        /// Where it stands; the first budget is `budget[0]`.
        at: String,
        /// What is wrong, and what was expected.
        reason: String,
    },
}

impl Budgets {
    /// Reads budgets from TOML and checks them.
    ///
    /// # Errors
    ///
    /// [`BadBudgets`] naming the first thing that is wrong.
    pub fn from_toml(text: &str) -> Result<Self, BadBudgets> {
        let raw: RawBudgets =
            toml::from_str(text).map_err(|e| BadBudgets::Syntax(e.to_string()))?;
        if !(1..=MAX).contains(&raw.budget.len()) {
            let reason = format!("{} of them; expected 1 to {MAX}", raw.budget.len());
            return Err(BadBudgets::Value { at: "budget".into(), reason });
        }
        let checked = raw.budget.into_iter().enumerate().map(|(index, raw)| {
            raw.check().map_err(|(field, reason)| BadBudgets::Value {
                at: format!("budget[{index}]{field}"),
                reason,
            })
        });
        Ok(Self { all: checked.collect::<Result<_, _>>()? })
    }

    /// Judges a run: a verdict per budget and part that it is about, and one per budget that is
    /// about none.
    #[must_use]
    pub fn judge(&self, report: &RunReport) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for budget in &self.all {
            let before = verdicts.len();
            for part in &report.parts {
                let id = part.id();
                if matches(&budget.part, &id) {
                    let measured = figure(report, part, &budget.figure);
                    verdicts.push(budget.verdict(id, measured));
                }
            }
            if verdicts.len() == before {
                verdicts.push(budget.verdict(budget.part.clone(), None));
            }
        }
        verdicts
    }
}

impl RawBudget {
    fn check(self) -> Result<Budget, (&'static str, String)> {
        if self.part.trim().is_empty() {
            return Err((".part", format!("{:?}; expected e.g. \"invoke/h2\"", self.part)));
        }
        if !figure::exists(&self.figure) {
            return Err((".figure", format!("{:?}; expected {}", self.figure, figure::EXPECTED)));
        }
        let (field, bound) = match (self.at_most, self.at_least) {
            (Some(bound), None) => (".at_most", Bound::AtMost(bound)),
            (None, Some(bound)) => (".at_least", Bound::AtLeast(bound)),
            (None, None) => return Err(("", "no bound; expected at_most or at_least".into())),
            (Some(_), Some(_)) => {
                return Err(("", "two bounds; expected one of at_most and at_least".into()));
            }
        };
        let (Bound::AtMost(value) | Bound::AtLeast(value)) = bound;
        if !(value.is_finite() && value >= 0.0) {
            return Err((field, format!("{value}; expected a finite number, at least 0")));
        }
        Ok(Budget { part: self.part, figure: self.figure, bound })
    }
}

/// Whether a text is as a pattern says, in which `*` stands for any characters, or none.
fn matches(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = pieces.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        // The first place is as good as any: what comes after has the most left.
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_parts() {
        for (pattern, text, expected) in [
            ("invoke/h2", "invoke/h2", true),
            ("invoke/h2", "invoke/h23", false),
            ("invoke", "invoke/h2", false),
            ("*", "anything/h1", true),
            ("*", "", true),
            ("invoke/*", "invoke/", true),
            ("invoke/*", "invoke-2/h1", false),
            ("*/h3", "proxy-64k/h3", true),
            ("*/h3", "proxy/h3/h1", false),
            ("a*b*b", "ab", false),
            ("a*b*b", "abb", true),
            ("a*b*c", "axbxbxc", true),
            ("aa*aa", "aaa", false),
            ("*k*k*", "kk", true),
            ("**", "x", true),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} for {text}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let text = r#"
            [[budget]]
            part = "*"
            figure = "error_share"
            at_most = 0

            [[budget]]
            part = "pool/h1"
            figure = "extra.hit_rate"
            at_least = 0.5
        "#;
        let read = Budgets::from_toml(text).unwrap();
        let expected = [
            Budget::at_most("*", "error_share", 0.0),
            Budget::at_least("pool/h1", "extra.hit_rate", 0.5),
        ];
        assert_eq!(read.all, expected);
        assert_eq!(Budgets::from_toml(&toml::to_string(&read).unwrap()).unwrap(), read);
    }

    #[test]
    fn values_that_cannot_be_are_refused_by_their_place() {
        let good = "[[budget]]\npart = \"*\"\nfigure = \"rate\"\nat_least = 1.0\n";
        for (text, message) in [
            (
                "part = \"*\"\nfigure = \"rate\"",
                "budget[1]: no bound; expected at_most or at_least",
            ),
            (
                "part = \"*\"\nfigure = \"rate\"\nat_most = 1\nat_least = 1",
                "budget[1]: two bounds; expected one of at_most and at_least",
            ),
            (
                "part = \"*\"\nfigure = \"rate\"\nat_most = nan",
                "budget[1].at_most: NaN; expected a finite number, at least 0",
            ),
            (
                "part = \"*\"\nfigure = \"rate\"\nat_least = -1",
                "budget[1].at_least: -1; expected a finite number, at least 0",
            ),
            (
                "part = \" \"\nfigure = \"rate\"\nat_most = 1",
                "budget[1].part: \" \"; expected e.g. \"invoke/h2\"",
            ),
        ] {
            let error = Budgets::from_toml(&format!("{good}[[budget]]\n{text}")).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
        for figure in ["latency.p98_ms", "latency", ".p99_ms", "extra.", "check.failed", "rates"] {
            let text = format!("[[budget]]\npart = \"*\"\nfigure = \"{figure}\"\nat_most = 1");
            let error = Budgets::from_toml(&text).unwrap_err().to_string();
            let begin = format!("budget[0].figure: \"{figure}\"; expected rate, ");
            assert!(error.starts_with(&begin), "{error}");
        }
    }

    #[test]
    fn other_keys_and_no_budgets_at_all_are_refused() {
        let text = "[[budget]]\npart = \"*\"\nfigure = \"rate\"\nat_mots = 1.0\n";
        let error = Budgets::from_toml(text).unwrap_err();
        assert!(matches!(&error, BadBudgets::Syntax(why) if why.contains("at_mots")), "{error}");
        assert!(Budgets::from_toml("[budgets]\n").is_err());
        let error = Budgets::from_toml("").unwrap_err();
        assert_eq!(error.to_string(), "budget: 0 of them; expected 1 to 10000");
    }
}
