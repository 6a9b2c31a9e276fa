//! Entry points of the fuzz targets in `fuzz/`: the text of configuration files.

use std::collections::BTreeMap;
use std::path::Path;

use super::{keys, layers, text};

/// Returns the variables of a `.env` file, or the line that is malformed.
pub fn env_file(content: &str) -> Result<BTreeMap<String, String>, usize> {
    text::env_file(content).map(|file| file.variables)
}

/// Returns whether a TOML file can be read, or the error as users see it.
pub fn toml(content: &str) -> Result<(), String> {
    let layer = layers::toml_text(Path::new("bitbrat.toml"), content, keys::shown_path);
    layer.map(|_| ()).map_err(|problem| problem.with_hint())
}
