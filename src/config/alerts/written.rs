//! Alerts, hooks and maintenance windows as they were written, for people; without secrets.

use crate::config::layers::Raw;
use crate::config::problem::Origin;
use crate::secrets;

/// A field of a table as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenField {
    /// The table and the field: `alert.ops.on`.
    pub key: String,
    /// The value, `***` for a secret.
    pub value: String,
    /// The file.
    pub origin: Origin,
}

/// Returns a value in the form in which it may be shown. The arguments of a program may be secrets, and a variable's place may hold
/// one by mistake.
pub(super) fn shown(field: &str, value: &Raw) -> String {
    let safe = |text: &str| match secrets::is_credential(text) {
        true => secrets::MASK.to_owned(),
        false => secrets::masked(text.to_owned()),
    };
    let is_variable = |text: &str| {
        let is_name = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        !text.is_empty() && text.len() <= 64 && text.bytes().all(is_name)
    };
    match (field, value) {
        ("url" | "secret", _) => secrets::MASK.to_owned(),
        (field, Raw::Text(text)) if field.ends_with("_env") && !is_variable(text) => secrets::MASK.to_owned(),
        ("command", Raw::List(words)) => {
            let program = safe(words.first().map_or("", String::as_str));
            match words.len().saturating_sub(1) {
                0 => program,
                1 => format!("{program} and 1 argument"),
                arguments => format!("{program} and {arguments} arguments"),
            }
        }
        (_, Raw::Text(text) | Raw::Plain(text)) => safe(text),
        (_, Raw::List(words)) => {
            let words: Vec<_> = words.iter().map(|word| safe(word)).collect();
            words.join(", ")
        }
        (_, Raw::Odd(kind)) => (*kind).to_owned(),
    }
}
