//! `$CREDENTIALS_DIRECTORY`: values in files, one per setting, as systemd and containers pass secrets. Unlike variables, they are
//! not inherited by child processes.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::keys;
use super::layers::{self, Layer};
use super::problem::{Origin, Problem, closest};
use crate::files;

/// Prefix of the names where systemd passes a whole directory (`LoadCredential=bitbrat:/etc/bitbrat/credentials`).
const PREFIX: &str = "bitbrat_";

/// Reads the files that are named after a setting (`twitch.client_secret`), with or without the prefix. Returns their values,
/// problems, and warnings.
pub(super) fn read(directory: &Path) -> (Layer, Vec<Problem>, Vec<Problem>) {
    let (mut values, mut problems, mut warnings) = (BTreeMap::new(), Vec::new(), Vec::new());
    match names(directory) {
        Ok(names) => {
            for name in names {
                let path = directory.join(&name);
                let Some(key) = keys::find(name.strip_prefix(PREFIX).unwrap_or(&name)) else {
                    warnings.extend(misspelled(&path, &name));
                    continue;
                };
                match layers::read(&path, true, files::SMALL) {
                    Ok(text) => {
                        values.insert(key.path, (text.unwrap_or_default(), path));
                    }
                    Err(problem) => problems.push(problem),
                }
            }
        }
        // A parent process may have left the variable; what is missing without the directory is reported by who needs it.
        Err(error) => warnings.push(Problem {
            key: "CREDENTIALS_DIRECTORY".to_owned(),
            origin: Origin::Environment("CREDENTIALS_DIRECTORY".to_owned()),
            message: format!("{} cannot be read ({error})", directory.display()),
            hint: Some("see that the directory is there and may be read, or unset the variable".to_owned()),
        }),
    }
    (Layer::Credentials(values), problems, warnings)
}

/// Returns the names of the files in a directory, in order. Kubernetes keeps its own entries beside them, which begin with a dot.
fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in directory.read_dir()? {
        let entry = entry?;
        let name = entry.file_name().into_string().ok();
        names.extend(name.filter(|name| !name.starts_with('.') && !entry.path().is_dir()));
    }
    names.sort();
    Ok(names)
}

/// Warns of a file that is probably meant for a setting; others are none of ours.
fn misspelled(path: &Path, name: &str) -> Option<Problem> {
    let bare = name.strip_prefix(PREFIX).unwrap_or(name);
    let meant = closest(bare, keys::all().map(|key| key.path))?;
    Some(Problem {
        origin: Origin::Credential(path.to_owned()),
        key: String::new(),
        message: "is not named after a setting, so it does not count".to_owned(),
        hint: Some(format!("did you mean `{meant}`?")),
    })
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::super::{ConfigInputs, Configuration, load, shown};
    use super::*;

    /// Loads the configuration with files as credentials and a `.env` file.
    fn loaded(files: &[(&str, &str)], variables: &[(&str, &str)], env_file: &str) -> Configuration {
        let dir = tempfile::tempdir().unwrap();
        let credentials = dir.path().join("credentials");
        std::fs::create_dir(&credentials).unwrap();
        std::fs::create_dir(credentials.join("..data")).unwrap();
        for (name, text) in files {
            std::fs::write(credentials.join(name), text).unwrap();
        }
        std::fs::write(dir.path().join(".env"), env_file).unwrap();
        let directory = ("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap());
        let variables = variables.iter().chain([&directory]);
        let inputs = ConfigInputs {
            environment: variables
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            work_dir: dir.path().to_owned(),
            ..ConfigInputs::default()
        };
        load(&inputs, "2026-05-01T18:00:00Z".parse().unwrap())
    }

    #[test]
    fn credentials_set_their_keys_and_are_masked() {
        let files = [
            ("bitbrat_twitch.client_secret", "hush-hush-hush\n"),
            ("twitch.client_id", "public"),
            ("of_another_program", "x"),
        ];
        let configuration = loaded(&files, &[], "");
        assert_eq!(
            (configuration.problems.len(), configuration.warnings.len()),
            (0, 0)
        );
        let twitch = &configuration.settings.platforms.twitch;
        let secret = twitch.client_secret.as_ref().unwrap();
        assert_eq!(secret.expose_secret(), "hush-hush-hush");
        assert_eq!(twitch.client_id.as_deref(), Some("public"));
        let text = format!("{:?} {configuration:?}", shown(&configuration));
        assert!(!text.contains("hush") && text.contains("bitbrat_twitch.client_secret"));
    }

    #[test]
    fn environment_beats_a_credential_which_beats_env_file() {
        let secret = |variables: &[(&str, &str)], content: &str| {
            let files = [("twitch.client_secret", content)];
            let configuration = loaded(&files, variables, "TWITCH_CLIENT_SECRET=of-the-env-file");
            let secret = configuration.settings.platforms.twitch.client_secret;
            secret.unwrap().expose_secret().to_owned()
        };
        let variables = [("TWITCH_CLIENT_SECRET", "of-the-process")];
        assert_eq!(secret(&variables, "of-the-credential"), "of-the-process");
        assert_eq!(secret(&[], "of-the-credential"), "of-the-credential");
        assert_eq!(secret(&[], "\n"), "of-the-env-file");
    }

    #[test]
    fn unusable_credentials_are_reported_with_their_file() {
        let files = [
            ("kick.client_secret", "two words"),
            ("twitch.client_secrets", "hush"),
            ("web.token", "\0"),
        ];
        let configuration = loaded(&files, &[], "");
        let texts: Vec<_> = configuration.problems.iter().map(Problem::with_hint).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(
            texts[0].contains("credentials/web.token: cannot be read"),
            "{texts:?}"
        );
        assert!(
            texts[1].contains("credentials/kick.client_secret: kick.client_secret: "),
            "{texts:?}"
        );
        let warnings: Vec<_> = configuration.warnings.iter().map(Problem::with_hint).collect();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(
            warnings[0].contains("did you mean `twitch.client_secret`?"),
            "{warnings:?}"
        );
        assert!(!warnings[0].contains("hush") && !texts[1].contains("words"));
    }

    #[test]
    fn missing_credentials_directory_is_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing").display().to_string();
        let inputs = ConfigInputs {
            environment: [("CREDENTIALS_DIRECTORY".to_owned(), missing.clone())].into(),
            ..ConfigInputs::default()
        };
        let configuration = load(&inputs, "2026-05-01T18:00:00Z".parse().unwrap());
        assert!(configuration.problems.is_empty());
        let text = configuration.warnings[0].with_hint();
        let start = format!("$CREDENTIALS_DIRECTORY: {missing} cannot be read");
        assert!(text.starts_with(&start), "{text}");
    }
}
