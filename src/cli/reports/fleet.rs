//! The members of a fleet: `fleet status`.

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::output::view::{Cell, Column, Tone, View as Shown};
use crate::cli::output::{Note, Report, humane};
use crate::core::fleet::{LeaseSeen, View};
use crate::core::freshness::age_ms;
use crate::core::time::Timestamp;

#[derive(Debug, Clone)]
pub struct FleetReport {
    pub as_of: Timestamp,
    pub fleet: String,
    /// Where the leases are.
    pub engine: String,
    /// Epoch of the view; `None` without one.
    pub epoch: Option<u64>,
    pub members: Vec<MemberRow>,
}

/// One member.
#[derive(Debug, Clone)]
pub struct MemberRow {
    seen: LeaseSeen,
    /// Number of shards that the view assigns to it.
    assigned: usize,
    /// Whether the view contains it.
    joined: bool,
    /// Whether it has acknowledged the view.
    acknowledged: bool,
}

impl MemberRow {
    /// Compares a live lease with the view.
    pub fn of(seen: LeaseSeen, view: Option<&View>) -> Self {
        let joined = view.is_some_and(|view| {
            let mut members = view.members.iter();
            members.any(|member| member.id == seen.id && member.incarnation == seen.incarnation)
        });
        let assigned = view
            .filter(|_| joined)
            .map_or(0, |view| view.shards_of(&seen.id).len());
        let acknowledged = view.is_some_and(|view| seen.note.acked >= view.epoch);
        Self {
            seen,
            assigned,
            joined,
            acknowledged,
        }
    }

    fn state(&self) -> MemberState {
        match () {
            () if self.seen.note.draining => MemberState::Draining,
            () if !self.joined => MemberState::Joining,
            () if !self.acknowledged || self.assigned as u64 != self.seen.note.shards => {
                MemberState::Changing
            }
            () => MemberState::Active,
        }
    }

    fn started_at(&self) -> Option<Timestamp> {
        self.seen.note.started_at.parse().ok()
    }
}

/// What a member does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// It acts on everything that is assigned to it.
    Active,
    /// Its share is changing.
    Changing,
    /// It is not in the view yet.
    Joining,
    /// It is about to leave.
    Draining,
}

impl MemberState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Changing => "changing",
            Self::Joining => "joining",
            Self::Draining => "draining",
        }
    }
}

/// One member as JSON shows it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetMemberItem {
    /// Its name: that of the daemon's instance.
    pub member: String,
    /// `active`, `changing`, `joining` or `draining`.
    pub state: MemberState,
    /// Number of shards that it acts on, of 1,024.
    pub shards: u64,
    /// Number of shards that are assigned to it.
    pub assigned: u64,
    /// Number of sources that it monitors.
    pub sources: u64,
    /// The platforms whose push connections it owns.
    pub accounts: Vec<String>,
    /// Number of the acquisition of its lease.
    pub fence: u64,
    /// The newest epoch that it has acknowledged.
    pub epoch: u64,
    /// When the daemon started; absent where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub started_at: Option<Timestamp>,
    /// The version of its program.
    pub version: String,
}

impl FleetMemberItem {
    fn of(row: &MemberRow) -> Self {
        let note = &row.seen.note;
        Self {
            member: row.seen.id.clone(),
            state: row.state(),
            shards: note.shards,
            assigned: row.assigned as u64,
            sources: note.sources,
            accounts: note.accounts.clone(),
            fence: row.seen.fence,
            epoch: note.acked,
            started_at: row.started_at(),
            version: note.version.clone(),
        }
    }
}

impl Report for FleetReport {
    type Item = FleetMemberItem;
    const KIND: &'static str = "FleetMemberList";
    const CSV: &'static [&'static str] = &[
        "member",
        "state",
        "shards",
        "assigned",
        "sources",
        "accounts",
        "fence",
        "epoch",
        "startedAt",
        "version",
    ];

    fn as_of(&self) -> Timestamp {
        self.as_of
    }

    fn items(&self) -> Vec<FleetMemberItem> {
        self.members.iter().map(FleetMemberItem::of).collect()
    }

    fn names(&self) -> Vec<String> {
        self.members.iter().map(|row| row.seen.id.clone()).collect()
    }

    fn view(&self) -> Shown {
        if self.members.is_empty() {
            return Shown::default();
        }
        let rows = self.members.iter().map(|row| {
            let note = &row.seen.note;
            let tone = match row.state() {
                MemberState::Active => Tone::Plain,
                _ => Tone::Warn,
            };
            let up = row.started_at().map(|at| humane::span(age_ms(at, self.as_of)));
            vec![
                Cell::new(row.seen.id.clone()).tone(Tone::Strong),
                Cell::label(row.state().as_str()).tone(tone),
                Cell::new(humane::thousands(note.shards)),
                Cell::new(humane::thousands(note.sources)),
                Cell::maybe(
                    Some(note.accounts.join(", "))
                        .filter(|text| !text.is_empty())
                        .as_deref(),
                ),
                Cell::maybe(up.as_deref()).tone(Tone::Dim),
            ]
        });
        let columns = vec![
            Column::kept("MEMBER").elastic(12),
            Column::kept("STATE"),
            Column::kept("SHARDS").right(),
            Column::kept("SOURCES").right(),
            Column::ranked("ACCOUNTS", 1),
            Column::ranked("UP", 2).right(),
        ];
        Shown::table(columns, rows)
    }

    fn notes(&self) -> Vec<Note> {
        let place = format!("fleet `{}` at {}", self.fleet, self.engine);
        if self.members.is_empty() {
            let what = format!("no member of {place} is alive");
            return vec![Note::hint(Tone::Dim, what, None)];
        }
        let count = humane::count(self.members.len() as u64, "member");
        let epoch = self
            .epoch
            .map_or_else(|| "no view yet".to_owned(), |epoch| format!("epoch {epoch}"));
        let parts = [format!("{count} of {place}"), epoch];
        vec![Note::Summary(parts.map(Cell::new).to_vec())]
    }
}
