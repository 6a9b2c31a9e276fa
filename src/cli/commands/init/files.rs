//! The files that `init` writes: the configuration, the secrets, and a systemd unit.

use std::io;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

use crate::cli::context::Setup;
use crate::cli::output::view::Tone;
use crate::cli::output::{Note, quoted};
use crate::config::{self, FileText};
use crate::failure::{ExitCode, Failure};
use crate::files::{self, Durability, FileAccess};

/// The name of the unit.
pub(super) const UNIT: &str = "bitbrat-watch.service";
/// The unit as it is shipped.
const SHIPPED: &str = include_str!("../../../../scripts/systemd/bitbrat-watch-user.service");

/// Where the files are.
#[derive(Debug)]
pub(super) struct Files {
    pub config: PathBuf,
    env: PathBuf,
    work_dir: PathBuf,
    /// Whether there is a configuration, which is replaced.
    replaces: bool,
}

impl Files {
    /// Chooses the configuration file: the one that was given, else the one that is in use, else the one in the working directory.
    /// An existing one is an error unless it may be replaced.
    pub fn of(setup: &Setup, is_demo: bool, may_replace: bool) -> Result<Self, Failure> {
        let inputs = &setup.inputs;
        let in_use = match &inputs.config_file {
            Some(path) => Some(inputs.work_dir.join(path)).filter(|path| path.symlink_metadata().is_ok()),
            None => {
                let files = setup.configuration().files.into_iter();
                let local = inputs.work_dir.join("bitbrat.toml");
                // One that cannot be read counts, too.
                let mut found = local
                    .symlink_metadata()
                    .is_ok()
                    .then_some(local)
                    .into_iter()
                    .chain(
                        files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")),
                    );
                found.next()
            }
        };
        if let Some(path) = in_use.as_ref().filter(|_| !may_replace && !is_demo) {
            let what = format!(
                "there is a configuration already, {}, which was left as it is",
                path.display()
            );
            return Err(Failure::new(ExitCode::Failed, what)
                .hint("run `bitbrat sources add twitch:NAME` to add a channel, and `bitbrat auth login twitch` to log in")
                .hint("run `bitbrat init --force` to replace it; the old file is kept beside it"));
        }
        let given = inputs.config_file.as_deref().unwrap_or(Path::new("bitbrat.toml"));
        let env = inputs.env_file.as_deref().unwrap_or(Path::new(".env"));
        Ok(Self {
            replaces: in_use.is_some(),
            config: in_use.unwrap_or_else(|| inputs.work_dir.join(given)),
            env: inputs.work_dir.join(env),
            work_dir: inputs.work_dir.clone(),
        })
    }

    /// Writes everything. The configuration comes last: as long as it is missing, the command can be repeated.
    pub fn write(
        &self,
        text: &str,
        variables: &[(String, SecretString)],
        unit: Option<&str>,
    ) -> Result<Vec<Note>, Failure> {
        let mut notes = Vec::new();
        let mut wrote = |what: String| notes.push(Note::hint(Tone::Good, what, None));
        if !variables.is_empty() {
            add_variables(&self.env, variables)?;
            wrote(format!("wrote {}, which only you may read", self.env.display()));
        }
        if let Some(unit) = unit {
            let path = self.work_dir.join(UNIT);
            let written = files::write(&path, FileAccess::Unchanged, Durability::Durable, |file| {
                file.write_all(unit.as_bytes())
            });
            written.map_err(|error| cannot_write(&path, &error))?;
            wrote(format!("wrote {}", path.display()));
        }
        if self.replaces {
            let old = self.keep_old()?;
            let target = self.config.canonicalize().unwrap_or_else(|_| self.config.clone());
            let written = files::write(&target, FileAccess::Unchanged, Durability::Durable, |file| {
                file.write_all(text.as_bytes())
            });
            written.map_err(|error| cannot_write(&self.config, &error))?;
            wrote(format!("the old configuration is in {}", old.display()));
        } else {
            config::init(&self.config, text)?;
        }
        wrote(format!("wrote {}", self.config.display()));
        Ok(notes)
    }

    /// Returns the paths of the files that are there.
    pub fn present(&self) -> Vec<String> {
        let unit = self.work_dir.join(UNIT);
        let files = [&self.config, &self.env, &unit].into_iter();
        files
            .filter(|path| path.exists())
            .map(|path| path.display().to_string())
            .collect()
    }

    /// Copies the configuration to a new name beside it.
    fn keep_old(&self) -> Result<PathBuf, Failure> {
        let name = |number: u32| {
            let mut name = self.config.clone().into_os_string();
            name.push(if number == 0 {
                ".bak".to_owned()
            } else {
                format!(".bak{number}")
            });
            PathBuf::from(name)
        };
        let mut names = (0..).map(name);
        let old = names
            .find(|path| path.symlink_metadata().is_err())
            .expect("an endless list has a free name");
        let bytes = files::read_input(&self.config, files::CONFIGURATION);
        let copied = bytes.and_then(|bytes| {
            files::write(&old, FileAccess::Owner, Durability::Durable, |file| {
                file.write_all(&bytes)
            })
        });
        copied.map_err(|error| {
            let what = format!("cannot copy {} to {}", self.config.display(), old.display());
            Failure::new(ExitCode::Failed, what)
                .because(&error)
                .hint("move it away, and run the command again")
        })?;
        Ok(old)
    }

    /// Returns the text of the unit.
    pub fn unit(&self, setup: &Setup) -> Result<String, Failure> {
        let program = std::env::current_exe().map_err(|error| {
            Failure::new(ExitCode::Failed, "cannot find the path of this program").because(&error)
        })?;
        let mut command = vec![program.display().to_string()];
        let given = [
            ("--config", &setup.inputs.config_file),
            ("--env-file", &setup.inputs.env_file),
        ];
        for (flag, file) in given {
            if let Some(file) = file {
                let file = self.work_dir.join(file);
                command.extend([flag.to_owned(), file.display().to_string()]);
            }
        }
        command.push("watch".to_owned());
        Ok(unit_of(&self.work_dir, &command))
    }

    /// Returns the path of the unit as a shell takes it.
    pub fn unit_path(&self) -> String {
        quoted(&self.work_dir.join(UNIT).display().to_string())
    }
}

/// Returns the shipped unit with this command and directory, in which the program finds its files.
fn unit_of(work_dir: &Path, command: &[String]) -> String {
    // <https://www.freedesktop.org/software/systemd/man/latest/systemd.service.html#Command%20lines>
    let word = |word: &String| {
        let word = word.replace('%', "%%").replace('$', "$$");
        if word.contains([' ', '"', '\'', '\\', ';']) {
            format!("\"{}\"", word.replace('\\', r"\\").replace('"', "\\\""))
        } else {
            word
        }
    };
    let command: Vec<_> = command.iter().map(word).collect();
    let directory = work_dir.display().to_string().replace('%', "%%");
    let lines = SHIPPED.lines().filter(|line| !line.starts_with('#'));
    let lines = lines.map(|line| match line.split('=').next() {
        Some("ExecStart") => format!("ExecStart={}\n", command.join(" ")),
        Some("EnvironmentFile") => format!("WorkingDirectory={directory}\n"),
        _ => format!("{line}\n"),
    });
    lines.collect()
}

/// Adds variables to a `.env` file, which its owner alone may read then.
fn add_variables(path: &Path, variables: &[(String, SecretString)]) -> Result<(), Failure> {
    let add = || -> io::Result<()> {
        let target = match path.canonicalize() {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(error),
        };
        let mut content = match files::read_input(&target, files::SMALL) {
            Ok(bytes) => FileText::decode(&bytes).map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => FileText::default(),
            Err(error) => return Err(error),
        };
        if !content.text.is_empty() && !content.text.ends_with('\n') {
            content.text.push('\n');
        }
        for (name, value) in variables {
            content
                .text
                .push_str(&format!("{name}={}\n", value.expose_secret()));
        }
        files::write(&target, FileAccess::Owner, Durability::Durable, |file| {
            file.write_all(&content.encode())
        })
    };
    add().map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::new(ExitCode::Failed, format!("cannot write {}", path.display()))
        .because(error)
        .hint("run the command in a directory that you may write to")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn secrets_are_added_below_what_is_there_for_the_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".env");
        std::fs::write(&path, "# mine\nLOG_LEVEL=info").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        add_variables(&path, &[("TWITCH_CLIENT_SECRET".to_owned(), "abc123".into())]).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "# mine\nLOG_LEVEL=info\nTWITCH_CLIENT_SECRET=abc123\n"
        );
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn unit_runs_this_program_in_the_directory_of_its_files() {
        let command = ["/opt/my bots/bitbrat", "watch"].map(str::to_owned);
        let unit = unit_of(Path::new("/srv/50%"), &command);
        for line in [
            "ExecStart=\"/opt/my bots/bitbrat\" watch",
            "WorkingDirectory=/srv/50%%",
            "Type=notify",
            "WantedBy=default.target",
        ] {
            assert!(unit.lines().any(|found| found == line), "{line}:\n{unit}");
        }
        assert!(
            !unit.contains("EnvironmentFile") && !unit.contains("%h"),
            "{unit}"
        );
    }
}
