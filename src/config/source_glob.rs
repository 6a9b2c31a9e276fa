//! Sources as they are written in arguments and queries: ids, names, addresses and globs.

use std::str::FromStr;

use glob::{MatchOptions, Pattern};

use super::SourceArg;
use crate::core::source::{PlatformName, SourceKey};
use crate::core::summary::SourceSummary;
use crate::secrets;

/// Characters that make a glob of an argument.
const WILDCARDS: [char; 3] = ['*', '?', '['];

/// Colons, slashes and leading dots are ordinary characters of a name. Both sides are in lower case already, because the library
/// ignores the case of ASCII letters only.
const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: false,
    require_literal_leading_dot: false,
};

/// A source argument of a command or query that accepts several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceSelector {
    /// One source by its id, name or address.
    One(SourceArg),
    /// Every source that a glob matches.
    Glob(SourceGlob),
}

impl SourceSelector {
    /// Whether it selects a source, by its id or one of its names.
    pub fn selects(&self, source: &SourceSummary) -> bool {
        self.selects_named(&source.key, &source.names())
    }

    /// As [`SourceSelector::selects`], of a source with these names; see [`SourceSummary::names`].
    pub fn selects_named(&self, key: &SourceKey, names: &[String]) -> bool {
        let platform = key.platform();
        match self {
            Self::One(SourceArg::Key(own)) => own == key,
            Self::One(SourceArg::Name { platform: of, name }) => {
                of.is_none_or(|of| of == platform) && names.contains(name)
            }
            Self::Glob(glob) => names
                .iter()
                .any(|name| glob.matches(&format!("{platform}:{name}"))),
        }
    }
}

impl std::fmt::Display for SourceSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::One(arg) => arg.fmt(f),
            // Quoted, because a shell expands it.
            Self::Glob(glob) => write!(f, "'{}'", glob.text),
        }
    }
}

impl FromStr for SourceSelector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        // In an address a question mark begins the query.
        let is_address = text.contains("://") || (text.contains('/') && !text.contains(':'));
        if is_address || !text.contains(WILDCARDS) {
            return text.parse().map(Self::One);
        }
        SourceGlob::parse(text).map(Self::Glob)
    }
}

/// A pattern that is matched against `platform:id` and `platform:name` of sources, regardless of case: `*` for any text, `?` for
/// one character, `[0-9]` for one of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceGlob {
    pub(crate) text: String,
    /// The pattern, or why the text is none. That is an error only where no source has the text as its name: guilds may be
    /// called `[GER] Rats`.
    pub(crate) pattern: Result<Pattern, String>,
    /// The text as the name of one source, where it can be one.
    pub(crate) name: Option<SourceArg>,
}

impl SourceGlob {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let name = text.parse::<SourceArg>();
        let mut lower = text.to_lowercase();
        let literal = lower.split(WILDCARDS).next().unwrap_or_default();
        let platform = literal.split_once(':').map(|(platform, _)| platform);
        if let Some(error) = platform.and_then(|platform| platform.parse::<PlatformName>().err()) {
            return Err(name.err().unwrap_or_else(|| error.to_string()));
        }
        // To the library two asterisks are a path of any depth; names have no depth.
        while lower.contains("**") {
            lower = lower.replace("**", "*");
        }
        let pattern = Pattern::new(&lower).map_err(|_| {
            format!(
                "`{}` is not a valid glob: a `[` has no `]`; write a set as `[0-9]`, and a bracket itself as `[[]`",
                secrets::repeated(text)
            )
        });
        match (pattern, name) {
            (Err(reason), Err(_)) => Err(reason),
            (pattern, name) => Ok(Self {
                text: lower,
                pattern,
                name: name.ok(),
            }),
        }
    }

    /// Whether it matches a text such as `twitch:pixelmeadow`.
    pub fn matches(&self, text: &str) -> bool {
        let pattern = self.pattern.as_ref();
        pattern.is_ok_and(|pattern| pattern.matches_with(&text.to_lowercase(), OPTIONS))
    }

    /// Whether it may match a source of `platform` whose name is not known yet.
    pub fn may_match(&self, platform: PlatformName) -> bool {
        let scope = self.text.split_once(':').map(|(scope, _)| Pattern::new(scope));
        match scope {
            Some(Ok(scope)) => scope.matches_with(platform.as_str(), OPTIONS),
            _ => true,
        }
    }
}
