//! Secrets of this process, and masking them in text.
//!
//! A token, a client secret or a password is registered here when it is configured, loaded, received or sent. Gateways, mocks and
//! debugging proxies repeat a request in their responses, so every foreign text is masked before it becomes an error, and the
//! output of this program is masked once more, in case a path was missed.
//!
//! The registry belongs to the process and not to a client: a log line of a library must be masked too, and has no client.
//! Registering a value twice, or one that is no secret, hides text but breaks nothing.

mod address;
mod decode;
mod names;
mod registry;
mod shapes;
mod visible;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use parking_lot::RwLock;
use secrecy::SecretString;
use url::Url;

use crate::core::code::ErrorCode;
use crate::core::observation::{ErrorInfo, Fact, LinkState, Observation};
use registry::Registry;

pub use address::{without_credentials, without_credentials_of_servers};
pub use shapes::is_nkey_seed;
pub use visible::is_invisible;

/// Replacement of a secret.
pub const MASK: &str = "***";

/// How much of a foreign text is quoted, in characters. Longer ones are pages or dumps, and their start is enough.
const QUOTED: usize = 200;

static KNOWN: LazyLock<RwLock<Registry>> = LazyLock::new(RwLock::default);

/// Names of form fields and query parameters whose values are secrets.
pub(crate) const FIELDS: &[&str] = &[
    "access_token",
    "api_key",
    "apikey",
    "auth_token",
    "authorization",
    "client_assertion",
    "client_secret",
    "code_verifier",
    "creds",
    "device_code",
    "id_token",
    "jwt",
    "nkey",
    "pass",
    "passphrase",
    "passwd",
    "password",
    "private_key",
    "pwd",
    "refresh_token",
    "secret",
    "session_token",
    "sig",
    "signature",
    "token",
    "webhook_secret",
];

/// Registers `text` as a secret. Prefixes of its use (`oauth:`, `Bearer `, `Bot `) are not part of it.
pub fn register(text: &str) {
    let text = bare(text.trim());
    if KNOWN.read().holds(text) {
        return;
    }
    KNOWN.write().add(text);
}

/// Registers a name of a source or an account, which is never masked for its form. A text that is registered as a secret is masked
/// even if it is a name, too.
pub fn register_name(name: &str) {
    names::add(name);
}

/// Registers a user's password, also in the form in which both are sent together.
pub fn register_password(user: &str, password: &str) {
    register(password);
    register(&format!("{user}:{password}"));
}

/// Registers what is secret in addresses: passwords, and parameters such as `token`.
pub fn register_addresses(text: &str) {
    for (user, password) in address::passwords(text) {
        match user {
            Some(user) => register_password(&user, &password),
            None => register(&password),
        }
    }
    for value in address::parameters(text) {
        register(&value);
    }
}

/// Registers what is secret in a parsed address: unlike a text that may be written in any form, it shows exactly where its
/// password is, and an `@` in its path belongs to the path.
pub fn register_url(url: &Url) {
    let (user, password) = (url.username(), url.password().unwrap_or_default());
    match (user, password) {
        ("", "") => {}
        (user, "") => register_addresses(&format!("{}://{user}@", url.scheme())),
        (user, password) => register_addresses(&format!("{}://{user}:{password}@", url.scheme())),
    }
    for value in address::parameters(url.as_str()) {
        register(&value);
    }
}

/// Registers the lines of a file with keys or a credential, except those that only separate its parts.
pub fn register_lines(text: &str) {
    let lines = text.lines().map(str::trim);
    for line in
        lines.filter(|line| line.len() >= 16 && !line.contains(' ') && !line.starts_with(['-', '*', '#']))
    {
        register(line);
    }
}

/// Wraps `text` and registers it as a secret.
pub fn secret(text: impl Into<String>) -> SecretString {
    let text = text.into();
    register(&text);
    SecretString::from(text)
}

/// Masks registered secrets, and passwords in addresses, in a text of our own.
///
/// Secrets that could be dictionary entries, such as the password `platform`, are not masked: a report must stay readable by
/// machines.
pub fn mask(text: &str) -> Cow<'_, str> {
    KNOWN.read().mask(text, registry::Scope::Own)
}

/// Masks registered secrets in a foreign text, in whatever encoding, and whatever has the form of a credential.
pub fn mask_foreign(text: &str) -> Cow<'_, str> {
    KNOWN.read().mask(text, registry::Scope::Foreign)
}

/// As [`mask_foreign`], for an owned text.
pub fn masked(mut text: String) -> String {
    if let Cow::Owned(masked) = mask_foreign(&text) {
        text = masked;
    }
    text
}

/// Masks registered secrets in a foreign body.
pub fn mask_body(body: Bytes) -> Bytes {
    let text = String::from_utf8_lossy(&body);
    let masked = match mask_foreign(&text) {
        Cow::Owned(masked) => Some(masked),
        Cow::Borrowed(_) => None,
    };
    masked.map_or(body, Bytes::from)
}

/// Returns whether typed text may be a secret, or contain one, although it was not registered.
pub fn is_suspicious(word: &str) -> bool {
    has_form_of_secret(word) && !is_name(word)
}

/// Returns whether text is a registered name, alone or after a platform (`twitch:NAME`), and not registered as a secret.
fn is_name(word: &str) -> bool {
    let name = word.split_once(':').map_or(word, |(_, name)| name);
    let is_known = |text: &str| names::is_known(text.trim_start_matches(['@', '#']).as_bytes());
    (is_known(word) || is_known(name)) && !KNOWN.read().holds(bare(word)) && !KNOWN.read().holds(name)
}

/// Returns whether text has the form of a secret, or of something that contains one.
fn has_form_of_secret(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    let names_one = |name: &str| lower.contains(name) && !word.starts_with("--") && !is_phrase(word);
    // Longer than any name that is typed, and one run of letters and digits.
    let is_long = word.len() > 25 && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_random(word)
        || (is_long && word.bytes().any(|byte| byte.is_ascii_alphabetic()))
        || lower.starts_with("oauth:")
        || ["token", "secret", "password", "passwd", "bearer"]
            .into_iter()
            .any(names_one)
        || without_credentials(word) != word
}

/// Returns whether text is one or two short words, such as `read-token` or `passwords`: the name of something rather than its value.
fn is_phrase(text: &str) -> bool {
    let words = || text.split(['-', '_', '.']);
    let is_short = |word: &str| (1..=10).contains(&word.len());
    words().count() <= 2
        && words().all(|word| is_short(word) && word.bytes().all(|byte| byte.is_ascii_alphabetic()))
}

/// Returns whether text in a place where no secret belongs is one by its form. It is stricter than [`is_suspicious`]: a name that
/// may well be right is shown.
pub fn is_credential(word: &str) -> bool {
    if is_name(word) {
        return false;
    }
    let lower = word.to_ascii_lowercase();
    let scheme = ["oauth:", "oauth ", "bearer ", "bot ", "basic "];
    let is_run = |run: &str| {
        let digits = run.bytes().filter(u8::is_ascii_digit).count();
        run.len() >= 20 && digits >= 2 && digits < run.len()
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~+=".contains(&byte);
    scheme.iter().any(|scheme| lower.starts_with(scheme))
        || (word.len() >= 25
            && word.bytes().all(is_plain)
            && word.split(|c: char| !c.is_ascii_alphanumeric()).any(is_run))
}

/// Returns typed text in the form in which a message may repeat it: not at all where it may be a secret, and never at length.
pub fn repeated(word: &str) -> String {
    if is_suspicious(word) {
        MASK.to_owned()
    } else {
        word.chars().take(60).collect()
    }
}

/// Whether text has the form of a token rather than that of a name, a path or an address.
fn is_random(word: &str) -> bool {
    word.len() >= 16
        && !word.starts_with('-')
        && !word.contains(['/', ':'])
        && word.bytes().any(|byte| byte.is_ascii_digit())
        && word.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// Returns a foreign text in the form in which it may be quoted: masked, short, on one line and without what would move a
/// terminal's cursor.
pub fn quote(text: &str) -> String {
    // Masked first: cut in the middle, a secret would not be recognized.
    let masked = mask_foreign(text);
    let shown = visible::plain(&masked);
    let mut letters = shown.chars();
    let mut quoted: String = letters.by_ref().take(QUOTED).collect();
    if letters.next().is_some() {
        quoted.push('…');
    }
    quoted
}

/// Masks registered secrets in the texts of an observation, before it is stored or published.
pub fn clean(observation: &mut Observation) {
    // A fact that thousands of observations share is copied only if there is something to mask.
    if is_clean(&observation.fact) {
        return;
    }
    match observation.fact_mut() {
        Fact::Connection { state, .. } => match state {
            LinkState::Down { error } | LinkState::Refused { error } => clean_error(error),
            LinkState::Up | LinkState::Answered | LinkState::Closed => {}
        },
        Fact::Unanswered { error, .. } | Fact::Problem { error } | Fact::NoSuchSource { error } => {
            clean_error(error);
        }
        Fact::Profile { fields } => fields.values_mut().for_each(clean_text),
        Fact::Permissions { grants, .. } => {
            let grants = Arc::make_mut(grants);
            for names in [&mut grants.granted, &mut grants.denied] {
                clean_set(names);
            }
            grants.unknown.values_mut().for_each(clean_text);
        }
        // An id is a text of the platform's, too.
        Fact::StreamPush { stream_id, .. }
        | Fact::Viewers { stream_id, .. }
        | Fact::ViewersHidden { stream_id } => stream_id.iter_mut().for_each(clean_text),
        Fact::StreamSeen { stream_id, .. } => clean_text(stream_id),
        Fact::Auth { check, .. } => {
            let check = Arc::make_mut(check);
            clean_set(&mut check.scopes);
            check.reason.iter_mut().for_each(clean_text);
        }
        Fact::Exists | Fact::StreamAbsent | Fact::Latency { .. } | Fact::Counters { .. } => {}
    }
}

/// Whether no text of a fact contains a secret.
fn is_clean(fact: &Fact) -> bool {
    let clean = |text: &str| matches!(mask(text), Cow::Borrowed(_));
    match fact {
        Fact::Permissions { grants, .. } => {
            let names = grants.granted.iter().chain(&grants.denied);
            names.chain(grants.unknown.values()).all(|text| clean(text))
        }
        Fact::Auth { check, .. } => check.scopes.iter().chain(&check.reason).all(|text| clean(text)),
        // Of a single source.
        _ => false,
    }
}

fn clean_set(texts: &mut BTreeSet<String>) {
    if texts.iter().any(|text| matches!(mask(text), Cow::Owned(_))) {
        *texts = texts.iter().map(|text| mask(text).into_owned()).collect();
    }
}

fn clean_error(error: &mut ErrorInfo) {
    if let Cow::Owned(masked) = mask(&error.code.text()) {
        error.code = ErrorCode::read(&masked);
    }
    clean_text(&mut error.message);
}

fn clean_text(text: &mut String) {
    if let Cow::Owned(masked) = mask(text) {
        *text = masked;
    }
}

fn bare(text: &str) -> &str {
    ["oauth:", "OAuth ", "Bearer ", "bearer ", "Bot ", "Basic "]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix))
        .unwrap_or(text)
        .trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_of_a_stranger_is_short_masked_and_on_one_line() {
        register("quoted-s3cret-0123456789");
        let long = format!("no\r\n\u{1b}[31m{}quoted-s3cret-0123456789", "x".repeat(195));
        let quoted = quote(&long);
        assert!(quoted.starts_with("no  xx") && quoted.ends_with('…'), "{quoted}");
        assert!(!quoted.contains("quoted-s"), "{quoted}");
        assert_eq!(quote("Forbidden"), "Forbidden");
    }

    #[test]
    fn an_at_sign_in_a_path_makes_no_secret_of_the_host() {
        register_url(&"http://at-sign.example:22003/api/v10/users/@me".parse().unwrap());
        let advice = "curl -v http://at-sign.example:22003/api/v10";
        assert_eq!(mask(advice), advice);
        register_url(
            &"http://u:at-sign-s3cret@at-sign.example/users/@me?token=at-sign-t0ken"
                .parse()
                .unwrap(),
        );
        assert_eq!(
            mask("at-sign-s3cret at-sign-t0ken at-sign.example"),
            "*** *** at-sign.example"
        );
        register_url(&"http://at-sign-lone-t0ken@at-sign.example/".parse().unwrap());
        assert_eq!(mask("at-sign-lone-t0ken"), MASK);
    }

    #[test]
    fn what_is_typed_in_the_wrong_place_may_be_a_secret() {
        for (word, suspicious) in [
            ("oauth:abc", true),
            ("a1b2c3d4e5f6a7b8c9d0", true),
            ("MTE3.GaBc12.x-y_z01234", true),
            ("web.token abc", true),
            ("password", false),
            ("tokens", false),
            ("my-secret-pass", true),
            ("read-token", false),
            ("supersecretpassword", true),
            ("mytoken1", true),
            ("token:abc", true),
            ("nats://u:p@h", true),
            ("bot:hunter2@nats:4222", true),
            ("--with-token", false),
            ("twitch:123456789012", false),
            ("123456789012345678", false),
            ("sorces", false),
            ("/srv/bitbrat/2026-config.toml", false),
            ("abcdefghijklmnopqrstuvwxyzab", true),
            ("s3cret@nats", true),
        ] {
            assert_eq!(is_suspicious(word), suspicious, "{word}");
        }
    }

    #[test]
    fn known_name_is_shown_and_unknown_random_text_is_masked() {
        register_name("Pixel_Meadow_2024_live");
        register_name("123456789012345678");
        register_name("named-s3cret-0123456789");
        register("named-s3cret-0123456789");
        for (word, shown) in [
            ("pixel_meadow_2024_live", "pixel_meadow_2024_live"),
            ("PIXEL_MEADOW_2024_LIVE", "PIXEL_MEADOW_2024_LIVE"),
            ("twitch:pixel_meadow_2024_live", "twitch:pixel_meadow_2024_live"),
            ("pixel_meadow_2024_lives", MASK),
            ("a1b2c3d4e5f6a7b8c9d0", MASK),
            ("named-s3cret-0123456789", MASK),
        ] {
            assert_eq!(repeated(word), shown, "{word}");
        }
        for (text, shown) in [
            (
                "no channel of the bot pixel_meadow_2024_live",
                "no channel of the bot pixel_meadow_2024_live",
            ),
            (
                "the bot 123456789012345678 left",
                "the bot 123456789012345678 left",
            ),
            (
                "the bot 223456789012345678 left",
                "the bot 223456789012345678 left",
            ),
            ("the bot pixel_meadow_2025_live left", "the bot *** left"),
            ("token: pixel_meadow_2024_live", "token: pixel_meadow_2024_live"),
            ("token: named-s3cret-0123456789", "token: ***"),
        ] {
            assert_eq!(mask_foreign(text), shown, "{text}");
        }
    }

    #[test]
    fn tokens_in_place_of_names_have_their_own_form() {
        for (word, expected) in [
            ("oauth:abc", true),
            ("Bearer abc", true),
            ("a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5", true),
            ("MTE3NjE4OTY1NDMyMTA5ODc2.GaBc12.x-y_z0123456789", true),
            ("pixelmeadow2024xyz", false),
            ("550e8400-e29b-41d4-a716-446655440000", false),
            ("987654321098765432109876543210", false),
            ("my-bitbrat-project-with-a-long-name-2026", false),
            ("https://api.twitch.tv/helix", false),
        ] {
            assert_eq!(is_credential(word), expected, "{word}");
        }
    }

    #[test]
    fn observations_contain_no_secret() {
        register("observed-s3cret-0123456789");
        let source = "twitch:1".parse().unwrap();
        let error = || ErrorInfo::foreign("x.observed-s3cret-0123456789", "got observed-s3cret-0123456789");
        for fact in [
            Fact::Connection {
                transport: crate::core::observation::Transport::Api,
                state: LinkState::Refused { error: error() },
            },
            Fact::Problem { error: error() },
            Fact::Profile {
                fields: [("title".to_owned(), "my observed-s3cret-0123456789".to_owned())].into(),
            },
            Fact::StreamPush {
                live: true,
                stream_id: Some("S-observed-s3cret-0123456789".to_owned()),
                started_at: None,
            },
            Fact::StreamSeen {
                stream_id: "S-observed-s3cret-0123456789".to_owned(),
                started_at: None,
            },
            Fact::Viewers {
                count: 1,
                stream_id: Some("S-observed-s3cret-0123456789".to_owned()),
            },
            Fact::Permissions {
                method: "kick.badges".to_owned(),
                grants: crate::core::observation::Grants {
                    granted: ["badge:observed-s3cret-0123456789".to_owned()].into(),
                    ..Default::default()
                }
                .into(),
            },
        ] {
            let mut observation =
                Observation::new(&source, crate::core::time::Timestamp::EPOCH, "twitch.helix", fact);
            clean(&mut observation);
            let text = format!("{observation:?}");
            assert!(!text.contains("observed-s3cret") && text.contains(MASK), "{text}");
        }
    }
}
