//! Many sources at a glance: `sources status` and `sources list`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::health::{Findings, Health};
use crate::cli::output::machine::{UnusableItem, UnusableKind};
use crate::cli::output::view::{Block, Cell, Column, Glyph, Grid, Tone, View};
use crate::cli::output::{Note, Report, humane};
use crate::cli::reports::cells;
use crate::core::document::SourceRecord;
use crate::core::freshness::{Freshness, Intervals};
use crate::core::source::PlatformName;
use crate::core::stream::StreamStatus;
use crate::core::summary::SourceSummary;
use crate::core::time::Timestamp;
use crate::core::verdict::{AuthStatus, Status};

/// The sources and what is known of each.
#[derive(Debug, Clone)]
pub struct SourcesReport {
    /// When this was true.
    pub as_of: Timestamp,
    /// The sources, sorted by key.
    pub rows: Vec<SourceRow>,
    /// Stored documents and configured names that cannot be used.
    pub unusable: Vec<UnusableItem>,
    /// What a look found to be wrong beside the sources.
    pub problems: Vec<String>,
    /// What the table shows.
    pub show: Show,
}

/// What a table of sources shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// What is known of each.
    Status,
    /// What each is and where it is configured.
    List,
}

/// One source.
#[derive(Debug, Clone)]
pub struct SourceRow {
    /// What is known.
    pub summary: Arc<SourceSummary>,
    /// How old that is.
    pub freshness: Freshness,
    /// Everything that is wrong with it.
    pub findings: Findings,
    /// Where it is configured (`bitbrat.toml`, an environment variable); `None` when it is only stored.
    pub configured: Option<String>,
    /// Whether the store has a document of it.
    pub stored: bool,
}

impl SourceRow {
    /// Judges `summary` at `now`.
    pub fn new(summary: impl Into<Arc<SourceSummary>>, intervals: &Intervals, now: Timestamp) -> Self {
        let summary = summary.into();
        let freshness = Freshness::of(&summary, intervals, now);
        Self {
            findings: Findings::of(&summary, &freshness),
            freshness,
            summary,
            configured: None,
            stored: true,
        }
    }
}

/// One source as JSON shows it: the fields that every reader may rely on, and how old they are.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceItem {
    /// `platform:id`, as every command accepts it.
    pub key: String,
    #[serde(flatten)]
    record: SourceRecord,
    #[serde(flatten)]
    freshness: Freshness,
    /// The worst that can be said of it: `ok`, `unknown` (not enough evidence, or too old), `down`, `auth`.
    pub health: Health,
    /// Whether the configuration names it.
    pub configured: bool,
}

impl From<&SourceRow> for SourceItem {
    fn from(row: &SourceRow) -> Self {
        Self {
            key: row.summary.key.to_string(),
            record: row.summary.record(),
            freshness: row.freshness.clone(),
            health: row.findings.worst(),
            configured: row.configured.is_some(),
        }
    }
}

impl Report for SourcesReport {
    type Item = SourceItem;
    const KIND: &'static str = "SourceList";
    const CSV: &'static [&'static str] = &[
        "key",
        "platform",
        "id",
        "displayName",
        "status",
        "streamStatus",
        "viewerCount",
        "authStatus",
        "permissions",
        "latencyMs",
        "health",
        "stale",
        "lastStatusUpdate",
        "lastStreamUpdate",
        "lastError.code",
        "lastError.at",
        "metrics.messagesIn",
        "metrics.messagesOut",
        "metrics.errors",
        "metrics.reconnects",
        "configured",
    ];

    fn as_of(&self) -> Timestamp {
        self.as_of
    }

    fn items(&self) -> Vec<SourceItem> {
        self.rows.iter().map(SourceItem::from).collect()
    }

    fn names(&self) -> Vec<String> {
        self.rows.iter().map(|row| row.summary.key.to_string()).collect()
    }

    fn unusable(&self) -> Vec<UnusableItem> {
        self.unusable.clone()
    }

    fn view(&self) -> View {
        self.table(false)
    }

    fn wide_view(&self) -> View {
        self.table(true)
    }

    fn notes(&self) -> Vec<Note> {
        if self.rows.is_empty() && self.unusable.is_empty() {
            return vec![
                Note::hint(Tone::Warn, "no sources are configured and none are stored", None),
                Note::hint(
                    Tone::Warn,
                    "add one to bitbrat.toml ([[source]] platform = \"twitch\" id = \"123456\"), or look around first",
                    Some("bitbrat config init"),
                ),
                Note::hint(
                    Tone::Warn,
                    "without any credentials, the simulated platforms show what it looks like",
                    Some("bitbrat --demo sources status --probe"),
                ),
            ];
        }
        match self.show {
            Show::Status => {
                let mut notes = vec![Note::Summary(self.summary())];
                notes.extend(self.hints());
                notes
            }
            Show::List => Vec::new(),
        }
    }
}

impl SourcesReport {
    fn table(&self, wide: bool) -> View {
        if self.rows.is_empty() && self.unusable.is_empty() {
            return View::default();
        }
        let grid = match self.show {
            Show::Status => self.status_grid(wide),
            Show::List => self.list_grid(),
        };
        View {
            blocks: vec![Block::Table(grid)],
        }
    }

    fn status_grid(&self, wide: bool) -> Grid {
        let noted = !self.unusable.is_empty() || self.rows.iter().any(|row| note(row).is_some());
        let mut columns = vec![
            Column::kept("SOURCE"),
            Column::kept("NAME").elastic(8),
            Column::kept("STATUS"),
            Column::kept("STREAM"),
            Column::ranked("VIEWERS", 2).right(),
            Column::ranked("AUTH", 1),
            Column::ranked("MAY", 5).elastic(13),
            Column::ranked("AGE", 3).right(),
        ];
        if wide {
            columns.extend([
                Column::ranked("LATENCY", 6).right(),
                Column::ranked("IN", 6).right(),
                Column::ranked("OUT", 6).right(),
                Column::ranked("ERRORS", 6).right(),
                Column::ranked("TITLE", 7).elastic(16),
            ]);
        }
        if noted {
            columns.push(Column::ranked("NOTE", 4).elastic(16));
        }
        let rows = self.rows.iter().map(|row| {
            let mut cells = Vec::with_capacity(columns.len());
            self.fill(&mut cells, row);
            if wide {
                fill_wide(&mut cells, row);
            }
            if noted {
                let tone = if row.findings.needs_person() {
                    Tone::Bad
                } else {
                    Tone::Dim
                };
                let note = note(row).map_or(Cell::word(""), |note| Cell::new(note).tone(tone));
                cells.push(note);
            }
            cells
        });
        let mut rows: Vec<Vec<Cell>> = rows.collect();
        for unusable in &self.unusable {
            let mut cells = vec![Cell::word(""); columns.len()];
            cells[0] = Cell::new(&unusable.id);
            cells[1] = Cell::none();
            let word = match unusable.what {
                UnusableKind::Document => "unusable",
                UnusableKind::Name => "unresolved",
            };
            cells[2] = Cell::word(word).glyph(Glyph::Unknown).tone(Tone::Warn);
            cells[3] = Cell::none();
            if let Some(last) = cells.last_mut() {
                *last = Cell::new(&unusable.reason).tone(Tone::Warn);
            }
            rows.push(cells);
        }
        Grid {
            columns,
            rows,
            headed: true,
        }
    }

    fn fill(&self, cells: &mut Vec<Cell>, row: &SourceRow) {
        let SourceRow {
            summary, freshness, ..
        } = row;
        let age = freshness.status_age_ms.max(freshness.stream_age_ms);
        cells.extend([
            Cell::new(summary.key.to_string()),
            Cell::maybe(summary.display_name.as_deref()).tone(Tone::Strong),
            cells::status(summary, freshness),
            cells::stream(summary, freshness, self.as_of),
            cells::viewers(summary, freshness),
            cells::auth(summary, freshness),
            cells::permissions(summary, freshness),
            age.map_or(Cell::word("never"), |age| Cell::new(humane::age(age)))
                .tone(Tone::Dim),
        ]);
    }

    fn list_grid(&self) -> Grid {
        let rows = self.rows.iter().map(|row| {
            vec![
                Cell::new(row.summary.key.to_string()),
                Cell::maybe(row.summary.display_name.as_deref()).tone(Tone::Strong),
                Cell::new(row.summary.key.platform().as_str()),
                Cell::maybe(row.configured.as_deref()),
                if row.stored {
                    Cell::new("yes").glyph(Glyph::Good).tone(Tone::Good)
                } else {
                    Cell::new("not yet").tone(Tone::Dim)
                },
            ]
        });
        let unusable = self.unusable.iter().map(|unusable| {
            vec![
                Cell::new(&unusable.id),
                Cell::none(),
                Cell::none(),
                Cell::none(),
                Cell::new(&unusable.reason).glyph(Glyph::Bad).tone(Tone::Warn),
            ]
        });
        Grid {
            columns: vec![
                Column::kept("SOURCE"),
                Column::kept("NAME").elastic(8),
                Column::ranked("PLATFORM", 2),
                Column::ranked("CONFIGURED BY", 1).elastic(12),
                Column::kept("STORED").elastic(8),
            ],
            rows: rows.chain(unusable).collect(),
            headed: true,
        }
    }

    /// The whole report in one line; what is zero and good to be zero is left out.
    fn summary(&self) -> Vec<Cell> {
        let count =
            |test: &dyn Fn(&SourceRow) -> bool| self.rows.iter().filter(|row| test(row)).count() as u64;
        let live = count(&|row| row.summary.stream_status == StreamStatus::Online);
        let connected = count(&|row| row.summary.status == Status::Connected);
        let stale = count(&|row| row.findings.stale);
        let need = count(&|row| row.findings.needs_person());
        let mut parts = vec![
            Cell::new(humane::count(self.rows.len() as u64, "source")),
            Cell::new(format!("{} live", humane::thousands(live))).tone(if live > 0 {
                Tone::Live
            } else {
                Tone::Plain
            }),
            Cell::new(format!("{} connected", humane::thousands(connected))),
        ];
        if stale > 0 {
            parts.push(Cell::new(format!("{} stale", humane::thousands(stale))).tone(Tone::Warn));
        }
        if !self.unusable.is_empty() {
            parts.push(Cell::new(format!("{} unusable", self.unusable.len())).tone(Tone::Warn));
        }
        if need > 0 {
            let verb = if need == 1 { "needs" } else { "need" };
            parts.push(Cell::new(format!("{} {verb} you", humane::thousands(need))).tone(Tone::Bad));
        }
        parts
    }

    /// What a person should do, the same thing only once.
    fn hints(&self) -> Vec<Note> {
        const SHOWN: usize = 5;
        let mut hints = self.auth_hints();
        let refused: Vec<_> = self
            .rows
            .iter()
            .filter(|row| row.findings.refused && row.findings.worst() == Health::Down)
            .collect();
        for row in refused.iter().take(SHOWN) {
            let why = row
                .summary
                .trouble
                .as_ref()
                .map_or("the platform refuses", |error| error.message.as_str());
            let key = &row.summary.key;
            hints.push(Note::hint(
                Tone::Bad,
                format!("{}: {why}", named(row)),
                Some(&format!("bitbrat sources describe {key}")),
            ));
        }
        if refused.len() > SHOWN {
            let more = format!("and {} more like these", refused.len() - SHOWN);
            hints.push(Note::hint(Tone::Bad, more, None));
        }
        for platform in PlatformName::ALL {
            let away = self.rows.iter().filter(|row| {
                row.summary.key.platform() == platform
                    && row.findings.disconnected
                    && row.summary.trouble.is_some()
            });
            let away: Vec<&SourceRow> = away.collect();
            let what = match away.as_slice() {
                [] => continue,
                [one] => format!("{} is disconnected", named(one)),
                many => format!(
                    "{} of {platform} are disconnected",
                    humane::count(many.len() as u64, "source")
                ),
            };
            let next = format!("bitbrat doctor {platform}");
            hints.push(Note::hint(Tone::Warn, what, Some(&next)));
        }
        let never = self
            .rows
            .iter()
            .filter(|row| row.findings.unknown && row.summary.status_at.is_none());
        let never = never.count() as u64;
        if never > 0 {
            let verb = if never == 1 { "was" } else { "were" };
            let what = format!("{} {verb} never looked at", humane::count(never, "source"));
            hints.push(Note::hint(
                Tone::Warn,
                what,
                Some("bitbrat sources status --probe"),
            ));
        }
        let stale = self.rows.iter().filter(|row| row.findings.stale).count() as u64;
        if stale > 0 {
            let what = format!(
                "what is known of {} is old, and marked with its age",
                humane::count(stale, "source")
            );
            hints.push(Note::hint(
                Tone::Warn,
                what,
                Some("bitbrat sources status --probe"),
            ));
        }
        let of_kind = |what| self.unusable.iter().filter(move |item| item.what == what).count() as u64;
        let (names, documents) = (of_kind(UnusableKind::Name), of_kind(UnusableKind::Document));
        if names > 0 {
            let what = format!("{} without an id", humane::count(names, "configured name"));
            hints.push(Note::hint(
                Tone::Warn,
                what,
                Some("bitbrat sources status --probe"),
            ));
        }
        if documents > 0 {
            let what = format!("{} cannot be used", humane::count(documents, "stored document"));
            hints.push(Note::hint(Tone::Warn, what, Some("bitbrat doctor")));
        }
        let untold = self.problems.iter().filter(|problem| !self.is_told(problem));
        hints.extend(untold.map(|problem| Note::hint(Tone::Warn, problem, None)));
        hints
    }

    /// Whether a problem is about an authorisation or an error that the rows tell themselves.
    fn is_told(&self, problem: &str) -> bool {
        self.rows.iter().any(|row| {
            let by_auth = row.summary.unauthorised.iter().any(|lost| {
                let reason = lost.reason.as_deref().filter(|reason| !reason.is_empty());
                problem.contains(lost.identity.as_str())
                    || reason.is_some_and(|reason| problem.contains(reason))
            });
            let trouble = row.summary.trouble.as_ref();
            by_auth || trouble.is_some_and(|error| problem.contains(&error.message))
        })
    }

    fn auth_hints(&self) -> Vec<Note> {
        let mut lost: BTreeMap<(PlatformName, String, Option<AuthStatus>), Vec<&SourceRow>> = BTreeMap::new();
        for row in self.rows.iter().filter(|row| row.findings.auth) {
            let platform = row.summary.key.platform();
            let status = row.summary.auth_status;
            let identity = row.summary.identity.as_ref();
            let identity = identity.map_or_else(|| format!("{platform}/bot"), ToString::to_string);
            lost.entry((platform, identity, status)).or_default().push(row);
        }
        lost.into_iter()
            .map(|((platform, identity, status), rows)| {
                let what = match status {
                    Some(AuthStatus::Revoked) => "was revoked and must be given again",
                    Some(AuthStatus::Expired) => "has expired and could not be renewed",
                    Some(AuthStatus::Valid) | None => "is missing",
                };
                let needed_by = match rows.as_slice() {
                    [one] => named(one),
                    many => humane::count(many.len() as u64, "source"),
                };
                Note::hint(
                    Tone::Bad,
                    format!("the authorisation of {identity} {what}; needed by {needed_by}"),
                    Some(&login_command(platform, &identity)),
                )
            })
            .collect()
    }
}

/// The command that gives an identity a new authorisation.
pub fn login_command(platform: PlatformName, identity: &str) -> String {
    let bot = format!("{platform}/bot");
    if identity == bot {
        format!("bitbrat auth login {platform} --with-token")
    } else {
        format!("bitbrat auth login {platform} --as {identity} --with-token")
    }
}

fn named(row: &SourceRow) -> String {
    match &row.summary.display_name {
        Some(name) => format!("{} ({name})", row.summary.key),
        None => row.summary.key.to_string(),
    }
}

/// What only the wide table shows.
fn fill_wide(cells: &mut Vec<Cell>, row: &SourceRow) {
    let record = row.summary.record();
    let title = record.metadata.get("title").and_then(|title| title.as_str());
    cells.extend([
        Cell::maybe(record.latency_ms.map(|millis| format!("{millis} ms"))),
        Cell::new(humane::thousands(record.metrics.messages_in)),
        Cell::new(humane::thousands(record.metrics.messages_out)),
        Cell::new(humane::thousands(record.metrics.errors)),
        Cell::maybe(title),
    ]);
}

/// What the table says about a source beside its verdicts.
fn note(row: &SourceRow) -> Option<Cow<'_, str>> {
    let summary = &row.summary;
    if let Some(error) = &summary.trouble {
        return Some(Cow::Borrowed(&error.message));
    }
    if summary.auth_status.is_some_and(|auth| auth != AuthStatus::Valid) {
        let identity = summary.identity.as_ref()?;
        return Some(match summary.deciding_reason() {
            Some(reason) => Cow::Owned(format!("{identity}: {reason}")),
            None => Cow::Borrowed(identity.as_str()),
        });
    }
    (!row.stored).then_some(Cow::Borrowed("never looked at"))
}
