//! Text as editors, shells and container runtimes pass it: byte order marks, UTF-16, quotes, invisible characters, and the lines
//! of a `.env` file.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::secrets::is_invisible;

/// Decodes the bytes of a file. Editors on Windows write a byte order mark, and its shell writes UTF-16.
pub fn decode(bytes: &[u8]) -> Result<String, String> {
    const SAVE: &str = "save it as UTF-8";
    match bytes {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Err(format!("it is UTF-32; {SAVE}")),
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        _ => {
            let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            if bytes.contains(&0) {
                return Err(format!(
                    "it contains NUL bytes, so it is UTF-16 without a byte order mark or no text; {SAVE}"
                ));
            }
            match std::str::from_utf8(bytes) {
                Ok(text) => Ok(text.to_owned()),
                Err(error) => {
                    let before = &bytes[..error.valid_up_to()];
                    let line = before.split(|byte| *byte == b'\n').count();
                    Err(format!("line {line} is not UTF-8; {SAVE}"))
                }
            }
        }
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, String> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let units = pairs.iter().map(|pair| unit(*pair));
    let text: Result<String, _> = char::decode_utf16(units).collect();
    text.ok()
        .filter(|_| rest.is_empty())
        .ok_or_else(|| "it is damaged UTF-16; save it as UTF-8".to_owned())
}

/// Removes what is around a value without being part of it: blanks, invisible characters, and one pair of quotes, which `docker
/// --env-file`, systemd and Kubernetes pass on from their files.
pub(super) fn clean(value: &str) -> &str {
    const PAIRS: [(char, char); 5] = [
        ('"', '"'),
        ('\'', '\''),
        ('`', '`'),
        ('\u{201c}', '\u{201d}'),
        ('\u{2018}', '\u{2019}'),
    ];
    let trim = |text| {
        str::trim_matches(text, |c: char| {
            c.is_whitespace() || c.is_control() || is_invisible(c)
        })
    };
    let value = trim(value);
    let inner = PAIRS.iter().find_map(|(open, close)| {
        let inner = value.strip_prefix(*open)?.strip_suffix(*close)?;
        (!inner.contains([*open, *close])).then_some(inner)
    });
    inner.map_or(value, trim)
}

/// Parses a token, a client secret or another key that a platform has issued. The error contains the problem and a hint, and
/// quotes none of the text.
pub fn token(text: &str) -> Result<&str, (String, &'static str)> {
    const AGAIN: &str = "copy it again, or type the place where it was pasted together";
    if text.contains('\u{1b}') {
        let message = "contains the control character of a key (ESC), which no token does";
        return Err((message.to_owned(), "paste it again, without pressing arrow keys"));
    }
    let text = clean(text);
    let bare = ["bearer ", "bot ", "oauth ", "token ", "oauth:"]
        .iter()
        .find_map(|prefix| {
            let (head, rest) = text.split_at_checked(prefix.len())?;
            head.eq_ignore_ascii_case(prefix).then(|| clean(rest))
        });
    let text = bare.unwrap_or(text);
    if text.starts_with(['{', '[']) {
        let hint = "give the value of `access_token` alone, without the JSON around it";
        return Err(("is JSON and not a token".to_owned(), hint));
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        let message = "contains blanks or line breaks, so it was not copied whole";
        return Err((message.to_owned(), AGAIN));
    }
    if text.contains(['"', '\'', '`']) {
        return Err(("contains a quotation mark, which no token does".to_owned(), AGAIN));
    }
    if let Some(odd) = text.chars().find(|c| !c.is_ascii_graphic()) {
        let kind = if is_invisible(odd) {
            "the invisible character"
        } else {
            "the character"
        };
        let message = format!("contains {kind} U+{:04X}, which no token does", u32::from(odd));
        return Err((message, AGAIN));
    }
    Ok(text)
}

/// The content of a `.env` file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct EnvFile {
    /// The variables; of one that occurs twice, the first value.
    pub(super) variables: BTreeMap<String, String>,
    /// Variables whose value contains `${NAME}`, which is kept as it is.
    pub(super) unexpanded: Vec<String>,
}

/// Parses the lines of a `.env` file. The error is the number of the first line that cannot be parsed.
///
/// Nothing is expanded: a `$` is part of the value, as with `docker --env-file`, Kubernetes and systemd. Passwords contain it,
/// and one that silently loses a part cannot be distinguished from one that was revoked. dotenvy would expand it, so it gets the
/// text with every `$` escaped.
pub(super) fn env_file(text: &str) -> Result<EnvFile, usize> {
    // Old editors end lines with CR alone, and the parser would take the whole file for one line.
    let text = match text.contains('\r') {
        true => Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n")),
        false => Cow::Borrowed(text),
    };
    // The parser would take white space behind the last value for a second one.
    let (literal, unexpanded) = literal(text.trim_end());
    let mut file = EnvFile {
        unexpanded,
        ..EnvFile::default()
    };
    for variable in dotenvy::from_read_iter(literal.as_bytes()) {
        match variable {
            Ok((name, value)) => {
                file.variables.entry(name).or_insert(value);
            }
            Err(dotenvy::Error::LineParse(line, _)) => {
                let line = line.lines().next().unwrap_or_default();
                // It quotes the line, or only the value in it; without a comment, behind which a blank may be left.
                let position = |quotes: &dyn Fn(&str) -> bool| literal.lines().position(quotes);
                let found = position(&|other| other.trim_end().ends_with(line))
                    .or_else(|| position(&|other| other.contains(line.trim_end())));
                return Err(found.unwrap_or_default() + 1);
            }
            Err(_) => return Err(1),
        }
    }
    Ok(file)
}

/// The context of a character in a line of a `.env` file.
enum Place {
    Name,
    Plain,
    /// A pasted JSON document; it is accepted here, so that the key that it was pasted for can report it.
    Json,
    Double,
    Single,
    /// A comment, or what follows a quoted value.
    Rest,
}

/// Rewrites the text so that dotenvy reads each value literally: what it would expand, or reject as an unknown escape, is
/// escaped. Also returns the names of variables whose value contains `${NAME}`. Lines keep their numbers.
fn literal(text: &str) -> (String, Vec<String>) {
    let mut out = String::with_capacity(text.len() + 16);
    let (mut place, mut name, mut unexpanded) = (Place::Name, String::new(), Vec::new());
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if matches!(place, Place::Plain | Place::Double) && has_reference_at(&text[at..]) {
            let name = name.trim().rsplit(char::is_whitespace).next().unwrap_or_default();
            unexpanded.push(name.to_owned());
        }
        let next = chars.peek().map(|(_, next)| *next);
        match (&place, c) {
            (Place::Name | Place::Plain | Place::Json | Place::Rest, '\n') => {
                out.push(c);
                name.clear();
                place = Place::Name;
            }
            (Place::Name, '=') => {
                out.push(c);
                while chars.next_if(|(_, c)| matches!(c, ' ' | '\t')).is_some() {}
                place = match chars.peek() {
                    Some((_, quote @ ('"' | '\''))) => {
                        out.push(*quote);
                        let double = *quote == '"';
                        chars.next();
                        if double { Place::Double } else { Place::Single }
                    }
                    Some((_, '{')) => Place::Json,
                    Some((_, '#')) => Place::Rest,
                    _ => Place::Plain,
                };
            }
            (Place::Name, '#') if name.trim().is_empty() => {
                out.push(c);
                place = Place::Rest;
            }
            (Place::Name, c) if is_invisible(c) => {}
            (Place::Name, c) => {
                name.push(c);
                out.push(c);
            }
            (Place::Plain, ' ' | '\t') => {
                out.push(c);
                if next == Some('#') {
                    place = Place::Rest;
                }
            }
            (Place::Plain, '$' | '\\' | '"' | '\'')
            | (Place::Json, '$' | '\\' | '"' | '\'' | ' ')
            | (Place::Double, '$') => {
                out.extend(['\\', c]);
            }
            (Place::Json, '\t') => out.push_str("\\ "),
            (Place::Double, '\\') => match chars.next().map(|(_, escaped)| escaped) {
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some('`') => out.push('`'),
                Some(known @ ('"' | '\'' | '\\' | '$' | ' ' | 'n')) => out.extend(['\\', known]),
                // A Windows path is no escape.
                Some(other) => out.extend(['\\', '\\', other]),
                None => out.push(c),
            },
            (Place::Double, '"') | (Place::Single, '\'') => {
                out.push(c);
                place = Place::Rest;
            }
            _ => out.push(c),
        }
    }
    unexpanded.dedup();
    (out, unexpanded)
}

fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'))
}

/// Whether a text begins with `${NAME}`.
fn has_reference_at(text: &str) -> bool {
    let name = text.strip_prefix("${").and_then(|rest| rest.split_once('}'));
    name.is_some_and(|(name, _)| is_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(line: &str) -> Option<String> {
        let file = env_file(&format!("{line}\nNEXT=1\n")).ok()?;
        assert_eq!(file.variables["NEXT"], "1", "{line}");
        file.variables.get("A").cloned()
    }

    #[test]
    fn dollar_signs_in_env_file_values_survive() {
        for (line, expected) in [
            ("A=pa$word", "pa$word"),
            ("A=\"pa$word$$\"", "pa$word$$"),
            ("A=\"pa${HOME}x\"", "pa${HOME}x"),
            ("A='pa$word'", "pa$word"),
            ("A=\"pa\\$word\"", "pa$word"),
            ("A=$", "$"),
        ] {
            assert_eq!(value(line).as_deref(), Some(expected), "{line}");
        }
        let file = env_file("A=\"${HOME}/x\"\nB=a$b\nC='${HOME}'\n").unwrap();
        assert_eq!(file.unexpanded, ["A"]);
    }

    #[test]
    fn env_file_lines_are_read_as_they_are_written() {
        for (line, expected) in [
            ("A=b", Some("b")),
            ("  export A = b  # why", Some("b")),
            ("A=", Some("")),
            ("A= # nothing", Some("")),
            ("A=a#b", Some("a#b")),
            ("A=\"a b # c\" # d", Some("a b # c")),
            ("A='a \"b\" \\n'", Some("a \"b\" \\n")),
            ("A=\"a\\\"b\\n\\x\"", Some("a\"b\n\\x")),
            ("A=\"two\nlines\"", Some("two\nlines")),
            ("A=b\r", Some("b")),
            ("A=b ", Some("b")),
            ("A=b\t", Some("b")),
            ("A=b\u{a0}", Some("b")),
            ("A=\"b\" ", Some("b")),
            ("A= ", Some("")),
            ("A=b\n \t", Some("b")),
            ("A=\"b\"\r", Some("b")),
            ("A=x=y=", Some("x=y=")),
            ("A={\"access_token\": \"x\"}", Some("{\"access_token\": \"x\"}")),
            ("A=b c", None),
            ("A=\"b\" c", None),
            ("A=\"b", None),
            ("A", None),
            ("A B=c", None),
            ("1A=c", None),
            ("=c", None),
        ] {
            assert_eq!(value(line).as_deref(), expected, "{line}");
        }
        assert_eq!(env_file("A=\"1\n2\"\n\nB=x\nC=d e\n"), Err(5));
        assert_eq!(env_file("A=1\nc1{ # why\nB=2\n"), Err(2));
        assert_eq!(env_file("c1{\u{7} # "), Err(1));
        assert_eq!(env_file("A=1\nA=2").unwrap().variables["A"], "1");
    }

    #[test]
    fn files_with_byte_order_marks_and_utf16_are_read() {
        let utf16 = |unit: fn(u16) -> [u8; 2]| -> Vec<u8> {
            "\u{feff}A=b\u{1f600}\r\n".encode_utf16().flat_map(unit).collect()
        };
        for bytes in [
            b"\xef\xbb\xbfA=b\xf0\x9f\x98\x80\r\n".to_vec(),
            utf16(u16::to_le_bytes),
            utf16(u16::to_be_bytes),
        ] {
            assert_eq!(decode(&bytes).as_deref(), Ok("A=b\u{1f600}\r\n"), "{bytes:?}");
        }
        for (bytes, said) in [
            (&b"A=b\nC=\xe4\n"[..], "line 2 is not UTF-8"),
            (b"A\0=\0b\0", "UTF-16 without a byte order mark"),
            (b"\xff\xfeA", "damaged UTF-16"),
            (b"\xff\xfe\0\0A\0\0\0", "UTF-32"),
        ] {
            let error = decode(bytes).unwrap_err();
            assert!(
                error.contains(said) && error.contains("save it as UTF-8"),
                "{error}"
            );
        }
    }

    #[test]
    fn lone_carriage_returns_end_lines() {
        let file = env_file(&decode(b"A=1\rB=two\r\nC=3\r").unwrap()).unwrap();
        let all: Vec<_> = file
            .variables
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(all, ["A=1", "B=two", "C=3"]);
    }

    #[test]
    fn what_surrounds_a_pasted_token_is_removed() {
        for text in [
            "abc123",
            "\"abc123\"",
            "'abc123'",
            " \u{200b}abc123\u{feff}\n",
            "\u{201c}abc123\u{201d}",
            "Bearer abc123",
            "\"Bot abc123\"",
            "oauth:abc123",
            "\u{a0}abc123",
        ] {
            assert_eq!(token(text), Ok("abc123"), "{text:?}");
        }
    }

    #[test]
    fn text_that_cannot_be_a_token_is_refused_without_quoting_it() {
        for (text, said) in [
            ("{\"access_token\":\"hush\"}", "is JSON"),
            ("'[\"hush\"]'", "is JSON"),
            ("hu sh", "blanks"),
            ("hu\nsh", "blanks"),
            ("hu\u{200b}sh", "the invisible character U+200B"),
            ("hush\u{e9}", "the character U+00E9"),
            ("\"hush", "quotation mark"),
        ] {
            let (message, _) = token(text).unwrap_err();
            assert!(
                message.contains(said) && !message.contains("hush"),
                "{text:?}: {message}"
            );
        }
    }
}
