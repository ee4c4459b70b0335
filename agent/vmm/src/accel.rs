//! Decides how guests are executed: by hardware only if that is measurably fast.
//!
//! Opening `/dev/kvm` proves nothing: a host without virtualisation extensions may have a KVM
//! that interprets its guests at under a million instructions a second, where QEMU's own
//! translator (TCG) reaches hundreds of millions.

use std::{fmt, time::Duration};

use tokio::sync::oneshot;

use crate::sys;

/// Instructions per second below which `/dev/kvm` counts as absent.
///
/// Hardware runs the timed loop at billions a second, an interpreter at about one million.
const FAST_ENOUGH: f64 = 200e6;

/// How long the guest loop runs; it is looked at between rounds of 50,000 instructions.
const LOOP_BUDGET: Duration = Duration::from_millis(50);

/// How long its result is waited for.
const PROBE_MAX: Duration = Duration::from_millis(400);

/// How guests are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// QEMU translates guest code.
    Tcg,
    /// The processor executes it.
    Kvm,
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcg => "tcg",
            Self::Kvm => "kvm",
        })
    }
}

/// Times a guest loop and picks. Takes up to 0.4 s: callers keep the answer.
pub async fn probe_accel() -> Accel {
    let (result_tx, result_rx) = oneshot::channel();
    // A thread of its own: if the kernel never returns from the loop, only this thread is lost,
    // and it keeps neither a runtime's pool nor the process's exit waiting.
    let spawned = std::thread::Builder::new().name("probe-kvm".into()).spawn(move || {
        let _ = result_tx.send(sys::time_guest_loop(LOOP_BUDGET));
    });
    let result = match spawned {
        Ok(_detached) => tokio::time::timeout(PROBE_MAX, result_rx).await,
        Err(error) => Ok(Ok(Err(error))),
    };
    let (accel, why) = match result {
        Ok(Ok(Ok(rate))) if rate >= FAST_ENOUGH => (Accel::Kvm, format!("{rate:.0} per second")),
        Ok(Ok(Ok(rate))) => (Accel::Tcg, format!("only {rate:.0} per second")),
        Ok(Ok(Err(error))) => (Accel::Tcg, error.to_string()),
        Ok(Err(_)) => (Accel::Tcg, "the probe ended without an answer".to_owned()),
        Err(_) => (Accel::Tcg, format!("no answer within {PROBE_MAX:?}")),
    };
    tracing::info!(accel = %accel, kvm.instructions = why, "chose how guests are executed");
    accel
}
