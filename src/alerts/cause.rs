//! Causes: the conditions of all sources, grouped so that one message reports what has one cause.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::condition::Condition;
use super::trigger::TriggerKind;
use crate::core::observation::Identity;
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;

/// The fewest sources that make an outage of a platform, unless all of it fails.
const OUTAGE_SOURCES: usize = 5;

/// How long before an account stops working this is reported.
const EXPIRING_MS: i64 = 24 * 3600 * 1000;

/// The conditions of one source, and what it is called.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Known {
    /// Its display name.
    pub name: String,
    /// The names by which it can be selected.
    pub names: Vec<String>,
    /// Its conditions.
    pub conditions: Vec<Condition>,
    /// Whether it was connected when we closed the connection, and nothing was proven since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed_while_up: bool,
}

/// The conditions of each source that has any.
pub type Conditions = BTreeMap<SourceKey, Known>;

/// The kind of a cause, and the account, platform, source or stream that it is about.
pub type CauseKey = (TriggerKind, String);

/// One cause and what it affects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The error code, or the account status.
    pub class: String,
    /// The cause in words.
    pub detail: String,
    /// Since when.
    pub since: Timestamp,
    /// The affected sources with their display names.
    pub sources: BTreeMap<SourceKey, String>,
    /// The kind of cause of which this is only an effect: an alert that reports that one does not report this one.
    pub effect_of: Option<CauseKey>,
}

/// A source and its display name.
type Member<'a> = (&'a SourceKey, &'a str);

/// What causes are derived from.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The conditions of the sources.
    pub conditions: &'a Conditions,
    /// Number of monitored sources of each platform.
    pub monitored: &'a BTreeMap<PlatformName, usize>,
    /// When accounts stop working.
    pub expiries: &'a BTreeMap<Identity, Timestamp>,
    /// Causes that are reported already. They stay causes of their own until they are over.
    pub reported: &'a BTreeSet<CauseKey>,
    /// The present moment.
    pub now: Timestamp,
}

/// Returns the causes of everything that is to be reported.
pub fn causes(facts: &Facts<'_>) -> BTreeMap<CauseKey, Cause> {
    let mut causes = BTreeMap::new();
    let mut down: BTreeMap<(PlatformName, &str), Vec<(Member<'_>, &Condition)>> = BTreeMap::new();
    for (source, known) in facts.conditions {
        let conditions = &known.conditions;
        let member = (source, known.name.as_str());
        for condition in conditions.iter().filter(|condition| !condition.first_sight) {
            if condition.kind != TriggerKind::SourceDown {
                add(
                    &mut causes,
                    (condition.kind, condition.subject.clone()),
                    member,
                    condition,
                    None,
                );
                continue;
            }
            let own = (TriggerKind::SourceDown, source.to_string());
            if condition.subject != own.1 && !facts.reported.contains(&own) {
                let cause = cause_of_effect(conditions, &condition.subject);
                add(
                    &mut causes,
                    (condition.kind, condition.subject.clone()),
                    member,
                    condition,
                    cause,
                );
                continue;
            }
            let class = (source.platform(), condition.class.as_str());
            down.entry(class).or_default().push((member, condition));
        }
    }
    for ((platform, class), members) in down {
        let outage = (TriggerKind::PlatformOutage, format!("{platform}/{class}"));
        let all = facts.monitored.get(&platform).copied().unwrap_or(0);
        let is_whole = members.len() > 1 && members.len() >= all;
        let is_outage = is_whole || (members.len() >= OUTAGE_SOURCES && members.len() * 2 >= all);
        let is_outage = is_outage || facts.reported.contains(&outage);
        for (member, condition) in members {
            let own = (TriggerKind::SourceDown, member.0.to_string());
            let key = if is_outage && !facts.reported.contains(&own) {
                outage.clone()
            } else {
                own
            };
            add(&mut causes, key, member, condition, None);
        }
    }
    let lost: BTreeSet<&str> = facts.conditions.values().flat_map(lost_accounts).collect();
    for (identity, until) in facts.expiries {
        let left = until.millis_since(facts.now);
        let key = (TriggerKind::AuthExpiring, identity.to_string());
        // An account that does not work any more has no expiry ahead. A warning that was sent stays until that time.
        let is_lost = lost.contains(key.1.as_str()) && !facts.reported.contains(&key);
        if (0..EXPIRING_MS).contains(&left) && !is_lost {
            let cause = Cause {
                class: String::new(),
                detail: format!("it works until {until}"),
                since: until.plus_millis(-EXPIRING_MS),
                sources: BTreeMap::new(),
                effect_of: None,
            };
            causes.insert(key, cause);
        }
    }
    causes
}

/// Returns the accounts that do not work, as far as a source needs them.
fn lost_accounts(known: &Known) -> impl Iterator<Item = &str> {
    let is_lost = |condition: &&Condition| {
        matches!(
            condition.kind,
            TriggerKind::AuthRevoked | TriggerKind::AuthExpired
        )
    };
    let lost = known.conditions.iter().filter(is_lost);
    lost.map(|condition| condition.subject.as_str())
}

/// Returns the condition of the account that a source is down for.
fn cause_of_effect(conditions: &[Condition], account: &str) -> Option<CauseKey> {
    let is_cause = |condition: &&Condition| {
        let is_auth = matches!(
            condition.kind,
            TriggerKind::AuthRevoked | TriggerKind::AuthExpired
        );
        is_auth && condition.subject == account
    };
    let cause = conditions.iter().find(is_cause)?;
    Some((cause.kind, cause.subject.clone()))
}

fn add(
    causes: &mut BTreeMap<CauseKey, Cause>,
    key: CauseKey,
    (source, name): Member<'_>,
    condition: &Condition,
    effect_of: Option<CauseKey>,
) {
    let cause = causes.entry(key).or_insert_with(|| Cause {
        class: condition.class.clone(),
        detail: condition.detail.clone(),
        since: condition.since,
        sources: BTreeMap::new(),
        effect_of,
    });
    cause.since = cause.since.min(condition.since);
    cause.sources.insert(source.clone(), name.to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(1_780_000_000_000).plus_secs(second)
    }

    fn condition(kind: TriggerKind, subject: &str, class: &str) -> Condition {
        Condition {
            kind,
            subject: subject.to_owned(),
            class: class.to_owned(),
            detail: String::new(),
            since: at(0),
            first_sight: false,
            lost: Vec::new(),
        }
    }

    fn known(conditions: Vec<Condition>) -> Known {
        Known {
            conditions,
            ..Known::default()
        }
    }

    fn down(numbers: std::ops::Range<u32>, class: &str) -> Conditions {
        let one = |number: u32| {
            let key = format!("twitch:{number}");
            let conditions = vec![condition(TriggerKind::SourceDown, &key, class)];
            (key.parse().unwrap(), known(conditions))
        };
        numbers.map(one).collect()
    }

    fn of(conditions: &Conditions, monitored: usize, reported: &[CauseKey]) -> Vec<(CauseKey, usize)> {
        let facts = Facts {
            conditions,
            monitored: &[(PlatformName::Twitch, monitored)].into(),
            expiries: &BTreeMap::new(),
            reported: &reported.iter().cloned().collect(),
            now: at(10),
        };
        let causes = causes(&facts).into_iter();
        causes.map(|(key, cause)| (key, cause.sources.len())).collect()
    }

    #[test]
    fn many_sources_with_one_error_are_one_outage() {
        let outage = (TriggerKind::PlatformOutage, "twitch/http.503".to_owned());
        assert_eq!(of(&down(1..501, "http.503"), 1000, &[]), [(outage.clone(), 500)]);
        assert_eq!(of(&down(1..500, "http.503"), 1000, &[]).len(), 499);
        assert_eq!(of(&down(1..5, "http.503"), 8, &[]).len(), 4);
        // All of a small platform fails, and one source is none.
        assert_eq!(of(&down(1..4, "http.503"), 3, &[]), [(outage.clone(), 3)]);
        let single = (TriggerKind::SourceDown, "twitch:1".to_owned());
        assert_eq!(of(&down(1..2, "http.503"), 1, &[]), [(single, 1)]);
        // As it heals, the rest does not become a cause each.
        let rest = of(&down(1..3, "http.503"), 1000, std::slice::from_ref(&outage));
        assert_eq!(rest, [(outage.clone(), 2)]);
        // What was reported before the outage stays open.
        let own = (TriggerKind::SourceDown, "twitch:1".to_owned());
        let all = of(&down(1..501, "http.503"), 1000, std::slice::from_ref(&own));
        assert_eq!(all, [(own, 1), (outage, 499)]);
    }

    #[test]
    fn sources_of_one_revoked_account_are_one_cause() {
        let mut conditions = Conditions::new();
        for number in 1..=9 {
            let of_account = [TriggerKind::AuthRevoked, TriggerKind::SourceDown]
                .map(|kind| condition(kind, "twitch/bot", "REVOKED"));
            conditions.insert(
                format!("twitch:{number}").parse().unwrap(),
                known(of_account.into()),
            );
        }
        let account = || "twitch/bot".to_owned();
        let expected = [
            ((TriggerKind::AuthRevoked, account()), 9),
            ((TriggerKind::SourceDown, account()), 9),
        ];
        assert_eq!(of(&conditions, 9, &[]), expected);
    }

    #[test]
    fn account_that_is_lost_does_not_expire_as_well() {
        let revoked = condition(TriggerKind::AuthRevoked, "twitch/bot", "REVOKED");
        let conditions: Conditions = [("twitch:1".parse().unwrap(), known(vec![revoked]))].into();
        let expiring = (TriggerKind::AuthExpiring, "twitch/bot".to_owned());
        for (reported, is_cause) in [(None, false), (Some(expiring.clone()), true)] {
            let facts = Facts {
                conditions: &conditions,
                monitored: &[(PlatformName::Twitch, 1)].into(),
                expiries: &[(Identity::named("twitch/bot"), at(3600))].into(),
                reported: &reported.into_iter().collect(),
                now: at(10),
            };
            assert_eq!(causes(&facts).contains_key(&expiring), is_cause);
        }
    }

    #[test]
    fn first_sight_is_no_cause() {
        let mut conditions = down(1..51, "http.503");
        for condition in conditions.values_mut().flat_map(|known| &mut known.conditions) {
            condition.first_sight = true;
        }
        assert!(of(&conditions, 50, &[]).is_empty());
    }
}
