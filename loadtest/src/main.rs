//! Loads a Wrenn stack, or any HTTP target, and says how it did.
//!
//! ```text
//! loadtest run PLAN.toml          what a plan says
//! loadtest invoke --rate 20 …     one scenario by flags; also http, proxy, ws, sse, lifecycle, …
//! loadtest preset NAME            a published shape
//! loadtest compare A.json B.json  what changed, and how sure that is
//! ```
//!
//! Exit codes: 0 all is well, 1 it could not be run, 2 the flags are off, 3 a budget was not kept
//! or (with `compare --fail-if-worse`) something got worse, 4 `compare` refused unlike runs, 130
//! it was interrupted.

mod cli;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let arguments = cli::Cli::parse();
    // One thread for everything but sending: workers have runtimes of their own.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("loadtest: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = match runtime.block_on(cli::main(arguments)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("loadtest: {error:#}");
            ExitCode::FAILURE
        }
    };
    // A worker that hangs in a target's silence must not keep us.
    runtime.shutdown_background();
    code
}
