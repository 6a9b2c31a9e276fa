//! Repair of invalid JSON from platforms. Platforms truncate texts in the middle of an emoji and proxies break UTF-8, and one
//! such text must not invalidate the rest of a response. Bytes are repaired only here; the meaning of fields is handled in
//! `platforms::kit::lenient` and the adapters.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Replaces a character that cannot be decoded.
const REPLACEMENT: &str = "\\ufffd";

/// Returns `bytes` as text that a JSON parser accepts if its structure is valid: invalid UTF-8 and unpaired surrogates
/// (`\ud83d` alone) become U+FFFD, raw control characters in strings become spaces, a byte order mark is removed, and a number
/// beyond the range of a double (`1e999`) becomes `null`, because a parser would reject the whole text for it.
pub fn repair(bytes: &[u8]) -> Cow<'_, str> {
    match String::from_utf8_lossy(bytes) {
        Cow::Borrowed(text) => repair_text(text),
        Cow::Owned(text) => match repair_text(&text) {
            Cow::Borrowed(same) if same.len() == text.len() => Cow::Owned(text),
            repaired => Cow::Owned(repaired.into_owned()),
        },
    }
}

/// Like [`repair`], for input that is already text.
pub fn repair_text(text: &str) -> Cow<'_, str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // A memory scan, after which most responses need no repair.
    let suspicious = text.bytes().any(|byte| byte < b' ')
        || text.contains("\\ud")
        || text.contains("\\uD")
        || may_have_huge_number(text.as_bytes());
    if suspicious {
        rewrite(text)
    } else {
        Cow::Borrowed(text)
    }
}

fn rewrite(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut repaired = String::new();
    // `repaired` contains everything before this position.
    let (mut copied, mut at, mut in_text) = (0, 0, false);
    while let Some(byte) = bytes.get(at) {
        let (length, replacement) = match byte {
            b'"' => {
                in_text = !in_text;
                (1, None)
            }
            b'\\' => match unit(bytes, at) {
                Some(0xd800..0xdc00) if matches!(unit(bytes, at + 6), Some(0xdc00..0xe000)) => (12, None),
                Some(0xd800..0xe000) => (6, Some(REPLACEMENT)),
                // Any escaped character, including a quotation mark or another backslash, belongs to this escape.
                _ => (2, None),
            },
            0..b' ' if in_text => (1, Some(" ")),
            b'-' | b'0'..=b'9' if !in_text => {
                let length = number(bytes.get(at..).unwrap_or_default());
                let digits = bytes.get(at..at + length).unwrap_or_default();
                (length, is_huge(digits).then_some("null"))
            }
            _ => (1, None),
        };
        if let Some(replacement) = replacement {
            // Both ends are next to ASCII characters, so they are character boundaries.
            repaired.push_str(text.get(copied..at).unwrap_or_default());
            repaired.push_str(replacement);
            copied = at + length;
        }
        at += length;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    repaired.push_str(text.get(copied..).unwrap_or_default());
    Cow::Owned(repaired)
}

/// The digits of the largest double.
const MOST_DIGITS: usize = 308;

/// Whether `text` may contain a number beyond the range of a double: one with an exponent, or with very many digits.
fn may_have_huge_number(text: &[u8]) -> bool {
    let mut digits = 0_usize;
    for byte in text {
        match byte {
            b'0'..=b'9' => digits += 1,
            b'e' | b'E' if digits > 0 => return true,
            b'.' => {}
            _ => digits = 0,
        }
        if digits > MOST_DIGITS {
            return true;
        }
    }
    false
}

/// Returns the length of the number at the start of `text`.
fn number(text: &[u8]) -> usize {
    let part = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E');
    text.iter().take_while(|byte| part(byte)).count()
}

fn is_huge(number: &[u8]) -> bool {
    let text = std::str::from_utf8(number).unwrap_or_default();
    text.parse::<f64>().is_ok_and(f64::is_infinite)
}

/// Returns the code unit of the escape `\uXXXX` at position `at`.
fn unit(bytes: &[u8], at: usize) -> Option<u16> {
    let escape = bytes.get(at..at + 6)?;
    let digits = std::str::from_utf8(escape.strip_prefix(b"\\u")?).ok()?;
    // `from_str_radix` would accept a sign.
    let all_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    all_hex.then(|| u16::from_str_radix(digits, 16).ok()).flatten()
}

/// Parses one value after repair.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    serde_json::from_str(&repair(bytes))
}

/// Parses an object from repaired text. Serde also deserializes structs from arrays, whose members become the fields in order:
/// `[[]]` would be accepted as a response without rows. Here it is rejected.
pub fn read_object<'a, T: Deserialize<'a>>(repaired: &'a str) -> serde_json::Result<T> {
    if repaired.trim_start().starts_with('[') {
        return Err(serde::de::Error::custom("a list came in place of an object"));
    }
    serde_json::from_str(repaired)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn text(bytes: &[u8]) -> Option<String> {
        let value: Value = read(bytes).ok()?;
        Some(value.get("a")?.as_str()?.to_owned())
    }

    #[test]
    fn number_that_no_double_holds_costs_itself_only() {
        let long = format!("1{}", "0".repeat(400));
        for huge in ["1e999", "-1E+999", "1.5e400", &long] {
            let body = format!(r#"{{"a":"1e999 stays","n":{huge},"rest":[{huge},7]}}"#);
            let value: Value = read(body.as_bytes()).unwrap();
            assert_eq!(value["a"], "1e999 stays", "{huge}");
            assert!(value["n"].is_null(), "{huge}");
            assert_eq!(value["rest"], serde_json::json!([null, 7]), "{huge}");
        }
        for fine in [r#"{"n":1e3,"m":-2.5E-3,"x":"a1e5"}"#, "[12]"] {
            assert_eq!(repair_text(fine), fine);
        }
    }

    #[test]
    fn half_an_emoji_costs_one_character() {
        for (body, expected) in [
            (&br#"{"a":"x\ud83d"}"#[..], "x\u{fffd}"),
            (br#"{"a":"\ud83dx"}"#, "\u{fffd}x"),
            (br#"{"a":"\uDE00"}"#, "\u{fffd}"),
            (br#"{"a":"\ud83d\ud83d\ude00"}"#, "\u{fffd}\u{1f600}"),
            (br#"{"a":"\uD83D\uDE00 ok"}"#, "\u{1f600} ok"),
            (br#"{"a":"\ud83d\n"}"#, "\u{fffd}\n"),
            (br#"{"a":"\\ud83d"}"#, "\\ud83d"),
            (br#"{"a":"\\\ud83d\""}"#, "\\\u{fffd}\""),
        ] {
            assert_eq!(text(body).as_deref(), Some(expected), "{body:?}");
        }
    }

    #[test]
    fn invalid_utf8_and_raw_control_characters_cost_one_character() {
        for (body, expected) in [
            (&b"{\"a\":\"x\xff\xfey\"}"[..], "x\u{fffd}\u{fffd}y"),
            (b"{\"a\":\"\xf0\x9f\x98\"}", "\u{fffd}"),
            (b"{\n\t\"a\":\"x\ny\tz\x01\"}", "x y z "),
            (b"\xef\xbb\xbf{\"a\":\"bom\"}", "bom"),
            (b"{\"b\":\"\xff\",\"a\":\"\\ud83d\xff\"}", "\u{fffd}\u{fffd}"),
        ] {
            assert_eq!(text(body).as_deref(), Some(expected), "{body:?}");
        }
    }

    #[test]
    fn sound_json_is_not_copied_and_stays_as_it_is() {
        for sound in [r#"{"a":"😀 \u00e9 \\u"}"#, "[1,2]", "", "\"\\"] {
            assert!(matches!(repair(sound.as_bytes()), Cow::Borrowed(same) if same == sound));
        }
        let pretty = "{\n  \"a\": \"b\"\n}";
        assert!(matches!(repair(pretty.as_bytes()), Cow::Borrowed(same) if same == pretty));
    }

    #[test]
    fn a_list_does_not_pass_for_an_object() {
        #[derive(Deserialize)]
        struct List {
            data: Vec<u8>,
        }
        assert!(read_object::<List>(" [[]]").is_err());
        assert_eq!(read_object::<List>(r#"{"data":[1]}"#).unwrap().data, [1]);
    }

    proptest::proptest! {
        #[test]
        fn nothing_can_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..60)) {
            let _ = repair(&bytes);
        }

        #[test]
        fn what_was_json_means_the_same(value in "[\\PC\"\\\\\n\u{1f600}]{0,20}") {
            let json = serde_json::to_string(&value).unwrap();
            proptest::prop_assert_eq!(read::<String>(json.as_bytes()).unwrap(), value);
        }
    }
}
