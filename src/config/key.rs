//! The table of everything that can be configured: one [`Key`] per setting, grouped as the files of this directory.
//!
//! Reading, `config show`, `config init` and `.env.example` all use this table, so that they cannot diverge.

use super::problem::closest;
use super::{bus, file_path, google, log, schedule, sources, state, store, tokens, watch, web};
use crate::core::platform::for_each_platform;
use crate::platforms;
use crate::secrets;

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its path in `bitbrat.toml`, for example `store.url`.
    pub path: &'static str,
    /// Its default as it would be written; `None` when there is none or it depends on something else.
    pub default: Option<&'static str>,
    /// Environment variables that the rest of the platform uses for it, in order of precedence.
    pub names: &'static [&'static str],
    /// Whether it is a secret: then it is taken from the environment or `.env` only.
    pub secret: bool,
    /// Whether it is a list, separated by spaces or commas.
    pub list: bool,
    /// Whether it is left out of files, which have a better form for it.
    pub environment_only: bool,
    /// Whether other programs read the same variables, with values of their own: one that cannot be read is a warning then.
    pub shared: bool,
    /// Description, in one sentence.
    pub help: &'static str,
    /// An example value, where there is no default.
    pub example: &'static str,
}

impl Key {
    /// Describes a setting.
    pub(crate) const fn new(path: &'static str, help: &'static str) -> Self {
        Self {
            path,
            default: None,
            names: &[],
            secret: false,
            list: false,
            environment_only: false,
            shared: false,
            help,
            example: "",
        }
    }

    /// Sets the default.
    pub(crate) const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    /// Sets the names that the platform uses.
    pub(crate) const fn named(mut self, names: &'static [&'static str]) -> Self {
        self.names = names;
        self
    }

    /// Sets an example.
    pub(crate) const fn such_as(mut self, example: &'static str) -> Self {
        self.example = example;
        self
    }

    /// Marks a secret.
    pub(crate) const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Marks a setting whose variables other programs read too.
    pub(crate) const fn shared(mut self) -> Self {
        self.shared = true;
        self
    }

    /// Marks a setting that files have a better form for.
    pub(crate) const fn environment_only(mut self) -> Self {
        self.environment_only = true;
        self
    }

    /// Marks a list.
    pub(crate) const fn list(mut self) -> Self {
        self.list = true;
        self
    }

    /// Returns its own environment variable: `BITBRAT_`, upper snake case, two underscores between levels.
    pub fn variable(&self) -> String {
        format!("BITBRAT_{}", self.path.replace('.', "__").to_uppercase())
    }

    /// Returns every environment variable that sets it, in order of precedence.
    pub fn variables(&self) -> impl Iterator<Item = String> {
        std::iter::once(self.variable()).chain(self.names.iter().map(|name| (*name).to_owned()))
    }

    /// Returns a value of it in the form in which it may be shown: without credentials, and without a secret in the wrong place.
    pub fn shown(&self, value: &str) -> String {
        // A client's id has the form of its secret, and is public.
        let is_public = self.name() == "client_id" && value.bytes().all(|byte| byte.is_ascii_alphanumeric());
        // `platform:name`: a token may be in the place of either.
        let in_part = || self.list && value.split(':').any(secrets::is_credential);
        let is_secret = !is_public && (secrets::is_credential(value) || in_part());
        let is_text_of_file = file_path::is_path_of(self.path) && file_path::check(value).is_err();
        if self.secret || bus::is_seed(value) || is_secret || is_text_of_file {
            return secrets::MASK.to_owned();
        }
        bus::shown(self.path, value).unwrap_or_else(|| secrets::without_credentials(value).into_owned())
    }

    /// Returns the table of the TOML file that contains it; empty for the top level.
    pub fn section(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// Returns its name within its table.
    pub fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }
}

/// A group of settings with a title.
#[derive(Debug, Clone, Copy)]
pub struct Area {
    /// One line for people.
    pub title: &'static str,
    /// Its settings, in one or several tables.
    tables: &'static [&'static [Key]],
}

impl Area {
    const fn new(title: &'static str, tables: &'static [&'static [Key]]) -> Self {
        Self { title, tables }
    }

    /// Returns its settings.
    pub fn keys(&self) -> impl Iterator<Item = &'static Key> {
        self.tables.iter().copied().flatten()
    }
}

macro_rules! areas {
    ($($name:ident $module:ident $about:literal;)*) => {
        /// Every setting, in the order in which it is shown.
        pub const AREAS: &[Area] = &[
            Area::new("State directory", &[state::KEYS]),
            Area::new("Document store", &[store::KEYS]),
            Area::new("Bus", &[bus::KEYS]),
            Area::new("Google Cloud, for Firestore and Pub/Sub", &[google::KEYS]),
            Area::new("Schedules of `watch`: cron with seconds, in UTC", &[schedule::KEYS]),
            Area::new("The daemon", &[watch::KEYS]),
            Area::new("The web server of `watch`", &[web::KEYS]),
            Area::new("Token store", &[tokens::KEYS]),
            $(Area::new(stringify!($name), &[platforms::$module::settings::KEYS]),)*
            Area::new(
                "Sources by environment; the file has [[source]] for them",
                &[sources::KEYS, $(platforms::$module::settings::SOURCE_KEYS),*],
            ),
            Area::new("Logs", &[log::KEYS]),
        ];
    };
}
for_each_platform!(areas);

/// Returns every setting.
pub fn all() -> impl Iterator<Item = &'static Key> {
    AREAS.iter().flat_map(Area::keys)
}

/// Returns the setting with this path.
pub fn find(path: &str) -> Option<&'static Key> {
    all().find(|key| key.path == path)
}

/// Returns the path of an unused key in the form in which it may be shown. A value that was typed in place of a name, or below
/// the key that it belongs to, is left out.
pub fn shown_path(path: &str) -> String {
    let mut shown = String::new();
    for segment in path.split('.') {
        if !shown.is_empty() {
            let holds_value = find(&shown).is_some() || is_near_secret(&shown);
            shown.push('.');
            if holds_value {
                return shown + secrets::MASK;
            }
        }
        if !is_name(segment) {
            return shown + secrets::MASK;
        }
        shown.push_str(segment);
    }
    shown
}

/// Whether a path is that of a secret, or was probably meant to be.
pub fn is_near_secret(path: &str) -> bool {
    let name = path.rsplit('.').next().unwrap_or(path).to_ascii_lowercase();
    let secret_names = all().filter(|key| key.secret).map(Key::name);
    ["token", "secret", "passw", "passphrase", "credential", "seed"]
        .iter()
        .any(|part| name.contains(part))
        || closest(&name, secret_names).is_some()
}

/// Whether text can be the name of a key or a table, as far as its form shows: letters, and a number after them.
fn is_name(text: &str) -> bool {
    let text = text.trim_matches(['[', ']']);
    let letters = text.trim_end_matches(|c: char| c.is_ascii_digit());
    let is_word = |word: &str| word.len() <= 16 && word.bytes().all(|byte| byte.is_ascii_alphabetic());
    !letters.is_empty()
        && text.len() <= 40
        && text.len() - letters.len() <= 2
        && letters.split(['_', '-']).all(is_word)
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
    fn value_in_place_of_a_key_is_not_shown() {
        for (path, shown) in [
            ("store.ulr", "store.ulr"),
            ("twitch.client_secrt", "twitch.client_secrt"),
            ("twitch.client_secret.hunter2", "twitch.client_secret.***"),
            ("twitch.client_secrt.hunter2.more", "twitch.client_secrt.***"),
            ("twitch.acces_token.hunter2", "twitch.acces_token.***"),
            ("store.url.hunter2", "store.url.***"),
            ("twitch.a1b2c3d4e5f6", "twitch.***"),
            ("abcdefghijklmnopqrstuvwxyzabcd", "***"),
            ("twitch.oauth:hunter2", "twitch.***"),
            ("source2", "source2"),
            ("[[sources]]", "[[sources]]"),
        ] {
            assert_eq!(shown_path(path), shown, "{path}");
        }
    }

    #[test]
    fn variables_follow_from_paths() {
        let key = find("web.listen").unwrap();
        assert_eq!(key.variable(), "BITBRAT_WEB__LISTEN");
        assert_eq!((key.section(), key.name()), ("web", "listen"));
    }
}
