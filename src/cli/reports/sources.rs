//! Many sources in one table: `sources status` and `sources list`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::cli::health::Health;
use crate::cli::output::machine::{UnusableItem, UnusableKind};
use crate::cli::output::view::{Block, Cell, Column, Glyph, Grid, Tone, View};
use crate::cli::output::{Note, Report, humane};
use crate::cli::reports::columns::{RowCells, SourceColumn};
use crate::cli::reports::source_row::SourceRow;
use crate::core::document::SourceRecord;
use crate::core::freshness::{Field, Freshness};
use crate::core::source::PlatformName;
use crate::core::stream::StreamStatus;
use crate::core::time::Timestamp;
use crate::core::verdict::{AuthStatus, Status};
use crate::platforms::{Problem, Subject};
use crate::tokens::remedy;

#[derive(Debug, Clone)]
pub struct SourcesReport {
    pub as_of: Timestamp,
    /// The sources in the order in which they are shown; the summary and the advice are about all of them, whatever the limit.
    pub rows: Vec<SourceRow>,
    /// Stored documents and configured names that cannot be used.
    pub unusable: Vec<UnusableItem>,
    /// Problems of a probe that belong to no source.
    pub problems: Vec<Problem>,
    pub show: Show,
    /// The part of it that was requested.
    pub choice: Choice,
}

/// What was requested of a list of sources.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Number of sources shown at most.
    pub limit: Option<usize>,
    /// Columns of tables and CSV; `None` for the usual ones.
    pub columns: Option<Vec<SourceColumn>>,
    /// The filters as they were typed, if any.
    pub filters: Option<String>,
    /// Number of sources before the filters.
    pub considered: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    Status,
    /// Each source and where it is configured.
    List,
}

/// One source as JSON shows it: the fields that every reader may rely on, and how old they are.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceItem {
    /// `platform:id`, as every command accepts it.
    pub key: String,
    #[serde(flatten)]
    record: ShownRecord,
    #[serde(flatten)]
    freshness: Freshness,
    /// Its health: `ok`, `unknown` (not enough evidence, or too old), `down`, `auth`.
    pub health: Health,
    /// Whether the configuration names it.
    pub configured: bool,
    /// Whether the store has a document of it.
    pub stored: bool,
}

/// The fields of the document as they are shown: unlike a document, a source of which nothing was ever proven has no status.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct ShownRecord(Map<String, Value>);

impl JsonSchema for ShownRecord {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ShownRecord".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let mut schema = SourceRecord::json_schema(generator);
        let required = schema.get_mut("required").and_then(Value::as_array_mut);
        if let Some(required) = required {
            required.retain(|field| field != "status");
        }
        schema
    }
}

impl ShownRecord {
    fn of(row: &SourceRow) -> Self {
        let record = serde_json::to_value(row.summary.record()).expect("a record is plain JSON");
        let Value::Object(mut fields) = record else {
            return Self(Map::new());
        };
        if !row.is_checked() {
            fields.remove("status");
        }
        Self(fields)
    }
}

impl From<&SourceRow> for SourceItem {
    fn from(row: &SourceRow) -> Self {
        Self {
            key: row.summary.key.to_string(),
            record: ShownRecord::of(row),
            freshness: row.freshness.clone(),
            health: row.findings.worst(),
            configured: row.configured.is_some(),
            stored: row.stored,
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

    const LIMITED: bool = true;

    fn items(&self) -> Vec<SourceItem> {
        self.shown().iter().map(SourceItem::from).collect()
    }

    fn names(&self) -> Vec<String> {
        let rows = self.shown().iter();
        rows.map(|row| row.summary.key.to_string()).collect()
    }

    fn total(&self) -> Option<usize> {
        Some(self.rows.len())
    }

    fn csv_fields(&self) -> Vec<&'static str> {
        let Some(columns) = &self.choice.columns else {
            return Self::CSV.to_vec();
        };
        let mut fields = Vec::new();
        for field in columns.iter().flat_map(|column| column.fields()) {
            if !fields.contains(field) {
                fields.push(*field);
            }
        }
        fields
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
        if let Some(filters) = self.choice.filters.as_ref().filter(|_| self.is_empty()) {
            let what = match self.choice.considered {
                0 => "no sources are configured and none are stored".to_owned(),
                1 => format!("the one source does not match {filters}"),
                count => format!(
                    "none of {} sources match {filters}",
                    humane::thousands(count as u64)
                ),
            };
            return vec![Note::hint(Tone::Dim, what, None)];
        }
        if self.is_empty() {
            return vec![
                Note::hint(Tone::Warn, "no sources are configured and none are stored", None),
                Note::hint(
                    Tone::Warn,
                    "add one to bitbrat.toml ([[source]] platform = \"twitch\" id = \"123456\"), or set everything up",
                    Some("bitbrat init"),
                ),
                Note::hint(
                    Tone::Warn,
                    "to try it without any credentials, use the simulated platforms",
                    Some("bitbrat --demo sources status --probe"),
                ),
            ];
        }
        match self.show {
            Show::Status => {
                let mut notes = vec![Note::Summary(self.summary())];
                notes.extend(self.left_out());
                notes.extend(self.hints());
                notes
            }
            Show::List => self.left_out().into_iter().collect(),
        }
    }
}

impl SourcesReport {
    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.unusable.is_empty()
    }

    /// Returns the rows within the limit.
    fn shown(&self) -> &[SourceRow] {
        let count = self.choice.limit.unwrap_or(usize::MAX).min(self.rows.len());
        &self.rows[..count]
    }

    fn left_out(&self) -> Option<Note> {
        left_out(self.rows.len(), self.choice.limit)
    }

    fn table(&self, wide: bool) -> View {
        if self.is_empty() {
            return View::default();
        }
        let grid = match (&self.choice.columns, self.show) {
            (Some(columns), _) => {
                let layouts = columns.iter().enumerate();
                let layouts = layouts.map(|(place, column)| column.chosen_layout(place));
                self.grid(columns, layouts.collect())
            }
            (None, Show::Status) => self.status_grid(wide),
            (None, Show::List) => self.grid(&SourceColumn::LIST, layouts(&SourceColumn::LIST)),
        };
        View {
            blocks: vec![Block::Table(grid)],
        }
    }

    fn status_grid(&self, wide: bool) -> Grid {
        let noted = !self.unusable.is_empty() || self.shown().iter().any(|row| row.note().is_some());
        let mut columns = SourceColumn::STATUS.to_vec();
        if wide {
            columns.extend(SourceColumn::WIDE);
        }
        if noted {
            columns.push(SourceColumn::Note);
        }
        self.grid(&columns, layouts(&columns))
    }

    fn grid(&self, columns: &[SourceColumn], layouts: Vec<Column>) -> Grid {
        let rows = self.shown().iter().map(|row| {
            let cells = RowCells::new(row, self.as_of);
            columns.iter().map(|column| cells.cell(*column)).collect()
        });
        let unusable = self
            .unusable
            .iter()
            .map(|unusable| unusable_cells(columns, unusable));
        Grid::headed(layouts, rows.chain(unusable))
    }

    /// The whole report in one line; zero counts that are no problem are left out.
    fn summary(&self) -> Vec<Cell> {
        let count =
            |test: &dyn Fn(&SourceRow) -> bool| self.rows.iter().filter(|row| test(row)).count() as u64;
        // What is too old to rely on counts as stale and as nothing else.
        let live = count(&|row| {
            row.summary.stream_status == StreamStatus::Online && !row.freshness.is_stale(Field::StreamStatus)
        });
        let connected =
            count(&|row| row.summary.status == Status::Connected && !row.freshness.is_stale(Field::Status));
        let stale = count(&SourceRow::is_stale);
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
            parts.push(Cell::new(format!("{} {verb} attention", humane::thousands(need))).tone(Tone::Bad));
        }
        parts
    }

    /// What a person should do, each hint only once.
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
                .failure
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
                    && row.summary.failure.is_some()
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
            let what = format!("{} {verb} not checked yet", humane::count(never, "source"));
            hints.push(Note::hint(
                Tone::Warn,
                what,
                Some("bitbrat sources status --probe"),
            ));
        }
        let stale = self.rows.iter().filter(|row| row.is_stale()).count() as u64;
        if stale > 0 {
            let what = format!(
                "the data of {} is stale, and marked with its age",
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
        let unreported = self.problems.iter().filter(|problem| !self.is_shown(problem));
        hints.extend(unreported.map(|problem| Note::hint(Tone::Warn, &problem.text, None)));
        hints
    }

    /// Whether a problem is an authorization or an error that the rows show themselves.
    fn is_shown(&self, problem: &Problem) -> bool {
        self.rows.iter().map(|row| &row.summary).any(|summary| {
            let mut unauthorized = summary.unauthorized.iter();
            let by_auth = match &problem.about {
                Subject::Account(identity) => unauthorized.any(|lost| lost.identity == *identity),
                Subject::Source(_) | Subject::Platform => false,
            };
            let failure = summary.failure.as_deref();
            by_auth || (failure.is_some() && failure == problem.error.as_ref())
        })
    }

    fn auth_hints(&self) -> Vec<Note> {
        let mut lost: BTreeMap<(PlatformName, String, Option<AuthStatus>, bool), Vec<&SourceRow>> =
            BTreeMap::new();
        for row in self.rows.iter().filter(|row| row.findings.auth) {
            let platform = row.summary.key.platform();
            let status = row.summary.auth_status;
            let identity = row.summary.identity.as_ref();
            let identity = identity.map_or_else(|| format!("{platform}/bot"), ToString::to_string);
            let rejected = row.summary.is_rejected();
            lost.entry((platform, identity, status, rejected))
                .or_default()
                .push(row);
        }
        lost.into_iter()
            .map(|((_, identity, status, rejected), rows)| {
                let what = match status {
                    _ if rejected => "is rejected; the token may be mistyped, expired or revoked",
                    Some(AuthStatus::Revoked) => "was revoked; log in again",
                    Some(AuthStatus::Expired) => "has expired and could not be renewed",
                    Some(AuthStatus::Valid) | None => "is missing",
                };
                let client_rejected = rows.iter().any(|row| row.summary.is_client_rejected());
                let needed_by = match rows.as_slice() {
                    [one] => named(one),
                    many => humane::count(many.len() as u64, "source"),
                };
                Note::hint(
                    Tone::Bad,
                    format!("the authorization of {identity} {what}; needed by {needed_by}"),
                    Some(&remedy(&identity, client_rejected)),
                )
            })
            .collect()
    }
}

fn layouts(columns: &[SourceColumn]) -> Vec<Column> {
    columns.iter().map(|column| column.layout()).collect()
}

fn named(row: &SourceRow) -> String {
    match &row.summary.display_name {
        Some(name) => format!("{} ({name})", row.summary.key),
        None => row.summary.key.to_string(),
    }
}

/// Returns the note of how many entries a limit leaves out, if any.
pub fn left_out(total: usize, limit: Option<usize>) -> Option<Note> {
    let limit = limit.filter(|limit| *limit < total)?;
    let more = humane::count((total - limit) as u64, "more source");
    let verb = if total - limit == 1 { "is" } else { "are" };
    let what = format!("{more} {verb} not shown (--limit {limit})");
    Some(Note::hint(Tone::Dim, what, None))
}

/// Returns a row about something that cannot be used: its id, what it is, and the reason in the last column.
fn unusable_cells(columns: &[SourceColumn], unusable: &UnusableItem) -> Vec<Cell> {
    let label = match unusable.what {
        UnusableKind::Document => "unusable",
        UnusableKind::Name => "unresolved",
    };
    let cells = columns.iter().enumerate().map(|(place, column)| match column {
        SourceColumn::Source => Cell::new(&unusable.id),
        _ if place > 0 && place + 1 == columns.len() => Cell::new(&unusable.reason).tone(Tone::Warn),
        SourceColumn::Status => Cell::label(label).glyph(Glyph::Unknown).tone(Tone::Warn),
        SourceColumn::Name | SourceColumn::Stream => Cell::none(),
        _ => Cell::label(""),
    });
    cells.collect()
}
