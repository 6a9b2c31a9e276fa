//! Reads typed values from the layers, noting every problem and where each value came from.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use super::key::{self, Key};
use super::layers::{Layer, Raw};
use super::problem::{Origin, Problem};

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found<T> {
    pub value: T,
    pub origin: Origin,
}

/// What a key was resolved to, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The key.
    pub key: &'static str,
    /// Its value, `***` for a secret that is set; `None` when nothing is set.
    pub value: Option<String>,
    /// Where it came from.
    pub origin: Origin,
}

/// Reads from the layers, the first one that has a value counts.
pub(super) struct Reader<'a> {
    layers: &'a [Layer],
    /// Key prefixes that are read from what was given only (the demo must not meet real platforms).
    pub(super) sealed: &'static [&'static str],
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
    pub(super) resolved: Vec<Resolved>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(layers: &'a [Layer]) -> Self {
        Self {
            layers,
            sealed: &[],
            problems: Vec::new(),
            warnings: Vec::new(),
            resolved: Vec::new(),
        }
    }

    pub(super) fn layers(&self) -> &'a [Layer] {
        self.layers
    }

    /// Whether the section of `path` is closed to environment and files.
    pub(super) fn is_sealed(&self, path: &str) -> bool {
        self.sealed.iter().any(|prefix| path.starts_with(prefix))
    }

    /// Notes a problem with a value.
    pub(super) fn refuse(&mut self, key: &str, origin: &Origin, message: impl Into<String>) {
        self.note(key, origin, message.into(), None);
    }

    /// Notes a problem with a value, and what to do about it.
    pub(super) fn refuse_with(&mut self, key: &str, origin: &Origin, message: impl Into<String>, hint: &str) {
        self.note(key, origin, message.into(), Some(hint.to_owned()));
    }

    fn note(&mut self, key: &str, origin: &Origin, message: String, hint: Option<String>) {
        self.problems.push(problem(key, origin, message, hint));
    }

    /// Notes something doubtful.
    pub(super) fn warn(&mut self, key: &str, origin: &Origin, message: impl Into<String>) {
        self.warnings.push(problem(key, origin, message.into(), None));
    }

    fn raw(&mut self, path: &str) -> (&'static Key, Option<Found<Raw>>) {
        let key = key::find(path).expect("every key that is read stands in the table");
        let sealed = self.is_sealed(path);
        let found = self
            .layers
            .iter()
            .filter(|layer| !sealed || matches!(layer, Layer::Given(_)))
            .find_map(|layer| layer.get(key))
            .map(|(value, origin)| Found { value, origin });
        let shown = found.as_ref().map(|found| match &found.value {
            _ if key.secret => "***".to_owned(),
            Raw::Text(text) => without_password(text),
            Raw::Plain(text) => text.clone(),
            Raw::List(words) => words.join(" "),
            Raw::Odd(what) => (*what).to_owned(),
        });
        self.resolved.push(Resolved {
            key: key.path,
            value: shown.or_else(|| key.default.map(str::to_owned)),
            origin: found
                .as_ref()
                .map_or(Origin::Default, |found| found.origin.clone()),
        });
        (key, found)
    }

    /// Reads text.
    pub(super) fn text(&mut self, path: &str) -> Option<Found<String>> {
        let (key, found) = self.raw(path);
        match found {
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
                    Raw::Plain(value) => format!("expects text in quotes, not {value}"),
                    Raw::List(_) => "expects text, not a list".to_owned(),
                    Raw::Odd(what) => format!("expects text, not {what}"),
                    Raw::Text(_) => unreachable!("matched above"),
                };
                self.refuse(path, &origin, what);
                None
            }
        }
    }

    /// Reads text and makes something of it; what cannot be made is a problem.
    pub(super) fn made<T, E: std::fmt::Display>(
        &mut self,
        path: &str,
        make: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<Found<T>> {
        let found = self.text(path)?;
        match make(&found.value) {
            Ok(value) => Some(Found {
                value,
                origin: found.origin,
            }),
            Err(error) => {
                self.refuse(path, &found.origin, error.to_string());
                None
            }
        }
    }

    /// Reads a number or a truth value, which a file may hold as such.
    pub(super) fn plain<T: FromStr>(&mut self, path: &str, expected: &str) -> Option<Found<T>> {
        let (key, found) = self.raw(path);
        let found = match found {
            Some(Found {
                value: Raw::Text(text) | Raw::Plain(text),
                origin,
            }) => Found { value: text, origin },
            Some(Found { origin, .. }) => {
                self.refuse(path, &origin, format!("expects {expected}"));
                return None;
            }
            None => Found {
                value: key.default?.to_owned(),
                origin: Origin::Default,
            },
        };
        let Ok(value) = found.value.parse() else {
            self.refuse(
                path,
                &found.origin,
                format!("`{}` is not {expected}", clip(&found.value)),
            );
            return None;
        };
        Some(Found {
            value,
            origin: found.origin,
        })
    }

    /// Reads `true` or `false`.
    pub(super) fn switch(&mut self, path: &str) -> bool {
        self.plain(path, "`true` or `false`")
            .is_some_and(|found| found.value)
    }

    /// Reads a whole number within bounds.
    pub(super) fn number(&mut self, path: &str, bounds: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let found: Found<u64> = self.plain(path, "a whole number")?;
        if !bounds.contains(&found.value) {
            let message = format!(
                "{} is not between {} and {}",
                found.value,
                bounds.start(),
                bounds.end()
            );
            self.refuse(path, &found.origin, message);
            return None;
        }
        Some(found.value)
    }

    /// Reads a duration such as `30s`, `5m` or `1h30m` within bounds.
    pub(super) fn duration(
        &mut self,
        path: &str,
        bounds: std::ops::RangeInclusive<Duration>,
    ) -> Option<Found<Duration>> {
        let found = self.made(path, duration)?;
        if !bounds.contains(&found.value) {
            let message = format!(
                "{} is not between {} and {}",
                words(found.value),
                words(*bounds.start()),
                words(*bounds.end())
            );
            self.refuse(path, &found.origin, message);
            return None;
        }
        Some(found)
    }

    /// Reads a base address with one of `schemes`.
    pub(super) fn address(&mut self, path: &str, schemes: &[&str]) -> Option<Url> {
        self.made(path, |text| address(text, schemes))
            .map(|found| found.value)
    }

    /// Reads a base address that has a default. When what is set is unusable the default stands in, next to the problem.
    pub(super) fn address_or_default(&mut self, path: &str, schemes: &[&str]) -> Url {
        self.address(path, schemes).unwrap_or_else(|| {
            key::find(path)
                .and_then(|key| key.default)
                .and_then(|default| default.parse().ok())
                .expect("the default of an address is an address")
        })
    }

    /// Reads an address to listen at.
    pub(super) fn socket(&mut self, path: &str) -> Option<Found<SocketAddr>> {
        self.made(path, |text| {
            text.replace("localhost:", "127.0.0.1:")
                .parse::<SocketAddr>()
                .map_err(|_| format!("`{}` is not an address such as 127.0.0.1:8787", clip(text)))
        })
    }

    /// Reads a path.
    pub(super) fn path(&mut self, path: &str) -> Option<PathBuf> {
        self.text(path).map(|found| PathBuf::from(found.value))
    }

    /// Reads a list of words.
    pub(super) fn list(&mut self, path: &str) -> Option<Found<Vec<String>>> {
        let (_, found) = self.raw(path);
        match found? {
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
                self.refuse(path, &origin, "expects a list of words");
                None
            }
        }
    }

    /// Reads a secret, which never comes from a flag or a TOML file.
    pub(super) fn secret(&mut self, path: &str) -> Option<SecretString> {
        let (key, found) = self.raw(path);
        let found = found?;
        match (found.value, &found.origin) {
            (_, Origin::Flag(_)) => {
                let message = "is a secret, and other users can read a command line";
                let hint = format!("put it into the environment as {}", key.variable());
                self.refuse_with(path, &found.origin, message, &hint);
                None
            }
            (_, Origin::File(_)) => {
                let message = "is a secret, and this file is not the place for it";
                let hint = format!("put it into the environment or `.env` as {}", key.variable());
                self.refuse_with(path, &found.origin, message, &hint);
                None
            }
            (Raw::Text(text), _) if text.chars().any(|c| c.is_control() || c.is_whitespace()) => {
                self.refuse(
                    path,
                    &found.origin,
                    "contains blanks or line breaks, so it was not copied whole",
                );
                None
            }
            (Raw::Text(text), _) => Some(SecretString::from(text)),
            _ => None,
        }
    }
}

fn problem(key: &str, origin: &Origin, message: String, hint: Option<String>) -> Problem {
    // A variable names its key by itself.
    let key = match origin {
        Origin::Environment(variable) | Origin::EnvFile(_, variable) => variable.clone(),
        _ => key.to_owned(),
    };
    Problem {
        origin: origin.clone(),
        key,
        message,
        hint,
    }
}

/// Splits a list at blanks and commas.
pub(super) fn split(text: &str) -> Vec<String> {
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

/// Writes a duration the way it is configured.
pub fn words(duration: Duration) -> String {
    match jiff::SignedDuration::try_from(duration) {
        Ok(span) => format!("{span:#}").replace(' ', ""),
        Err(_) => format!("{}s", duration.as_secs()),
    }
}

/// Checks a base address.
pub(super) fn address(text: &str, schemes: &[&str]) -> Result<Url, String> {
    let shown = without_password(text);
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

/// Hides the password, if any, of something that may be an address.
pub(super) fn without_password(text: &str) -> String {
    text.split(',')
        .map(|part| match (part.find("://"), part.rfind('@')) {
            (Some(scheme), Some(at)) if at > scheme => format!("{}://***{}", &part[..scheme], &part[at..]),
            _ => part.to_owned(),
        })
        .collect::<Vec<_>>()
        .join(",")
}

/// Keeps a quoted piece of input short.
pub(super) fn clip(text: &str) -> String {
    text.chars().take(60).collect()
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

    #[test]
    fn passwords_in_addresses_are_not_shown() {
        for (text, shown) in [
            ("nats://bot:hunter2@10.0.0.1:4222", "nats://***@10.0.0.1:4222"),
            ("nats://a:b@one:1,nats://two:2", "nats://***@one:1,nats://two:2"),
            ("sqlite:/var/lib/a@b.db", "sqlite:/var/lib/a@b.db"),
        ] {
            assert_eq!(without_password(text), shown);
        }
    }
}
