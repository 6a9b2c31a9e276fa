//! Paths of files as they are configured. The text of a file is often given in place of its path, as other programs accept it in
//! a variable; it is then a secret that every message about the file would print.

use crate::secrets::is_nkey_seed;
use crate::secrets::{self, MASK, without_credentials};

/// The longest path, and the longest name in it, that Linux accepts, in bytes.
const LONGEST: (usize, usize) = (4095, 255);

/// What to do about text in place of a path.
pub(crate) const HINT: &str = "write the text into a file that only this user can read, and its path here";

/// Checks that text can be a path. The error is a fragment that follows the name of the value, and quotes none of it.
pub(crate) fn check(text: &str) -> Result<(), String> {
    let (whole, name) = LONGEST;
    let why = if without_credentials(text) == MASK || text.contains('{') || is_nkey_seed(text) {
        return Err("holds a key itself, not the path of its file".to_owned());
    } else if text.contains(['\n', '\r']) {
        "it contains a line break"
    } else if text.contains(char::is_control) {
        "it contains a control character"
    } else if text.len() > whole || text.split('/').any(|part| part.len() > name) {
        "it is longer than a path may be"
    } else {
        return Ok(());
    };
    Err(format!("expects the path of a file, not its text ({why})"))
}

/// Registers text in place of a path as a secret, whole and line by line: a library may quote a part of it.
pub(super) fn register(text: &str) {
    if check(text).is_err() {
        secrets::register(text);
        secrets::register_addresses(text);
        secrets::register_lines(text);
        // A variable may hold the line breaks as escapes.
        for line in text
            .split("\\n")
            .filter(|line| !line.contains("-----") && line.len() >= 16)
        {
            secrets::register(line);
        }
    } else if secrets::is_credential(text) {
        secrets::register(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_file_is_no_path() {
        let long = format!("/etc/{}", "a".repeat(256));
        for (text, said) in [
            ("-----BEGIN NATS USER JWT-----\neyJ0\n", "holds a key itself"),
            ("-----BEGIN PRIVATE KEY-----\\nMIGH\\n", "holds a key itself"),
            ("{\"type\":\"service_account\"}", "holds a key itself"),
            (" {\n}", "holds a key itself"),
            ("eyJ0eXBlIjoic2VydmljZV9hY2NvdW50In0=", "holds a key itself"),
            (
                "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY",
                "holds a key itself",
            ),
            ("first line\nsecond line", "line break"),
            ("a\u{0}b", "control character"),
            (long.as_str(), "longer than a path"),
        ] {
            let error = check(text).unwrap_err();
            assert!(error.contains(said) && !error.contains(text), "{text}: {error}");
        }
        for path in [
            "/etc/bitbrat/bitbrat.creds",
            "keys/ключ @work.pem",
            "C:\\keys\\a.pem",
            "../a b.json",
            "my-project-a1b2c3d4e5f6.json",
        ] {
            assert_eq!(check(path), Ok(()), "{path}");
        }
    }
}
