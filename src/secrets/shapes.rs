//! Finds what has the form of a credential in a foreign text, whether it is registered or not: a server may repeat a token that
//! it has just issued, or one of another user.

use super::names;

/// Schemes before a credential in a header.
const SCHEMES: [&str; 5] = ["bearer", "oauth", "bot", "basic", "token"];
/// A credential after such a scheme has at least this many characters; the text of a sentence has fewer, or no digits.
const LONG: usize = 16;

/// Adds the ranges of credentials in `text`.
pub(super) fn find(text: &[u8], found: &mut Vec<(usize, usize)>) {
    for (at, byte) in text.iter().enumerate() {
        let range = match byte {
            b'=' | b':' => after_name(text, at),
            b' ' => after_scheme(text, at),
            _ => None,
        };
        // A name is none, however random it looks.
        found.extend(range.filter(|(start, end)| !names::is_known(&text[*start..*end])));
    }
}

/// `client_secret=…`, `"access_token": "…"`
fn after_name(text: &[u8], at: usize) -> Option<(usize, usize)> {
    let quote = |byte: &u8| matches!(byte, b'"' | b'\'' | b'\\' | b' ');
    let name_end = at - text[..at].iter().rev().take_while(|byte| quote(byte)).count();
    let letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let name_start = name_end
        - text[..name_end]
            .iter()
            .rev()
            .take_while(|byte| letter(byte))
            .count();
    let name = std::str::from_utf8(&text[name_start..name_end]).ok()?;
    let name = name.to_ascii_lowercase().replace('-', "_");
    if !super::FIELDS.contains(&name.as_str()) {
        return None;
    }
    let start = at + 1 + text[at + 1..].iter().take_while(|byte| quote(byte)).count();
    let end = start + text[start..].iter().take_while(|byte| is_part(**byte)).count();
    // `invalid token: expired` is a sentence.
    let sure = text[at] == b'=' && end >= start + 4;
    (sure || looks_random(&text[start..end])).then_some((start, end))
}

/// `Bearer …`
fn after_scheme(text: &[u8], at: usize) -> Option<(usize, usize)> {
    let scheme = SCHEMES.iter().any(|scheme| {
        let begins = at.checked_sub(scheme.len());
        begins.is_some_and(|begins| {
            text[begins..at].eq_ignore_ascii_case(scheme.as_bytes())
                && !begins
                    .checked_sub(1)
                    .is_some_and(|before| text[before].is_ascii_alphanumeric())
        })
    });
    if !scheme {
        return None;
    }
    let end = at + 1 + text[at + 1..].iter().take_while(|byte| is_part(**byte)).count();
    // Tokens contain letters, unlike the ids of accounts and guilds: `the bot 123456789012345678`.
    let found = &text[at + 1..end];
    let is_token = looks_random(found) && found.iter().any(u8::is_ascii_alphabetic);
    is_token.then_some((at + 1, end))
}

fn is_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'.' | b'_' | b'~' | b'+' | b'/' | b'=' | b'-' | b'%' | b'*')
}

pub(super) fn looks_random(text: &[u8]) -> bool {
    text.len() >= LONG && text.iter().any(u8::is_ascii_digit)
}

/// Whether text has the form of an `NKey` seed: <https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/nkey_auth>.
pub fn is_nkey_seed(text: &str) -> bool {
    text.len() == 58
        && text.starts_with('S')
        && text.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'2'..=b'7'))
}

#[cfg(test)]
mod tests {
    #[test]
    fn unregistered_credentials_are_masked_by_shape() {
        for (text, masked) in [
            (
                "Authorization: Bearer abcdefgh12345678",
                "Authorization: Bearer ***",
            ),
            ("sent oauth abcdefgh12345678, sorry", "sent oauth ***, sorry"),
            (
                "client_secret=abcd&grant_type=x",
                "client_secret=***&grant_type=x",
            ),
            (
                r#"{"access_token": "abcdefgh12345678"}"#,
                r#"{"access_token": "***"}"#,
            ),
            (
                r#"{\"refresh-token\":\"abcdefgh12345678\"}"#,
                r#"{\"refresh-token\":\"***\"}"#,
            ),
            ("refresh%5Ftoken%3Dabcdefgh12345678", "refresh%5Ftoken%3D***"),
            (
                "http://bot:hunter2@proxy:3128/ failed",
                "http://***@proxy:3128/ failed",
            ),
            ("invalid token: expired", "invalid token: expired"),
            (
                "the bot 423456789012345678 left",
                "the bot 423456789012345678 left",
            ),
            ("the bot internationalization", "the bot internationalization"),
            (
                "missing scope moderator:read:chatters",
                "missing scope moderator:read:chatters",
            ),
        ] {
            assert_eq!(super::super::mask_foreign(text), masked);
        }
    }
}
