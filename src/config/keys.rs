//! The table of everything that can be configured: one [`Key`] per setting, grouped as the files of this directory.
//!
//! Reading, `config show`, `config init` and `.env.example` all use this table, so that they cannot diverge.

use super::key::Key;
use super::problem::closest;
use super::{
    auth, bus, fleet, google, log, mcp, postgres, schedule, sources, state, store, tokens, watch, web,
};
use crate::core::platform::for_each_platform;
use crate::platforms;
use crate::secrets;

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

    pub fn keys(&self) -> impl Iterator<Item = &'static Key> {
        self.tables.iter().copied().flatten()
    }
}

macro_rules! areas {
    ($($name:ident $module:ident $about:literal;)*) => {
        /// Every setting, in the order in which it is shown.
        pub const AREAS: &[Area] = &[
            Area::new("State directory", &[state::KEYS]),
            Area::new("Document store", &[store::KEYS, postgres::KEYS]),
            Area::new("Bus", &[bus::KEYS]),
            Area::new("Google Cloud, for Firestore and Pub/Sub", &[google::KEYS]),
            Area::new("Schedules of `watch`: an interval such as 90s or 5m, or cron with seconds in UTC, or off", &[schedule::KEYS]),
            Area::new("The daemon", &[watch::KEYS]),
            Area::new("A fleet of daemons that share the sources", &[fleet::KEYS]),
            Area::new("The web server of `watch`", &[web::KEYS]),
            Area::new("The interface for agents (MCP)", &[mcp::KEYS]),
            Area::new("Token store and logins", &[tokens::KEYS, auth::KEYS]),
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
