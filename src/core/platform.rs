//! The streaming platforms: their names, and what the rules of `core` depend on.
//!
//! The list of names is here. The [`PlatformRules`] of a platform are in its folder, `platforms/<name>/rules.rs`, to
//! which [`PlatformName::rules`] leads; that method is in `platforms/mod.rs`, so that `core` imports no platform (decision 35).

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::permission::Action;
use crate::core::stream::PollTolerance;

/// Expands `$with!` for every platform, in the order in which they are shown. A new platform is one line here: its variant of
/// [`PlatformName`], its name (also that of its module in `platforms` and `sim`), and what a source is there.
macro_rules! for_each_platform {
    ($with:ident) => {
        $with! {
            Twitch twitch "Twitch; a source is a broadcaster's channel.";
            Kick kick "Kick; a source is a broadcaster's channel.";
            Discord discord "Discord; a source is a guild.";
        }
    };
}
pub(crate) use for_each_platform;

macro_rules! names {
    ($($name:ident $module:ident $about:literal;)*) => {
        /// A streaming platform.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "lowercase")]
        pub enum PlatformName {
            $(#[doc = $about] $name,)*
        }

        impl PlatformName {
            /// Every platform, in the order in which they are shown.
            pub const ALL: [Self; [$(Self::$name),*].len()] = [$(Self::$name),*];

            /// Returns the name used in keys and on the wire.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($module),)*
                }
            }
        }
    };
}
for_each_platform!(names);

impl PlatformName {
    /// Returns the titles of the platforms whose sources have channels.
    pub fn with_channels() -> String {
        let rules = Self::ALL.map(Self::rules).into_iter();
        let titles = rules.filter(|rules| rules.has_channels).map(|rules| rules.title);
        titles.collect::<Vec<_>>().join(" and ")
    }
}

impl fmt::Display for PlatformName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What is particular to a platform in the rules that all platforms share: data without code.
#[derive(Debug)]
pub struct PlatformRules {
    /// Its name for people.
    pub title: &'static str,
    /// What a source is there: `channel`, `guild`.
    pub source: &'static str,
    /// How sources are named in a configuration. `None` where only ids identify them; other text is looked up as a name then, and
    /// may be almost anything.
    pub names: Option<NameRules>,
    /// Whether a source is monitored in single channels of its own.
    pub has_channels: bool,
    /// The addresses of a source's page.
    pub pages: PageRules,
    /// The account that belongs to a single source.
    pub source_account: SourceAccount,
    /// How far its polls lag behind.
    pub poll_tolerance: PollTolerance,
    /// What a bot can do there, and what that requires.
    pub actions: &'static [Action],
    /// The actions of each ability. One that is permitted suffices, so that a table never shows "none" where an action is
    /// permitted.
    pub abilities: AbilityActions,
    /// What a yes does not cover, by action: limits for which no evidence is stored.
    pub not_covered: &'static [(&'static [&'static str], &'static str)],
    /// Example of a permission by its name in observations, with the way in which it is written.
    pub permission_example: &'static str,
    /// Its chat on the bus, if the bus carries it.
    pub connector: Option<Connector>,
}

/// What a login or slug may consist of.
#[derive(Debug)]
pub struct NameRules {
    /// The field of a `[[source]]` that holds it: `login` or `slug`.
    pub field: &'static str,
    /// Longest name.
    pub longest: usize,
    /// Characters besides letters and digits.
    pub extra: &'static str,
}

/// The addresses of a source's page.
#[derive(Debug)]
pub struct PageRules {
    /// Domains; subdomains are included.
    pub domains: &'static [&'static str],
    /// Parts of the path that may stand before the source.
    pub beside: &'static [&'static str],
    /// Domains of addresses that do not lead to a source, with the reason.
    pub invalid: &'static [(&'static str, &'static str)],
}

/// The account that belongs to a single source, such as `broadcaster:ID`.
#[derive(Debug)]
pub struct SourceAccount {
    /// The part before the source's id.
    pub role: &'static str,
    /// Which accounts can be named, for people.
    pub hint: &'static str,
}

/// The actions that the abilities of a bot consist of.
#[derive(Debug)]
pub struct AbilityActions {
    /// Sends messages.
    pub chat: &'static [&'static str],
    /// Acts on messages or people.
    pub moderate: &'static [&'static str],
    /// Changes the source itself.
    pub manage: &'static [&'static str],
}

/// How the bus names a platform's chat.
#[derive(Debug)]
pub struct Connector {
    /// The connector's name.
    pub name: &'static str,
    /// The fields of a chat event that hold the source's id, best first.
    pub source_ids: [&'static [&'static str]; 2],
    /// Whether channels are logins, written as `#login`. Otherwise a channel does not identify a source.
    pub channels_are_logins: bool,
}
