//! Known sources and the logins of their channels.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::RwLock;

use crate::core::evidence::Knowledge;
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;

/// Sources about which evidence was received.
#[derive(Debug, Default)]
pub struct Channels(RwLock<SourceState>);

#[derive(Debug, Default)]
struct SourceState {
    sources: BTreeSet<SourceKey>,
    logins: BTreeMap<(PlatformName, String), (Timestamp, SourceKey)>,
}

impl Channels {
    /// Records a source and its login. A login that changed owners belongs to the source that reported it last.
    pub fn update(&self, source: &SourceKey, knowledge: &Knowledge) {
        let mut known = self.0.write();
        known.sources.insert(source.clone());
        if let Some(login) = knowledge.evidence.profile.get("login") {
            let name = (source.platform(), login.value.to_lowercase());
            let newer = known.logins.get(&name).is_none_or(|(at, _)| login.at >= *at);
            if newer {
                known.logins.insert(name, (login.at, source.clone()));
            }
        }
    }

    pub fn find(&self, platform: PlatformName, login: &str) -> Option<SourceKey> {
        let known = self.0.read();
        let found = known.logins.get(&(platform, login.to_lowercase()));
        found.map(|(_, source)| source.clone())
    }

    /// Returns whether this source is known.
    pub fn is_monitored(&self, source: &SourceKey) -> bool {
        let known = self.0.read();
        known.sources.contains(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::join::Newest;

    #[test]
    fn a_login_that_changed_hands_leads_to_its_new_owner() {
        let channels = Channels::default();
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
        channels.update(&key(1), &named(10, "Ratcaster"));
        channels.update(&key(2), &named(20, "ratcaster"));
        channels.update(&key(1), &named(5, "ratcaster"));
        assert_eq!(channels.find(PlatformName::Twitch, "RATCASTER"), Some(key(2)));
        assert_eq!(channels.find(PlatformName::Kick, "ratcaster"), None);
        assert!(channels.is_monitored(&key(1)) && !channels.is_monitored(&key(3)));
    }
}
