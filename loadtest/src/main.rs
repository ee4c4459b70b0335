//! Measures a running stack from outside.
//!
//! ```text
//! loadtest bench [--wrenn-dir DIR] [--function NAME] [--invocations N]
//! ```

mod bench;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

/// Measures a running stack from outside
#[derive(Debug, Parser)]
#[command(name = "loadtest", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Invoke a function over each protocol and print where the time went, as Markdown
    Bench(BenchArgs),
}

#[derive(Debug, Args)]
struct BenchArgs {
    /// Where the stack's dev.json is
    #[arg(long, env = "WRENN_DIR", default_value = ".wrenn", value_name = "DIR")]
    wrenn_dir: PathBuf,
    /// The function to invoke
    #[arg(long, default_value = "hello")]
    function: String,
    /// Invocations by each protocol
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    invocations: u32,
}

fn main() -> ExitCode {
    let Cli { command: Command::Bench(args) } = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("loadtest: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(bench::run(&args)) {
        Ok(report) => {
            print!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("loadtest: {error:#}");
            ExitCode::FAILURE
        }
    }
}
