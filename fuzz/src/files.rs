//! Files that people write, and files with tokens.

use std::path::PathBuf;

use bitbrat::config::{self, ConfigInputs, FileText, decode_text};
use serde_json::Value;

use crate::now;

/// A configuration file. No error quotes a value, and an added source is found again.
pub fn config(data: &[u8]) {
    if let Ok(file) = FileText::decode(data) {
        assert_eq!(
            FileText::decode(&file.encode()).as_ref(),
            Ok(&file),
            "a file keeps its encoding"
        );
    }
    let Ok(text) = decode_text(data) else { return };
    let readable = config::fuzzing::toml(&text);
    let work_dir = PathBuf::from("/nonexistent");
    let inputs = ConfigInputs {
        draft: Some((work_dir.join("bitbrat.toml"), text.clone())),
        work_dir,
        ..ConfigInputs::default()
    };
    let loaded = config::load(&inputs, now());
    let _ = config::shown(&loaded);
    let _ = config::Problems(loaded.problems.clone()).to_string();
    assert!(
        readable.is_ok() || !loaded.problems.is_empty(),
        "what cannot be read is a problem"
    );
}

/// A `.env` file: what is read is a value of the file, and nothing is expanded.
pub fn env_file(data: &[u8]) {
    let Ok(text) = decode_text(data) else { return };
    match config::fuzzing::env_file(&text) {
        Ok(variables) => {
            let dollars = |text: &str| text.matches('$').count();
            for value in variables.values() {
                assert!(dollars(value) <= dollars(&text), "a value is part of the file");
            }
            let quoted = variables
                .iter()
                // An apostrophe ends the quotes, and a backslash before them hides their end: both are reported as malformed.
                .filter(|(_, value)| !value.contains(['\'', '\n', '\r']) && !value.ends_with('\\'))
                .map(|(name, value)| format!("{name}='{value}'\n"))
                .collect::<String>();
            let again = config::fuzzing::env_file(&quoted).expect("quoted values can be read");
            assert!(
                again
                    .iter()
                    .all(|(name, value)| variables.get(name) == Some(value))
            );
        }
        Err(number) => assert!(
            number <= text.replace('\r', "\n").lines().count().max(1),
            "a line of the file"
        ),
    }
}

/// Records of a token file, or a token document of the platform.
pub fn tokens(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    bitbrat::tokens::fuzzing::file(text);
    if let Ok(Value::Object(fields)) = serde_json::from_str(text) {
        bitbrat::tokens::fuzzing::document(fields, now());
    }
}
