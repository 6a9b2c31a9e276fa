//! The table of everything that can be configured: one [`Key`] a setting, grouped as the files of this folder.
//!
//! Reading, `config show`, `config init` and `.env.example` all go by this table, so that they cannot drift apart.

use super::{bus, discord, google, kick, log, schedule, sources, state, store, tokens, twitch, watch, web};

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its path in `bitbrat.toml`, for example `store.url`.
    pub path: &'static str,
    /// Its default as it would be written; `None` when there is none or it depends on something else.
    pub default: Option<&'static str>,
    /// Names that the rest of the platform uses for it in the environment, the first one counts first.
    pub names: &'static [&'static str],
    /// Whether it is a secret: then it is taken from the environment or `.env` only.
    pub secret: bool,
    /// A list of words, separated by spaces or commas.
    pub list: bool,
    /// What it is for, in one sentence.
    pub help: &'static str,
    /// A value to show where there is no default.
    pub example: &'static str,
}

impl Key {
    /// Describes a setting.
    pub(super) const fn new(path: &'static str, help: &'static str) -> Self {
        Self {
            path,
            default: None,
            names: &[],
            secret: false,
            list: false,
            help,
            example: "",
        }
    }

    /// Gives the default.
    pub(super) const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    /// Gives the names that the platform uses.
    pub(super) const fn named(mut self, names: &'static [&'static str]) -> Self {
        self.names = names;
        self
    }

    /// Gives an example.
    pub(super) const fn such_as(mut self, example: &'static str) -> Self {
        self.example = example;
        self
    }

    /// Marks a secret.
    pub(super) const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Marks a list.
    pub(super) const fn list(mut self) -> Self {
        self.list = true;
        self
    }

    /// Returns its own environment variable: `BITBRAT_`, upper snake case, two underscores between levels.
    pub fn variable(&self) -> String {
        format!("BITBRAT_{}", self.path.replace('.', "__").to_uppercase())
    }

    /// Returns every environment variable that sets it, the first one counts first.
    pub fn variables(&self) -> impl Iterator<Item = String> {
        std::iter::once(self.variable()).chain(self.names.iter().map(|name| (*name).to_owned()))
    }

    /// Returns the table of the TOML file that it stands in; empty for the top level.
    pub fn section(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// Returns its name within its table.
    pub fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }
}

/// A group of settings and what to say about it.
#[derive(Debug, Clone, Copy)]
pub struct Area {
    /// One line for people.
    pub title: &'static str,
    /// Its settings.
    pub keys: &'static [Key],
}

/// Every setting, in the order in which it is shown.
pub const AREAS: &[Area] = &[
    Area {
        title: "Where state is kept",
        keys: state::KEYS,
    },
    Area {
        title: "The store of source documents",
        keys: store::KEYS,
    },
    Area {
        title: "The bus to the rest of the platform",
        keys: bus::KEYS,
    },
    Area {
        title: "Google Cloud, for Firestore and Pub/Sub",
        keys: google::KEYS,
    },
    Area {
        title: "Schedules of `watch`: cron with seconds, in UTC",
        keys: schedule::KEYS,
    },
    Area {
        title: "The daemon",
        keys: watch::KEYS,
    },
    Area {
        title: "The web server of `watch`",
        keys: web::KEYS,
    },
    Area {
        title: "Where tokens are kept",
        keys: tokens::KEYS,
    },
    Area {
        title: "Twitch",
        keys: twitch::KEYS,
    },
    Area {
        title: "Kick",
        keys: kick::KEYS,
    },
    Area {
        title: "Discord",
        keys: discord::KEYS,
    },
    Area {
        title: "Sources by environment; the file has [[source]] for them",
        keys: sources::KEYS,
    },
    Area {
        title: "Logs",
        keys: log::KEYS,
    },
];

/// Returns every setting.
pub fn all() -> impl Iterator<Item = &'static Key> {
    AREAS.iter().flat_map(|area| area.keys)
}

/// Returns the setting with this path.
pub fn find(path: &str) -> Option<&'static Key> {
    all().find(|key| key.path == path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_path_stands_once_and_every_key_has_a_sentence() {
        let mut seen = BTreeSet::new();
        for key in all() {
            assert!(seen.insert(key.path), "{} twice", key.path);
            assert!(key.help.ends_with('.'), "{}: {}", key.path, key.help);
            assert!(!(key.secret && key.default.is_some()), "{}", key.path);
        }
    }

    #[test]
    fn variables_follow_from_paths() {
        let key = find("web.listen").unwrap();
        assert_eq!(key.variable(), "BITBRAT_WEB__LISTEN");
        assert_eq!((key.section(), key.name()), ("web", "listen"));
    }
}
