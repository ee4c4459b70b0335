//! Disturbances of plans.

use std::{net::SocketAddr, path::Path};

use super::{Checked, bad, bad_text, unique, within};
use crate::{ChaosPlan, Fault, Plan, SlowProxy, arrival::MAX_MS};

pub(super) fn check(plan: &Plan) -> Checked {
    proxies(&plan.slow_proxies)?;
    within("chaos", plan.chaos.len(), 0..=1000)?;
    for (index, chaos) in plan.chaos.iter().enumerate() {
        one(&format!("chaos[{index}]"), chaos, &plan.slow_proxies)?;
    }
    Ok(())
}

fn proxies(proxies: &[SlowProxy]) -> Checked {
    within("slow_proxy", proxies.len(), 0..=100)?;
    unique("slow_proxy", proxies.iter().map(|proxy| proxy.name.as_str()))?;
    for (index, SlowProxy { listen, upstream, .. }) in proxies.iter().enumerate() {
        let at = |field| format!("slow_proxy[{index}].{field}");
        // It forwards whoever connects, so nobody else may.
        if !listen.ip().is_loopback() {
            return bad(at("listen"), listen, "an address of 127.0.0.0/8 or ::1");
        }
        let same = |other: &SocketAddr| other.port() != 0 && other == listen;
        if proxies[..index].iter().any(|other| same(&other.listen)) {
            return bad(at("listen"), listen, "an address that no other has");
        }
        if upstream.port() == 0 || same(upstream) {
            return bad(at("upstream"), upstream, "an address with a port, and not its own");
        }
    }
    Ok(())
}

fn one(at: &str, chaos: &ChaosPlan, proxies: &[SlowProxy]) -> Checked {
    within(format!("{at}.at_ms"), chaos.at_ms, 0..=MAX_MS)?;
    let for_ms = fault(&format!("{at}.fault"), &chaos.fault, proxies)?;
    if let Some(every_ms) = chaos.every_ms {
        within(format!("{at}.every_ms"), every_ms, 1..=MAX_MS)?;
        if for_ms.is_some_and(|for_ms| every_ms <= for_ms) {
            let expected = "more than its fault's for_ms, or it would never end";
            return bad(format!("{at}.every_ms"), every_ms, expected);
        }
    }
    Ok(())
}

/// Checks a fault and says how long it takes.
fn fault(at: &str, fault: &Fault, proxies: &[SlowProxy]) -> Result<Option<u64>, crate::BadPlan> {
    let path = |field: &str, path: &Path| {
        if path.as_os_str().is_empty() {
            return bad_text(format!("{at}.{field}"), "", "a path");
        }
        Ok(())
    };
    let length = |for_ms: &u64| {
        within(format!("{at}.for_ms"), *for_ms, 1..=MAX_MS)?;
        Ok(Some(*for_ms))
    };
    match fault {
        Fault::Kill { pid_file } => {
            path("pid_file", pid_file)?;
            Ok(None)
        }
        Fault::Pause { pid_file, for_ms } => {
            path("pid_file", pid_file)?;
            length(for_ms)
        }
        Fault::DiskFull { dir, leave_kib, for_ms } => {
            path("dir", dir)?;
            within(format!("{at}.leave_kib"), *leave_kib, 0..=Fault::DISK_MAX_MIB * 1024)?;
            length(for_ms)
        }
        Fault::Slow { proxy, delay_ms, bytes_per_s, cut, for_ms } => {
            if !proxies.iter().any(|known| known.name == *proxy) {
                let expected = "the name of a slow_proxy of this plan";
                bad_text(format!("{at}.proxy"), proxy, expected)?;
            }
            within(format!("{at}.delay_ms"), *delay_ms, 0..=3_600_000)?;
            if let Some(bytes) = bytes_per_s {
                within(format!("{at}.bytes_per_s"), *bytes, 1..=1 << 40)?;
            }
            if *delay_ms == 0 && bytes_per_s.is_none() && !cut {
                bad(at, "nothing slow", "delay_ms above 0, bytes_per_s or cut")?;
            }
            length(for_ms)
        }
    }
}
