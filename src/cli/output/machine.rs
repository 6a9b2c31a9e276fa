//! Reports for programs: JSON, ndjson, YAML and CSV.

use serde_json::Value;

use crate::cli::output::view::{inert_json, printable};
use crate::cli::output::{Report, at_path};
use crate::view::envelope::{API_VERSION, Envelope};

/// A report could not be turned into text.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    #[error("cannot write the report as JSON")]
    Json(#[from] serde_json::Error),
    #[error("cannot write the report as YAML")]
    Yaml(#[from] serde_norway::Error),
    #[error("cannot write the report as CSV: {0}")]
    Csv(String),
}

/// Wraps a report as JSON shows it.
pub fn envelope<R: Report>(report: &R) -> Envelope<R::Item> {
    Envelope {
        api_version: API_VERSION,
        kind: R::KIND,
        as_of: report.as_of(),
        total: report.total(),
        items: report.items(),
        unusable: report.unusable(),
    }
}

/// Returns one indented JSON document.
pub fn json<R: Report>(report: &R) -> Result<String, RenderError> {
    Ok(inert_json(serde_json::to_string_pretty(&envelope(report))?) + "\n")
}

/// Returns one JSON object a line and entry, without the envelope.
pub fn ndjson<R: Report>(report: &R) -> Result<String, RenderError> {
    let mut text = String::new();
    for item in report.items() {
        text.push_str(&inert_json(serde_json::to_string(&item)?));
        text.push('\n');
    }
    Ok(text)
}

pub fn yaml<R: Report>(report: &R) -> Result<String, RenderError> {
    let value = serde_norway::to_value(envelope(report))?;
    let mut text = String::new();
    super::yaml::write(&mut text, &value);
    Ok(text)
}

/// Returns a header line and one line per entry. Lists are joined by spaces; unknown values are empty. Foreign text is made safe
/// for spreadsheets.
pub fn csv<R: Report>(report: &R) -> Result<String, RenderError> {
    let failed = |error: &dyn std::fmt::Display| RenderError::Csv(error.to_string());
    let mut writer = csv::Writer::from_writer(Vec::new());
    let paths = report.csv_fields();
    writer.write_record(&paths).map_err(|error| failed(&error))?;
    for item in report.items() {
        let item = serde_json::to_value(&item)?;
        let fields = paths
            .iter()
            .map(|path| at_path(&item, path).map_or_else(String::new, flat));
        writer.write_record(fields).map_err(|error| failed(&error))?;
    }
    let bytes = writer.into_inner().map_err(|error| failed(&error))?;
    String::from_utf8(bytes).map_err(|error| failed(&error))
}

fn flat(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => inert(text),
        Value::Array(items) => inert(&items.iter().map(flat).collect::<Vec<_>>().join(" ")),
        other => other.to_string(),
    }
}

/// Makes text from strangers (names, titles) harmless in a spreadsheet: it runs a cell that begins like a formula, and control
/// characters can start another cell or line (<https://owasp.org/www-community/attacks/CSV_Injection>). Numbers of ours stay
/// numbers, minus sign included.
fn inert(text: &str) -> String {
    let plain = printable(text);
    if plain
        .trim_start()
        .starts_with(['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'])
    {
        format!("'{plain}")
    } else {
        plain
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::output::view::is_unsafe;

    #[test]
    fn json_text_commands_no_terminal_and_reads_back() {
        let title = "a\u{9b}31mb\u{85}c\u{202e}d\u{2066}e\u{2028}f\u{7f}g\u{200f}h naïve 🐀";
        let value = json!({ "title": title, title: 1 });
        let text = inert_json(serde_json::to_string_pretty(&value).unwrap());
        assert!(!text.chars().any(|c| c != '\n' && is_unsafe(c)), "{text:?}");
        assert!(text.contains("\\u009b31m") && text.contains("naïve 🐀"), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn csv_cell_that_begins_like_a_formula_is_neutralized() {
        for (value, cell) in [
            (json!("=HYPERLINK(\"http://x\")"), "'=HYPERLINK(\"http://x\")"),
            (json!("+1"), "'+1"),
            (json!("-1"), "'-1"),
            (json!("@SUM(A1)"), "'@SUM(A1)"),
            (json!("  =1"), "'  =1"),
            (json!("\t=1"), "' =1"),
            (json!("\r\n=1"), "'  =1"),
            (json!("a\u{1b}[31mb\u{0}"), "a [31mb "),
            (json!("＝1"), "'＝1"),
            (json!(["=1", "b"]), "'=1 b"),
            (json!(-5), "-5"),
            (json!("RatCaster"), "RatCaster"),
        ] {
            assert_eq!(flat(&value), cell, "{value}");
        }
    }
}
