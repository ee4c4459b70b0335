//! `wrenn`: the command line of the gateway.
//!
//! Deploys and invokes functions, drives sandboxes and pools over the public API, and runs the
//! developer stack (`wrenn dev`).
//!
//! # Invariants
//!
//! - Results go to standard output, progress and errors to standard error; with `--json` standard
//!   output holds nothing but JSON.
//! - The API key is read from a file or the environment, never from the arguments.
//!
//! # Limits
//!
//! Exit status: 0 done, 1 refused or failed, 64 bad arguments; `sandbox exec` passes the remote
//! status on and uses 125 for its own failures.

mod args;
mod connection;
mod deploy;
mod dev;
mod exec;
mod failure;
mod functions;
mod invoke;
mod jobs;
mod manifest;
mod output;
mod pack;
mod pools;
mod reach;
mod sandboxes;
mod schedule;
mod versions;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    args::{Cli, Command, DevCommand},
    connection::Connection,
    failure::Failure,
    output::Out,
};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => {
            // Nothing is left to do if even this cannot be printed.
            drop(told.print());
            let usage = u8::try_from(pool_config::EX_USAGE).unwrap_or(1);
            return ExitCode::from(if told.exit_code() == 0 { 0 } else { usage });
        }
    };
    let out = Out::new(cli.connect.json);
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
            Ok(runtime) => runtime,
            Err(source) => return out.failure(&Failure::local("start the runtime", source)),
        };
    match runtime.block_on(run(cli, &out)) {
        Ok(code) => code,
        Err(failure) => out.failure(&failure),
    }
}

async fn run(cli: Cli, out: &Out) -> Result<ExitCode, Failure> {
    if let Command::Dev { command } = cli.command {
        return match command {
            DevCommand::Up(args) => dev::up(&args, out).await,
            DevCommand::Down(args) => dev::down(&args, out).await,
            DevCommand::Status(args) => dev::status(&args, out).await,
            DevCommand::Supervise(args) => dev::supervise(&args).await,
        };
    }
    let connection = Connection::find(&cli.connect)?;
    match cli.command {
        Command::Deploy(args) => deploy::run(&connection, &args, out).await,
        Command::Invoke(args) => return invoke::run(&connection, &args, out).await,
        Command::Sandbox { command } => return sandboxes::run(&connection, command, out).await,
        Command::Pool { command } => pools::run(&connection, command, out).await,
        Command::Tag { command } => versions::tag(&connection, command, out).await,
        Command::Promote(args) => versions::promote(&connection, args, out).await,
        Command::Split(args) => versions::split(&connection, args, out).await,
        Command::Domain { command } => reach::domain(&connection, command, out).await,
        Command::Sign(args) => reach::sign(&connection, args, out).await,
        Command::Invocation { command } => reach::invocation(&connection, command, out).await,
        Command::Job { command } => jobs::job(&connection, command, out).await,
        Command::Cron { command } => jobs::cron(&connection, command, out).await,
        Command::Function { command } => functions::function(&connection, command, out).await,
        Command::Snapshot { command } => functions::snapshot(&connection, command, out).await,
        Command::Template { command: args::TemplateCommand::Ls } => {
            functions::templates(&connection, out).await
        }
        Command::Ls => functions::everything(&connection, out).await,
        Command::Dev { .. } => Ok(()), // answered above: it needs no connection
    }?;
    Ok(ExitCode::SUCCESS)
}
