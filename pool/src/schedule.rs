//! How many warm does an owner's timetable ask for at a given time, and when does that change?

use std::time::Duration;

use pool_model::{Day, PoolPolicy, Schedule};

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 86_400_000;

/// Days from 1970-01-01, a Thursday, back to the Monday before it.
const EPOCH_WEEKDAY: i64 = 3;

/// The floor of `policy` at `unix_ms` (milliseconds since 1970, UTC): the highest of `min_warm` and
/// the scheduled times that are on, each of which begins `lead` earlier so that its sandboxes are
/// warm in time. With it, when the floor changes next; [`i64::MAX`] if it never does.
///
/// The same every day is asked for in UTC: there are no leap seconds and no changes of the clock.
#[must_use]
pub fn scheduled_floor(policy: &PoolPolicy, unix_ms: i64, lead: Duration) -> (u32, i64) {
    // More than a day would make a time begin before the one of the day before.
    let lead = i64::try_from(lead.as_millis()).unwrap_or(DAY_MS).min(DAY_MS);
    let floor = floor_at(policy, unix_ms, lead);
    let today = unix_ms.div_euclid(DAY_MS);
    // A floor can only change where a time begins or ends; a week holds all of them.
    let mut edges: Vec<i64> = policy
        .schedule
        .iter()
        .flat_map(|schedule| (today - 2..=today + 9).map(move |day| (schedule, day)))
        .filter(|(schedule, day)| begins_on(schedule, *day))
        .flat_map(|(schedule, day)| <[i64; 2]>::from(span(schedule, day, lead)))
        .filter(|&edge| edge > unix_ms)
        .collect();
    edges.sort_unstable();
    let next = edges.into_iter().find(|&edge| floor_at(policy, edge, lead) != floor);
    (floor, next.unwrap_or(i64::MAX))
}

fn floor_at(policy: &PoolPolicy, unix_ms: i64, lead: i64) -> u32 {
    let today = unix_ms.div_euclid(DAY_MS);
    // It may have begun yesterday and last over midnight, or be tomorrow's, made ready today.
    let on = policy.schedule.iter().filter(|schedule| {
        (today - 1..=today + 1).any(|day| {
            let (from, until) = span(schedule, day, lead);
            begins_on(schedule, day) && (from..until).contains(&unix_ms)
        })
    });
    on.map(|schedule| schedule.min_warm).chain([policy.min_warm]).max().unwrap_or(policy.min_warm)
}

/// Whether the time begins on this day, counted from 1970-01-01.
fn begins_on(schedule: &Schedule, day: i64) -> bool {
    const WEEK: [Day; 7] = [Day::Mon, Day::Tue, Day::Wed, Day::Thu, Day::Fri, Day::Sat, Day::Sun];
    let weekday = (day + EPOCH_WEEKDAY).rem_euclid(7);
    let name = usize::try_from(weekday).ok().and_then(|index| WEEK.get(index));
    schedule.days.is_empty() || name.is_some_and(|name| schedule.days.contains(name))
}

/// When the time that begins on `day` is on: `lead` before it begins, until it ends.
fn span(schedule: &Schedule, day: i64, lead: i64) -> (i64, i64) {
    let at = |minutes: u16| day * DAY_MS + i64::from(minutes) * MINUTE_MS;
    let (from, until) = (at(schedule.from.minutes()), at(schedule.until.minutes()));
    (from - lead, if until <= from { until + DAY_MS } else { until })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Monday 2024-01-01 00:00 UTC.
    const MONDAY: i64 = 1_704_067_200_000;
    const HOUR: i64 = 3_600_000;

    fn policy(times: &[(&[Day], &str, &str, u32)]) -> PoolPolicy {
        let schedule = times.iter().map(|(days, from, until, min_warm)| Schedule {
            days: days.to_vec(),
            from: from.parse().unwrap(),
            until: until.parse().unwrap(),
            min_warm: *min_warm,
        });
        PoolPolicy { max_warm: 50, schedule: schedule.collect(), ..PoolPolicy::default() }
    }

    #[test]
    fn working_hours_begin_early_and_end_on_time() {
        let policy = policy(&[(&[Day::Mon, Day::Fri], "08:00", "18:00", 5)]);
        let lead = Duration::from_secs(60);
        let begin = MONDAY + 8 * HOUR - 60_000;
        assert_eq!(scheduled_floor(&policy, MONDAY, lead), (1, begin));
        assert_eq!(scheduled_floor(&policy, begin - 1, lead), (1, begin));
        assert_eq!(scheduled_floor(&policy, begin, lead), (5, MONDAY + 18 * HOUR));
        let friday = begin + 4 * 24 * HOUR;
        assert_eq!(scheduled_floor(&policy, MONDAY + 18 * HOUR, lead), (1, friday));
        assert_eq!(scheduled_floor(&policy, MONDAY + 34 * HOUR, lead), (1, friday));
    }

    #[test]
    fn a_night_lasts_over_midnight_and_a_whole_day_for_ever() {
        let night = policy(&[(&[Day::Sun], "22:00", "06:00", 3)]);
        assert_eq!(scheduled_floor(&night, MONDAY, Duration::ZERO), (3, MONDAY + 6 * HOUR));
        let always = policy(&[(&[], "09:00", "09:00", 4)]);
        assert_eq!(scheduled_floor(&always, MONDAY, Duration::ZERO), (4, i64::MAX));
        assert_eq!(scheduled_floor(&policy(&[]), MONDAY, Duration::ZERO), (1, i64::MAX));
    }

    #[test]
    fn the_higher_of_two_times_counts_and_midnight_is_prepared_the_day_before() {
        let both = policy(&[(&[], "08:00", "12:00", 2), (&[], "10:00", "11:00", 7)]);
        let at = |hour| scheduled_floor(&both, MONDAY + hour * HOUR, Duration::ZERO);
        assert_eq!(at(9), (2, MONDAY + 10 * HOUR));
        assert_eq!(at(10), (7, MONDAY + 11 * HOUR));
        assert_eq!(at(11), (2, MONDAY + 12 * HOUR));
        let midnight = policy(&[(&[Day::Tue], "00:00", "01:00", 2)]);
        let lead = Duration::from_secs(600);
        let begin = MONDAY + 24 * HOUR - 600_000;
        assert_eq!(scheduled_floor(&midnight, begin, lead), (2, MONDAY + 25 * HOUR));
    }

    fn some_policy() -> impl Strategy<Value = PoolPolicy> {
        let days = [Day::Mon, Day::Tue, Day::Wed, Day::Thu, Day::Fri, Day::Sat, Day::Sun];
        let time = (0..24_u32, 0..60_u32).prop_map(|(h, m)| format!("{h:02}:{m:02}"));
        let days = prop::sample::subsequence(days.to_vec(), 0..=7);
        let one =
            (days, time.clone(), time, 0..20_u32).prop_map(|(days, from, until, min_warm)| {
                let (from, until) = (from.parse().unwrap(), until.parse().unwrap());
                Schedule { days, from, until, min_warm }
            });
        (prop::collection::vec(one, 0..6), 0..5_u32).prop_map(|(schedule, min_warm)| PoolPolicy {
            min_warm,
            max_warm: 50,
            schedule,
            ..PoolPolicy::default()
        })
    }

    proptest! {
        #[test]
        fn floor_holds_until_it_is_said_to_change_and_changes_then(
            policy in some_policy(),
            at in -4_000_000_000_000_i64..4_000_000_000_000,
            lead in 0..7_200_u64,
            part in 0..1000_i64,
        ) {
            let lead = Duration::from_secs(lead);
            let (floor, next) = scheduled_floor(&policy, at, lead);
            prop_assert!(next > at);
            prop_assert!(floor >= policy.min_warm && floor <= policy.floor_max());
            // Where nothing changes within a week, nothing ever does.
            let ahead = (next.min(at + 8 * DAY_MS) - at) * part / 1000;
            prop_assert_eq!(scheduled_floor(&policy, at + ahead, lead).0, floor);
            if next != i64::MAX {
                prop_assert_eq!(scheduled_floor(&policy, next - 1, lead).0, floor);
                prop_assert_ne!(scheduled_floor(&policy, next, lead).0, floor);
            }
        }

        #[test]
        fn weeks_are_alike_and_an_earlier_start_never_lowers_the_floor(
            policy in some_policy(),
            at in 0..4_000_000_000_000_i64,
            lead in 0..7_200_u64,
        ) {
            let lead = Duration::from_secs(lead);
            let (floor, _) = scheduled_floor(&policy, at, lead);
            prop_assert_eq!(scheduled_floor(&policy, at + 7 * DAY_MS, lead).0, floor);
            prop_assert!(scheduled_floor(&policy, at, Duration::ZERO).0 <= floor);
        }
    }
}
