//! Saved runs: compared, drawn again.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;
use loadtest_model::Part;
use loadtest_report::{
    compare::Verdict,
    markdown::{Detail, tables},
};

use super::{execute::NOT_KEPT, output};

/// The runs are unlike each other.
const UNLIKE: u8 = 4;

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// The earlier run
    before: PathBuf,
    /// The later run
    after: PathBuf,
    /// Compare unlike runs too
    #[arg(long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Exit with 3 if something got worse
    #[arg(long)]
    fail_if_worse: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// A saved run
    run: PathBuf,
    /// Save a page to look at
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print Markdown instead of the summary
    #[arg(long)]
    markdown: bool,
    /// Only what a document is for, of the Markdown
    #[arg(long, requires = "markdown")]
    brief: bool,
}

#[derive(Debug, Args)]
pub(crate) struct FigureArgs {
    /// A saved run
    run: PathBuf,
    /// The figure: `rate`, `error_share`, `latency.p99_ms`, `step.create.p50_ms`, …
    figure: String,
    /// Of which part; the first if absent
    #[arg(long)]
    part: Option<String>,
}

/// Says what changed.
pub(crate) fn compare(args: &CompareArgs) -> anyhow::Result<ExitCode> {
    let (before, after) = (output::read(&args.before)?, output::read(&args.after)?);
    let comparison = match loadtest_report::compare::compare(&before, &after) {
        Ok(comparison) => comparison,
        Err(_) if args.force => loadtest_report::compare::compare_anyway(&before, &after),
        Err(unlike) => {
            eprintln!("loadtest: {unlike}\n(--force compares all the same)");
            return Ok(ExitCode::from(UNLIKE));
        }
    };
    if args.json {
        println!("{}", comparison.json());
    } else {
        print!("{}", comparison.text());
    }
    let worse = args.fail_if_worse && comparison.count(Verdict::Worse) > 0;
    Ok(if worse { ExitCode::from(NOT_KEPT) } else { ExitCode::SUCCESS })
}

/// Prints one figure.
pub(crate) fn figure(args: &FigureArgs) -> anyhow::Result<ExitCode> {
    let run = output::read(&args.run)?;
    let wanted = |part: &&Part| args.part.as_ref().is_none_or(|wanted| part.id() == *wanted);
    let part = run.parts.iter().find(wanted).with_context(|| {
        let ids: Vec<_> = run.parts.iter().map(Part::id).collect();
        format!("no such part; expected one of {}", ids.join(", "))
    })?;
    let value = loadtest_model::figure(&run, part, &args.figure);
    let value = value.with_context(|| format!("{} has no figure {}", part.id(), args.figure))?;
    println!("{value}");
    Ok(ExitCode::SUCCESS)
}

/// Shows a saved run.
pub(crate) fn report(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    let run = output::read(&args.run)?;
    if let Some(file) = &args.html {
        output::write(file, loadtest_report::html::page(&run).as_bytes())?;
    }
    if args.markdown {
        print!("{}", tables(&run, if args.brief { Detail::Brief } else { Detail::Full }));
    } else {
        print!("{}", loadtest_report::live::summary(&run));
    }
    Ok(ExitCode::SUCCESS)
}
