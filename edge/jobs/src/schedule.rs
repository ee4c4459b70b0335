//! When is a schedule's next minute, and what is wrong with one that isn't one?

use croner::{
    Cron,
    errors::CronError,
    parser::{CronParser, Seconds, Year},
};
use jiff::{Timestamp, tz::TimeZone};

/// Why a schedule is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSchedule {
    /// Not five fields.
    #[error(
        "`{schedule}` has {fields} fields, not 5: minute, hour, day of month, month, day of week"
    )]
    Fields {
        /// What was given, cut to 64 characters.
        schedule: String,
        /// How many it has.
        fields: usize,
    },
    /// A field is wrong.
    #[error("`{schedule}`: {problem}")]
    Pattern {
        /// What was given, cut to 64 characters.
        schedule: String,
        /// What is wrong.
        problem: String,
    },
    /// It never comes, like the 30th of February.
    #[error("`{schedule}` never comes")]
    Never {
        /// What was given, cut to 64 characters.
        schedule: String,
    },
    /// There is no such time zone.
    #[error("`{zone}` is no time zone of the IANA database, like `Europe/Berlin` or `UTC`")]
    Zone {
        /// What was given, cut to 64 characters.
        zone: String,
    },
}

/// Says what is wrong with a schedule of five fields and the name of its time zone.
///
/// # Errors
///
/// [`BadSchedule`] as a text.
pub fn check_schedule(schedule: &str, zone: Option<&str>) -> Result<(), String> {
    let table = Timetable::new(schedule, zone).map_err(|bad| bad.to_string())?;
    match table.after(Timestamp::now()) {
        Some(_) => Ok(()),
        None => Err(BadSchedule::Never { schedule: cut(schedule) }.to_string()),
    }
}

/// The minutes of a schedule.
#[derive(Debug, Clone)]
pub struct Timetable {
    cron: Cron,
    zone: TimeZone,
}

impl Timetable {
    /// Reads a schedule; UTC if no time zone is named.
    ///
    /// # Errors
    ///
    /// [`BadSchedule`].
    pub fn new(schedule: &str, zone: Option<&str>) -> Result<Self, BadSchedule> {
        let fields = schedule.split_whitespace().count();
        if fields != 5 {
            return Err(BadSchedule::Fields { schedule: cut(schedule), fields });
        }
        let parser =
            CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let bad = |error: CronError| BadSchedule::Pattern {
            schedule: cut(schedule),
            problem: lower(&error.to_string()),
        };
        let cron = parser.parse(schedule).map_err(bad)?;
        let zone = match zone {
            None => TimeZone::UTC,
            Some(name) => TimeZone::get(name).map_err(|_| BadSchedule::Zone { zone: cut(name) })?,
        };
        Ok(Self { cron, zone })
    }

    /// Its next minute after `time`; `None` if it never comes.
    #[must_use]
    pub fn after(&self, time: Timestamp) -> Option<Timestamp> {
        let from = time.to_zoned(self.zone.clone());
        self.cron.find_next_occurrence(&from, false).ok().map(|next| next.timestamp())
    }

    /// Its last minute after `from`, up to `until`; `None` if there is none. `from` is to be near:
    /// this goes through the minutes in between.
    #[must_use]
    pub fn last_between(&self, from: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let due = |at: &Timestamp| *at <= until;
        let mut last = self.after(from).filter(due)?;
        while let Some(next) = self.after(last).filter(due) {
            if next <= last {
                break; // can't be, and must not be forever
            }
            last = next;
        }
        Some(last)
    }
}

fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Begins with a lower case letter, as messages do.
fn lower(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_ascii_lowercase());
    first.into_iter().chain(chars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn next(schedule: &str, zone: Option<&str>, from: &str) -> String {
        Timetable::new(schedule, zone).unwrap().after(at(from)).unwrap().to_string()
    }

    #[test]
    fn good_schedules_pass_and_bad_ones_are_told_what_is_wrong() {
        let good = [
            ("* * * * *", None),
            ("*/5 9-17 * * MON-FRI", Some("Europe/Berlin")),
            ("0 0 L * *", Some("America/New_York")),
            ("0 3 29 2 *", Some("UTC")),
        ];
        for (schedule, zone) in good {
            assert_eq!(check_schedule(schedule, zone), Ok(()), "{schedule}");
        }
        for (schedule, zone, part) in [
            ("* * *", None, "3 fields"),
            ("* * * * * *", None, "6 fields"),
            ("", None, "0 fields"),
            ("@daily", None, "1 fields"),
            ("61 * * * *", None, "`61 * * * *`: "),
            ("* 25 * * *", None, "`* 25 * * *`: "),
            ("a b c d e", None, "`a b c d e`: "),
            ("0 0 30 2 *", None, "never"),
            ("* * * * *", Some("Mars/Olympus"), "`Mars/Olympus`"),
            ("* * * * *", Some(""), "``"),
        ] {
            let problem = check_schedule(schedule, zone).unwrap_err();
            assert!(problem.contains(part), "{schedule}: {problem}");
        }
    }

    #[test]
    fn named_zones_need_no_files_of_the_machine() {
        let bundled = jiff::tz::TimeZoneDatabase::bundled();
        assert_eq!(bundled.get("Europe/Berlin").unwrap().iana_name(), Some("Europe/Berlin"));
    }

    #[test]
    fn minutes_are_those_of_the_time_zone() {
        assert_eq!(next("30 9 * * *", None, "2026-01-05T09:30:00Z"), "2026-01-06T09:30:00Z");
        let berlin = Some("Europe/Berlin");
        assert_eq!(next("30 9 * * *", berlin, "2026-01-05T00:00:00Z"), "2026-01-05T08:30:00Z");
        assert_eq!(next("30 9 * * *", berlin, "2026-07-05T00:00:00Z"), "2026-07-05T07:30:00Z");
        assert_eq!(next("0 0 13 * FRI", None, "2026-11-27T12:00:00Z"), "2026-12-04T00:00:00Z");
    }

    #[test]
    fn a_skipped_fixed_time_fires_after_the_gap_and_a_repeated_one_once() {
        let berlin = Some("Europe/Berlin");
        // 02:00 to 03:00 is skipped on 29 March 2026.
        assert_eq!(next("30 2 * * *", berlin, "2026-03-28T12:00:00Z"), "2026-03-29T01:00:00Z");
        assert_eq!(next("30 2 * * *", berlin, "2026-03-29T01:00:00Z"), "2026-03-30T00:30:00Z");
        // 02:00 to 03:00 comes twice on 25 October 2026.
        let first = next("30 2 * * *", berlin, "2026-10-24T12:00:00Z");
        assert_eq!(first, "2026-10-25T00:30:00Z");
        assert_eq!(next("30 2 * * *", berlin, &first), "2026-10-26T01:30:00Z");
        // One with wildcards goes on through both passes.
        let half = next("*/30 * * * *", berlin, "2026-10-25T00:30:00Z");
        assert_eq!(half, "2026-10-25T01:00:00Z");
    }

    #[test]
    fn the_last_minute_of_a_span_is_what_is_made_up_for() {
        let table = Timetable::new("*/2 * * * *", None).unwrap();
        let last = |from, until| table.last_between(at(from), at(until)).map(|at| at.to_string());
        let found = last("2026-01-01T00:00:00Z", "2026-01-01T00:09:59Z");
        assert_eq!(found.as_deref(), Some("2026-01-01T00:08:00Z"));
        assert_eq!(last("2026-01-01T00:00:00Z", "2026-01-01T00:01:59Z"), None);
        let found = last("2026-01-01T00:00:00Z", "2026-01-01T00:02:00Z");
        assert_eq!(found.as_deref(), Some("2026-01-01T00:02:00Z"));
    }
}
