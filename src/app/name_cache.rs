//! Caches the id of each configured name. Names change owners, ids do not: a name is resolved once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::core::source::{PlatformName, SourceKey};
use crate::failure::{ExitCode, Failure};
use crate::files::{self, Durability, FileAccess};
use crate::secrets;

/// Names and their ids, stored in the state directory.
#[derive(Debug)]
pub struct Names {
    path: PathBuf,
    known: BTreeMap<String, SourceKey>,
    changed: bool,
}

/// Registers the names of a source, so that no message masks them.
fn register(name: &str, key: &SourceKey) {
    secrets::register_name(name.split_once(':').map_or(name, |(_, name)| name));
    secrets::register_name(key.id());
}

impl Names {
    /// Reads the cache. A file that is missing or damaged only means that names are looked up again.
    pub fn load(state_dir: &Path) -> Self {
        let path = state_dir.join("names.json");
        let known: BTreeMap<String, SourceKey> = files::read_input(&path, files::LARGE)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        for (name, key) in &known {
            register(name, key);
        }
        Self {
            path,
            known,
            changed: false,
        }
    }

    pub fn key(&self, platform: PlatformName, name: &str) -> Option<SourceKey> {
        self.known.get(&format!("{platform}:{name}")).cloned()
    }

    /// Returns every cached name, without its platform, and its source.
    pub fn all(self) -> Vec<(String, SourceKey)> {
        let all = self.known.into_iter();
        all.map(|(name, key)| {
            let name = name
                .split_once(':')
                .map_or(name.as_str(), |(_, name)| name)
                .to_owned();
            (name, key)
        })
        .collect()
    }

    /// Caches a platform's response.
    pub fn remember(&mut self, platform: PlatformName, name: &str, key: SourceKey) {
        register(name, &key);
        self.known.insert(format!("{platform}:{name}"), key);
        self.changed = true;
    }

    /// Writes the cache. The file is replaced as a whole, so that a crash leaves the old one.
    pub fn save(&self) -> Result<(), Failure> {
        if !self.changed {
            return Ok(());
        }
        let written = || -> std::io::Result<()> {
            let directory = self.path.parent().unwrap_or(Path::new("."));
            files::make_private_dir(directory)?;
            files::write(&self.path, FileAccess::Owner, Durability::Durable, |file| {
                Ok(serde_json::to_writer_pretty(file, &self.known)?)
            })
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
