//! A source as people write it: `platform:id`, `platform:name`, a name alone, or the address of a channel.

use std::str::FromStr;

use super::source_name::{self, float_as_id, is_float, negative};
use crate::core::source::{InvalidSourceKey, PlatformName, SourceKey};
use crate::secrets;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceArg {
    Key(SourceKey),
    /// By its name, or by its id without the platform.
    Name {
        /// The platform, where it was given.
        platform: Option<PlatformName>,
        /// The name: a login, slug, display name or guild name; digits alone are an id.
        name: String,
    },
}

impl SourceArg {
    /// Reads an id or a name on `platform`.
    pub fn of(platform: PlatformName, text: &str) -> Result<Self, String> {
        by_platform(platform, text)
    }

    /// Returns the key, where no name has to be resolved.
    pub fn key(&self) -> Option<&SourceKey> {
        match self {
            Self::Key(key) => Some(key),
            Self::Name { .. } => None,
        }
    }
}

impl std::fmt::Display for SourceArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(key) => key.fmt(f),
            Self::Name {
                platform: Some(platform),
                name,
            } => write!(f, "{platform}:{name}"),
            Self::Name { platform: None, name } => f.write_str(name),
        }
    }
}

impl FromStr for SourceArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(found) = by_address(text)? {
            return Ok(found);
        }
        let Some((platform, rest)) = text.split_once(':') else {
            return named(None, text);
        };
        let platform = platform.parse().map_err(|error| said(&error))?;
        by_platform(platform, rest)
    }
}

/// Returns why text is no key, without repeating what may be a secret.
pub(super) fn said(error: &InvalidSourceKey) -> String {
    use InvalidSourceKey::{Id, Platform, Shape};
    let error = match error {
        Shape(text) => Shape(secrets::repeated(text)),
        Platform(text) => Platform(secrets::repeated(text)),
        Id(text) => Id(secrets::repeated(text)),
    };
    error.to_string()
}

fn by_platform(platform: PlatformName, text: &str) -> Result<SourceArg, String> {
    match SourceKey::new(platform, text) {
        Ok(key) => Ok(SourceArg::Key(key)),
        // Digits that are no id (too many, or a leading zero) are a mistake, not a name.
        Err(error) if text.is_empty() || text.bytes().all(|byte| byte.is_ascii_digit()) => Err(said(&error)),
        Err(_) => named(Some(platform), text),
    }
}

fn named(platform: Option<PlatformName>, text: &str) -> Result<SourceArg, String> {
    if is_float(text) {
        return Err(float_as_id(text));
    }
    // The name of a guild may begin with it.
    let is_number = |rest: &str| rest.parse::<f64>().is_ok();
    if text.strip_prefix('-').is_some_and(is_number) {
        return Err(negative(&secrets::repeated(text)));
    }
    let name = match platform {
        Some(platform) if platform.rules().names.is_some() => source_name::name(platform, text)?,
        // A guild's name may be almost anything, and so may a display name.
        _ => text.trim_start_matches(['@', '#']).to_lowercase(),
    };
    let is_plausible = !name.is_empty() && name.chars().count() <= 100 && !name.contains(char::is_control);
    if !is_plausible || (platform.is_none() && name.contains('/')) {
        return Err(format!(
            "`{}` is not a source; write platform:id (twitch:123456), platform:name, a name, or a channel's address",
            secrets::repeated(text)
        ));
    }
    Ok(SourceArg::Name { platform, name })
}

/// Parses the address of a channel's or guild's page, with or without `https://`.
fn by_address(text: &str) -> Result<Option<SourceArg>, String> {
    let lower = text.to_ascii_lowercase();
    let after_scheme = ["https://", "http://"]
        .iter()
        .find_map(|scheme| lower.strip_prefix(scheme).map(|_| &text[scheme.len()..]));
    let address = match after_scheme {
        Some(address) => address,
        None if text.contains('/') && !text.contains(':') => text,
        None => return Ok(None),
    };
    let address = address.split(['?', '#']).next().unwrap_or_default();
    let mut parts = address.split('/').filter(|part| !part.is_empty());
    let host = parts.next().unwrap_or_default().to_ascii_lowercase();
    let host = host.split(':').next().unwrap_or_default();
    let is_on = |domain: &str| host == domain || host.ends_with(&format!(".{domain}"));
    let not_a_channel = || {
        let shown = secrets::repeated(text);
        let titles = or_list(&PlatformName::ALL.map(|platform| platform.rules().title));
        format!("`{shown}` is not the address of a channel or guild on {titles}")
    };
    if let Some((_, reason)) = invalid_pages().find(|(domain, _)| is_on(domain)) {
        return Err(reason.to_owned());
    }
    let found = PlatformName::ALL.into_iter().find(|platform| {
        let domains = platform.rules().pages.domains;
        domains.iter().any(|domain| is_on(domain))
    });
    let platform = found.ok_or_else(not_a_channel)?;
    let rules = platform.rules();
    let name = parts
        .find(|part| !rules.pages.beside.contains(part))
        .ok_or_else(not_a_channel)?;
    let found = match rules.names {
        None => SourceKey::new(platform, name).map(SourceArg::Key).ok(),
        // In the address of a channel digits are its name.
        Some(_) => named(Some(platform), name).ok(),
    };
    found.map(Some).ok_or_else(not_a_channel)
}

/// Returns the domains whose addresses lead to no source, each with the reason.
pub(super) fn invalid_pages() -> impl Iterator<Item = (&'static str, &'static str)> {
    let all = PlatformName::ALL.into_iter();
    all.flat_map(|platform| platform.rules().pages.invalid.iter().copied())
}

/// Joins words as in "A, B or C".
fn or_list(words: &[&str]) -> String {
    match words {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        _ => words.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match text.parse::<SourceArg>() {
            Ok(SourceArg::Key(key)) => format!("key {key}"),
            Ok(named) => format!("name {named}"),
            Err(error) => format!("error {error}"),
        }
    }

    #[test]
    fn ids_names_and_addresses_are_read() {
        for (text, expected) in [
            ("twitch:123", "key twitch:123"),
            ("twitch:PixelMeadow", "name twitch:pixelmeadow"),
            ("kick:big_rat", "name kick:big_rat"),
            ("discord:The Rat Pack", "name discord:the rat pack"),
            ("PixelMeadow", "name pixelmeadow"),
            ("@pixelmeadow", "name pixelmeadow"),
            ("雪の庭", "name 雪の庭"),
            ("123456", "name 123456"),
            ("https://www.twitch.tv/PixelMeadow?x=1", "name twitch:pixelmeadow"),
            ("twitch.tv/pixelmeadow/", "name twitch:pixelmeadow"),
            (
                "https://www.twitch.tv/popout/pixelmeadow/chat",
                "name twitch:pixelmeadow",
            ),
            ("https://m.twitch.tv/pixelmeadow", "name twitch:pixelmeadow"),
            ("https://kick.com/big-rat", "name kick:big-rat"),
            ("https://discord.com/channels/987654/111", "key discord:987654"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn text_that_can_be_no_source_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "is not a source"),
            ("myspace:1", "is not a platform"),
            ("twitch:", "not a numeric id"),
            ("twitch:007", "not a numeric id"),
            ("twitch:1/../2", "cannot be a name"),
            ("https://example.com/rat", "not the address of a channel"),
            ("https://discord.gg/abc", "does not contain the guild's id"),
            ("https://www.twitch.tv/", "not the address of a channel"),
            ("discord:9.87e17", "has lost digits"),
            ("twitch:9.87e+17", "has lost digits"),
            ("kick:9e17", "has lost digits"),
            ("9.87e17", "has lost digits"),
            ("kick:-5", "begins with `-`"),
            ("discord:-5", "begins with `-`"),
            ("kick:-five", "begins with `-`"),
            ("-5", "begins with `-`"),
        ] {
            assert!(shown(text).contains(reason), "{text}: {}", shown(text));
        }
    }
}
