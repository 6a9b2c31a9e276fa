//! Problems of a configuration, and the origin of each value.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A flag of the command line, as it is written there.
    Flag(String),
    Demo,
    Environment(String),
    /// A variable in a `.env` file.
    EnvFile(PathBuf, String),
    /// A file of `$CREDENTIALS_DIRECTORY`, whose name is the key.
    Credential(PathBuf),
    File(PathBuf),
    /// Nothing was set.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Demo => write!(f, "--demo"),
            Self::Environment(variable) => write!(f, "${variable}"),
            Self::EnvFile(path, variable) => write!(f, "{}: {variable}", path.display()),
            Self::Credential(path) | Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => write!(f, "default"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where the value came from.
    pub origin: Origin,
    /// The key that it is about; empty when it is about a whole file.
    pub key: String,
    /// The problem, as a lowercase fragment.
    pub message: String,
    pub hint: Option<String>,
}

impl Problem {
    pub fn of_file(path: &Path, message: String, hint: &str) -> Self {
        Self {
            origin: Origin::File(path.to_owned()),
            key: String::new(),
            message,
            hint: Some(hint.to_owned()),
        }
    }

    /// Whether a whole file could not be read, so that nothing in it counts.
    pub fn is_of_a_whole_file(&self) -> bool {
        self.key.is_empty() && matches!(self.origin, Origin::File(_))
    }

    /// Returns the problem together with the hint, on one line.
    pub fn with_hint(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{self} ({hint})"),
            None => self.to_string(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = match &self.origin {
            Origin::Environment(variable) | Origin::EnvFile(_, variable) => *variable == self.key,
            _ => self.key.is_empty(),
        };
        if named {
            write!(f, "{}: {}", self.origin, self.message)
        } else {
            write!(f, "{}: {}: {}", self.origin, self.key, self.message)
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, problem) in self.0.iter().enumerate() {
            if place > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Returns the candidate that `word` was probably meant to be.
pub(crate) fn closest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).clamp(1, 4);
    candidates
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Counts the insertions, deletions, replacements and swaps of neighbors that turn `left` into `right`.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut rows = vec![(0..=right.len()).collect::<Vec<_>>()];
    for (i, a) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let mut best = (rows[i][j] + usize::from(a != b))
                .min(rows[i][j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_what_was_meant_and_a_stranger_finds_nothing() {
        let keys = ["store.url", "web.listen", "bus.prefix"];
        for (word, meant) in [
            ("stoer.url", Some("store.url")),
            ("store.ulr", Some("store.url")),
            ("web.listn", Some("web.listen")),
            ("colour.scheme", None),
        ] {
            assert_eq!(closest(word, keys.into_iter()), meant, "{word}");
        }
    }
}
