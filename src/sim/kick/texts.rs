//! Random strings in Kick's formats: ULIDs, UUIDs, opaque tokens.

use crate::clock::Chance;
use crate::core::time::Timestamp;
use crate::sim::kit::random_text::random;

/// Returns a ULID: ten characters of time and sixteen random ones.
pub(super) fn ulid(now: Timestamp, chance: &Chance) -> String {
    const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let millis = u64::try_from(now.as_millis()).unwrap_or(0);
    let time = (0..10).rev().map(|place| {
        let index = usize::try_from((millis >> (5 * place)) & 31).unwrap_or(0);
        char::from(CROCKFORD[index])
    });
    time.collect::<String>() + &random(CROCKFORD, 16, chance)
}

/// Returns a UUID of version 4.
pub(super) fn uuid(chance: &Chance) -> String {
    let hex = |length| random(b"0123456789abcdef", length, chance);
    let variant = random(b"89ab", 1, chance);
    format!(
        "{}-{}-4{}-{variant}{}-{}",
        hex(8),
        hex(4),
        hex(3),
        hex(3),
        hex(12)
    )
}

/// Returns the text of a token: opaque, 48 characters.
pub(super) fn token(chance: &Chance) -> String {
    random(
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
        48,
        chance,
    )
}

/// Formats a time as Kick does: UTC, whole seconds.
pub(super) fn rfc3339(at: Timestamp) -> String {
    let at = jiff::Timestamp::from_second(at.as_millis().div_euclid(1000)).unwrap_or_default();
    at.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_the_documented_shapes() {
        let chance = Chance::seeded(5);
        let at: Timestamp = "2026-06-01T11:00:00.750Z".parse().unwrap();
        assert_eq!(ulid(at, &chance).len(), 26);
        assert!(
            ulid(at, &chance) < ulid(at.plus_secs(1), &chance),
            "sorted by time"
        );
        assert_eq!(uuid(&chance).len(), 36);
        assert_eq!(token(&chance).len(), 48);
        assert_eq!(rfc3339(at), "2026-06-01T11:00:00Z");
    }
}
