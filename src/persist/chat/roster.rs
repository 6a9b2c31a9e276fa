//! Which sources there are, and by which logins they are spoken of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{PoisonError, RwLock};

use crate::core::evidence::Knowledge;
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;

/// The sources that anybody told of.
#[derive(Debug, Default)]
pub struct Roster(RwLock<Known>);

#[derive(Debug, Default)]
struct Known {
    sources: BTreeSet<SourceKey>,
    logins: BTreeMap<(PlatformName, String), (Timestamp, SourceKey)>,
}

impl Roster {
    /// Notes a source and its login. A login that changed hands belongs to whom it was last told of.
    pub fn learn(&self, source: &SourceKey, knowledge: &Knowledge) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.sources.insert(source.clone());
        if let Some(login) = knowledge.evidence.profile.get("login") {
            let name = (source.platform(), login.value.to_lowercase());
            let newer = known.logins.get(&name).is_none_or(|(at, _)| login.at >= *at);
            if newer {
                known.logins.insert(name, (login.at, source.clone()));
            }
        }
    }

    /// Returns the source with this login.
    pub fn find(&self, platform: PlatformName, login: &str) -> Option<SourceKey> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let found = known.logins.get(&(platform, login.to_lowercase()));
        found.map(|(_, source)| source.clone())
    }

    /// Returns whether anybody told of this source.
    pub fn attends(&self, source: &SourceKey) -> bool {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.sources.contains(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::join::Newest;

    #[test]
    fn a_login_that_changed_hands_leads_to_its_new_owner() {
        let roster = Roster::default();
        let named = |seconds, login: &str| {
            let mut knowledge = Knowledge::default();
            let at = Timestamp::EPOCH.plus_secs(seconds);
            knowledge
                .evidence
                .profile
                .insert("login".into(), Newest::new(at, login.into()));
            knowledge
        };
        let key = |n: u8| format!("twitch:{n}").parse::<SourceKey>().unwrap();
        roster.learn(&key(1), &named(10, "Ratcaster"));
        roster.learn(&key(2), &named(20, "ratcaster"));
        roster.learn(&key(1), &named(5, "ratcaster"));
        assert_eq!(roster.find(PlatformName::Twitch, "RATCASTER"), Some(key(2)));
        assert_eq!(roster.find(PlatformName::Kick, "ratcaster"), None);
        assert!(roster.attends(&key(1)) && !roster.attends(&key(3)));
    }
}
