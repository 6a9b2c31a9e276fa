//! The raw values, layer upon layer: flags, environment, credentials, `.env`, files. Nothing is interpreted here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use config::{ConfigError, FileFormat, Source, Value, ValueKind};

use super::key::Key;
use super::problem::{Origin, Problem};
use super::text;
use crate::files;

/// A value as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Raw {
    /// Text; everything but a file holds only this.
    Text(String),
    /// A number or a boolean, as it prints.
    Plain(String),
    List(Vec<String>),
    Odd(&'static str),
}

impl Raw {
    /// Whether this is exactly the text.
    pub(super) fn is(&self, text: &str) -> bool {
        matches!(self, Self::Text(own) if own == text)
    }
}

/// A table of the file's `[[source]]` list.
pub(super) type RawTable = BTreeMap<String, Raw>;

/// Values of one origin.
#[derive(Debug)]
pub(super) enum Layer {
    /// Values by key path.
    Given(Vec<(String, String, Origin)>),
    /// Variables by name, of the environment (no path) or of a `.env` file.
    Variables(Option<PathBuf>, BTreeMap<String, String>),
    /// Content and path of the files that are named after a setting, by key path.
    Credentials(BTreeMap<&'static str, (String, PathBuf)>),
    File(FileLayer),
}

#[derive(Debug)]
pub(super) struct FileLayer {
    pub path: PathBuf,
    pub values: BTreeMap<String, Raw>,
    pub sources: Vec<RawTable>,
    /// The other lists of tables, by name.
    pub tables: BTreeMap<&'static str, Vec<RawTable>>,
    /// The entries of lists that are numbers and no text, by key path.
    pub numbers: BTreeMap<String, BTreeSet<String>>,
}

impl Layer {
    /// Returns the value that this layer gives to `key`. An empty variable counts as not set; quotes around a value are not
    /// part of it, whether it comes from the environment or from `.env`.
    pub(super) fn get(&self, key: &Key) -> Option<(Raw, Origin)> {
        match self {
            Self::Given(values) => values
                .iter()
                .find(|(path, ..)| path == key.path)
                .map(|(_, value, origin)| (Raw::Text(value.clone()), origin.clone())),
            Self::Variables(file, variables) => key.variables().find_map(|name| {
                let value = text::clean(variables.get(&name)?);
                let origin = match file {
                    None => Origin::Environment(name),
                    Some(path) => Origin::EnvFile(path.clone(), name),
                };
                (!value.is_empty()).then(|| (Raw::Text(value.to_owned()), origin))
            }),
            Self::Credentials(values) => values.get(key.path).and_then(|(text, path)| {
                let value = text::clean(text);
                let found = || (Raw::Text(value.to_owned()), Origin::Credential(path.clone()));
                (!value.is_empty()).then(found)
            }),
            Self::File(file) => file
                .values
                .get(key.path)
                .map(|raw| (raw.clone(), Origin::File(file.path.clone()))),
        }
    }
}

/// Reads a `.env` file. A malformed line invalidates the whole file, so that half of it is never in force. The second value is
/// the warnings.
pub(super) fn env_file(path: &Path, must_exist: bool) -> Result<Option<(Layer, Vec<Problem>)>, Problem> {
    let Some(text) = read(path, must_exist, files::SMALL)? else {
        return Ok(None);
    };
    // The line itself may hold a secret, so only its number is reported.
    let file = text::env_file(&text).map_err(|line| {
        let message = format!("line {line} is malformed, so nothing in this file counts");
        let hint = "write NAME=value, and put values with spaces, quotes or # into \"double quotes\"";
        Problem::of_file(path, message, hint)
    })?;
    let doubtful = file.unexpanded.into_iter().map(|name| Problem {
        origin: Origin::EnvFile(path.to_owned(), name.clone()),
        key: name,
        message: "contains `${…}`, which is kept as it is: nothing is expanded in this file".to_owned(),
        hint: Some("write the value itself, or put single quotes around it if it is meant so".to_owned()),
    });
    let doubtful = doubtful.collect();
    let layer = Layer::Variables(Some(path.to_owned()), file.variables);
    Ok(Some((layer, doubtful)))
}

/// Reads a text file of at most `limit` bytes; `None` where there is none and `must_exist` is false.
pub(super) fn read(path: &Path, must_exist: bool, limit: u64) -> Result<Option<String>, Problem> {
    let bytes = || match must_exist {
        // It was named on the command line, or is listed in its directory.
        true => files::read_given(path, limit),
        false => files::read_input(path, limit),
    };
    let problem =
        |reason: String, hint: &str| Problem::of_file(path, format!("cannot be read ({reason})"), hint);
    match bytes() {
        Ok(bytes) => {
            let hint = "save it as UTF-8 in your editor; in PowerShell, write it with `-Encoding utf8`";
            let text = text::decode(&bytes).map_err(|reason| problem(reason, hint))?;
            Ok(Some(text))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::FileTooLarge => {
            let hint = "remove what this program does not read; 100,000 sources fit into a configuration file, and more need \
                        several daemons with a file each";
            Err(problem(error.to_string(), hint))
        }
        Err(error) => {
            let hint = "see that the file is there, is text, and may be read by this account";
            Err(problem(error.to_string(), hint))
        }
    }
}

/// Reads a TOML file; `shown_path` masks what an error quotes of it.
pub(super) fn toml_file(
    path: &Path,
    must_exist: bool,
    shown_path: fn(&str) -> String,
) -> Result<Option<FileLayer>, Problem> {
    match read(path, must_exist, files::CONFIGURATION)? {
        Some(text) => toml_text(path, &text, shown_path).map(Some),
        None => Ok(None),
    }
}

/// As [`toml_file`], of a text that is, or may become, the content of the file at `path`.
pub(super) fn toml_text(
    path: &Path,
    text: &str,
    shown_path: fn(&str) -> String,
) -> Result<FileLayer, Problem> {
    let problem = |message: String, hint: &str| Problem::of_file(path, message, hint);
    let tree = config::File::from_str(text, FileFormat::Toml)
        .collect()
        .map_err(|error| {
            let reason = match &error {
                ConfigError::FileParse { cause, .. } => cause.to_string(),
                other => other.to_string(),
            };
            // The lines between quote the file, which may hold a secret in the wrong place.
            let lines: Vec<&str> = reason
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .collect();
            let description = match lines.as_slice() {
                [first, .., last] => format!("{first}: {last}"),
                _ => reason.clone(),
            };
            problem(
                format!("is not TOML: {}", without_quotes(&description, shown_path)),
                "correct that line, then run `bitbrat config check`; text must be in \"double quotes\"",
            )
        })?;
    let mut layer = FileLayer {
        path: path.to_owned(),
        values: BTreeMap::new(),
        sources: Vec::new(),
        tables: BTreeMap::new(),
        numbers: BTreeMap::new(),
    };
    for (name, value) in tree {
        match (name.as_str(), value.kind) {
            ("source", ValueKind::Array(items)) if items.iter().all(is_table) => {
                layer.sources = items.into_iter().map(table).collect();
            }
            (name, ValueKind::Array(items)) if items.iter().all(is_table) && of_alerts(name).is_some() => {
                let name = of_alerts(name).unwrap_or_default();
                layer.tables.insert(name, items.into_iter().map(table).collect());
            }
            // A likely mistake, as opposed to the list of strings that `sources` is.
            ("sources", ValueKind::Array(items)) if items.iter().any(is_table) => {
                let found = Raw::Odd("a list of tables");
                layer.values.insert("[[sources]]".to_owned(), found);
            }
            (_, kind) => {
                note_numbers(&name, &kind, &mut layer.numbers);
                flatten(&name, kind, &mut layer.values);
            }
        }
    }
    Ok(layer)
}

/// Removes quotations of the file from an error, except for names that a file may have.
fn without_quotes(text: &str, shown_path: fn(&str) -> String) -> String {
    let parts = text.split('`').enumerate().map(|(place, part)| match place % 2 {
        // Punctuation is what the parser expected, and no quotation.
        1 if !part.contains(char::is_alphanumeric) => part.to_owned(),
        1 => shown_path(part),
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("`")
}

/// Returns the name of a list of tables, if it is one of those about alerts.
fn of_alerts(name: &str) -> Option<&'static str> {
    super::alerts::TABLES.into_iter().find(|table| *table == name)
}

fn is_table(value: &Value) -> bool {
    matches!(value.kind, ValueKind::Table(_))
}

fn table(value: Value) -> RawTable {
    let mut flat = RawTable::new();
    if let ValueKind::Table(fields) = value.kind {
        for (name, field) in fields {
            flatten(&name, field.kind, &mut flat);
        }
    }
    flat
}

fn flatten(path: &str, kind: ValueKind, into: &mut BTreeMap<String, Raw>) {
    let raw = match kind {
        ValueKind::Table(fields) => {
            for (name, field) in fields {
                flatten(&format!("{path}.{name}"), field.kind, into);
            }
            return;
        }
        ValueKind::String(text) => Raw::Text(text),
        ValueKind::Boolean(value) => Raw::Plain(value.to_string()),
        ValueKind::I64(value) => Raw::Plain(value.to_string()),
        ValueKind::I128(value) => Raw::Plain(value.to_string()),
        ValueKind::U64(value) => Raw::Plain(value.to_string()),
        ValueKind::U128(value) => Raw::Plain(value.to_string()),
        // In the notation that shows it to be a float: an id that was written as one has lost digits, and is no id any more.
        ValueKind::Float(value) => Raw::Plain(format!("{value:?}")),
        ValueKind::Nil => Raw::Odd("nothing"),
        ValueKind::Array(items) => {
            words(items).map_or(Raw::Odd("a list of something else than words"), Raw::List)
        }
    };
    into.insert(path.to_owned(), raw);
}

/// Records the entries of lists that are numbers: in a list of names, they are none.
fn note_numbers(path: &str, kind: &ValueKind, into: &mut BTreeMap<String, BTreeSet<String>>) {
    match kind {
        ValueKind::Table(fields) => {
            for (name, field) in fields {
                note_numbers(&format!("{path}.{name}"), &field.kind, into);
            }
        }
        ValueKind::Array(items) => {
            let numbers = items.iter().filter_map(|item| match &item.kind {
                ValueKind::I64(number) => Some(number.to_string()),
                ValueKind::U64(number) => Some(number.to_string()),
                _ => None,
            });
            let numbers: BTreeSet<String> = numbers.collect();
            if !numbers.is_empty() {
                into.insert(path.to_owned(), numbers);
            }
        }
        _ => {}
    }
}

fn words(items: Vec<Value>) -> Option<Vec<String>> {
    items
        .into_iter()
        .map(|item| match item.kind {
            ValueKind::String(text) => Some(text),
            ValueKind::I64(number) => Some(number.to_string()),
            ValueKind::U64(number) => Some(number.to_string()),
            // As above, so that an id that was written as a float is reported as such.
            ValueKind::Float(number) => Some(format!("{number:?}")),
            _ => None,
        })
        .collect()
}
