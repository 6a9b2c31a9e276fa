//! The result of one probe: `probe`.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::cli::output::view::{Cell, Column, Tone, View};
use crate::cli::output::{Note, Report, humane};
use crate::cli::reports::columns::{RowCells, SourceColumn};
use crate::cli::run_probe::PlatformResult;
use crate::core::facet::Facet;
use crate::core::observation::{Fact, LinkState, Observation};
use crate::core::time::Timestamp;
use crate::core::transition::Transition;
use crate::platforms::{Probe, ProbeSet};
use crate::view::cells;
use crate::view::item::SourceItem;
use crate::view::source_row::SourceRow;

/// One run of `probe`.
#[derive(Debug, Clone)]
pub struct ProbeReport {
    pub as_of: Timestamp,
    pub probes: ProbeSet,
    pub rows: Vec<ProbedRow>,
    pub platforms: Vec<PlatformResult>,
    pub problems: Vec<String>,
    /// Where the result was saved; `None` where that is not shown.
    pub saved_in: Option<String>,
    /// Whether nothing was written.
    pub dry_run: bool,
}

#[derive(Debug, Clone)]
pub struct ProbedRow {
    /// Its status after the probe.
    pub row: SourceRow,
    /// What was observed this time.
    pub seen: Vec<Observation>,
    /// What that changed.
    pub transitions: Vec<Transition>,
}

/// One source that was probed: its status now, what was observed, and what that changed.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProbeItem {
    #[serde(flatten)]
    source: SourceItem,
    /// What was seen this time, each with its time, its origin (`by`) and a `fact`.
    pub observations: Vec<Value>,
    /// What that changed; empty with `--dry-run`.
    pub transitions: Vec<Transition>,
}

impl Report for ProbeReport {
    type Item = ProbeItem;
    const KIND: &'static str = "ProbeList";
    const CSV: &'static [&'static str] = &[
        "key",
        "displayName",
        "status",
        "streamStatus",
        "viewerCount",
        "authStatus",
        "permissions",
        "latencyMs",
        "health",
    ];

    fn as_of(&self) -> Timestamp {
        self.as_of
    }

    fn items(&self) -> Vec<ProbeItem> {
        let item = |probed: &ProbedRow| ProbeItem {
            source: SourceItem::from(&probed.row),
            observations: probed
                .seen
                .iter()
                .map(|seen| serde_json::to_value(seen).unwrap_or_default())
                .collect(),
            transitions: probed.transitions.clone(),
        };
        self.rows.iter().map(item).collect()
    }

    fn names(&self) -> Vec<String> {
        self.rows
            .iter()
            .map(|probed| probed.row.summary.key.to_string())
            .collect()
    }

    fn view(&self) -> View {
        if self.rows.is_empty() {
            return View::default();
        }
        let shown: Vec<SourceColumn> = [
            (None, SourceColumn::Source),
            (None, SourceColumn::Name),
            (Some(Probe::Connection), SourceColumn::Status),
            (Some(Probe::Auth), SourceColumn::Auth),
            (Some(Probe::Stream), SourceColumn::Stream),
            (Some(Probe::Viewers), SourceColumn::Viewers),
            (Some(Probe::Permissions), SourceColumn::Can),
        ]
        .into_iter()
        .filter(|(probe, _)| probe.is_none_or(|probe| self.probes.contains(&probe)))
        .map(|(_, column)| column)
        .collect();
        let mut columns: Vec<_> = shown.iter().map(|column| column.layout()).collect();
        columns.push(Column::ranked("CHANGED", 3).elastic(12));
        columns.push(Column::ranked("SAW", 4).elastic(24));
        let rows = self.rows.iter().map(|probed| {
            let row = RowCells::new(&probed.row, self.as_of);
            let mut cells: Vec<_> = shown.iter().map(|column| row.cell(*column)).collect();
            cells.push(changed(&probed.transitions));
            cells.push(Cell::maybe(Some(saw(&probed.seen))).tone(Tone::Dim));
            cells
        });
        View::table(columns, rows)
    }

    fn notes(&self) -> Vec<Note> {
        if self.rows.is_empty() && self.problems.is_empty() {
            return vec![Note::hint(
                Tone::Warn,
                "no sources are configured, so there is nothing to check",
                Some("bitbrat init"),
            )];
        }
        let mut parts: Vec<Cell> = self
            .platforms
            .iter()
            .map(|style| {
                let sources = humane::count(style.sources as u64, "source");
                let calls = humane::count(style.calls as u64, "call");
                Cell::new(format!(
                    "{}: {sources}, {calls}, {} ms",
                    style.platform,
                    humane::thousands(style.millis)
                ))
            })
            .collect();
        if self.dry_run {
            parts.push(Cell::new("nothing was written").tone(Tone::Warn));
        } else if let Some(place) = &self.saved_in {
            parts.push(Cell::new(format!("kept in {place}")).tone(Tone::Dim));
        }
        let mut notes = vec![Note::Summary(parts)];
        let next = self.next_step();
        let last = self.problems.len().saturating_sub(1);
        notes.extend(self.problems.iter().enumerate().map(|(at, problem)| {
            let next = next.as_deref().filter(|_| at == last);
            Note::hint(Tone::Warn, problem, next)
        }));
        notes
    }
}

impl ProbeReport {
    /// Returns the command that helps to diagnose the problems of a platform.
    fn next_step(&self) -> Option<String> {
        let troubled = self.platforms.iter().filter(|style| !style.problems.is_empty());
        let names: Vec<_> = troubled.map(|style| style.platform.as_str()).collect();
        (!names.is_empty()).then(|| format!("bitbrat doctor {}", names.join(" ")))
    }
}

/// Names a token that was never proven to be valid as the column of the authorization does; documents have no value for it.
fn with_name_for_people(transition: &Transition) -> Transition {
    let mut named = transition.clone();
    if named.rule == "auth.rejected" {
        named.to = Some("REJECTED".to_owned());
    }
    named
}

/// Lists the new states, the most important first; a single change is shown with its previous state.
fn changed(transitions: &[Transition]) -> Cell {
    let named: Vec<Transition> = transitions.iter().map(with_name_for_people).collect();
    let transitions = named.as_slice();
    let mut changes: Vec<&Transition> = transitions
        .iter()
        .filter(|change| change.facet != Facet::Permissions)
        .collect();
    changes.sort_by_key(|change| change.facet);
    // Of several changes of one verdict within one probe only the last one matters.
    changes.dedup_by(|later, earlier| {
        let same = later.facet == earlier.facet;
        if same {
            *earlier = later;
        }
        same
    });
    match changes.as_slice() {
        [] => transitions.last().map_or_else(Cell::none, cells::change),
        [one] => cells::change(one),
        many => {
            let names: Vec<_> = many
                .iter()
                .map(|change| change.to.as_deref().unwrap_or("unknown"))
                .collect();
            Cell::new(names.join(", "))
        }
    }
}

/// Summarizes the observations; what every probe observes is left out.
fn saw(seen: &[Observation]) -> String {
    let mut words: Vec<String> = Vec::new();
    for observation in seen {
        let label = match &*observation.fact {
            Fact::Connection { transport, state } => match state {
                LinkState::Up => format!("{transport} up"),
                LinkState::Answered => format!("{transport} answered"),
                LinkState::Closed => format!("{transport} closed"),
                LinkState::Down { error } => format!("{transport} down: {}", error.message),
                LinkState::Refused { error } => format!("{transport} refused: {}", error.message),
            },
            Fact::Auth { identity, check } => format!("{identity} {}", check.state()),
            Fact::StreamPush { live: true, .. } => "stream started".into(),
            Fact::StreamPush { live: false, .. } => "stream ended".into(),
            Fact::StreamSeen { stream_id, .. } => format!("stream {stream_id}"),
            Fact::StreamAbsent => "no stream".into(),
            Fact::ViewersHidden { .. } => "viewers hidden".to_owned(),
            Fact::Viewers { count, .. } => format!("{} viewers", humane::thousands(*count)),
            Fact::Permissions { method, grants } => {
                format!(
                    "{method}: {} yes, {} no",
                    grants.granted.len(),
                    grants.denied.len()
                )
            }
            Fact::NoSuchSource { error } | Fact::Unanswered { error, .. } | Fact::Problem { error } => {
                error.message.clone()
            }
            Fact::Exists | Fact::Latency { .. } | Fact::Profile { .. } | Fact::Counters { .. } => continue,
        };
        if !words.contains(&label) {
            words.push(label);
        }
    }
    words.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::observation::{AuthCheck, AuthResult, Identity};
    use crate::core::source::SourceKey;
    use crate::core::time::Timestamp;

    #[test]
    fn rejected_token_is_not_called_expired() {
        let source: SourceKey = "twitch:1".parse().unwrap();
        let check = AuthCheck {
            rejected: true,
            ..AuthCheck::of(AuthResult::Expired)
        };
        let fact = Fact::Auth {
            identity: Identity::named("twitch/bot"),
            check: check.into(),
        };
        let seen = [Observation::new(&source, Timestamp::EPOCH, "test", fact)];
        assert_eq!(saw(&seen), "twitch/bot REJECTED");
        let transition = Transition {
            facet: Facet::Auth,
            from: None,
            to: Some("EXPIRED".to_owned()),
            at: Timestamp::EPOCH,
            rule: "auth.rejected".to_owned(),
            stream_id: None,
            initial: true,
        };
        assert_eq!(with_name_for_people(&transition).to.as_deref(), Some("REJECTED"));
    }
}
