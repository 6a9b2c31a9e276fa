//! Files whose secrets others may read.

use std::fmt;
use std::path::{Path, PathBuf};

use super::keys;
use super::layers::Layer;
use crate::os;

/// A file with secrets that others than its owner may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExposedFile {
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: u32,
}

impl fmt::Display for ExposedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        write!(
            f,
            "{path} contains secrets and can be read by others (mode {:03o})",
            self.mode
        )
    }
}

impl ExposedFile {
    /// Returns `path` if it is shared and its variables contain the value of a secret key.
    pub(super) fn of(path: &Path, layer: &Layer) -> Option<Self> {
        let mode = os::shared_mode(&path.metadata().ok()?)?;
        let path = path.to_owned();
        let has_secret = keys::all().any(|key| key.secret && layer.get(key).is_some());
        has_secret.then_some(Self { path, mode })
    }
}
