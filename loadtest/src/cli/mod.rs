//! The command line.

mod compare;
mod execute;
mod insert;
mod load;
mod mix;
mod output;
mod scenario;
mod serve;
mod target;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use loadtest_model::{Budgets, Plan, preset};

use self::{
    output::OutputArgs,
    scenario::{ScenarioArgs, ScenarioCommand},
    target::TargetArgs,
};

/// Loads a Wrenn stack, or any HTTP target, and says how it did
#[derive(Debug, Parser)]
#[command(
    name = "loadtest",
    version,
    after_help = "Exit codes: 0 all is well, 1 it could not be run, 2 the flags are off, 3 a budget was not kept or \
something got worse, 4 unlike runs, 130 interrupted.\nOnly loopback and addresses given explicitly are called; public ones only with \
--i-own-this-target."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a plan
    Run(RunArgs),
    #[command(flatten)]
    Scenario(Box<ScenarioCommand>),
    /// Run a published shape; `loadtest preset list` names them
    Preset(Box<PresetArgs>),
    /// Say what changed between two runs, and how sure that is
    Compare(compare::CompareArgs),
    /// Make the HTML page, Markdown or summary of a run that was saved as JSON
    Report(compare::ReportArgs),
    /// Print one figure of a saved run, as budgets name it
    Figure(compare::FigureArgs),
    /// Measure the harness itself against a server with known delays
    Calibrate(serve::CalibrateArgs),
    /// Serve requests with known delays, to try scenarios on
    Serve(serve::ServeArgs),
    /// Put what comes on standard input into a document, in place of what is there
    Insert(insert::InsertArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The plan, a TOML file
    plan: PathBuf,
    /// The stack's directory, instead of the plan's target
    #[arg(long, value_name = "DIR")]
    wrenn_dir: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
struct PresetArgs {
    /// Its name, or `list`
    name: String,
    /// Multiplies rates and counts: 1 is the published shape
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    scale: f64,
    /// The function to invoke
    #[arg(long, default_value = "hello")]
    function: String,
    /// The first command of lifecycles, instead of the preset's
    #[arg(long)]
    command: Option<String>,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Does what the arguments say.
pub(crate) async fn main(arguments: Cli) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Run(args) => run(args).await,
        Command::Scenario(command) => {
            let (args, work) = command.into_work();
            scenario(args, work).await
        }
        Command::Preset(args) => run_preset(*args).await,
        Command::Compare(args) => compare::compare(&args),
        Command::Report(args) => compare::report(&args),
        Command::Figure(args) => compare::figure(&args),
        Command::Calibrate(args) => serve::calibrate(&args).await,
        Command::Serve(args) => serve::serve(&args).await,
        Command::Insert(args) => insert::insert(&args),
    }
}

async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let text = std::fs::read_to_string(&args.plan)
        .with_context(|| format!("can't read the plan {}", args.plan.display()))?;
    let mut plan = Plan::from_toml(&text)
        .with_context(|| format!("the plan {} can't be run", args.plan.display()))?;
    if let Some(dir) = args.wrenn_dir {
        (plan.target.wrenn_dir, plan.target.url) = (Some(dir), None);
    }
    let budgets = args.output.budgets()?;
    execute::execute(plan, budgets, &args.output).await
}

async fn scenario(args: ScenarioArgs, work: scenario::Asked) -> anyhow::Result<ExitCode> {
    let plan = args.plan(work)?;
    let budgets = args.output.budgets()?;
    execute::execute(plan, budgets, &args.output).await
}

async fn run_preset(args: PresetArgs) -> anyhow::Result<ExitCode> {
    if args.name == "list" {
        for (name, about) in preset::all() {
            println!("{name:28} {about}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut preset = preset::preset(&args.name, args.scale, &args.function)?;
    if let Some(command) = &args.command {
        preset = preset.with_command(command);
    }
    eprintln!("{}: {}\npublished: {}", preset.name, preset.about, preset.published);
    let plan = Plan {
        protocols: args.target.protocols(&preset.protocols),
        rounds: args.target.rounds.unwrap_or(preset.rounds),
        seed: args.target.seed,
        workers: args.target.workers,
        warmup_ms: args.target.warmup_ms().unwrap_or(preset.warmup_ms),
        ..preset.plan(args.target.plan())
    };
    let budgets = args.output.budgets_or(preset.budgets)?;
    execute::execute(plan, budgets, &args.output).await
}

/// Budgets of a file.
fn read_budgets(file: &std::path::Path) -> anyhow::Result<Budgets> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("can't read the budgets {}", file.display()))?;
    Budgets::from_toml(&text).with_context(|| format!("budgets {}", file.display()))
}
