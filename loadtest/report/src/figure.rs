//! Numbers as people read them.

/// Stands for a figure that there isn't.
pub(crate) const NONE: &str = "–";

/// About three digits: `0.412`, `4.12`, `41.2`, `412`, `4,120`.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    let size = value.abs();
    if size == 0.0 {
        "0".to_owned()
    } else if size < 0.0005 {
        if value > 0.0 { "<0.001" } else { ">-0.001" }.to_owned()
    } else if size < 0.9995 {
        format!("{value:.3}")
    } else if size < 9.995 {
        format!("{value:.2}")
    } else if size < 99.95 {
        format!("{value:.1}")
    } else {
        let sign = if value < 0.0 { "-" } else { "" };
        format!("{sign}{}", count(whole(size.round())))
    }
}

/// A number without zeros at its end: for what was asked, e.g. `200` or `0.5`.
pub(crate) fn given(value: f64) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Digits in groups of three: `1,234,567`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A duration with the unit that fits: `412 µs`, `4.12 ms`, `1.25 s`, `12.5 min`.
pub(crate) fn time(ms: f64) -> String {
    if !ms.is_finite() {
        return NONE.to_owned();
    }
    match ms.abs() {
        0.0 => "0 ms".to_owned(),
        size if size < 0.9995 => format!("{} µs", short(ms * 1e3)),
        size if size < 999.5 => format!("{} ms", short(ms)),
        size if size < 119_500.0 => format!("{} s", short(ms / 1e3)),
        _ => format!("{} min", short(ms / 60e3)),
    }
}

/// Three digits at most and no zeros at the end: for ticks and running text.
fn short(value: f64) -> String {
    let digits = if value.abs() < 9.995 { 2 } else { usize::from(value.abs() < 99.95) };
    let text = format!("{value:.digits$}");
    if digits == 0 {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A share in percent; [`NONE`] of nothing.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return NONE.to_owned();
    }
    format!("{} %", number(part as f64 / whole as f64 * 100.0))
}

/// Bytes with the unit that fits.
pub(crate) fn bytes(value: u64) -> String {
    let size = value as f64;
    match value {
        0..1024 => format!("{value} B"),
        1024..1_048_576 => format!("{} KiB", short(size / 1024.0)),
        1_048_576..1_073_741_824 => format!("{} MiB", short(size / 1_048_576.0)),
        _ => format!("{} GiB", number(size / 1_073_741_824.0)),
    }
}

/// The whole part; nothing below 0, and 0 for what is no number.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // `as` saturates: meant so
pub(crate) fn whole(value: f64) -> u64 {
    value as u64
}

/// The whole part as an index.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // `as` saturates: meant so
pub(crate) fn index(value: f64) -> usize {
    value as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_about_three_digits() {
        let told = [0.0, 0.0001, 0.4123, 0.9996, 4.123, 9.996, 41.23, 99.96, 412.3, -41_234.5];
        let told: Vec<_> = told.into_iter().map(number).collect();
        let want =
            ["0", "<0.001", "0.412", "1.00", "4.12", "10.0", "41.2", "100", "412", "-41,235"];
        assert_eq!(told, want);
        assert_eq!(number(f64::NAN), NONE);
        assert_eq!(count(1_234_567), "1,234,567");
    }

    #[test]
    fn times_have_the_unit_that_fits() {
        let told = [0.0, 0.412, 4.0, 999.7, 12_340.0, 120_000.0, 750_000.0].map(time);
        assert_eq!(told, ["0 ms", "412 µs", "4 ms", "1 s", "12.3 s", "2 min", "12.5 min"]);
        assert_eq!((percent(1, 0).as_str(), percent(1, 3).as_str()), (NONE, "33.3 %"));
        assert_eq!((given(200.0).as_str(), given(0.5).as_str()), ("200", "0.5"));
        assert_eq!(bytes(2048), "2 KiB");
    }
}
