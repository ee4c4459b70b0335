//! How a scheduled time is written on the command line: `mon-fri 08:00-18:00 =5`.

use edge_api::{Day, Schedule, TimeOfDay};

const DAYS: [(&str, Day); 7] = [
    ("mon", Day::Mon),
    ("tue", Day::Tue),
    ("wed", Day::Wed),
    ("thu", Day::Thu),
    ("fri", Day::Fri),
    ("sat", Day::Sat),
    ("sun", Day::Sun),
];

/// Reads `[DAYS] FROM-UNTIL =N`. Days are names and ranges of them with commas between (`mon-fri`,
/// `sat,sun`, `fri-mon`); none is every day.
pub(crate) fn parse(text: &str) -> Result<Schedule, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (days, hours, count) = match words[..] {
        [hours, count] => (Vec::new(), hours, count),
        [days, hours, count] => (parse_days(days)?, hours, count),
        _ => return Err("expected [DAYS] FROM-UNTIL =N, e.g. `mon-fri 08:00-18:00 =5`".to_owned()),
    };
    let (from, until) =
        hours.split_once('-').ok_or_else(|| format!("`{hours}` is not FROM-UNTIL"))?;
    let time = |text: &str| text.parse::<TimeOfDay>().map_err(|bad| bad.reason);
    let min_warm = count.strip_prefix('=').and_then(|number| number.parse().ok());
    let min_warm = min_warm.ok_or_else(|| format!("`{count}` is not =N, a number of sandboxes"))?;
    Ok(Schedule { days, from: time(from)?, until: time(until)?, min_warm })
}

/// Writes what [`parse`] reads, each day by its name.
pub(crate) fn format(schedule: &Schedule) -> String {
    let Schedule { days, from, until, min_warm } = schedule;
    let names: Vec<&str> = days.iter().map(|day| DAYS[number(*day)].0).collect();
    let days = names.join(",");
    format!("{days} {from}-{until} ={min_warm}").trim_start().to_owned()
}

fn parse_days(text: &str) -> Result<Vec<Day>, String> {
    let mut days = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (position(first)?, position(last)?);
        // A range may go over the end of the week.
        let length = (last + 7 - first) % 7;
        for day in (first..=first + length).map(|day| DAYS[day % 7].1) {
            if !days.contains(&day) {
                days.push(day);
            }
        }
    }
    Ok(days)
}

fn position(name: &str) -> Result<usize, String> {
    DAYS.iter().position(|(known, _)| known.eq_ignore_ascii_case(name)).ok_or_else(|| {
        let names = DAYS.map(|(name, _)| name).join(", ");
        format!("`{name}` is no day: expected {names}")
    })
}

fn number(day: Day) -> usize {
    DAYS.iter().position(|(_, known)| *known == day).expect("the table has all seven")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(text: &str) -> Vec<Day> {
        parse(&format!("{text} 08:00-18:00 =5")).unwrap().days
    }

    #[test]
    fn days_are_names_and_ranges_that_may_go_over_the_week() {
        assert_eq!(days("mon-fri"), [Day::Mon, Day::Tue, Day::Wed, Day::Thu, Day::Fri]);
        assert_eq!(days("sat,SUN"), [Day::Sat, Day::Sun]);
        assert_eq!(days("sat-mon,mon,wed-wed"), [Day::Sat, Day::Sun, Day::Mon, Day::Wed]);
        assert_eq!(days("mon-sun").len(), 7);
        assert_eq!(days("sun-sat").len(), 7);
        let every = parse(" 22:00-02:00   =3 ").unwrap();
        assert_eq!((every.days.len(), every.min_warm, every.from.minutes()), (0, 3, 22 * 60));
    }

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["mon,tue 08:00-18:30 =5", "22:00-02:00 =0", "sun 00:00-00:00 =1000"] {
            assert_eq!(format(&parse(text).unwrap()), text);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("", "FROM-UNTIL"),
            ("mon-fri 08:00-18:00", "=N"),
            ("mon fri 08:00-18:00 =5", "expected [DAYS]"),
            ("moon 08:00-18:00 =5", "`moon` is no day"),
            ("mon- 08:00-18:00 =5", "`` is no day"),
            ("mon 08:00 =5", "`08:00` is not FROM-UNTIL"),
            ("mon 08:00-24:00 =5", "`24:00` is no time of day"),
            ("mon 8:00-18:00 =5", "HH:MM"),
            ("mon 08:00-18:00 5", "`5` is not =N"),
            ("mon 08:00-18:00 =-5", "`=-5` is not =N"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
