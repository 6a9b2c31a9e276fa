//! Numbers as people read them.

/// Returns an age or a duration as its one largest unit: `12s`, `4m`, `3h`, `2d`.
pub fn age(millis: u64) -> String {
    let seconds = millis / 1000;
    let (count, unit) = match seconds {
        0..60 => (seconds, "s"),
        60..3600 => (seconds / 60, "m"),
        3600..86_400 => (seconds / 3600, "h"),
        _ => (seconds / 86_400, "d"),
    };
    count.to_string() + unit
}

/// Returns a duration as its two largest units: `45s`, `12m`, `1h12m`, `3d4h`.
pub fn span(millis: u64) -> String {
    let seconds = millis / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m"),
        (0, hours, minutes) => format!("{hours}h{minutes:02}m"),
        (days, hours, _) => format!("{days}d{hours}h"),
    }
}

/// Returns a number with thousands separators: `12,345`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a count with its noun: `1 source`, `3 sources`.
pub fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", thousands(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_spans_keep_the_units_that_matter() {
        for (seconds, short, long) in [
            (0, "0s", "0s"),
            (59, "59s", "59s"),
            (60, "1m", "1m"),
            (3599, "59m", "59m"),
            (3600, "1h", "1h00m"),
            (4320, "1h", "1h12m"),
            (86_399, "23h", "23h59m"),
            (277_200, "3d", "3d5h"),
        ] {
            assert_eq!(
                (age(seconds * 1000), span(seconds * 1000)),
                (short.into(), long.into())
            );
        }
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(number), text);
        }
        assert_eq!(
            (count(1, "source"), count(1200, "source")),
            ("1 source".into(), "1,200 sources".into())
        );
    }
}
