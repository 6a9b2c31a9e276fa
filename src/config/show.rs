//! `config show`: every key with its value, secrets redacted, and where the value came from.

use serde::Serialize;

use super::{Configuration, Origin, keys};

/// One key for `config show`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// The key.
    pub key: String,
    /// Its value; `***` for a secret that is set; absent when nothing is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Where it came from.
    pub origin: String,
    /// Its environment variable.
    pub variable: String,
    /// What it is for.
    pub help: String,
}

/// Returns every key in the order of the table, and the fields of alerts, hooks and maintenance windows.
pub fn shown(configuration: &Configuration) -> Vec<Shown> {
    let written = configuration.settings.alerts.written.iter();
    let written = written.map(|field| Shown {
        key: field.key.clone(),
        value: Some(field.value.clone()),
        origin: field.origin.to_string(),
        variable: String::new(),
        help: "See docs/alerts.md.".to_owned(),
    });
    keys::all()
        .map(|key| {
            let resolved = configuration.resolved.iter().find(|found| found.key == key.path);
            Shown {
                key: key.path.to_owned(),
                value: resolved.and_then(|found| found.value.clone()),
                origin: resolved
                    .map_or(&Origin::Default, |found| &found.origin)
                    .to_string(),
                variable: key.variable(),
                help: key.help.to_owned(),
            }
        })
        .chain(written)
        .collect()
}
