//! Several works by weight, by flags.

use clap::Args;
use loadtest_model::Share;
use serde::de::DeserializeOwned;

use super::scenario::ScenarioArgs;

/// A mix.
#[derive(Debug, Args)]
pub(crate) struct MixArgs {
    /// A work and its weight, as a plan writes them: `WEIGHT={ kind = "invoke", function = "hello" }`
    #[arg(long, required = true, value_name = "WEIGHT=WORK", value_parser = share)]
    pub(crate) of: Vec<Share>,
    #[command(flatten)]
    pub(crate) scenario: ScenarioArgs,
}

/// Reads `3={ kind = "http", path = "/x" }`: the words are those of a plan.
fn share(text: &str) -> Result<Share, String> {
    const EXPECTED: &str = "WEIGHT={ kind = \"…\", … }";
    let (weight, work) = words(text, EXPECTED)?;
    let weight = weight.parse();
    let weight = weight.map_err(|_| format!("the weight is no number; expected {EXPECTED}"))?;
    Ok(Share { weight, work })
}

/// Reads `WORD=VALUE`, the value in the words of a plan.
pub(super) fn words<'a, T: DeserializeOwned>(
    text: &'a str,
    expected: &str,
) -> Result<(&'a str, T), String> {
    #[derive(serde::Deserialize)]
    struct Line<T> {
        value: T,
    }
    let (word, value) = text.split_once('=').ok_or_else(|| format!("expected {expected}"))?;
    let line: Line<T> = toml::from_str(&format!("value = {}", value.trim()))
        .map_err(|error| format!("{}; expected {expected}", error.message()))?;
    Ok((word.trim(), line.value))
}

/// Whether a plan has a mix, for the tests of what flags make.
#[cfg(test)]
fn weights(plan: &loadtest_model::Plan) -> Vec<f64> {
    plan.scenarios
        .iter()
        .filter_map(|scenario| match &scenario.work {
            loadtest_model::Work::Mix { of } => Some(of.iter().map(|share| share.weight)),
            _ => None,
        })
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn a_mix_is_written_in_the_words_of_a_plan() {
        let line = [
            "loadtest",
            "mix",
            "--url",
            "http://127.0.0.1:1/",
            "--of",
            "3={ kind = \"http\", path = \"/a\" }",
            "--of",
            "0.5={ kind = \"http\", path = \"/b\" }",
        ];
        let Command::Scenario(command) = Cli::try_parse_from(line).unwrap().command else {
            panic!("a scenario")
        };
        let (args, asked) = command.into_work();
        let plan = args.plan(asked).unwrap();
        assert_eq!(weights(&plan), [3.0, 0.5]);
        plan.check().unwrap();
    }

    #[test]
    fn what_is_no_share_says_what_was_expected() {
        for wrong in ["http", "x={ kind = \"http\" }", "1={ kind = \"fly\" }"] {
            assert!(share(wrong).unwrap_err().contains("expected WEIGHT="), "{wrong}");
        }
    }
}
