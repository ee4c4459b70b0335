//! Runs a plan, shows it as it goes, and says how it did.

use std::{io::Write as _, process::ExitCode, time::Duration};

use loadtest::Runner;
use loadtest_model::{Budgets, Plan, RunReport};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::output::OutputArgs;

/// A budget was not kept.
pub(super) const NOT_KEPT: u8 = 3;
/// The run was interrupted, as shells say it.
const INTERRUPTED: u8 = 130;
/// How often a terminal is redrawn.
const REDRAW: Duration = Duration::from_millis(500);
/// How often a line is written where there is no terminal.
const LINE: Duration = Duration::from_secs(2);

/// Runs a plan and writes what came of it.
pub(crate) async fn execute(
    plan: Plan,
    budgets: Budgets,
    output: &OutputArgs,
) -> anyhow::Result<ExitCode> {
    let cancel = CancellationToken::new();
    let report = measure(plan, budgets, output, &cancel).await?;
    output.write(&report)?;
    if cancel.is_cancelled() {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    let kept = report.verdicts.iter().all(|verdict| verdict.kept);
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::from(NOT_KEPT) })
}

/// Runs it. An interrupt ends it early, with what was measured until then.
async fn measure(
    plan: Plan,
    budgets: Budgets,
    output: &OutputArgs,
    cancel: &CancellationToken,
) -> anyhow::Result<RunReport> {
    let runner = Runner::new(plan, budgets)?;
    let progress = runner.progress();
    let mut live = output.live();
    let mut redraw = interval(if live.as_ref().is_some_and(|live| live.1) { REDRAW } else { LINE });
    redraw.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (run, interrupted) = (runner.run(cancel), interrupted(cancel.clone()));
    tokio::pin!(run, interrupted);
    loop {
        tokio::select! {
            report = &mut run => {
                if let Some((live, _)) = &mut live {
                    say(&live.clear());
                }
                return Ok(report?);
            }
            () = &mut interrupted => {}
            _ = redraw.tick() => if let Some((live, _)) = &mut live {
                say(&live.show(&progress.borrow()));
            },
        }
    }
}

/// Cancels at the first interrupt (or SIGTERM, as a CI's time limit sends it); the second one ends
/// the process, whatever is left behind.
async fn interrupted(cancel: CancellationToken) {
    let (Ok(mut interrupts), Ok(mut terms)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    let mut told = false;
    loop {
        tokio::select! {
            _ = interrupts.recv() => {}
            _ = terms.recv() => {}
        }
        if told {
            std::process::exit(INTERRUPTED.into());
        }
        told = true;
        say("\nloadtest: ending; interrupt again to leave at once\n");
        cancel.cancel();
    }
}

/// Writes to the terminal; nobody may be looking any more.
fn say(text: &str) {
    let mut terminal = std::io::stderr().lock();
    let _ = terminal.write_all(text.as_bytes()).and_then(|()| terminal.flush());
}
