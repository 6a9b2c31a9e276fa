//! Discord's permission bits: their names, their text format, and the link that requests them. Pure.
//!
//! `rules` computes what a member holds; other modules fetch guilds, members and channels.

mod rules;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{BitAnd, BitOr};
use std::sync::LazyLock;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::core::observation::Grants;
use crate::core::permission::GUILD_LEVEL;

pub use rules::{ChannelKind, GuildRules, Member, Overwrite, Target};

/// A set of permission bits. Bits without a name in this program are preserved.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Permissions(u64);

/// The names of the documented bits, from bit 0; four in a row. Bit 47 is not assigned.
static NAMES: LazyLock<Vec<&str>> = LazyLock::new(|| {
    "CREATE_INSTANT_INVITE KICK_MEMBERS BAN_MEMBERS ADMINISTRATOR \
     MANAGE_CHANNELS MANAGE_GUILD ADD_REACTIONS VIEW_AUDIT_LOG \
     PRIORITY_SPEAKER STREAM VIEW_CHANNEL SEND_MESSAGES \
     SEND_TTS_MESSAGES MANAGE_MESSAGES EMBED_LINKS ATTACH_FILES \
     READ_MESSAGE_HISTORY MENTION_EVERYONE USE_EXTERNAL_EMOJIS VIEW_GUILD_INSIGHTS \
     CONNECT SPEAK MUTE_MEMBERS DEAFEN_MEMBERS \
     MOVE_MEMBERS USE_VAD CHANGE_NICKNAME MANAGE_NICKNAMES \
     MANAGE_ROLES MANAGE_WEBHOOKS MANAGE_GUILD_EXPRESSIONS USE_APPLICATION_COMMANDS \
     REQUEST_TO_SPEAK MANAGE_EVENTS MANAGE_THREADS CREATE_PUBLIC_THREADS \
     CREATE_PRIVATE_THREADS USE_EXTERNAL_STICKERS SEND_MESSAGES_IN_THREADS USE_EMBEDDED_ACTIVITIES \
     MODERATE_MEMBERS VIEW_CREATOR_MONETIZATION_ANALYTICS USE_SOUNDBOARD CREATE_GUILD_EXPRESSIONS \
     CREATE_EVENTS USE_EXTERNAL_SOUNDS SEND_VOICE_MESSAGES - \
     SET_VOICE_CHANNEL_STATUS SEND_POLLS USE_EXTERNAL_APPS PIN_MESSAGES \
     BYPASS_SLOWMODE"
        .split_whitespace()
        .collect()
});

impl Permissions {
    /// No permission.
    pub const NONE: Self = Self(0);
    /// Every documented permission; what the owner and administrators have.
    pub const ALL: Self = Self(8_866_461_766_385_663);
    /// All permissions, everywhere in the guild.
    pub const ADMINISTRATOR: Self = Self(1 << 3);
    /// See a channel; without it no other permission applies there.
    pub const VIEW_CHANNEL: Self = Self(1 << 10);
    /// Send messages in a channel.
    pub const SEND_MESSAGES: Self = Self(1 << 11);
    /// Send text-to-speech messages.
    pub const SEND_TTS_MESSAGES: Self = Self(1 << 12);
    /// Show a preview of links.
    pub const EMBED_LINKS: Self = Self(1 << 14);
    /// Send files.
    pub const ATTACH_FILES: Self = Self(1 << 15);
    /// Read earlier messages.
    pub const READ_MESSAGE_HISTORY: Self = Self(1 << 16);
    pub const MENTION_EVERYONE: Self = Self(1 << 17);
    /// Join a voice or stage channel.
    pub const CONNECT: Self = Self(1 << 20);
    /// Edit roles, or the overwrites of a channel.
    pub const MANAGE_ROLES: Self = Self(1 << 28);
    /// Edit, lock and unlock threads, and send messages in locked ones.
    pub const MANAGE_THREADS: Self = Self(1 << 34);
    /// Send messages in threads; there it replaces [`Permissions::SEND_MESSAGES`].
    pub const SEND_MESSAGES_IN_THREADS: Self = Self(1 << 38);

    /// Permissions that remain effective for a member in a timeout.
    const IN_TIMEOUT: Self = Self(Self::VIEW_CHANNEL.0 | Self::READ_MESSAGE_HISTORY.0);
    /// Permissions that have no effect for a member that may not send messages.
    const NEEDS_SENDING: Self = Self(
        Self::MENTION_EVERYONE.0 | Self::SEND_TTS_MESSAGES.0 | Self::ATTACH_FILES.0 | Self::EMBED_LINKS.0,
    );
    /// Permissions that remain effective in a voice or stage channel that a member sees but may not join: Discord documents that
    /// the other permissions, including those to manage the channel, are denied with CONNECT.
    const OUTSIDE_VOICE: Self = Self::VIEW_CHANNEL;

    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Parses the decimal string in which Discord writes permissions. It documents an integer without an upper bound; bits beyond
    /// the 64th are dropped, since no arithmetic on the lower ones depends on them. A number beyond 128 bits is no set of
    /// permissions.
    pub fn parse(text: &str) -> Option<Self> {
        // `u128` also parses a sign.
        let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
        let bits: u128 = text.parse().ok().filter(|_| is_decimal)?;
        u64::try_from(bits & u128::from(u64::MAX)).ok().map(Self)
    }

    /// Returns the bit called `name`, as [`Permissions::names`] writes it, in any case.
    pub fn named(name: &str) -> Option<Self> {
        let known = |known: &&str| *known != "-" && known.eq_ignore_ascii_case(name);
        let bit = NAMES.iter().position(known).or_else(|| {
            let number = name.get(..4).filter(|head| head.eq_ignore_ascii_case("BIT_"));
            number
                .and_then(|_| name[4..].parse().ok())
                .filter(|bit| *bit < 64)
        });
        bit.map(|bit| Self(1 << bit))
    }

    /// Returns whether all bits of `others` are set.
    pub const fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Returns the bits without those of `others`.
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Returns the names of all set bits, in the order of the bits; `BIT_<n>` for a bit without a name.
    pub fn names(self) -> Vec<String> {
        (0..64)
            .filter(|bit| self.0 >> bit & 1 == 1)
            .map(|bit| match NAMES.get(bit) {
                None | Some(&"-") => format!("BIT_{bit}"),
                Some(name) => (*name).to_owned(),
            })
            .collect()
    }

    /// Returns the bits as complete grants: what has a name and is not set is denied.
    pub fn grants(self) -> Grants {
        Grants {
            granted: self.names().into_iter().collect(),
            denied: Self::ALL.without(self).names().into_iter().collect(),
            unknown: BTreeMap::new(),
        }
    }

    /// Returns the guild-level bits as grants that leave the channel-level permissions unknown.
    pub fn guild_grants(self) -> Grants {
        let mask = Self::guild_level();
        Grants {
            granted: (self & mask).names().into_iter().collect(),
            denied: mask.without(self).names().into_iter().collect(),
            unknown: BTreeMap::new(),
        }
    }

    /// Returns the channel-level bits as grants that leave the guild-level permissions unknown.
    pub fn channel_grants(self) -> Grants {
        let mask = Self::guild_level();
        Grants {
            granted: self.without(mask).names().into_iter().collect(),
            denied: Self::ALL.without(mask | self).names().into_iter().collect(),
            unknown: BTreeMap::new(),
        }
    }

    /// Returns the bits that Discord checks in the guild as a whole.
    pub fn guild_level() -> Self {
        let bits = GUILD_LEVEL.iter().filter_map(|name| Self::named(name));
        bits.fold(Self::NONE, |all, bit| all | bit)
    }

    /// Returns the permissions that remain during a timeout.
    #[must_use]
    pub fn in_timeout(self) -> Self {
        if self.contains(Self::ADMINISTRATOR) {
            self
        } else {
            self & Self::IN_TIMEOUT
        }
    }

    /// Expands the caller's permissions in the guild list: the list contains role permissions only, while the owner and
    /// administrators may do everything.
    #[must_use]
    pub fn expanded(self, owner: bool) -> Self {
        if owner || self.contains(Self::ADMINISTRATOR) {
            self | Self::ALL
        } else {
            self
        }
    }
}

impl BitOr for Permissions {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Permissions {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.0, self.names().join(" "))
    }
}

/// Written as Discord writes them: as a string, so that no parser rounds them.
impl Serialize for Permissions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Permissions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Text(String),
            // Not documented for version 10, but earlier versions and some mock servers send it.
            Number(u64),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(bits) => Ok(Self(bits)),
            Either::Text(text) => Self::parse(&text)
                .ok_or_else(|| serde::de::Error::custom("permissions are not a decimal number")),
        }
    }
}

/// The minimum that an ingress bot needs in a guild: to view channels, to read the history and to reply (our decision).
pub const NEEDED: Permissions = Permissions(
    Permissions::VIEW_CHANNEL.0 | Permissions::READ_MESSAGE_HISTORY.0 | Permissions::SEND_MESSAGES.0,
);

/// Returns the page on which an authorized user grants the bot `permissions` in a guild, or in one that the user chooses there.
pub fn invite_link(application_id: &str, guild_id: Option<&str>, permissions: Permissions) -> String {
    let mut link =
        url::Url::parse("https://discord.com/oauth2/authorize").expect("the constant is an address");
    let mut query = link.query_pairs_mut();
    query
        .append_pair("client_id", application_id)
        .append_pair("scope", "bot")
        .append_pair("permissions", &permissions.bits().to_string());
    if let Some(guild_id) = guild_id {
        query
            .append_pair("guild_id", guild_id)
            .append_pair("disable_guild_select", "true");
    }
    drop(query);
    link.into()
}

#[cfg(test)]
mod tests;
