//! Source keys: a platform and the platform's own numeric id, never a name.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use crate::core::platform::PlatformName;

/// The key of a source: `platform:id`, which is also the id of its document.
///
/// The id is the platform's numeric id (Twitch and Kick: the broadcaster's user id; Discord: the guild's), because names
/// change owners and spelling. The digits are stored inline: keys are copied with every fact and used in every map of sources.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceKey {
    platform: PlatformName,
    /// Padded with zero bytes, so that keys are ordered like their text.
    digits: [u8; LONGEST],
    len: u8,
}

/// Digits of the longest id: those of the largest 64-bit number.
const LONGEST: usize = 20;

/// The text is not the key of a source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSourceKey {
    /// There is no colon.
    #[error("`{0}` has no platform; write `platform:id`, for example `twitch:123456`")]
    Shape(String),
    /// The part before the colon is not a platform.
    #[error("`{0}` is not a platform; use one of {names}", names = PlatformName::ALL.map(PlatformName::as_str).join(", "))]
    Platform(String),
    /// The part after the colon is not a number.
    #[error("`{0}` is not a numeric id; write its digits, without a leading zero")]
    Id(String),
}

impl FromStr for PlatformName {
    type Err = InvalidSourceKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|platform| platform.as_str() == text)
            .ok_or_else(|| InvalidSourceKey::Platform(clip(text)))
    }
}

impl SourceKey {
    /// Creates a key; `id` must be a number of at most 20 digits without leading zeros.
    pub fn new(platform: PlatformName, id: &str) -> Result<Self, InvalidSourceKey> {
        let numeric = !id.is_empty() && id.len() <= LONGEST && id.bytes().all(|byte| byte.is_ascii_digit());
        let Some(len) = u8::try_from(id.len())
            .ok()
            .filter(|_| numeric && !id.starts_with('0'))
        else {
            return Err(InvalidSourceKey::Id(clip(id)));
        };
        let mut digits = [0; LONGEST];
        digits[..id.len()].copy_from_slice(id.as_bytes());
        Ok(Self {
            platform,
            digits,
            len,
        })
    }

    /// Returns the platform.
    pub fn platform(&self) -> PlatformName {
        self.platform
    }

    /// Returns the platform's own id.
    pub fn id(&self) -> &str {
        std::str::from_utf8(&self.digits[..self.len.into()]).expect("digits are text")
    }
}

/// Returns the sources of `platform` among `keys` by their numbers; ids above the largest 64-bit number are left out.
pub fn by_number<'a>(
    platform: PlatformName,
    keys: impl IntoIterator<Item = &'a SourceKey>,
) -> BTreeMap<u64, SourceKey> {
    keys.into_iter()
        .filter(|key| key.platform == platform)
        .filter_map(|key| Some((key.id().parse().ok()?, key.clone())))
        .collect()
}

impl fmt::Debug for SourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SourceKey").field(&self.to_string()).finish()
    }
}

impl fmt::Display for SourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&[self.platform.as_str(), ":", self.id()].concat())
    }
}

impl FromStr for SourceKey {
    type Err = InvalidSourceKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (platform, id) = text
            .split_once(':')
            .ok_or_else(|| InvalidSourceKey::Shape(clip(text)))?;
        Self::new(platform.parse()?, id)
    }
}

impl Serialize for SourceKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SourceKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Truncates a quoted part of input for an error message.
fn clip(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_as_it_prints() {
        let key: SourceKey = "twitch:900200".parse().unwrap();
        assert_eq!((key.platform(), key.id()), (PlatformName::Twitch, "900200"));
        assert_eq!(key.to_string(), "twitch:900200");
    }

    #[test]
    fn keys_have_the_order_of_their_text() {
        let mut keys: Vec<SourceKey> = [
            "twitch:2",
            "twitch:19",
            "kick:9",
            "twitch:1",
            "discord:18446744073709551615",
        ]
        .map(|text| text.parse().unwrap())
        .into();
        keys.sort();
        let texts: Vec<_> = keys.iter().map(SourceKey::to_string).collect();
        assert_eq!(
            texts,
            [
                "twitch:1",
                "twitch:19",
                "twitch:2",
                "kick:9",
                "discord:18446744073709551615"
            ]
        );
    }

    #[test]
    fn invalid_source_keys_are_rejected_with_reason() {
        for (text, reason) in [
            ("900200", "has no platform"),
            ("myspace:1", "not a platform"),
            ("twitch:ratcaster", "not a numeric id"),
            ("twitch:", "not a numeric id"),
            ("twitch:007", "not a numeric id"),
            ("twitch:1/../2", "not a numeric id"),
            ("discord:guild:55", "not a numeric id"),
        ] {
            let error = text.parse::<SourceKey>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
