//! Parses the headers of a delivery, and checks whether it is recent. Pure.

use std::time::Duration;

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::core::time::Timestamp;

/// Maximum difference between a delivery's time and our clock; an older one may be a replay.
pub(super) const WINDOW: Duration = Duration::from_mins(5);
/// Bytes in a signature by a 2048-bit key, and by the longest that is used.
const SIGNATURE: std::ops::RangeInclusive<usize> = 256..=512;

/// The headers of a delivery. Only message id and timestamp are signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delivery<'a> {
    pub(super) message_id: &'a str,
    /// The timestamp as received, which is what is signed.
    pub(super) timestamp: &'a str,
    pub(super) at: Timestamp,
    pub(super) signature: Vec<u8>,
    pub(super) kind: &'a str,
}

/// A header is missing, duplicated, or malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Misshapen;

impl Delivery<'_> {
    /// Returns whether it was sent recently, by one of the clocks that may be Kick's.
    pub(super) fn is_recent(&self, clocks: &[Timestamp]) -> bool {
        clocks
            .iter()
            .any(|now| now.since(self.at).max(self.at.since(*now)) <= WINDOW)
    }
}

/// Parses the headers of a delivery.
pub(super) fn read(headers: &HeaderMap) -> Result<Delivery<'_>, Misshapen> {
    let message_id = one(headers, "kick-event-message-id").ok_or(Misshapen)?;
    let timestamp = one(headers, "kick-event-message-timestamp").ok_or(Misshapen)?;
    let signature = one(headers, "kick-event-signature").ok_or(Misshapen)?;
    let kind = one(headers, "kick-event-type").ok_or(Misshapen)?;
    let at: Timestamp = timestamp.parse().map_err(|_| Misshapen)?;
    let signature = STANDARD.decode(signature.trim()).map_err(|_| Misshapen)?;
    if !is_id(message_id) || !SIGNATURE.contains(&signature.len()) {
        return Err(Misshapen);
    }
    Ok(Delivery {
        message_id,
        timestamp,
        at,
        signature,
        kind,
    })
}

/// Returns a header that is present exactly once: with two, the checked one might not be the used one.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    let text = all.next()?.to_str().ok()?;
    all.next().is_none().then_some(text)
}

/// Returns whether a text is an id: a ULID, as Kick documents it, or a UUID, as others create them. It must not contain a
/// dot, which separates the signed parts.
fn is_id(text: &str) -> bool {
    let ulid = text.len() == 26 && text.bytes().all(|letter| letter.is_ascii_alphanumeric());
    let hex = |letter: u8| letter.is_ascii_hexdigit() || letter == b'-';
    ulid || (text.len() == 36 && text.bytes().all(hex))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-06-01T11:00:00Z";

    fn headers(changes: &[(&'static str, &str)]) -> HeaderMap {
        let signature = STANDARD.encode([7; 256]);
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("kick-event-message-id", "01JZ0000000000000000000000"),
            ("kick-event-message-timestamp", NOW),
            ("kick-event-signature", signature.as_str()),
            ("kick-event-type", "chat.message.sent"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        for (name, value) in changes {
            if value.is_empty() {
                headers.remove(*name);
            } else {
                headers.insert(*name, value.parse().unwrap());
            }
        }
        headers
    }

    #[test]
    fn what_is_missing_or_misshapen_is_refused() {
        assert!(read(&headers(&[])).is_ok());
        for (name, value) in [
            ("kick-event-message-id", ""),
            ("kick-event-message-id", "01JZ"),
            ("kick-event-message-id", "01JZ00000000000000000000.0"),
            ("kick-event-message-timestamp", ""),
            ("kick-event-message-timestamp", "yesterday"),
            ("kick-event-message-timestamp", "1780000000"),
            ("kick-event-signature", ""),
            ("kick-event-signature", "!!"),
            ("kick-event-signature", "AAAA"),
            ("kick-event-type", ""),
        ] {
            let headers = headers(&[(name, value)]);
            assert_eq!(read(&headers), Err(Misshapen), "{name}: {value}");
        }
        let mut doubled = headers(&[]);
        doubled.append(
            "kick-event-message-id",
            "01JZ0000000000000000000001".parse().unwrap(),
        );
        assert_eq!(read(&doubled), Err(Misshapen));
    }

    #[test]
    fn a_uuid_names_a_delivery_as_well_as_a_ulid() {
        let uuid = headers(&[("kick-event-message-id", "c0ffee00-0000-4000-8000-000000000001")]);
        assert!(read(&uuid).is_ok());
    }

    #[test]
    fn five_minutes_either_way_are_recent() {
        let at: Timestamp = NOW.parse().unwrap();
        for (seconds, recent) in [(0, true), (300, true), (-300, true), (301, false), (-301, false)] {
            let headers = headers(&[]);
            let delivery = read(&headers).unwrap();
            assert_eq!(delivery.is_recent(&[at.plus_secs(seconds)]), recent, "{seconds}");
            assert!(delivery.is_recent(&[at.plus_secs(seconds), at]));
        }
        let elsewhere = headers(&[("kick-event-message-timestamp", "2026-06-01T22:00:00.123456+11:00")]);
        assert_eq!(
            read(&elsewhere).unwrap().timestamp,
            "2026-06-01T22:00:00.123456+11:00"
        );
    }
}
