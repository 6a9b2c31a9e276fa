//! Numbers as people read them.

pub use crate::core::number::{count, thousands};

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
    match parts(millis) {
        [0, 0, 0, seconds] => format!("{seconds}s"),
        [0, 0, minutes, _] => format!("{minutes}m"),
        [0, hours, minutes, _] => format!("{hours}h{minutes:02}m"),
        [days, hours, ..] => format!("{days}d{hours}h"),
    }
}

/// Returns a duration for a sentence, as its two largest units: `45 s`, `5 min`, `1 h 12 min`, `3 d 4 h`.
pub fn duration(millis: u64) -> String {
    match parts(millis) {
        [0, 0, 0, seconds] => format!("{seconds} s"),
        [0, 0, minutes, _] => format!("{minutes} min"),
        [0, hours, 0, _] => format!("{hours} h"),
        [0, hours, minutes, _] => format!("{hours} h {minutes} min"),
        [days, 0, ..] => format!("{days} d"),
        [days, hours, ..] => format!("{days} d {hours} h"),
    }
}

/// Splits a duration into days, hours, minutes and seconds.
fn parts(millis: u64) -> [u64; 4] {
    let seconds = millis / 1000;
    [
        seconds / 86_400,
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
    ]
}

/// Returns which permissions were gained, and which are not proven any more (their source of evidence may have become silent), as
/// lists of names separated by spaces; `None` if there is nothing to say.
pub fn permissions_change(gained: &str, unproven: &str) -> Option<String> {
    let gained = permissions("gained", gained.split(' '));
    let unproven = permissions("no longer proven:", unproven.split(' '));
    let parts: Vec<_> = gained.into_iter().chain(unproven).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Returns `verb` with roles by name and scopes by their number; `None` if there are none.
pub fn permissions<'a>(verb: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut scopes = 0;
    let mut words = Vec::new();
    for name in names {
        match name {
            // A log has this instead of permissions that are not known.
            "" | "unknown" => {}
            _ if name.starts_with("scope:") => scopes += 1,
            _ => words.push(name.to_owned()),
        }
    }
    if scopes > 0 {
        words.push(count(scopes, "scope"));
    }
    (!words.is_empty()).then(|| format!("{verb} {}", words.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_spans_keep_the_units_that_matter() {
        for (seconds, short, long, spoken) in [
            (0, "0s", "0s", "0 s"),
            (59, "59s", "59s", "59 s"),
            (60, "1m", "1m", "1 min"),
            (3599, "59m", "59m", "59 min"),
            (3600, "1h", "1h00m", "1 h"),
            (4320, "1h", "1h12m", "1 h 12 min"),
            (86_399, "23h", "23h59m", "23 h 59 min"),
            (277_200, "3d", "3d5h", "3 d 5 h"),
        ] {
            assert_eq!(
                (age(seconds * 1000), span(seconds * 1000)),
                (short.into(), long.into())
            );
            assert_eq!(duration(seconds * 1000), spoken);
        }
    }
}
