//! What needs attention: one entry per cause, with the sources that it affects and the command that fixes it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::core::freshness::Field;
use crate::core::source::{PlatformName, SourceKey};
use crate::core::verdict::{AuthStatus, Status};
use crate::platforms::{Problem, Subject};
use crate::tokens::{APPLICATION_REJECTED, remedy};
use crate::view::cell::Tone;
use crate::view::envelope::{UnusableItem, UnusableKind};
use crate::view::health::Health;
use crate::view::humane;
use crate::view::source_row::SourceRow;

/// Refused sources that are listed one by one.
const SHOWN: usize = 5;

/// One cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attention {
    /// How bad it is.
    pub severity: Severity,
    /// The cause, and what it affects, in words.
    pub what: String,
    /// The command that fixes it, or shows more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The sources that it affects.
    #[schemars(with = "Vec<String>")]
    pub sources: Vec<SourceKey>,
}

/// How bad a cause is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It remains until a person acts.
    Person,
    /// It may recover by itself.
    Degraded,
}

impl Attention {
    /// The kind of a list of them.
    pub const KIND: &'static str = "AttentionList";

    fn new(severity: Severity, what: String, command: Option<&str>, rows: &[&SourceRow]) -> Self {
        Self {
            severity,
            what,
            command: command.map(str::to_owned),
            sources: rows.iter().map(|row| row.summary.key.clone()).collect(),
        }
    }

    pub fn tone(&self) -> Tone {
        match self.severity {
            Severity::Person => Tone::Bad,
            Severity::Degraded => Tone::Warn,
        }
    }
}

/// Numbers of sources, for a line above a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    pub sources: u64,
    pub live: u64,
    pub connected: u64,
    pub stale: u64,
    /// Sources that need a person.
    pub need: u64,
}

impl Totals {
    /// Counts `rows`. What is too old to rely on counts as stale and as nothing else.
    pub fn of(rows: &[SourceRow]) -> Self {
        let mut totals = Self {
            sources: rows.len() as u64,
            ..Self::default()
        };
        for row in rows {
            let is_connected =
                row.summary.status == Status::Connected && !row.freshness.is_stale(Field::Status);
            totals.live += u64::from(row.is_live());
            totals.connected += u64::from(is_connected);
            totals.stale += u64::from(row.is_stale());
            totals.need += u64::from(row.findings.needs_person());
        }
        totals
    }
}

/// Returns what needs attention about `rows`, worst first. `problems` are those of a check that was just made.
pub fn of(rows: &[SourceRow], unusable: &[UnusableItem], problems: &[Problem]) -> Vec<Attention> {
    let mut entries = unauthorized(rows);
    entries.extend(refused(rows));
    entries.extend(disconnected(rows));
    entries.extend(unproven(rows));
    let of_kind = |what| unusable.iter().filter(move |item| item.what == what).count() as u64;
    let (names, documents) = (of_kind(UnusableKind::Name), of_kind(UnusableKind::Document));
    let degraded = |what, command| Attention::new(Severity::Degraded, what, command, &[]);
    if names > 0 {
        let what = format!("{} without an id", humane::count(names, "configured name"));
        entries.push(degraded(what, Some(PROBE)));
    }
    if documents > 0 {
        let what = format!("{} cannot be used", humane::count(documents, "stored document"));
        entries.push(degraded(what, Some("bitbrat doctor")));
    }
    let unreported = problems.iter().filter(|problem| !is_shown(rows, problem));
    entries.extend(unreported.map(|problem| degraded(problem.text.clone(), None)));
    entries
}

const PROBE: &str = "bitbrat sources status --probe";

/// Returns the accounts without valid authorization, one entry each.
fn unauthorized(rows: &[SourceRow]) -> Vec<Attention> {
    let mut lost: BTreeMap<(PlatformName, String, Option<AuthStatus>, bool), Vec<&SourceRow>> =
        BTreeMap::new();
    for row in rows.iter().filter(|row| row.findings.auth) {
        let platform = row.summary.key.platform();
        let status = row.summary.auth_status;
        let identity = row.summary.identity.as_ref();
        let identity = identity.map_or_else(|| format!("{platform}/bot"), ToString::to_string);
        let rejected = row.summary.is_rejected();
        lost.entry((platform, identity, status, rejected))
            .or_default()
            .push(row);
    }
    let entry = |((_, identity, status, rejected), rows): ((_, String, _, bool), Vec<&SourceRow>)| {
        let client_rejected = rows.iter().any(|row| row.summary.is_client_rejected());
        let what = match status {
            Some(AuthStatus::Expired) if client_rejected => APPLICATION_REJECTED,
            _ if rejected => "is rejected; the token may be mistyped, expired or revoked",
            Some(AuthStatus::Revoked) => "was revoked; log in again",
            Some(AuthStatus::Expired) => "has expired and could not be renewed",
            Some(AuthStatus::Valid) | None => "is missing",
        };
        let needed_by = match rows.as_slice() {
            [one] => one.named(),
            many => humane::count(many.len() as u64, "source"),
        };
        let what = format!("the authorization of {identity} {what}; needed by {needed_by}");
        let command = remedy(&identity, client_rejected);
        Attention::new(Severity::Person, what, Some(&command), &rows)
    };
    lost.into_iter().map(entry).collect()
}

/// Returns the sources that their platform refuses, one by one; of many, the first few.
fn refused(rows: &[SourceRow]) -> Vec<Attention> {
    let is_refused = |row: &&SourceRow| row.findings.refused && row.findings.worst() == Health::Down;
    let refused: Vec<_> = rows.iter().filter(is_refused).collect();
    let entry = |row: &&SourceRow| {
        let failure = row.summary.failure.as_ref();
        let why = failure.map_or("the platform refuses", |error| error.message.as_str());
        let command = format!("bitbrat sources describe {}", row.summary.key);
        let what = format!("{}: {why}", row.named());
        Attention::new(Severity::Person, what, Some(&command), &[*row])
    };
    let mut entries: Vec<_> = refused.iter().take(SHOWN).map(entry).collect();
    if let Some(others) = refused.get(SHOWN..).filter(|others| !others.is_empty()) {
        let what = format!("and {} more like these", others.len());
        entries.push(Attention::new(Severity::Person, what, None, others));
    }
    entries
}

/// Returns the sources that are disconnected, one entry per platform.
fn disconnected(rows: &[SourceRow]) -> Vec<Attention> {
    let of_platform = |platform: PlatformName| {
        let away = rows.iter().filter(|row| {
            row.summary.key.platform() == platform
                && row.findings.disconnected
                && row.summary.failure.is_some()
        });
        let away: Vec<&SourceRow> = away.collect();
        let what = match away.as_slice() {
            [] => return None,
            [one] => format!("{} is disconnected", one.named()),
            many => format!(
                "{} of {platform} are disconnected",
                humane::count(many.len() as u64, "source")
            ),
        };
        let command = format!("bitbrat doctor {platform}");
        Some(Attention::new(Severity::Degraded, what, Some(&command), &away))
    };
    PlatformName::ALL.into_iter().filter_map(of_platform).collect()
}

/// Returns the sources of which too little is known.
fn unproven(rows: &[SourceRow]) -> Vec<Attention> {
    let is_never = |row: &&SourceRow| row.findings.unknown && row.summary.status_at.is_none();
    let never: Vec<&SourceRow> = rows.iter().filter(is_never).collect();
    let mut entries = Vec::new();
    if !never.is_empty() {
        let count = never.len() as u64;
        let verb = if count == 1 { "was" } else { "were" };
        let what = format!("{} {verb} not checked yet", humane::count(count, "source"));
        entries.push(Attention::new(Severity::Degraded, what, Some(PROBE), &never));
    }
    let stale: Vec<&SourceRow> = rows.iter().filter(|row| row.is_stale()).collect();
    if !stale.is_empty() {
        let what = format!(
            "the data of {} is stale, and marked with its age",
            humane::count(stale.len() as u64, "source")
        );
        entries.push(Attention::new(Severity::Degraded, what, Some(PROBE), &stale));
    }
    entries
}

/// Whether a problem is an authorization or an error that the rows show themselves.
fn is_shown(rows: &[SourceRow], problem: &Problem) -> bool {
    rows.iter().map(|row| &row.summary).any(|summary| {
        let mut unauthorized = summary.unauthorized.iter();
        let by_auth = match &problem.about {
            Subject::Account(identity) => unauthorized.any(|lost| lost.identity == *identity),
            Subject::Source(_) | Subject::Platform => false,
        };
        let failure = summary.failure.as_deref();
        by_auth || (failure.is_some() && failure == problem.error.as_ref())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::{gone, guild, old_knowledge, ratcaster, revoked};

    #[test]
    fn entries_name_their_sources_and_the_command() {
        let rows: Vec<_> = [ratcaster(), revoked(), gone(), old_knowledge(), guild()]
            .iter()
            .map(crate::view::tests::Story::row)
            .collect();
        let entries = of(&rows, &[], &[]);
        let shown: Vec<_> = entries
            .iter()
            .map(|entry| {
                let sources: Vec<_> = entry.sources.iter().map(SourceKey::to_string).collect();
                (sources.join(" "), entry.command.as_deref().unwrap_or_default())
            })
            .collect();
        let expected = [
            (
                "twitch:900207".to_owned(),
                "bitbrat auth login twitch --as twitch/broadcaster:900207",
            ),
            (
                "twitch:900209".to_owned(),
                "bitbrat sources describe twitch:900209",
            ),
            ("discord:987654321098765432".to_owned(), "bitbrat doctor discord"),
            ("kick:55501".to_owned(), PROBE),
        ];
        assert_eq!(shown, expected);
        let totals = Totals::of(&rows);
        assert_eq!((totals.sources, totals.live, totals.need), (5, 1, 2));
    }
}
