//! Writes YAML that every parser reads alike, also those of YAML 1.1 (`PyYAML`, Ruby, Go before yaml.v3), which read `no` as a
//! boolean, `1:30` as a number and `2026-05-01` as a date: what could be anything but text is quoted.

use std::fmt::Write as _;

use serde_norway::Value;

use crate::cli::output::view::inert_json;

/// Appends `value` as a document.
pub fn write(text: &mut String, value: &Value) {
    match value {
        Value::Mapping(map) if !map.is_empty() => mapping(text, map, 0),
        Value::Sequence(items) if !items.is_empty() => sequence(text, items, 0),
        _ => {
            scalar(text, value);
            text.push('\n');
        }
    }
}

fn mapping(text: &mut String, map: &serde_norway::Mapping, indent: usize) {
    for (index, (key, value)) in map.iter().enumerate() {
        // The first key follows the dash or takes the place of its parent.
        if index > 0 {
            pad(text, indent);
        }
        scalar(text, key);
        text.push(':');
        match value {
            Value::Mapping(inner) if !inner.is_empty() => {
                text.push('\n');
                pad(text, indent + 2);
                mapping(text, inner, indent + 2);
            }
            Value::Sequence(items) if !items.is_empty() => {
                text.push('\n');
                pad(text, indent);
                sequence(text, items, indent);
            }
            _ => {
                text.push(' ');
                scalar(text, value);
                text.push('\n');
            }
        }
    }
}

fn sequence(text: &mut String, items: &[Value], indent: usize) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            pad(text, indent);
        }
        text.push_str("- ");
        match item {
            Value::Mapping(inner) if !inner.is_empty() => mapping(text, inner, indent + 2),
            Value::Sequence(inner) if !inner.is_empty() => sequence(text, inner, indent + 2),
            _ => {
                scalar(text, item);
                text.push('\n');
            }
        }
    }
}

fn pad(text: &mut String, indent: usize) {
    text.extend(std::iter::repeat_n(' ', indent));
}

fn scalar(text: &mut String, value: &Value) {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => {
            let _ = write!(text, "{number}");
        }
        Value::String(string) if is_plain(string) => text.push_str(string),
        Value::String(string) => quote(text, string),
        Value::Sequence(_) => text.push_str("[]"),
        Value::Mapping(_) => text.push_str("{}"),
        Value::Tagged(tagged) => scalar(text, &tagged.value),
    }
}

/// Whether every version of YAML reads the text as a string without quotes.
fn is_plain(string: &str) -> bool {
    const RESERVED: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let begins = string.starts_with(|first: char| first.is_ascii_alphabetic());
    let inside = |c: char| c.is_ascii_alphanumeric() || "_-./:@ ,()".contains(c);
    begins
        && !string.ends_with([' ', ':'])
        && string.chars().all(inside)
        && !string.contains(": ")
        && !RESERVED
            .iter()
            .any(|reserved| string.eq_ignore_ascii_case(reserved))
}

/// Writes text in double quotes: the escapes of JSON are also those of YAML.
fn quote(text: &mut String, string: &str) {
    text.push_str(&inert_json(serde_json::Value::from(string).to_string()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::view::is_unsafe;

    fn written(value: &serde_json::Value) -> String {
        let mut text = String::new();
        write(&mut text, &serde_norway::to_value(value).unwrap());
        text
    }

    #[test]
    fn ambiguous_yaml_1_1_scalars_are_quoted() {
        for string in [
            "yes",
            "No",
            "ON",
            "off",
            "y",
            "N",
            "true",
            "null",
            "~",
            "",
            "123",
            "0x1F",
            "1e3",
            "1:30",
            "-",
            "2026-05-01",
            "=",
            "<<",
            ".inf",
            "_1",
            "a: b",
            "a #b",
            " a",
            "a ",
            "*a",
            "&a",
            "!a",
            "a:",
            "雪",
            "{a}",
            "[a]",
            "%a",
            "'a'",
        ] {
            assert_eq!(written(&serde_json::json!(string)), format!("\"{string}\"\n"));
        }
        for string in [
            "ONLINE",
            "twitch:900200",
            "bitbrat/v1",
            "scope:chat:read",
            "a-b_c.d",
        ] {
            assert_eq!(written(&serde_json::json!(string)), format!("{string}\n"));
        }
    }

    #[test]
    fn yaml_text_commands_no_terminal_and_reads_back() {
        let title = "a\u{9b}31mb\u{85}c\u{202e}d\u{2066}e\u{2028}f\u{7f}g\u{200f}h";
        let value = serde_json::json!({ "title": title });
        let text = written(&value);
        assert!(!text.chars().any(|c| c != '\n' && is_unsafe(c)), "{text:?}");
        let read: serde_json::Value = serde_norway::from_str(&text).unwrap();
        assert_eq!(read, value);
    }

    #[test]
    fn nested_values_read_back_as_they_were() {
        let value = serde_json::json!({
            "answer": "no", "empty": {}, "none": [], "nothing": null, "number": -1.5, "flag": true,
            "text": "a\n\"b\" \\ \u{1b}\u{85}\u{2028} #c",
            "items": [{"key": "kick:1", "list": ["on", [1, [2]], {"deep": {"er": [{"a": 1, "b": []}]}}]}, "x", []],
        });
        let text = written(&value);
        let back: serde_json::Value = serde_norway::from_str(&text).unwrap();
        assert_eq!(back, value, "{text}");
    }
}
