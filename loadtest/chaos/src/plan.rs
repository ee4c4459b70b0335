//! From a plan as it is written to faults that can be done.

use std::{path::PathBuf, sync::Arc, time::Duration};

use loadtest_model::{ChaosPlan, Fault, SlowProxy};

use crate::{
    DiskError, ProcessError, ProxyError,
    disk::Disk,
    process::PidFile,
    proxy::{Proxy, Slowness},
};

/// Most faults of a plan: each is followed by itself.
const FAULTS_MAX: usize = 64;
/// Most proxies of a plan.
const PROXIES_MAX: usize = 64;
/// Longest that a disturbance may last, milliseconds: an hour.
const FOR_MS_MAX: u64 = 3_600_000;
/// Shortest time between two of one fault, milliseconds: below, none is told from the next.
const EVERY_MS_MIN: u64 = 100;
/// Longest that a piece may wait in a proxy, milliseconds.
const DELAY_MS_MAX: u64 = 60_000;

/// Why a plan's disturbances can't be done.
#[derive(Debug, thiserror::Error)]
pub enum ChaosError {
    /// One of the faults.
    #[error("chaos[{index}] ({kind}) can't be done")]
    Fault {
        /// Which, from 0.
        index: usize,
        /// Of what kind.
        kind: &'static str,
        /// Why.
        #[source]
        source: FaultError,
    },
    /// One of the proxies.
    #[error("slow proxy `{name}` can't be")]
    Proxy {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: ProxyError,
    },
    /// Two proxies have one name.
    #[error("two slow proxies are called `{name}`")]
    Twice {
        /// The name.
        name: String,
    },
    /// There are more than can be followed.
    #[error("{found} {what}; expected at most {max}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        max: usize,
    },
}

/// Why a fault can't be done.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// Its process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Its disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// There is no such proxy.
    #[error("no slow proxy is called `{name}`; there are: {known}")]
    NoProxy {
        /// The name.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// A value can't be.
    #[error("{name} is {found}; expected {expected}")]
    Value {
        /// Which.
        name: &'static str,
        /// What it is.
        found: u64,
        /// What it may be.
        expected: String,
    },
    /// It would do nothing.
    #[error("it makes nothing slow; expected `delay_ms`, `bytes_per_s` or `cut`")]
    Nothing,
}

/// A fault and its times since the first part's begin.
#[derive(Debug)]
pub(crate) struct Scheduled {
    pub(crate) at: Duration,
    pub(crate) every: Option<Duration>,
    pub(crate) fault: Checked,
}

/// A fault that could be done when it was looked at.
#[derive(Debug)]
pub(crate) enum Checked {
    Kill { target: Target },
    Pause { target: Target, lasts: Duration },
    DiskFull { dir: PathBuf, leave_kib: u64, lasts: Duration },
    Slow { proxy: Arc<Proxy>, slowness: Slowness, lasts: Duration },
}

/// A process that is to be disturbed, whichever it is then.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) file: PidFile,
    /// What it runs; another program is another's.
    pub(crate) program: String,
}

impl Scheduled {
    /// The next time after `now` (both since the first part's begin). What was missed is left out.
    pub(crate) fn next_after(&self, now: Duration) -> Option<Duration> {
        let every = self.every.filter(|every| !every.is_zero())?;
        let missed = now.saturating_sub(self.at).as_nanos() / every.as_nanos();
        let turn = u32::try_from(missed + 1).ok()?;
        self.at.checked_add(every.checked_mul(turn)?)
    }
}

/// Takes the proxies' ports.
pub(crate) fn bind(plans: &[SlowProxy]) -> Result<Vec<Arc<Proxy>>, ChaosError> {
    refuse_many("slow proxies", plans.len(), PROXIES_MAX)?;
    let mut proxies: Vec<Arc<Proxy>> = Vec::new();
    for plan in plans {
        let name = plan.name.clone();
        if proxies.iter().any(|proxy| proxy.name() == name) {
            return Err(ChaosError::Twice { name });
        }
        let bound = Proxy::bind(plan).map_err(|source| ChaosError::Proxy { name, source })?;
        proxies.push(Arc::new(bound));
    }
    Ok(proxies)
}

/// Looks whether each fault could be done now.
pub(crate) fn check(
    plans: &[ChaosPlan],
    proxies: &[Arc<Proxy>],
) -> Result<Vec<Scheduled>, ChaosError> {
    refuse_many("chaos faults", plans.len(), FAULTS_MAX)?;
    let one = |(index, plan): (usize, &ChaosPlan)| {
        check_one(plan, proxies).map_err(|source| {
            let kind = match plan.fault {
                Fault::Kill { .. } => "kill",
                Fault::Pause { .. } => "pause",
                Fault::DiskFull { .. } => "disk-full",
                Fault::Slow { .. } => "slow",
            };
            ChaosError::Fault { index, kind, source }
        })
    };
    plans.iter().enumerate().map(one).collect()
}

fn refuse_many(what: &'static str, found: usize, max: usize) -> Result<(), ChaosError> {
    if found > max { Err(ChaosError::TooMany { what, found, max }) } else { Ok(()) }
}

fn check_one(plan: &ChaosPlan, proxies: &[Arc<Proxy>]) -> Result<Scheduled, FaultError> {
    let fault = match &plan.fault {
        Fault::Kill { pid_file } => Checked::Kill { target: target(pid_file)? },
        Fault::Pause { pid_file, for_ms } => {
            Checked::Pause { target: target(pid_file)?, lasts: lasts(*for_ms)? }
        }
        Fault::DiskFull { dir, leave_kib, for_ms } => {
            within("leave_kib", *leave_kib, 0, Fault::DISK_MAX_MIB << 10)?;
            Disk::open(dir)?;
            Checked::DiskFull { dir: dir.clone(), leave_kib: *leave_kib, lasts: lasts(*for_ms)? }
        }
        Fault::Slow { proxy, delay_ms, bytes_per_s, cut, for_ms } => {
            let Some(found) = proxies.iter().find(|known| known.name() == proxy) else {
                let known: Vec<&str> = proxies.iter().map(|proxy| proxy.name()).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(FaultError::NoProxy { name: proxy.clone(), known });
            };
            within("delay_ms", *delay_ms, 0, DELAY_MS_MAX)?;
            bytes_per_s.map_or(Ok(()), |rate| within("bytes_per_s", rate, 1, u64::MAX))?;
            let delay = Duration::from_millis(*delay_ms);
            let slowness = Slowness { delay, bytes_per_s: *bytes_per_s, cut: *cut };
            if slowness == Slowness::default() {
                return Err(FaultError::Nothing);
            }
            Checked::Slow { proxy: found.clone(), slowness, lasts: lasts(*for_ms)? }
        }
    };
    if let Some(every_ms) = plan.every_ms {
        // Not before the last one is undone.
        let lasts_ms = u64::try_from(fault.lasts().as_millis()).unwrap_or(FOR_MS_MAX);
        within("every_ms", every_ms, EVERY_MS_MIN.max(lasts_ms + 1), u64::MAX)?;
    }
    let at = Duration::from_millis(plan.at_ms);
    Ok(Scheduled { at, every: plan.every_ms.map(Duration::from_millis), fault })
}

impl Checked {
    pub(crate) fn lasts(&self) -> Duration {
        match self {
            Self::Kill { .. } => Duration::ZERO,
            Self::Pause { lasts, .. } | Self::DiskFull { lasts, .. } | Self::Slow { lasts, .. } => {
                *lasts
            }
        }
    }
}

fn target(pid_file: &std::path::Path) -> Result<Target, FaultError> {
    let file = PidFile::new(pid_file);
    let program = file.find()?.program;
    Ok(Target { file, program })
}

fn lasts(for_ms: u64) -> Result<Duration, FaultError> {
    within("for_ms", for_ms, 1, FOR_MS_MAX)?;
    Ok(Duration::from_millis(for_ms))
}

fn within(name: &'static str, found: u64, min: u64, max: u64) -> Result<(), FaultError> {
    if (min..=max).contains(&found) {
        return Ok(());
    }
    let expected =
        if max == u64::MAX { format!("at least {min}") } else { format!("{min} to {max}") };
    Err(FaultError::Value { name, found, expected })
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    fn slow(delay_ms: u64, bytes_per_s: Option<u64>, for_ms: u64) -> Fault {
        Fault::Slow { proxy: "store".to_owned(), delay_ms, bytes_per_s, cut: false, for_ms }
    }

    fn said(fault: Fault, every_ms: Option<u64>) -> String {
        let listen = "127.0.0.1:0".parse().unwrap();
        let upstream = "127.0.0.1:1".parse().unwrap();
        let proxies = bind(&[SlowProxy { name: "store".to_owned(), listen, upstream }]).unwrap();
        match check(&[ChaosPlan { at_ms: 0, every_ms, fault }], &proxies) {
            Ok(_) => "fine".to_owned(),
            Err(error) => format!("{error}: {}", error.source().unwrap()),
        }
    }

    #[test]
    fn values_that_cannot_be_are_told_by_name() {
        assert_eq!(said(slow(5, None, 100), Some(101)), "fine");
        for (fault, every_ms, says) in [
            (slow(0, None, 100), None, "nothing slow"),
            (slow(60_001, None, 100), None, "delay_ms is 60001; expected 0 to 60000"),
            (slow(0, Some(0), 100), None, "bytes_per_s is 0; expected at least 1"),
            (slow(5, None, 0), None, "for_ms is 0; expected 1 to 3600000"),
            (slow(5, None, 5000), Some(5000), "every_ms is 5000; expected at least 5001"),
            (slow(5, None, 1), Some(50), "every_ms is 50; expected at least 100"),
        ] {
            let said = said(fault, every_ms);
            assert!(said.starts_with("chaos[0] (slow)") && said.contains(says), "{said}");
        }
        let other = Fault::Slow {
            proxy: "database".to_owned(),
            delay_ms: 1,
            bytes_per_s: None,
            cut: false,
            for_ms: 1,
        };
        assert!(said(other, None).contains("no slow proxy is called `database`; there are: store"));
        let kill = Fault::Kill { pid_file: "/nonexistent/pid".into() };
        assert!(said(kill, None).contains("chaos[0] (kill) can't be done: cannot read"));
        let fill = Fault::DiskFull { dir: "/usr".into(), leave_kib: 0, for_ms: 1 };
        assert!(said(fill, None).contains("/usr"));
    }

    #[test]
    fn proxies_have_names_of_their_own() {
        let proxy = |name: &str| {
            let listen = "127.0.0.1:0".parse().unwrap();
            SlowProxy { name: name.to_owned(), listen, upstream: "127.0.0.1:1".parse().unwrap() }
        };
        let error = bind(&[proxy("store"), proxy("other"), proxy("store")]).unwrap_err();
        assert_eq!(error.to_string(), "two slow proxies are called `store`");
        let many: Vec<SlowProxy> = (0..65).map(|number| proxy(&number.to_string())).collect();
        let error = bind(&many).unwrap_err();
        assert_eq!(error.to_string(), "65 slow proxies; expected at most 64");
    }

    #[test]
    fn times_repeat_and_missed_ones_are_left_out() {
        const fn ms(count: u64) -> Duration {
            Duration::from_millis(count)
        }
        let fault = || {
            let path = std::path::Path::new("pid");
            let target = Target { file: PidFile::new(path), program: String::new() };
            Checked::Kill { target }
        };
        let again = Scheduled { at: ms(500), every: Some(ms(1000)), fault: fault() };
        for (now, next) in [(0, 1500), (500, 1500), (1499, 1500), (1500, 2500), (9000, 9500)] {
            assert_eq!(again.next_after(ms(now)), Some(ms(next)), "after {now}");
        }
        let once = Scheduled { at: ms(500), every: None, fault: fault() };
        assert_eq!(once.next_after(ms(500)), None);
    }
}
