//! The texts of new configuration files. `config init --full` and `.env.example` are generated from the table of keys, so that
//! neither can diverge from it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::edit::{EditError, SourceEntry, add};
use super::key::Key;
use super::keys::AREAS;
use crate::core::source::PlatformName;
use crate::failure::{ExitCode, Failure};

/// The first lines of a short `bitbrat.toml`.
const SHORT: &str = "\
# bitbrat's configuration. `bitbrat config show` prints every key, its value and where that came from; `bitbrat config init --full`
# writes all keys with a description. Secrets do not belong here: put them into the environment or into `.env`.
";

/// Returns the text of a short `bitbrat.toml` to be completed by hand.
pub fn short_template() -> String {
    format!(
        "{SHORT}\n\
         #[schedule]\n\
         #stream = \"1m\"                # an interval, or cron with seconds in UTC\n\
         \n\
         #[twitch]\n\
         #client_id = \"abcdefghij0123456789abcdefghij\"\n\
         \n\
         # Monitored sources, one [[source]] each; `bitbrat sources add twitch:NAME` adds one.\n\
         #[[source]]\n\
         #platform = \"twitch\"\n\
         #login = \"ratcaster\"\n"
    )
}

/// Returns the text of a short `bitbrat.toml` with these client ids and sources.
pub fn compose(client_ids: &[(PlatformName, String)], sources: &[SourceEntry]) -> Result<String, EditError> {
    let mut text = SHORT.to_owned();
    for (platform, id) in client_ids {
        let id = toml_edit::Value::from(id.as_str());
        let _ = write!(text, "\n[{platform}]\nclient_id = {id}\n");
    }
    for source in sources {
        if let Some(more) = add(&text, source)? {
            text = more;
        }
    }
    Ok(text)
}

/// Returns the text of a commented `bitbrat.toml`: every key with its description, commented out where it equals the default.
pub fn toml_template() -> String {
    let mut text = String::from(
        "# bitbrat's configuration. A line that begins with `#` is the default or an example; remove the `#` to change it.\n\
         # Secrets do not belong here: put them into the environment or into `.env` (see .env.example).\n\
         # `bitbrat config check` reports what is wrong, `bitbrat config show` prints every value and where it came from.\n",
    );
    let mut section = "";
    for area in AREAS {
        let keys: Vec<&Key> = area
            .keys()
            .filter(|key| !key.secret && !key.environment_only)
            .collect();
        if keys.is_empty() {
            continue;
        }
        let _ = write!(text, "\n# --- {} ---\n", area.title);
        for key in keys {
            if key.section() != section {
                section = key.section();
                let _ = write!(text, "\n[{section}]\n");
            }
            comment(&mut text, key.help);
            let _ = writeln!(text, "#{} = {}", key.name(), toml_value(key));
        }
    }
    text.push_str(SOURCES);
    text
}

const SOURCES: &str = "
# --- Monitored sources, one [[source]] each ---
# By numeric id, or by name (`login` on Twitch, `slug` on Kick), which is resolved to the id once and remembered.
# A higher `priority` is subscribed to first where a platform limits subscriptions.

#[[source]]
#platform = \"twitch\"
#login = \"ratcaster\"
#priority = 10

#[[source]]
#platform = \"kick\"
#slug = \"ratcaster\"

#[[source]]
#platform = \"discord\"
#id = \"987654321\"
#channels = [\"111111\", \"222222\"]
";

fn toml_value(key: &Key) -> String {
    let value = key.default.unwrap_or(key.example);
    if matches!(value, "true" | "false") || (key.default.is_some() && value.parse::<u64>().is_ok()) {
        return value.to_owned();
    }
    format!("\"{value}\"")
}

/// Returns the text of `.env.example`: every variable, grouped, with a safe value and one comment each.
pub fn env_example() -> String {
    let mut text = String::from(
        "# Every variable that bitbrat reads. Copy this file to `.env` and set what you need; the environment itself counts\n\
         # more than `.env`, and both count more than bitbrat.toml. Names of the BitBrat platform are listed first where it\n\
         # has one; the BITBRAT_ name of the same line means the same and counts more.\n",
    );
    for area in AREAS {
        let _ = write!(text, "\n# --- {} ---\n", area.title);
        for key in area.keys() {
            text.push('\n');
            comment(&mut text, key.help);
            let others: Vec<String> = key.variables().collect();
            let main = key
                .names
                .first()
                .map_or_else(|| key.variable(), |name| (*name).to_owned());
            let also: Vec<&str> = others
                .iter()
                .filter(|name| **name != main)
                .map(String::as_str)
                .collect();
            if !also.is_empty() {
                let _ = writeln!(text, "# Also: {}", also.join(", "));
            }
            let value = if key.secret {
                ""
            } else {
                key.default.unwrap_or(key.example)
            };
            let quoted = if value.contains([' ', '*', '#', '(']) {
                format!("\"{value}\"")
            } else {
                value.to_owned()
            };
            let _ = writeln!(text, "#{main}={quoted}");
        }
    }
    text
}

/// Appends a comment, wrapped at 118 columns.
fn comment(text: &mut String, sentence: &str) {
    let mut line = String::from("#");
    for word in sentence.split(' ') {
        if line.len() + 1 + word.len() > 118 {
            let _ = writeln!(text, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(text, "{line}");
}

/// Writes a new configuration to `path`. An existing file is not changed.
pub fn init(path: &Path, text: &str) -> Result<PathBuf, Failure> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(|error| {
            let what = format!("cannot make the directory `{}`", parent.display());
            Failure::new(ExitCode::Failed, what)
                .because(&error)
                .hint("give a path where you may write")
        })?;
    }
    let opened = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let what = format!("`{}` is there already and was left as it is", path.display());
            return Err(
                Failure::new(ExitCode::Failed, what).hint("give another path, or move the file away first")
            );
        }
        Err(error) => {
            let what = format!("cannot write `{}`", path.display());
            return Err(Failure::new(ExitCode::Failed, what)
                .because(&error)
                .hint("give a path where you may write"));
        }
    };
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.map_err(|error| {
        // A partial file would prevent the next attempt.
        let left = std::fs::remove_file(path);
        let what = match left {
            Ok(()) => format!("cannot write `{}`", path.display()),
            Err(_) => format!("cannot write `{}`; what is there is incomplete", path.display()),
        };
        Failure::new(ExitCode::Failed, what)
            .because(&error)
            .hint("see with `df` whether the disk is full, and try again")
    })?;
    Ok(path.to_owned())
}
