//! Remembers which id a configured name stands for. Names change hands, ids do not: a name is resolved once.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::core::source::{PlatformName, SourceKey};
use crate::failure::{ExitCode, Failure};

/// Names and the ids that they stand for, kept in the state directory.
#[derive(Debug)]
pub struct Names {
    path: PathBuf,
    known: BTreeMap<String, SourceKey>,
    changed: bool,
}

impl Names {
    /// Reads what is remembered. A file that is missing or damaged only means that the platforms are asked again.
    pub fn load(state_dir: &Path) -> Self {
        let path = state_dir.join("names.json");
        let known = std::fs::read(&path)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        Self {
            path,
            known,
            changed: false,
        }
    }

    /// Returns the source that `name` stands for.
    pub fn key(&self, platform: PlatformName, name: &str) -> Option<SourceKey> {
        self.known.get(&format!("{platform}:{name}")).cloned()
    }

    /// Notes what a platform said.
    pub fn remember(&mut self, platform: PlatformName, name: &str, key: SourceKey) {
        self.known.insert(format!("{platform}:{name}"), key);
        self.changed = true;
    }

    /// Keeps what was noted. The file is replaced as a whole, so that a crash leaves the old one.
    pub fn save(&self) -> Result<(), Failure> {
        if !self.changed {
            return Ok(());
        }
        let written = || -> std::io::Result<()> {
            let directory = self.path.parent().unwrap_or(Path::new("."));
            crate::files::make_private_dir(directory)?;
            let mut file = tempfile::NamedTempFile::new_in(directory)?;
            file.write_all(&serde_json::to_vec_pretty(&self.known)?)?;
            file.as_file().sync_all()?;
            file.persist(&self.path)?;
            Ok(())
        };
        written().map_err(|error| {
            Failure::new(ExitCode::Failed, format!("cannot write {}", self.path.display())).because(&error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolved_name_is_still_known_in_the_next_process() {
        let home = tempfile::tempdir().unwrap();
        let state = home.path().join("state");
        let mut names = Names::load(&state);
        assert_eq!(names.key(PlatformName::Twitch, "ratcaster"), None);
        names.remember(
            PlatformName::Twitch,
            "ratcaster",
            "twitch:900200".parse().unwrap(),
        );
        names.save().unwrap();
        let again = Names::load(&state);
        assert_eq!(
            again.key(PlatformName::Twitch, "ratcaster"),
            Some("twitch:900200".parse().unwrap())
        );
        assert_eq!(again.key(PlatformName::Kick, "ratcaster"), None);
    }

    #[test]
    fn a_damaged_file_only_means_asking_again() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("names.json"), "{\"twitch:rat").unwrap();
        assert_eq!(Names::load(home.path()).key(PlatformName::Twitch, "rat"), None);
    }
}
