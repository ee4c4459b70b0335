//! `make bench`: the preset set against the developer stack, into a document.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;
use loadtest_model::{Budgets, TargetPlan, preset};

use super::{
    execute,
    output::{self, OutputArgs},
};

/// The set that is run.
const PRESET: &str = "wrenn-bench";
/// What the document calls the place of its tables.
const MARKER: &str = "bench";

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Where the stack's dev.json is
    #[arg(long, env = "WRENN_DIR", default_value = ".wrenn", value_name = "DIR")]
    wrenn_dir: PathBuf,
    /// Multiplies rates and counts
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    scale: f64,
    /// The document whose tables are rewritten; printed if absent
    #[arg(long, value_name = "FILE")]
    update: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs the set and writes its tables.
pub(crate) async fn run(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    let preset = preset::preset(PRESET, args.scale, "hello")?;
    let target = TargetPlan { wrenn_dir: Some(args.wrenn_dir.clone()), ..TargetPlan::default() };
    let plan = preset.plan(target);
    // Fails now rather than after minutes of measuring.
    let document = args.update.as_deref().map(|file| {
        let text =
            fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
        loadtest_report::markdown::replace_between(&text, MARKER, "")?;
        anyhow::Ok(text)
    });
    let document = document.transpose()?;
    let report = execute::measure(plan, Budgets::default(), &args.output).await?;
    args.output.write(&report)?;
    let tables = loadtest_report::markdown::tables(&report);
    match (&args.update, document) {
        (Some(file), Some(document)) => {
            let text = loadtest_report::markdown::replace_between(&document, MARKER, &tables)?;
            output::write(file, text.as_bytes())?;
        }
        _ => print!("{tables}"),
    }
    Ok(ExitCode::SUCCESS)
}
