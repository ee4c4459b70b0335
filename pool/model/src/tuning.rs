//! How a function's pool is tuned: what its owner may set, with its limits.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Most sandboxes of one pool.
pub const POOL_MAX: u32 = 1000;

/// Whether a sandbox may serve more than one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reuse {
    /// One request, one virtual machine.
    #[default]
    Never,
    /// The same virtual machine serves up to `max_requests` requests, one after the other. What a
    /// request leaves behind is seen by the next one.
    Sequential,
}

/// What is put into base memory before it is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prefetch {
    /// Nothing: every page comes when it is first touched.
    None,
    /// The pages that earlier restores touched up to their first response.
    #[default]
    WorkingSet,
    /// All of the snapshot's memory.
    Full,
}

macro_rules! words {
    ($type:ty, $what:literal, $($variant:path = $word:literal),*) => {
        impl $type {
            /// The word used in JSON and on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $($variant => $word),* }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $type {
            type Err = BadTuning;
            fn from_str(text: &str) -> Result<Self, BadTuning> {
                match text {
                    $($word => Ok($variant),)*
                    _ => Err(BadTuning {
                        field: $what,
                        reason: format!("`{text}` is not one of {}", [$($word),*].join(", ")),
                    }),
                }
            }
        }
    };
}

words!(Reuse, "reuse", Self::Never = "never", Self::Sequential = "sequential");
words!(
    Prefetch,
    "prefetch",
    Self::None = "none",
    Self::WorkingSet = "working_set",
    Self::Full = "full"
);

/// A minute of the day in UTC, written `HH:MM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeOfDay(u16);

impl TimeOfDay {
    /// Minutes since midnight, 0 to 1439.
    #[must_use]
    pub const fn minutes(self) -> u16 {
        self.0
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl FromStr for TimeOfDay {
    type Err = BadTuning;
    fn from_str(text: &str) -> Result<Self, BadTuning> {
        let bad = || BadTuning {
            field: "schedule",
            reason: format!("`{text}` is no time of day: expected HH:MM, 00:00 to 23:59"),
        };
        let (hours, minutes) = text.split_once(':').ok_or_else(bad)?;
        let digits = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(hours) || !digits(minutes) {
            return Err(bad());
        }
        let hours: u16 = hours.parse().map_err(|_| bad())?;
        let minutes: u16 = minutes.parse().map_err(|_| bad())?;
        if hours > 23 || minutes > 59 {
            return Err(bad());
        }
        Ok(Self(hours * 60 + minutes))
    }
}

impl TryFrom<String> for TimeOfDay {
    type Error = BadTuning;
    fn try_from(text: String) -> Result<Self, BadTuning> {
        text.parse()
    }
}

impl From<TimeOfDay> for String {
    fn from(time: TimeOfDay) -> Self {
        time.to_string()
    }
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "their names say it")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Day {
    /// All of them, Monday first.
    pub const ALL: [Self; 7] =
        [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    /// The word used in JSON and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mon => "mon",
            Self::Tue => "tue",
            Self::Wed => "wed",
            Self::Thu => "thu",
            Self::Fri => "fri",
            Self::Sat => "sat",
            Self::Sun => "sun",
        }
    }
}

/// A time in which at least so many sandboxes are warm, made ready before it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// On which days it begins; empty is every day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<Day>,
    /// When it begins, UTC.
    pub from: TimeOfDay,
    /// When it ends, UTC; at or before `from` is on the next day.
    pub until: TimeOfDay,
    /// Fewest warm meanwhile.
    pub min_warm: u32,
}

/// What a pool aims for, as its owner set it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolPolicy {
    /// Warm sandboxes to keep at least.
    pub min_warm: u32,
    /// Warm and restoring sandboxes to have at most.
    pub max_warm: u32,
    /// Idle warm sandboxes over `min_warm` go after this at the latest, milliseconds.
    pub idle_ttl_ms: u64,
    /// A warm sandbox is replaced after this, milliseconds; 0: never.
    pub max_age_ms: u64,
    /// Warm sandboxes on top of what the arrival rate asks for, once there are arrivals.
    pub burst: u32,
    /// Restores of this pool at once; 0: as many as the host allows.
    pub refill_concurrency: u32,
    /// What is put into base memory before it is asked for.
    pub prefetch: Prefetch,
    /// Whether a sandbox may serve more than one request.
    pub reuse: Reuse,
    /// Most requests of one sandbox when `reuse` is `sequential`.
    pub max_requests: u32,
    /// Most guest memory that this pool may be promised, MiB; 0: what the host has.
    pub memory_budget_mib: u64,
    /// Times with a higher `min_warm`.
    pub schedule: Vec<Schedule>,
}

impl Default for PoolPolicy {
    fn default() -> Self {
        Self {
            min_warm: 1,
            max_warm: 8,
            idle_ttl_ms: 600_000,
            max_age_ms: 0,
            burst: 0,
            refill_concurrency: 0,
            prefetch: Prefetch::default(),
            reuse: Reuse::default(),
            max_requests: 1,
            memory_budget_mib: 0,
            schedule: Vec::new(),
        }
    }
}

/// A value that cannot be: which field, and what was expected of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct BadTuning {
    /// The field's name in JSON.
    pub field: &'static str,
    /// What is wrong with it, and what was expected.
    pub reason: String,
}

impl PoolPolicy {
    /// Most times with a higher `min_warm`.
    pub const SCHEDULE_MAX: usize = 32;

    /// Refuses values out of range and contradictions.
    ///
    /// # Errors
    ///
    /// [`BadTuning`], naming the field and what was expected.
    pub fn check(&self) -> Result<(), BadTuning> {
        let within = |field, value: u64, low: u64, high: u64| {
            let reason = format!("{value} is not {low} to {high}");
            if (low..=high).contains(&value) { Ok(()) } else { Err(BadTuning { field, reason }) }
        };
        within("max_warm", self.max_warm.into(), 1, POOL_MAX.into())?;
        within("min_warm", self.min_warm.into(), 0, POOL_MAX.into())?;
        within("idle_ttl_ms", self.idle_ttl_ms, 1000, 86_400_000)?;
        within("max_age_ms", self.max_age_ms, 0, 30 * 86_400_000)?;
        within("burst", self.burst.into(), 0, POOL_MAX.into())?;
        within("refill_concurrency", self.refill_concurrency.into(), 0, 256)?;
        within("max_requests", self.max_requests.into(), 1, 1_000_000)?;
        within("memory_budget_mib", self.memory_budget_mib, 0, 1 << 30)?;
        within("schedule", self.schedule.len() as u64, 0, Self::SCHEDULE_MAX as u64)?;
        if self.max_age_ms > 0 {
            within("max_age_ms", self.max_age_ms, 1000, 30 * 86_400_000)?;
        }
        let floors = self.schedule.iter().map(|schedule| ("schedule", schedule.min_warm));
        for (field, floor) in floors.chain([("min_warm", self.min_warm)]) {
            if floor > self.max_warm {
                let reason = format!("min_warm {floor} is over max_warm {}", self.max_warm);
                return Err(BadTuning { field, reason });
            }
        }
        if self.reuse == Reuse::Never && self.max_requests != 1 {
            let reason = format!("{} needs `reuse` to be `sequential`", self.max_requests);
            return Err(BadTuning { field: "max_requests", reason });
        }
        Ok(())
    }

    /// The highest floor that it may ask for: `min_warm` or that of a scheduled time.
    #[must_use]
    pub fn floor_max(&self) -> u32 {
        let scheduled = self.schedule.iter().map(|schedule| schedule.min_warm);
        scheduled.chain([self.min_warm]).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_named() {
        let named = |policy: PoolPolicy| policy.check().unwrap_err().field;
        let default = PoolPolicy::default;
        assert_eq!(default().check(), Ok(()));
        assert_eq!(named(PoolPolicy { max_warm: 0, ..default() }), "max_warm");
        assert_eq!(named(PoolPolicy { min_warm: 9, ..default() }), "min_warm");
        assert_eq!(named(PoolPolicy { idle_ttl_ms: 999, ..default() }), "idle_ttl_ms");
        assert_eq!(named(PoolPolicy { max_age_ms: 5, ..default() }), "max_age_ms");
        assert_eq!(named(PoolPolicy { max_requests: 2, ..default() }), "max_requests");
        assert_eq!(
            named(PoolPolicy { refill_concurrency: 257, ..default() }),
            "refill_concurrency"
        );
        let night = Schedule {
            days: vec![Day::Sat],
            from: "22:00".parse().unwrap(),
            until: "06:00".parse().unwrap(),
            min_warm: 9,
        };
        assert_eq!(named(PoolPolicy { schedule: vec![night], ..default() }), "schedule");
    }

    #[test]
    fn policy_has_this_very_json_and_absent_fields_have_defaults() {
        let text = r#"{"min_warm":2,"prefetch":"full","schedule":[{"days":["mon"],"from":"08:00","until":"18:30","min_warm":5}]}"#;
        let policy: PoolPolicy = serde_json::from_str(text).unwrap();
        assert_eq!((policy.min_warm, policy.max_warm), (2, 8));
        assert_eq!(policy.schedule[0].until.minutes(), 18 * 60 + 30);
        let back = serde_json::to_string(&policy).unwrap();
        assert!(
            back.contains(r#""reuse":"never""#) && back.contains(r#""from":"08:00""#),
            "{back}"
        );
    }

    #[test]
    fn words_and_times_are_read_back_and_others_are_refused() {
        for prefetch in [Prefetch::None, Prefetch::WorkingSet, Prefetch::Full] {
            assert_eq!(prefetch.as_str().parse(), Ok(prefetch));
        }
        for day in Day::ALL {
            assert_eq!(serde_json::to_string(&day).unwrap(), format!("\"{}\"", day.as_str()));
        }
        assert!("all".parse::<Prefetch>().unwrap_err().to_string().contains("working_set"));
        for bad in ["24:00", "7:00", "12:60", "12", "ab:cd", "+1:00"] {
            assert!(bad.parse::<TimeOfDay>().is_err(), "{bad}");
        }
    }
}
