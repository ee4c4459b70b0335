//! The command line of what belongs to one function: versions, invocations, domains.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use edge_api::{FunctionName, TagName, TagWeight};

#[derive(Debug, Subcommand)]
pub(crate) enum TagCommand {
    /// List a function's tags and the versions they stand for
    Ls { function: FunctionName },
    /// Make a tag, or move it to another version
    Set {
        function: FunctionName,
        /// 1 to 30 of a-z, 0-9 and single dashes; the version is called at `<name>--<tag>`
        tag: TagName,
        /// The current version, or one that has a tag
        version: u32,
    },
    /// Remove a tag, and the version if nothing else leads to it
    Rm { function: FunctionName, tag: TagName },
}

/// Which version the plain name is to lead to.
#[derive(Debug, Args)]
pub(crate) struct PromoteArgs {
    pub(crate) function: FunctionName,
    /// A version's number, or a tag
    #[arg(value_name = "VERSION|TAG")]
    pub(crate) to: String,
    /// Take it for a tag though it is a number
    #[arg(long)]
    pub(crate) tag: bool,
}

/// The shares of a function's plain name.
#[derive(Debug, Args)]
pub(crate) struct SplitArgs {
    pub(crate) function: FunctionName,
    /// A tag's share, 0 to 1000, over the sum of all; tags that aren't named get nothing
    #[arg(value_name = "TAG=WEIGHT", value_parser = share, required_unless_present = "none")]
    pub(crate) shares: Vec<TagWeight>,
    /// End the split: every request goes to the current version
    #[arg(long, conflicts_with = "shares")]
    pub(crate) none: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DomainCommand {
    /// Claim a domain for a function; prints the TXT record that proves the claim
    Add { function: FunctionName, domain: String },
    /// Look for the TXT record; the domain leads to the function then
    Verify { function: FunctionName, domain: String },
    /// List a function's domains
    Ls { function: FunctionName },
    /// Give a domain up
    Rm { function: FunctionName, domain: String },
}

/// What to sign.
#[derive(Debug, Args)]
pub(crate) struct SignArgs {
    pub(crate) function: FunctionName,
    /// The path and query
    #[arg(default_value = "/")]
    pub(crate) path: String,
    /// The method that may be used [default: any]
    #[arg(long)]
    pub(crate) method: Option<http::Method>,
    /// How long it is good, seconds: 1 to 2592000 (30 days)
    #[arg(long, default_value_t = 3600, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=edge_api::SIGN_EXPIRES_S_MAX))]
    pub(crate) expires_s: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum InvocationCommand {
    /// Print how a function may be invoked
    Get { function: FunctionName },
    /// Set how a function may be invoked, all of it: what the file doesn't name gets its default
    Set {
        function: FunctionName,
        /// The policy, TOML (`.toml`) or JSON; the keys are those of `[invocation]` in wrenn.toml
        #[arg(long)]
        file: PathBuf,
    },
}

fn share(text: &str) -> Result<TagWeight, String> {
    let (tag, weight) = text.split_once('=').ok_or("expected TAG=WEIGHT")?;
    let tag: TagName = tag.parse().map_err(|bad: edge_api::BadTagName| bad.to_string())?;
    match weight.parse() {
        Ok(weight @ 0..=TagWeight::WEIGHT_MAX) => Ok(TagWeight { tag: tag.into(), weight }),
        _ => Err(format!("`{weight}` is not 0 to {}", TagWeight::WEIGHT_MAX)),
    }
}
