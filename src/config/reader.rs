//! Reads typed values from the layers, and records every problem and the origin of each value.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use super::file_path;
use super::key::Key;
use super::layers::{Layer, Raw};
use super::problem::{Origin, Problem};
use super::text;
use crate::secrets;

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found<T> {
    pub value: T,
    pub origin: Origin,
}

/// The resolved value of a key, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    pub key: &'static str,
    /// Its value, `***` for a secret that is set; `None` when nothing is set.
    pub value: Option<String>,
    /// Where it came from.
    pub origin: Origin,
}

/// Reads from the layers; the first one that has a value takes precedence.
pub(crate) struct Reader<'a> {
    layers: &'a [Layer],
    /// Key prefixes that are read from explicit values only (the demo must not contact real platforms).
    pub(super) sealed: Vec<String>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
    pub(super) resolved: Vec<Resolved>,
    /// Values of variables that other programs use too, which cannot be used here: the next layer applies instead.
    aside: Vec<Aside>,
    /// Returns the path of an unused key in the form in which it may be shown.
    pub(super) shown_path: fn(&str) -> String,
}

/// A value that was ignored.
struct Aside {
    key: Key,
    origin: Origin,
    message: String,
}

impl<'a> Reader<'a> {
    pub(super) fn new(layers: &'a [Layer], shown_path: fn(&str) -> String) -> Self {
        Self {
            layers,
            sealed: Vec::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
            resolved: Vec::new(),
            aside: Vec::new(),
            shown_path,
        }
    }

    pub(super) fn layers(&self) -> &'a [Layer] {
        self.layers
    }

    /// Whether the section of `path` is not read from environment and files.
    pub(crate) fn is_sealed(&self, path: &str) -> bool {
        self.sealed.iter().any(|prefix| path.starts_with(&prefix[..]))
    }

    /// Records a problem with a value.
    pub(crate) fn refuse(&mut self, key: &Key, origin: &Origin, message: impl Into<String>) {
        self.note(key, origin, message.into(), None);
    }

    /// Records a problem with a value, and a hint.
    pub(crate) fn refuse_with(&mut self, key: &Key, origin: &Origin, message: impl Into<String>, hint: &str) {
        self.note(key, origin, message.into(), Some(hint.to_owned()));
    }

    /// Records a problem with what is at `place`: a part of a `[[source]]`, or something that is no key.
    pub(super) fn refuse_at(&mut self, place: &str, origin: &Origin, message: impl Into<String>) {
        self.problems.push(problem(place, origin, message.into(), None));
    }

    /// As [`Reader::refuse_at`], with a hint.
    pub(super) fn refuse_at_with(&mut self, place: &str, origin: &Origin, message: &str, hint: &str) {
        self.problems
            .push(problem(place, origin, message.to_owned(), Some(hint.to_owned())));
    }

    fn note(&mut self, key: &Key, origin: &Origin, message: String, hint: Option<String>) {
        if is_foreign(key, origin) {
            let message = format!("{message}; it does not count");
            self.warnings.push(problem(key.path, origin, message, hint));
        } else {
            self.problems.push(problem(key.path, origin, message, hint));
        }
    }

    /// Ignores a value that cannot be used, if it may be meant for other programs: it never prevents a start, and the next layer
    /// applies. Returns whether it may.
    pub(crate) fn set_aside(&mut self, key: &Key, origin: &Origin, message: &str) -> bool {
        if !is_foreign(key, origin) {
            return false;
        }
        self.resolved.retain(|resolved| resolved.key != key.path);
        self.aside.push(Aside {
            key: *key,
            origin: origin.clone(),
            message: message.to_owned(),
        });
        true
    }

    /// Warns of ignored values, with what is used instead.
    pub(crate) fn warn_of_aside(&mut self) {
        for aside in std::mem::take(&mut self.aside) {
            let instead = |key: &str| self.resolved.iter().find(|resolved| resolved.key == key);
            let used = instead(aside.key.path)
                .filter(|used| used.value.is_some())
                .or_else(|| instead(aside.key.overrides?));
            let used = used.and_then(|used| Some((used.key, used.value.as_ref()?, &used.origin)));
            let used = match used {
                Some((key, value, Origin::Default)) => {
                    format!("{key} = {value}, the default, is used instead")
                }
                Some((key, value, origin)) => format!("{key} = {value} from {origin} is used instead"),
                None => aside.key.otherwise.to_owned(),
            };
            let message = format!("{}; {used}", aside.message);
            self.warnings
                .push(problem(aside.key.path, &aside.origin, message, None));
        }
    }

    pub(crate) fn warn(&mut self, place: &str, origin: &Origin, message: impl Into<String>) {
        self.warnings.push(problem(place, origin, message.into(), None));
    }

    pub(crate) fn warn_with(&mut self, place: &str, origin: &Origin, message: impl Into<String>, hint: &str) {
        self.warnings
            .push(problem(place, origin, message.into(), Some(hint.to_owned())));
    }

    fn raw(&mut self, key: &Key) -> Option<Found<Raw>> {
        let sealed = self.is_sealed(key.path);
        let found = self
            .layers
            .iter()
            .filter(|layer| !sealed || matches!(layer, Layer::Given(_)))
            .filter_map(|layer| layer.get(key))
            .find(|(_, origin)| {
                let is_this = |aside: &Aside| aside.key.path == key.path && aside.origin == *origin;
                !self.aside.iter().any(is_this)
            })
            .map(|(value, origin)| Found { value, origin });
        if let Some(found) = &found {
            remember_secrets(key, &found.value);
        }
        let shown = found.as_ref().map(|found| match &found.value {
            _ if key.secret => secrets::MASK.to_owned(),
            // A seed in place of the path of its file.
            Raw::Text(text) if secrets::is_nkey_seed(text) => secrets::MASK.to_owned(),
            Raw::Text(text) if key.file && file_path::check(text).is_err() => secrets::MASK.to_owned(),
            Raw::Text(text) | Raw::Plain(text) if key.list => {
                let shown: Vec<_> = split(text).iter().map(|word| key.shown(word)).collect();
                shown.join(" ")
            }
            Raw::Text(text) | Raw::Plain(text) => key.shown(text),
            Raw::List(words) => {
                let shown: Vec<_> = words.iter().map(|word| key.shown(word)).collect();
                shown.join(" ")
            }
            Raw::Odd(what) => (*what).to_owned(),
        });
        self.resolved.push(Resolved {
            key: key.path,
            value: shown.or_else(|| key.default.map(str::to_owned)),
            origin: found
                .as_ref()
                .map_or(Origin::Default, |found| found.origin.clone()),
        });
        found
    }

    /// Returns the origin of the value of a key that was read before.
    pub(crate) fn origin(&self, key: &Key) -> Origin {
        let found = self.resolved.iter().find(|found| found.key == key.path);
        found.map_or(Origin::Default, |found| found.origin.clone())
    }

    pub(crate) fn text(&mut self, key: &Key) -> Option<Found<String>> {
        match self.raw(key) {
            None => key.default.map(|default| Found {
                value: default.to_owned(),
                origin: Origin::Default,
            }),
            Some(Found {
                value: Raw::Text(value),
                origin,
            }) => Some(Found { value, origin }),
            Some(Found { value, origin }) => {
                let what = match value {
                    Raw::Plain(value) if key.secret => {
                        format!("expects text in quotes, not {} letters without", value.len())
                    }
                    Raw::Plain(value) => format!("expects text in quotes, not {value}"),
                    Raw::List(_) => "expects text, not a list".to_owned(),
                    Raw::Odd(what) => format!("expects text, not {what}"),
                    Raw::Text(_) => unreachable!("matched above"),
                };
                self.refuse(key, &origin, what);
                None
            }
        }
    }

    /// Reads text and converts it; a failed conversion is a problem.
    pub(crate) fn made<T, E: std::fmt::Display>(
        &mut self,
        key: &Key,
        make: impl Fn(&str) -> Result<T, E>,
    ) -> Option<Found<T>> {
        self.made_by(key, Self::text, make)
    }

    /// Reads a number or a boolean, which a file may hold as such.
    pub(crate) fn plain<T: FromStr>(&mut self, key: &Key, expected: &str) -> Option<Found<T>> {
        let make = |text: &str| {
            text.parse()
                .map_err(|_| format!("`{}` is not {expected}", clip(text)))
        };
        self.made_of_plain(key, expected, make)
    }

    /// As [`Reader::made`], of text, a number or a boolean.
    pub(crate) fn made_of_plain<T>(
        &mut self,
        key: &Key,
        expected: &str,
        make: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Found<T>> {
        let take = |reader: &mut Self, key: &Key| match reader.raw(key) {
            Some(Found {
                value: Raw::Text(value) | Raw::Plain(value),
                origin,
            }) => Some(Found { value, origin }),
            Some(Found { origin, .. }) => {
                reader.refuse(key, &origin, format!("expects {expected}"));
                None
            }
            None => Some(Found {
                value: key.default?.to_owned(),
                origin: Origin::Default,
            }),
        };
        self.made_by(key, take, make)
    }

    /// Converts what `take` reads; a value that cannot be converted gives way to one of less precedence.
    fn made_by<T, E: std::fmt::Display>(
        &mut self,
        key: &Key,
        take: impl Fn(&mut Self, &Key) -> Option<Found<String>>,
        make: impl Fn(&str) -> Result<T, E>,
    ) -> Option<Found<T>> {
        loop {
            let Found { value, origin } = take(self, key)?;
            match make(&value) {
                Ok(value) => return Some(Found { value, origin }),
                Err(error) => {
                    let message = error.to_string();
                    if !self.set_aside(key, &origin, &message) {
                        self.refuse(key, &origin, message);
                        return None;
                    }
                }
            }
        }
    }

    /// Reads `true` or `false`.
    pub(crate) fn switch(&mut self, key: &Key) -> bool {
        self.plain(key, "`true` or `false`")
            .is_some_and(|found| found.value)
    }

    /// Reads a whole number within bounds.
    pub(crate) fn number(&mut self, key: &Key, bounds: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let found = self.made_of_plain(key, "a whole number", |text| {
            let number: u64 = text
                .parse()
                .map_err(|_| format!("`{}` is not a whole number", clip(text)))?;
            if bounds.contains(&number) {
                Ok(number)
            } else {
                Err(format!(
                    "{number} is not between {} and {}",
                    bounds.start(),
                    bounds.end()
                ))
            }
        })?;
        Some(found.value)
    }

    /// Reads a duration such as `30s`, `5m` or `1h30m` within bounds.
    pub(crate) fn duration(
        &mut self,
        key: &Key,
        bounds: std::ops::RangeInclusive<Duration>,
    ) -> Option<Found<Duration>> {
        let found = self.made(key, duration)?;
        if !bounds.contains(&found.value) {
            let message = format!(
                "{} is not between {} and {}",
                words(found.value),
                words(*bounds.start()),
                words(*bounds.end())
            );
            self.refuse(key, &found.origin, message);
            return None;
        }
        Some(found)
    }

    /// Reads a base address with one of `schemes`.
    pub(crate) fn address(&mut self, key: &Key, schemes: &[&str]) -> Option<Url> {
        self.made(key, |text| address(text, schemes))
            .map(|found| found.value)
    }

    /// Reads a base address that has a default. When the set value is unusable, the default is used, and the problem recorded.
    pub(crate) fn address_or_default(&mut self, key: &Key, schemes: &[&str]) -> Url {
        self.address(key, schemes).unwrap_or_else(|| {
            key.default
                .and_then(|default| default.parse().ok())
                .expect("the default of an address is an address")
        })
    }

    /// Reads an address to listen at.
    pub(crate) fn socket(&mut self, key: &Key) -> Option<Found<SocketAddr>> {
        self.made(key, |text| {
            text.replace("localhost:", "127.0.0.1:")
                .parse::<SocketAddr>()
                .map_err(|_| format!("`{}` is not an address such as 127.0.0.1:8787", clip(text)))
        })
    }

    /// Reads a path. The text of a file in its place is refused: every message that names the file would print it.
    pub(crate) fn path(&mut self, key: &Key) -> Option<PathBuf> {
        let found = self.text(key)?;
        self.path_of(key, &found)
    }

    /// As [`Reader::path`], of a value that was read before.
    pub(crate) fn path_of(&mut self, key: &Key, found: &Found<String>) -> Option<PathBuf> {
        if let Err(message) = file_path::check(&found.value) {
            self.refuse_with(key, &found.origin, message, file_path::HINT);
            return None;
        }
        Some(PathBuf::from(&found.value))
    }

    pub(crate) fn list(&mut self, key: &Key) -> Option<Found<Vec<String>>> {
        match self.raw(key)? {
            Found {
                value: Raw::List(value),
                origin,
            } => Some(Found { value, origin }),
            Found {
                value: Raw::Text(text) | Raw::Plain(text),
                origin,
            } => Some(Found {
                value: split(&text),
                origin,
            }),
            Found { origin, .. } => {
                self.refuse(key, &origin, "expects a list of words");
                None
            }
        }
    }

    /// Reads a token or another secret that a platform has issued; it never comes from a flag or a TOML file.
    pub(crate) fn secret(&mut self, key: &Key) -> Option<SecretString> {
        self.guarded(key, |text| text::token(text).map(str::to_owned))
    }

    /// Reads a password, which may contain any character; it never comes from a flag or a TOML file.
    pub(crate) fn password(&mut self, key: &Key) -> Option<SecretString> {
        self.guarded(key, |text| match text.chars().any(char::is_control) {
            true => Err((
                "contains line breaks or other control characters".to_owned(),
                "give the password alone",
            )),
            false => Ok(text.to_owned()),
        })
    }

    fn guarded(
        &mut self,
        key: &Key,
        make: impl FnOnce(&str) -> Result<String, (String, &'static str)>,
    ) -> Option<SecretString> {
        let found = self.raw(key)?;
        match (found.value, &found.origin) {
            (_, Origin::Flag(_)) => {
                let message = "is a secret, and other users can read a command line";
                let hint = format!("put it into the environment as {}", key.variable());
                self.refuse_with(key, &found.origin, message, &hint);
                None
            }
            (_, Origin::File(_)) => {
                let message = "is a secret, and this file is not the place for it";
                let hint = format!("put it into the environment or `.env` as {}", key.variable());
                self.refuse_with(key, &found.origin, message, &hint);
                None
            }
            (Raw::Text(text), _) => match make(&text) {
                // What was around it is not part of what must never be shown.
                Ok(secret) => Some(secrets::secret(secret)),
                Err((message, hint)) => {
                    self.refuse_with(key, &found.origin, message, hint);
                    None
                }
            },
            _ => None,
        }
    }
}

/// Whether a value comes from a variable that other programs read too, with values of their own.
pub(crate) fn is_foreign(key: &Key, origin: &Origin) -> bool {
    match origin {
        Origin::Environment(variable) | Origin::EnvFile(_, variable) => {
            key.shared && !variable.starts_with("BITBRAT_")
        }
        Origin::Flag(_) | Origin::Demo | Origin::Credential(_) | Origin::File(_) | Origin::Default => false,
    }
}

/// Registers a secret, and what is secret in an address, before any message quotes it.
fn remember_secrets(key: &Key, value: &Raw) {
    let words: Vec<&str> = match value {
        Raw::Text(text) | Raw::Plain(text) => vec![text],
        Raw::List(words) => words.iter().map(String::as_str).collect(),
        Raw::Odd(_) => Vec::new(),
    };
    for word in words {
        if key.secret {
            secrets::register(word);
        }
        if key.file {
            file_path::register(word);
        }
        secrets::register_addresses(word);
    }
}

fn problem(place: &str, origin: &Origin, message: String, hint: Option<String>) -> Problem {
    let message = secrets::masked(message);
    // A variable identifies its key itself.
    let key = match origin {
        Origin::Environment(variable) | Origin::EnvFile(_, variable) => variable.clone(),
        _ => place.to_owned(),
    };
    Problem {
        origin: origin.clone(),
        key,
        message,
        hint,
    }
}

/// Splits a list at blanks and commas.
pub(crate) fn split(text: &str) -> Vec<String> {
    text.split([',', ' ', '\t', '\n', ';'])
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Reads a duration with units.
pub fn duration(text: &str) -> Result<Duration, String> {
    let unreadable = || format!("`{}` is not a duration such as 30s, 5m or 1h30m", clip(text));
    let span: jiff::SignedDuration = text.trim().parse().map_err(|_| unreadable())?;
    Duration::try_from(span).map_err(|_| unreadable())
}

/// Formats a duration the way it is configured.
pub fn words(duration: Duration) -> String {
    match jiff::SignedDuration::try_from(duration) {
        Ok(span) => format!("{span:#}").replace(' ', ""),
        Err(_) => format!("{}s", duration.as_secs()),
    }
}

pub(crate) fn address(text: &str, schemes: &[&str]) -> Result<Url, String> {
    let shown = clip(text);
    let url: Url = text
        .parse()
        .map_err(|error| format!("`{shown}` is not an address ({error})"))?;
    if !schemes.contains(&url.scheme()) {
        return Err(format!(
            "`{shown}` does not start with {}://",
            schemes.join(":// or ")
        ));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(format!("`{shown}` names no host"));
    }
    Ok(url)
}

/// Shortens a quoted piece of input, and masks what is secret in it before it is cut.
pub(crate) fn clip(text: &str) -> String {
    secrets::repeated(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, expected) in [
            ("30s", Some(30_000)),
            ("5m", Some(300_000)),
            ("1h30m", Some(5_400_000)),
            ("250ms", Some(250)),
            ("0s", Some(0)),
            ("-5s", None),
            ("5", None),
            ("soon", None),
        ] {
            let millis = duration(text).ok().map(|found| found.as_millis());
            assert_eq!(millis, expected, "{text}");
        }
        assert_eq!(words(Duration::from_secs(90)), "1m30s");
    }
}
