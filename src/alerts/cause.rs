//! Causes: the conditions of all sources, grouped so that one message reports what has one cause.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::condition::Condition;
use super::trigger::TriggerKind;
use crate::core::observation::Identity;
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;

/// The fewest sources that begin an outage of a platform, unless all of it fails.
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
    /// The stream, of a cause that is one: its source and id.
    pub stream: Option<String>,
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
    let mut down: BTreeMap<PlatformName, Vec<(Member<'_>, &Condition)>> = BTreeMap::new();
    let mut failing: BTreeMap<PlatformName, usize> = BTreeMap::new();
    for (source, known) in facts.conditions {
        let conditions = &known.conditions;
        let member = (source, known.name.as_str());
        if conditions
            .iter()
            .any(|condition| condition.kind == TriggerKind::SourceDown)
        {
            *failing.entry(source.platform()).or_default() += 1;
        }
        for condition in conditions.iter().filter(|condition| !condition.first_sight) {
            let key = match condition.kind {
                // A stream that begins and ends again and again has another id each time.
                TriggerKind::StreamOnline | TriggerKind::StreamOffline => {
                    (condition.kind, source.to_string())
                }
                kind => (kind, condition.subject.clone()),
            };
            if condition.kind != TriggerKind::SourceDown {
                add(&mut causes, key, member, condition, None);
                continue;
            }
            let own = (TriggerKind::SourceDown, source.to_string());
            if condition.subject != own.1 && !facts.reported.contains(&own) {
                let cause = cause_of_effect(conditions, &condition.subject);
                add(&mut causes, key, member, condition, cause);
                continue;
            }
            down.entry(source.platform())
                .or_default()
                .push((member, condition));
        }
    }
    for (platform, members) in down {
        let failing = failing.get(&platform).copied().unwrap_or(0);
        add_down(&mut causes, facts, platform, &members, failing);
    }
    add_expiring(&mut causes, facts);
    causes
}

/// Adds the causes of the sources of a platform that are down for no account: an outage, or each one's own. `failing` is the number
/// of all that are down.
fn add_down(
    causes: &mut BTreeMap<CauseKey, Cause>,
    facts: &Facts<'_>,
    platform: PlatformName,
    members: &[(Member<'_>, &Condition)],
    failing: usize,
) {
    let mut classes: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, condition) in members {
        *classes.entry(condition.class.as_str()).or_default() += 1;
    }
    let most = classes.iter().max_by_key(|(_, count)| **count);
    let (class, count) = most.map_or(("", 0), |(class, count)| (*class, *count));
    let all = facts.monitored.get(&platform).copied().unwrap_or(0);
    let outage = (TriggerKind::PlatformOutage, platform.to_string());
    let is_outage = if facts.reported.contains(&outage) {
        // The platform answers again once most of its sources are connected, whatever the others fail with.
        failing * 2 >= all
    } else {
        (count > 1 && count >= all) || (count >= OUTAGE_SOURCES && count * 2 >= all)
    };
    let rest = (TriggerKind::SourceDown, platform.to_string());
    for (member, condition) in members {
        let own = (TriggerKind::SourceDown, member.0.to_string());
        let is_own = facts.reported.contains(&own);
        let is_part = is_outage && (condition.class == class || facts.reported.contains(&outage));
        let key = match () {
            () if is_own => own,
            () if is_part && !(condition.of_outage && facts.reported.contains(&rest)) => outage.clone(),
            // What an outage has left is one cause, and not one for each source.
            () if condition.of_outage => rest.clone(),
            () => own,
        };
        let cause = add(causes, key, *member, condition, None);
        if condition.class == class {
            // What most of them fail with now.
            cause.class.clone_from(&condition.class);
            cause.detail.clone_from(&condition.detail);
        }
    }
}

/// Adds the accounts that stop working soon.
fn add_expiring(causes: &mut BTreeMap<CauseKey, Cause>, facts: &Facts<'_>) {
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
                stream: None,
                since: until.plus_millis(-EXPIRING_MS),
                sources: BTreeMap::new(),
                effect_of: None,
            };
            causes.insert(key, cause);
        }
    }
}

/// Marks the conditions that a reported outage explains: what is left of them once it is over is reported together.
pub fn mark_outages(
    conditions: &mut Conditions,
    causes: &BTreeMap<CauseKey, Cause>,
    reported: &BTreeSet<CauseKey>,
) {
    let is_outage = |key: &CauseKey| key.0 == TriggerKind::PlatformOutage && reported.contains(key);
    for (_, cause) in causes.iter().filter(|(key, _)| is_outage(key)) {
        for source in cause.sources.keys() {
            let known = conditions
                .get_mut(source)
                .into_iter()
                .flat_map(|known| &mut known.conditions);
            for condition in known.filter(|condition| condition.kind == TriggerKind::SourceDown) {
                condition.of_outage = true;
            }
        }
    }
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

fn add<'a>(
    causes: &'a mut BTreeMap<CauseKey, Cause>,
    key: CauseKey,
    (source, name): Member<'_>,
    condition: &Condition,
    effect_of: Option<CauseKey>,
) -> &'a mut Cause {
    let is_stream = matches!(
        condition.kind,
        TriggerKind::StreamOnline | TriggerKind::StreamOffline
    );
    let cause = causes.entry(key).or_insert_with(|| Cause {
        class: condition.class.clone(),
        detail: condition.detail.clone(),
        stream: is_stream.then(|| condition.subject.clone()),
        since: condition.since,
        sources: BTreeMap::new(),
        effect_of,
    });
    cause.since = cause.since.min(condition.since);
    cause.sources.insert(source.clone(), name.to_owned());
    cause
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
            of_outage: false,
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

    fn outage() -> CauseKey {
        (TriggerKind::PlatformOutage, "twitch".to_owned())
    }

    #[test]
    fn many_sources_with_one_error_are_one_outage() {
        assert_eq!(of(&down(1..501, "http.503"), 1000, &[]), [(outage(), 500)]);
        assert_eq!(of(&down(1..500, "http.503"), 1000, &[]).len(), 499);
        assert_eq!(of(&down(1..5, "http.503"), 8, &[]).len(), 4);
        // All of a small platform fails, and one source is none.
        assert_eq!(of(&down(1..4, "http.503"), 3, &[]), [(outage(), 3)]);
        let single = (TriggerKind::SourceDown, "twitch:1".to_owned());
        assert_eq!(of(&down(1..2, "http.503"), 1, &[]), [(single, 1)]);
        // What was reported before the outage stays open.
        let own = (TriggerKind::SourceDown, "twitch:1".to_owned());
        let all = of(&down(1..501, "http.503"), 1000, std::slice::from_ref(&own));
        assert_eq!(all, [(own, 1), (outage(), 499)]);
    }

    #[test]
    fn outage_lasts_until_most_sources_are_connected() {
        let reported = [outage()];
        let mut conditions = down(1..501, "http.503");
        // Another error does not end it, and is the one that is shown once most of them have it.
        for condition in conditions
            .values_mut()
            .take(300)
            .flat_map(|known| &mut known.conditions)
        {
            "network.timeout".clone_into(&mut condition.class);
            "no answer".clone_into(&mut condition.detail);
        }
        let set = reported.iter().cloned().collect();
        let facts = Facts {
            conditions: &conditions,
            monitored: &[(PlatformName::Twitch, 1000)].into(),
            expiries: &BTreeMap::new(),
            reported: &set,
            now: at(10),
        };
        let found = causes(&facts);
        let shown = |cause: &Cause| (cause.class.clone(), cause.detail.clone(), cause.sources.len());
        let expected = ("network.timeout".to_owned(), "no answer".to_owned(), 500);
        assert_eq!(found.values().map(shown).collect::<Vec<_>>(), [expected]);
        mark_outages(&mut conditions, &found, &set);
        // One more is connected: what is left is one cause, not 499.
        conditions.pop_first();
        let rest = (TriggerKind::SourceDown, "twitch".to_owned());
        assert_eq!(of(&conditions, 1000, &reported), [(rest.clone(), 499)]);
        assert_eq!(of(&conditions, 1000, &[]), [(rest, 499)]);
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
