//! Where results go.

use std::{
    fs,
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use loadtest_model::{Budgets, RunReport, SCHEMA};
use loadtest_report::live::Live;

/// Where results go and what they have to be.
#[derive(Debug, Args)]
#[command(next_help_heading = "Results")]
pub(crate) struct OutputArgs {
    /// Save everything that was measured
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Save a page to look at
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// What the run has to keep, or the exit code is 3
    #[arg(long, value_name = "FILE")]
    budgets: Option<PathBuf>,
    /// Show nothing while it runs
    #[arg(long)]
    quiet: bool,
}

impl OutputArgs {
    /// The budgets that were named; none if none were.
    pub(crate) fn budgets(&self) -> anyhow::Result<Budgets> {
        self.budgets_or(Budgets::default())
    }

    /// The budgets that were named, or others.
    pub(crate) fn budgets_or(&self, otherwise: Budgets) -> anyhow::Result<Budgets> {
        self.budgets.as_deref().map_or(Ok(otherwise), super::read_budgets)
    }

    /// Whether and how to show the run as it goes, and whether that is redrawn in place.
    pub(crate) fn live(&self) -> Option<(Live, bool)> {
        if self.quiet {
            return None;
        }
        let terminal = std::io::stderr().is_terminal();
        Some((if terminal { Live::for_terminal(width()) } else { Live::plain() }, terminal))
    }

    /// Saves what was asked for and prints the summary.
    pub(crate) fn write(&self, report: &RunReport) -> anyhow::Result<()> {
        if let Some(file) = &self.json {
            write(file, &serde_json::to_vec(report)?)?;
        }
        if let Some(file) = &self.html {
            write(file, loadtest_report::html::page(report).as_bytes())?;
        }
        print!("{}", loadtest_report::live::summary(report));
        std::io::stdout().flush()?;
        Ok(())
    }
}

/// Reads a run that was saved.
pub(crate) fn read(file: &Path) -> anyhow::Result<RunReport> {
    let bytes = fs::read(file).with_context(|| format!("can't read {}", file.display()))?;
    #[derive(serde::Deserialize)]
    struct Head {
        schema: Option<u32>,
    }
    let head: Head = serde_json::from_slice(&bytes)
        .with_context(|| format!("{} is no saved run", file.display()))?;
    anyhow::ensure!(
        head.schema == Some(SCHEMA),
        "{} has schema {:?}; this version reads {SCHEMA}",
        file.display(),
        head.schema
    );
    serde_json::from_slice(&bytes).with_context(|| format!("{} is no saved run", file.display()))
}

/// Writes a file in one step.
pub(crate) fn write(file: &Path, content: &[u8]) -> anyhow::Result<()> {
    let draft = file.with_extension("draft");
    let saved = fs::write(&draft, content).and_then(|()| fs::rename(&draft, file));
    saved.with_context(|| format!("can't write {}", file.display()))
}

/// Columns of the terminal, as far as it says so.
fn width() -> usize {
    let said = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    said.unwrap_or(100)
}
