//! Mutes: while one is in force, the incidents that it matches send nothing.

use glob::Pattern;

use super::incident::Incident;
use crate::core::time::Timestamp;

/// A mute that someone has set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mute {
    /// Its number.
    pub id: i64,
    /// A glob, compared with the alert, the kind of cause, its subject, and the affected sources.
    pub pattern: String,
    /// When it ends.
    pub until: Timestamp,
    /// Why, for others.
    pub reason: String,
    /// When it was set.
    pub created_at: Timestamp,
}

impl Mute {
    /// Whether it silences an incident at `now`. One that affects several sources is silenced when all of them are.
    pub fn silences(&self, incident: &Incident, now: Timestamp) -> bool {
        if now >= self.until {
            return false;
        }
        let Ok(pattern) = Pattern::new(&self.pattern.to_lowercase()) else {
            return false;
        };
        let matches = |text: &str| pattern.matches(&text.to_lowercase());
        let mut sources = incident.sources.iter();
        matches(&incident.alert)
            || matches(incident.kind.as_str())
            || matches(&incident.subject)
            || (!incident.sources.is_empty()
                && sources.all(|(source, name)| {
                    matches(&source.to_string()) || matches(&format!("{}:{name}", source.platform()))
                }))
    }
}

/// Returns why a pattern cannot be used.
pub fn pattern_problem(pattern: &str) -> Option<String> {
    if pattern.trim().is_empty() {
        return Some("the pattern is empty; use * to mute everything".to_owned());
    }
    Pattern::new(pattern)
        .err()
        .map(|error| format!("the pattern is not a glob: {}", error.msg))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::trigger::TriggerKind;

    #[test]
    fn mutes_match_alerts_kinds_subjects_and_all_sources() {
        let now = Timestamp::from_millis(1_780_000_000_000);
        let mut incident = Incident::new("ops", &(TriggerKind::PlatformOutage, "twitch".to_owned()));
        incident
            .sources
            .insert("twitch:1".parse().unwrap(), "PixelMeadow".to_owned());
        incident
            .sources
            .insert("twitch:2".parse().unwrap(), String::new());
        for (pattern, silenced) in [
            ("ops", true),
            ("platform.*", true),
            ("twitch", true),
            ("twitch:*", true),
            ("twitch:1", false),
            ("kick:*", false),
            ("*", true),
        ] {
            let mute = |until| Mute {
                id: 1,
                pattern: pattern.to_owned(),
                until,
                reason: String::new(),
                created_at: now,
            };
            assert_eq!(
                mute(now.plus_secs(1)).silences(&incident, now),
                silenced,
                "{pattern}"
            );
            assert!(!mute(now).silences(&incident, now));
        }
        assert!(pattern_problem("[").is_some() && pattern_problem(" ").is_some());
    }
}
