//! The registered secrets, and a search for them in a text in one pass.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::decode::{Decoded, ROUNDS};
use super::visible::Visible;
use super::{MASK, address, shapes};

/// Shorter ones cannot be distinguished from ordinary text.
const SHORTEST: usize = 4;
/// From this length on, a secret is no part of ordinary text.
const LONG: usize = 16;
/// Longer ones are files, not tokens.
const LONGEST: usize = 16 * 1024;
/// How many are registered; beyond that the oldest quarter is removed. A secret in use is registered again with the next request
/// that carries it.
const MOST: usize = 4096;
/// The minimum part of a secret where a text was cut off: at least this many bytes, and half of the secret.
const CUT: usize = 12;
/// Approximate number of bytes of a text that are decoded at a time.
const PIECE: usize = 8 * 1024;
/// Length of the key, in bytes, that a secret is indexed by.
const KEY: usize = 4;

/// The origin of the text to mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Our own: nothing in it resembles a secret by chance except ordinary text.
    Own,
    /// Of others.
    Foreign,
}

/// Registered secrets by their first bytes, in each form in which they may occur in a text.
pub(super) struct Registry {
    known: HashSet<Box<str>>,
    /// Oldest first.
    order: VecDeque<Box<str>>,
    most: usize,
    patterns: Vec<Pattern>,
    index: HashMap<[u8; KEY], Vec<usize>>,
    /// One bit per hash of a key, so that most positions of a text cost one memory access.
    filter: Vec<u64>,
}

/// A form of a secret, in lower case: a server may change the case of a header.
struct Pattern {
    folded: Box<[u8]>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The secret itself.
    Plain,
    /// The secret itself, where it could be a number or part of one. Only digits beside it make it a part of something else.
    Number,
    /// The secret itself, where it could be part of ordinary text: `live2024` is one of `notlive20245`.
    Part,
    /// The secret itself, where it could be ordinary text.
    Word,
    /// Within something that was encoded as a whole.
    Encoded,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            known: HashSet::new(),
            order: VecDeque::new(),
            most: MOST,
            patterns: Vec::new(),
            index: HashMap::new(),
            filter: vec![0; 1024],
        }
    }
}

impl Registry {
    pub(super) fn holds(&self, secret: &str) -> bool {
        self.known.contains(secret)
    }

    /// Registers a secret.
    pub(super) fn add(&mut self, secret: &str) {
        if !(SHORTEST..=LONGEST).contains(&secret.len()) || !self.known.insert(secret.into()) {
            return;
        }
        self.order.push_back(secret.into());
        if self.order.len() > self.most {
            self.evict_oldest();
        } else {
            self.note_forms(secret);
        }
    }

    fn evict_oldest(&mut self) {
        let kept = self.order.split_off(self.most / 4);
        *self = Self {
            most: self.most,
            ..Self::default()
        };
        for secret in kept {
            self.note_forms(&secret);
            self.known.insert(secret.clone());
            self.order.push_back(secret);
        }
    }

    fn note_forms(&mut self, secret: &str) {
        if !is_strong(secret) {
            self.note(secret.as_bytes(), Kind::Word);
            return;
        }
        self.note(secret.as_bytes(), kind_of(secret));
        // What resembles an encoding in the secret itself (`%cc`) is decoded together with the text around it.
        let mut decoded = Decoded::once(secret.as_bytes(), None);
        for _ in 1..ROUNDS {
            let Some(layer) = decoded else { break };
            if layer.bytes.len() >= CUT {
                self.note(&layer.bytes, Kind::Plain);
            }
            decoded = Decoded::once(&layer.bytes, None);
        }
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.note(hex.as_bytes(), Kind::Encoded);
        self.note_base64(secret);
        // A form body that was encoded as a whole.
        let in_form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        if in_form != secret {
            self.note_base64(&in_form);
            // Blanks are written as `+` there, which cannot be undone without changing other texts.
            if in_form.contains('+') {
                self.note(secret.replace(' ', "+").as_bytes(), Kind::Plain);
            }
        }
    }

    /// Three bytes become four letters, so what a secret becomes depends on where it begins: `user:secret` has the secret's
    /// letters at one of three alignments. The letters at both ends hold bits of the neighbors and are left out.
    fn note_base64(&mut self, secret: &str) {
        for shift in 0..3 {
            let mut bytes = vec![0; shift];
            bytes.extend_from_slice(secret.as_bytes());
            let whole = bytes.len() % 3 == 0;
            for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                let text = engine.encode(&bytes);
                let inner = &text[[0, 2, 3][shift]..text.len() - usize::from(!whole)];
                self.note(inner.as_bytes(), Kind::Encoded);
            }
        }
    }

    fn note(&mut self, form: &[u8], kind: Kind) {
        let folded: Box<[u8]> = form.to_ascii_lowercase().into();
        let Some(key) = key(&folded) else { return };
        let own = self.index.entry(key).or_default();
        if own.iter().any(|other| self.patterns[*other].folded == folded) {
            return;
        }
        own.push(self.patterns.len());
        self.patterns.push(Pattern { folded, kind });
        let bit = hash(key);
        self.filter[bit / 64] |= 1 << (bit % 64);
    }

    /// Masks what is secret in `text`.
    pub(super) fn mask<'a>(&self, text: &'a str, scope: Scope) -> Cow<'a, str> {
        let mut ranges = Vec::new();
        let found_in = |bytes: &[u8]| {
            let mut found = Vec::new();
            self.find(bytes, scope, &mut found);
            address::credentials(bytes, &mut found);
            if scope == Scope::Foreign {
                shapes::find(bytes, &mut found);
            }
            // A secret that is interrupted by what no screen shows, or by a line break.
            for visible in Visible::of(bytes) {
                let mut interrupted = Vec::new();
                self.find(&visible.bytes, scope, &mut interrupted);
                found.extend(interrupted.into_iter().map(|range| visible.origin(range)));
            }
            found
        };
        ranges.extend(found_in(text.as_bytes()));
        for (offset, piece) in pieces(text.as_bytes()) {
            let mut decoded = Decoded::once(piece, None);
            for _ in 1..ROUNDS {
                let Some(layer) = decoded else { break };
                for range in found_in(&layer.bytes) {
                    let (start, end) = layer.origin(range);
                    ranges.push((offset + start, offset + end));
                }
                decoded = Decoded::once(&layer.bytes, Some(&layer));
            }
        }
        if ranges.is_empty() {
            return Cow::Borrowed(text);
        }
        Cow::Owned(without(text, ranges))
    }

    fn find(&self, text: &[u8], scope: Scope, found: &mut Vec<(usize, usize)>) {
        if self.patterns.is_empty() {
            return;
        }
        let mut window = 0;
        for (last, byte) in text.iter().enumerate() {
            window = (window >> 8) | (u32::from(byte.to_ascii_lowercase()) << 24);
            let Some(start) = (last + 1).checked_sub(KEY) else {
                continue;
            };
            let key = window.to_le_bytes();
            let bit = hash(key);
            if self.filter[bit / 64] & (1 << (bit % 64)) == 0 {
                continue;
            }
            for pattern in self.index.get(&key).into_iter().flatten() {
                found.extend(self.patterns[*pattern].at(text, start, scope));
            }
        }
    }
}

impl Pattern {
    /// Returns the range to mask when this form begins at `start`.
    fn at(&self, text: &[u8], start: usize, scope: Scope) -> Option<(usize, usize)> {
        let same = self
            .folded
            .iter()
            .zip(&text[start..])
            .take_while(|(own, other)| **own == other.to_ascii_lowercase())
            .count();
        let whole = same == self.folded.len();
        let is_cut = same >= CUT && same * 2 >= self.folded.len();
        let end = start + same;
        let is_word = || stands_alone(text, start, end, u8::is_ascii_alphanumeric);
        match self.kind {
            Kind::Plain => (whole || is_cut).then_some((start, end)),
            Kind::Number => {
                (whole && stands_alone(text, start, end, u8::is_ascii_digit)).then_some((start, end))
            }
            Kind::Part => ((whole || is_cut) && is_word()).then_some((start, end)),
            Kind::Word => (whole && scope == Scope::Foreign && is_word()).then_some((start, end)),
            Kind::Encoded => whole.then(|| encoded_run(text, start, end)),
        }
    }
}

/// Cuts a large text where no secret can extend across the cut, because decoding takes many times the memory of what it decodes.
fn pieces(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let rest = text.get(start..).filter(|rest| !rest.is_empty())?;
        let separator = |byte: &u8| matches!(byte, b',' | b' ' | b'\n');
        let length = match rest.get(PIECE..).and_then(|far| far.iter().position(separator)) {
            Some(far) => PIECE + far + 1,
            None => rest.len(),
        };
        start += length;
        Some((start - length, &rest[..length]))
    })
}

/// Returns the whole of what was encoded around a secret: the user's name in `user:secret` identifies the secret.
fn encoded_run(text: &[u8], start: usize, end: usize) -> (usize, usize) {
    let part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=');
    let before = text[..start].iter().rev().take_while(|byte| part(byte)).count();
    let after = text[end..].iter().take_while(|byte| part(byte)).count();
    (start - before, end + after)
}

/// Whether neither neighbor of a part of a text continues it.
fn stands_alone(text: &[u8], start: usize, end: usize, continues: fn(&u8) -> bool) -> bool {
    !text[..start].last().is_some_and(continues) && !text.get(end).is_some_and(continues)
}

/// Returns how a secret that can be distinguished from ordinary text is found. One of digits alone, or a short one of letters and
/// digits, is also found by chance, as a part of ids, names and dates.
fn kind_of(secret: &str) -> Kind {
    let are_all = |part: fn(&u8) -> bool| secret.as_bytes().iter().all(part);
    if are_all(u8::is_ascii_digit) {
        Kind::Number
    } else if secret.len() < LONG && are_all(u8::is_ascii_alphanumeric) {
        Kind::Part
    } else {
        Kind::Plain
    }
}

/// Whether a secret can be distinguished from ordinary text.
fn is_strong(secret: &str) -> bool {
    let has_more_than_letters = secret.bytes().any(|byte| !byte.is_ascii_alphabetic());
    secret.len() >= LONG || (secret.len() >= 8 && has_more_than_letters)
}

fn key(text: &[u8]) -> Option<[u8; KEY]> {
    let mut key: [u8; KEY] = text.get(..KEY)?.try_into().ok()?;
    key.make_ascii_lowercase();
    Some(key)
}

fn hash(key: [u8; KEY]) -> usize {
    (u32::from_le_bytes(key).wrapping_mul(0x9E37_79B1) >> 16) as usize
}

/// Returns `text` with [`MASK`] in place of each range; adjacent ranges are merged.
pub(super) fn without(text: &str, mut ranges: Vec<(usize, usize)>) -> String {
    ranges.sort_unstable();
    let mut masked = String::with_capacity(text.len());
    let mut done = 0;
    for (start, end) in ranges {
        let (start, end) = (floor(text, start), ceil(text, end));
        if start > done || (start == done && done == 0) {
            masked.push_str(&text[done..start]);
            masked.push_str(MASK);
        }
        done = done.max(end);
    }
    masked.push_str(&text[done..]);
    masked
}

fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn ceil(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "hT7+/q=s3cr3t&v<alue\"9";

    fn knowing(secrets: &[&str]) -> Registry {
        let mut registry = Registry::default();
        for secret in secrets {
            registry.add(secret);
        }
        registry
    }

    fn foreign(registry: &Registry, text: &str) -> String {
        registry.mask(text, Scope::Foreign).into_owned()
    }

    #[test]
    fn secret_that_looks_encoded_is_masked_when_escaped() {
        for secret in [
            "BotTok+aa/bb%cc=ddEEffGGhhIIjj",
            "BotTok%2Baa/bb&amp;ddEEffGG",
            "aa/bb\\u0041cc%25dd/eeffgg",
        ] {
            let registry = knowing(&[secret]);
            let slashes = secret.replace('/', "\\/");
            let html = secret
                .replace('&', "&amp;")
                .replace('/', "&#47;")
                .replace('+', "&#x2B;");
            let json = serde_json::to_string(&slashes).unwrap();
            for written in [
                secret.to_owned(),
                slashes,
                html,
                json.clone(),
                serde_json::to_string(&json).unwrap(),
            ] {
                for scope in [Scope::Own, Scope::Foreign] {
                    let masked = registry
                        .mask(&format!("it says {written} here"), scope)
                        .into_owned();
                    assert!(
                        !masked.contains("bb") && masked.starts_with("it says "),
                        "{written}: {masked}"
                    );
                    assert!(masked.ends_with(" here"), "{written}: {masked}");
                }
            }
        }
    }

    #[test]
    fn a_secret_is_masked_in_every_encoding() {
        let registry = knowing(&[SECRET]);
        let form: String = url::form_urlencoded::byte_serialize(SECRET.as_bytes()).collect();
        let json = serde_json::to_string(SECRET).unwrap();
        let twice = serde_json::to_string(&json).unwrap();
        for written in [
            SECRET.to_owned(),
            SECRET.to_uppercase(),
            SECRET.to_lowercase(),
            form.clone(),
            form.to_lowercase(),
            form.replace('%', "%25"),
            json.clone(),
            twice,
            json.replace('/', "\\/"),
            json.replace('+', "\\u002b").replace('<', "\\u003C"),
            SECRET
                .replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('"', "&quot;")
                .replace('+', "&#43;"),
            SECRET.bytes().map(|byte| format!("%{byte:02X}")).collect(),
            SECRET.bytes().map(|byte| format!("{byte:02x}")).collect(),
            STANDARD.encode(SECRET),
            URL_SAFE.encode(SECRET),
            STANDARD.encode(format!("a:{SECRET}")),
            STANDARD.encode(format!("ab:{SECRET}")),
            URL_SAFE.encode(format!("abc:{SECRET}")),
            STANDARD.encode(format!("client_id=a&client_secret={form}&grant_type=x")),
        ] {
            let masked = foreign(&registry, &format!("you sent <{written}> to me"));
            assert!(masked.contains(MASK), "{written}: {masked}");
            for part in ["s3cr3t", "czNjcjN0"] {
                let found = masked.to_ascii_lowercase().contains(&part.to_ascii_lowercase());
                assert!(!found, "{written}: {masked}");
            }
            assert!(
                masked.starts_with("you sent ") && masked.ends_with(" to me"),
                "{masked}"
            );
        }
    }

    #[test]
    fn basic_auth_is_masked_whole_even_of_a_short_password() {
        let registry = knowing(&["pw12", "bot:pw12"]);
        let masked = foreign(&registry, &format!("Basic {}", STANDARD.encode("bot:pw12")));
        assert_eq!(masked, "Basic ***");
    }

    #[test]
    fn a_secret_that_was_cut_off_is_masked_too() {
        let registry = knowing(&["abcdefghijklmnop0123456789"]);
        assert_eq!(foreign(&registry, "token abcdefghijklmnop012…"), "token ***…");
        assert_eq!(foreign(&registry, "token abcdefghij…"), "token abcdefghij…");
    }

    #[test]
    fn a_password_that_is_a_word_leaves_our_own_reports_alone() {
        let registry = knowing(&["platform", "nats"]);
        let own = "{\"platform\":\"twitch\"} nats://host";
        assert_eq!(registry.mask(own, Scope::Own), own);
        assert_eq!(
            foreign(&registry, "user bot, password platform!"),
            "user bot, password ***!"
        );
        assert_eq!(foreign(&registry, "platforms"), "platforms");
    }

    #[test]
    fn short_secret_is_masked_alone_and_not_within_ids_and_names() {
        let registry = knowing(&["12345678", "test2024", "20261201", "123456789012345678"]);
        for (text, shown) in [
            ("twitch:123456789 is live", "twitch:123456789 is live"),
            ("stream 9912345678", "stream 9912345678"),
            ("the streamer test20245 is live", "the streamer test20245 is live"),
            ("latest2024", "latest2024"),
            ("202612011530", "202612011530"),
            ("guild 1123456789012345678", "guild 1123456789012345678"),
            ("password 12345678.", "password ***."),
            ("pw12345678", "pw***"),
            ("twitch:12345678", "twitch:***"),
            ("u_test2024:TEST2024", "u_***:***"),
        ] {
            assert_eq!(registry.mask(text, Scope::Own), shown, "{text}");
        }
        for text in ["twitch:123456789 of latest2024", "test20245"] {
            assert_eq!(foreign(&registry, text), text);
        }
        for text in [
            "password=test2024&x",
            "a%3Dtest2024",
            "\"\\ntest2024\"",
            "YTp0ZXN0MjAyNA==",
        ] {
            let masked = foreign(&registry, text);
            assert!(
                masked.contains(MASK) && !masked.contains("test"),
                "{text}: {masked}"
            );
        }
    }

    #[test]
    fn secret_interrupted_by_what_no_screen_shows_is_masked() {
        let registry = knowing(&[SECRET]);
        let (head, tail) = SECRET.split_at(12);
        for between in [
            "\u{200b}",
            "\u{202e}",
            "\u{ad}",
            "\u{0}",
            "\u{7f}",
            "\u{9b}31m",
            "\u{1b}[31m",
            "\u{1b}[0;1m",
            "\u{1b}",
            "\u{1b}]0;t\u{7}",
            "\n",
            "\r\n",
            "\n    ",
            "\u{2028}",
            "\u{feff}\u{200b}\u{0}",
        ] {
            let text = format!("sent {head}{between}{tail}, sorry");
            for scope in [Scope::Foreign, Scope::Own] {
                assert_eq!(registry.mask(&text, scope), "sent ***, sorry", "{between:?}");
            }
            let json = serde_json::json!({"message": text}).to_string();
            let masked: serde_json::Value = serde_json::from_str(&foreign(&registry, &json)).unwrap();
            assert_eq!(masked["message"], "sent ***, sorry", "{between:?}: {json}");
        }
        let each: String = SECRET.chars().flat_map(|c| [c, '\u{200b}']).collect();
        assert_eq!(foreign(&registry, &each).trim_end_matches('\u{200b}'), MASK);
    }

    #[test]
    fn json_stays_json_when_a_secret_is_masked_in_it() {
        let registry = knowing(&[SECRET]);
        let body = serde_json::json!({"message": format!("bad: {SECRET}"), "code": 7}).to_string();
        let masked: serde_json::Value = serde_json::from_str(&foreign(&registry, &body)).unwrap();
        assert_eq!(masked, serde_json::json!({"message": "bad: ***", "code": 7}));
    }

    #[test]
    fn a_secret_is_found_anywhere_in_a_large_text() {
        let registry = knowing(&[SECRET]);
        let written = serde_json::to_string(SECRET).unwrap();
        for before in [0, PIECE - 30, PIECE - 10, PIECE, 3 * PIECE] {
            let text = format!("{}{written},{}", "a,b ".repeat(before / 4), "x ".repeat(PIECE));
            assert!(!foreign(&registry, &text).contains("s3cr3t"), "{before}");
        }
    }

    #[test]
    fn old_secrets_are_evicted_for_new_ones() {
        let mut registry = Registry {
            most: 40,
            ..Registry::default()
        };
        let secret = |number: usize| format!("token-number-{number:08}");
        for number in 0..=40 {
            registry.add(&secret(number));
        }
        assert!(registry.order.len() <= 40 && registry.holds(&secret(40)) && !registry.holds(&secret(0)));
        assert_eq!(registry.mask(&secret(40), Scope::Own), MASK);
    }

    proptest! {
        #[test]
        fn whatever_surrounds_a_secret_it_is_masked(before in "\\PC{0,40}", after in "\\PC{0,40}") {
            let registry = knowing(&["Zk3-9vQ_long.secret~7"]);
            let masked = foreign(&registry, &format!("{before}Zk3-9vQ_long.secret~7{after}"));
            prop_assert!(!masked.contains("long.secret"));
        }

        #[test]
        fn any_text_can_be_masked(text in "(\\PC|[%&\\\\;@:/=?]|%[0-9a-f]{2}|\\\\u[0-9a-f]{4}){0,80}") {
            let registry = knowing(&["éclair-0123456789", SECRET]);
            let _ = foreign(&registry, &text);
        }
    }
}
