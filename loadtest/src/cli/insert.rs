//! Puts what a program printed into a document.

use std::{io::Read as _, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, ensure};
use clap::Args;
use loadtest_report::markdown::replace_between;

use super::output;

#[derive(Debug, Args)]
pub(crate) struct InsertArgs {
    /// The document
    document: PathBuf,
    /// Which of its places, between `<!-- loadtest:MARKER:begin -->` and `…:end -->`
    marker: String,
    /// Put date, commit and machine in front
    #[arg(long)]
    stamp: bool,
}

/// Replaces the text of a place by what comes on standard input.
pub(crate) fn insert(args: &InsertArgs) -> anyhow::Result<ExitCode> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("can't read standard input")?;
    // A program that failed has printed nothing; the figures there are stay.
    ensure!(!text.trim().is_empty(), "nothing came on standard input");
    if args.stamp {
        text = format!("{}\n\n{text}", stamp());
    }
    let document = std::fs::read_to_string(&args.document)
        .with_context(|| format!("can't read {}", args.document.display()))?;
    let document = replace_between(&document, &args.marker, &text)?;
    output::write(&args.document, document.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// When, of what, where.
fn stamp() -> String {
    let machine = loadtest::machine();
    format!(
        "{}, commit {}, {} x {}, {} MiB, Linux {}, {}",
        jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC"),
        loadtest::commit().as_deref().unwrap_or("unknown"),
        machine.cpus,
        machine.cpu_model,
        machine.memory_mib,
        machine.kernel,
        machine.os
    )
}
