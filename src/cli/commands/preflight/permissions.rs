//! What the bot may do at the configured sources of a platform, by one probe of all of them.

use std::collections::BTreeMap;
use std::slice;

use crate::cli::context::Context;
use crate::cli::output::humane;
use crate::cli::reports::doctor::{Check, Outcome};
use crate::cli::run_probe;
use crate::core::evidence::Knowledge;
use crate::core::observation::{Fact, Observation};
use crate::core::permission::{Abilities, Ability};
use crate::core::source::{PlatformName, SourceKey};
use crate::platforms::{Probe, ProbeSet};

const NAME: &str = "permissions";
/// How many sources with the same result are named.
const NAMED: usize = 5;

/// What a probe showed about one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    /// There is no such source, or the bot is not in it.
    Gone,
    /// There was no answer about it.
    Unanswered,
    /// The bot may do nothing there.
    Nothing,
    /// What the bot may do cannot be read.
    Unclear,
    /// The bot may do something.
    Something,
}

pub(super) async fn check(cx: &Context, platform: PlatformName) -> Vec<Check> {
    let area = platform.as_str();
    let mut keys = cx.app.sources.all().keys();
    keys.retain(|key| key.platform() == platform);
    if keys.is_empty() {
        return Vec::new();
    }
    let adapter = match cx.app.platforms.get(platform).await {
        Ok(adapter) => adapter,
        Err(failure) => return vec![Check::of_failure(area, NAME, Outcome::Fail, &failure)],
    };
    let probes = ProbeSet::from([Probe::Connection, Probe::Auth, Probe::Permissions]);
    let seen = run_probe::run_probe(cx, slice::from_ref(&adapter), &probes, &keys).await;
    let mut by_source: BTreeMap<&SourceKey, Vec<&Observation>> = BTreeMap::new();
    for observation in &seen.observations {
        by_source
            .entry(&observation.source)
            .or_default()
            .push(observation);
    }
    let mut results: BTreeMap<Found, Vec<&SourceKey>> = BTreeMap::new();
    for key in &keys {
        let observations = by_source.get(key).map_or(&[][..], Vec::as_slice);
        results
            .entry(found(platform, observations))
            .or_default()
            .push(key);
    }
    results
        .iter()
        .map(|(found, keys)| describe(area, *found, keys))
        .collect()
}

fn found(platform: PlatformName, observations: &[&Observation]) -> Found {
    let has = |test: &dyn Fn(&Fact) -> bool| observations.iter().any(|seen| test(&seen.fact));
    if has(&|fact| matches!(fact, Fact::NoSuchSource { .. })) {
        return Found::Gone;
    }
    if !has(&|fact| matches!(fact, Fact::Exists | Fact::Permissions { .. })) {
        return Found::Unanswered;
    }
    let known = Knowledge::of(observations.iter().copied());
    let abilities = Abilities::of(platform, &known.evidence);
    let yes: Vec<Ability> = abilities.yes().collect();
    match yes.as_slice() {
        [] if abilities.is_unknown() => Found::Unclear,
        [] => Found::Nothing,
        _ => Found::Something,
    }
}

fn describe(area: &str, found: Found, keys: &[&SourceKey]) -> Check {
    let first = keys.first().map(ToString::to_string).unwrap_or_default();
    let mut names: Vec<String> = keys.iter().take(NAMED).map(ToString::to_string).collect();
    if keys.len() > NAMED {
        names.push(format!("and {} more", keys.len() - NAMED));
    }
    let names = names.join(", ");
    let check = |outcome, detail: String| Check::new(area, NAME, outcome, detail);
    match found {
        Found::Gone => check(
            Outcome::Fail,
            format!("does not exist, or the bot is not in it: {names}"),
        )
        .next(format!("bitbrat describe {first}")),
        Found::Unanswered => {
            check(Outcome::Skipped, format!("no answer about {names}")).next(format!("bitbrat doctor {area}"))
        }
        Found::Nothing => check(Outcome::Warn, format!("the bot may do nothing in {names}"))
            .next(format!("bitbrat describe {first}")),
        Found::Unclear => check(
            Outcome::Warn,
            format!("what the bot may do is not known in {names}"),
        )
        .next(format!("bitbrat describe {first}")),
        Found::Something => {
            let count = humane::count(keys.len() as u64, "source");
            check(Outcome::Ok, format!("the bot may act in {count}"))
        }
    }
}
