//! The directories for persistent state: tokens, the outbox, the embedded store.

use std::path::{Path, PathBuf};

use super::key::Key;
use super::reader::Reader;

pub const STATE_DIR: Key = Key::new(
    "state_dir",
    "Directory for tokens, the outbox and the embedded store; made with mode 0700. Default: $XDG_STATE_HOME/bitbrat.",
)
.such_as("/var/lib/bitbrat").file();

pub(super) const KEYS: &[Key] = &[STATE_DIR];

pub(super) fn read(reader: &mut Reader<'_>, base: &Base) -> PathBuf {
    reader
        .path(&STATE_DIR)
        .unwrap_or_else(|| base.state_home.join("bitbrat"))
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    pub config_home: PathBuf,
    pub state_home: PathBuf,
}

impl Base {
    /// Follows the XDG base directory rules: a relative path counts as not set.
    pub(super) fn of(environment: &std::collections::BTreeMap<String, String>, work_dir: &Path) -> Self {
        let absolute = |name: &str| {
            environment
                .get(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let home = absolute("HOME").unwrap_or_else(|| work_dir.to_owned());
        Self {
            config_home: absolute("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config")),
            state_home: absolute("XDG_STATE_HOME").unwrap_or_else(|| home.join(".local/state")),
        }
    }
}
