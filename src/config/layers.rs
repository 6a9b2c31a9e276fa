//! The raw values, layer upon layer: flags, environment, `.env`, files. Nothing is interpreted here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use config::{ConfigError, FileFormat, Source, Value, ValueKind};

use super::key::Key;
use super::problem::{Origin, Problem};

/// A value as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Raw {
    /// Text; everything but a file holds only this.
    Text(String),
    /// A number or a truth value, as it prints.
    Plain(String),
    /// A list of words.
    List(Vec<String>),
    /// Anything else, by name.
    Odd(&'static str),
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
    /// A TOML file.
    File(FileLayer),
}

/// What a TOML file holds.
#[derive(Debug)]
pub(super) struct FileLayer {
    pub path: PathBuf,
    pub values: BTreeMap<String, Raw>,
    pub sources: Vec<RawTable>,
}

impl Layer {
    /// Returns the value that this layer gives to `key`. An empty variable counts as not set.
    pub(super) fn get(&self, key: &Key) -> Option<(Raw, Origin)> {
        match self {
            Self::Given(values) => values
                .iter()
                .find(|(path, ..)| path == key.path)
                .map(|(_, value, origin)| (Raw::Text(value.clone()), origin.clone())),
            Self::Variables(file, variables) => key.variables().find_map(|name| {
                let value = variables.get(&name)?.trim();
                let origin = match file {
                    None => Origin::Environment(name),
                    Some(path) => Origin::EnvFile(path.clone(), name),
                };
                (!value.is_empty()).then(|| (Raw::Text(value.to_owned()), origin))
            }),
            Self::File(file) => file
                .values
                .get(key.path)
                .map(|raw| (raw.clone(), Origin::File(file.path.clone()))),
        }
    }
}

/// Reads a `.env` file. A malformed line spoils the whole file, so that half of it is never in force.
pub(super) fn env_file(path: &Path, must_exist: bool) -> Result<Option<Layer>, Problem> {
    let problem = |message: String, hint: Option<&str>| Problem {
        origin: Origin::File(path.to_owned()),
        key: String::new(),
        message,
        hint: hint.map(str::to_owned),
    };
    let lines = match dotenvy::from_path_iter(path) {
        Ok(lines) => lines,
        Err(error) if error.not_found() && !must_exist => return Ok(None),
        Err(error) => return Err(problem(format!("cannot be read ({error})"), None)),
    };
    let mut variables = BTreeMap::new();
    let mut last = None;
    for line in lines {
        if let Ok((name, value)) = line {
            last = Some(name.clone());
            // The first one counts, as it does when a shell's variables are left alone.
            variables.entry(name).or_insert(value);
        } else {
            // The line itself may hold a secret: its place must do.
            let place = match last {
                Some(name) => format!("the line after {name}"),
                None => "the first variable's line".to_owned(),
            };
            return Err(problem(
                format!("{place} is malformed, so nothing in this file counts"),
                Some("write NAME=value, and put values with spaces, quotes or # into \"double quotes\""),
            ));
        }
    }
    Ok(Some(Layer::Variables(Some(path.to_owned()), variables)))
}

/// Reads a TOML file.
pub(super) fn toml_file(path: &Path, must_exist: bool) -> Result<Option<FileLayer>, Problem> {
    let problem = |message: String, hint: &str| Problem {
        origin: Origin::File(path.to_owned()),
        key: String::new(),
        message,
        hint: Some(hint.to_owned()),
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => return Ok(None),
        Err(error) => {
            let hint = "see that the file is there, is text, and may be read by this account";
            return Err(problem(format!("cannot be read ({error})"), hint));
        }
    };
    let tree = config::File::from_str(&text, FileFormat::Toml)
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
            let told = match lines.as_slice() {
                [first, .., last] => format!("{first}: {last}"),
                _ => reason.clone(),
            };
            problem(
                format!("is not TOML: {told}"),
                "correct that line, then run `bitbrat config check`; text belongs into \"double quotes\"",
            )
        })?;
    let mut layer = FileLayer {
        path: path.to_owned(),
        values: BTreeMap::new(),
        sources: Vec::new(),
    };
    for (name, value) in tree {
        match (name.as_str(), value.kind) {
            ("source", ValueKind::Array(items)) if items.iter().all(is_table) => {
                layer.sources = items.into_iter().map(table).collect();
            }
            // A likely slip, told apart from the list of words that `sources` is.
            ("sources", ValueKind::Array(items)) if items.iter().any(is_table) => {
                let found = Raw::Odd("a list of tables");
                layer.values.insert("[[sources]]".to_owned(), found);
            }
            (_, kind) => flatten(&name, kind, &mut layer.values),
        }
    }
    Ok(Some(layer))
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
        ValueKind::Float(value) => Raw::Plain(value.to_string()),
        ValueKind::Nil => Raw::Odd("nothing"),
        ValueKind::Array(items) => {
            words(items).map_or(Raw::Odd("a list of something else than words"), Raw::List)
        }
    };
    into.insert(path.to_owned(), raw);
}

fn words(items: Vec<Value>) -> Option<Vec<String>> {
    items
        .into_iter()
        .map(|item| match item.kind {
            ValueKind::String(text) => Some(text),
            ValueKind::I64(number) => Some(number.to_string()),
            ValueKind::U64(number) => Some(number.to_string()),
            _ => None,
        })
        .collect()
}
