//! The columns of tables of sources, which `--columns` chooses.

use std::cell::OnceCell;

use clap::ValueEnum;

use crate::cli::output::humane;
use crate::cli::output::view::{Cell, Column, Glyph, Tone};
use crate::core::document::SourceRecord;
use crate::core::time::Timestamp;
use crate::view::cells;
use crate::view::health::Health;
use crate::view::source_row::SourceRow;

/// A column of a table of sources. In CSV it stands for the fields of the JSON output that it is made of, whose names are
/// accepted, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SourceColumn {
    /// platform:id
    #[value(alias = "key")]
    Source,
    /// The platform
    Platform,
    /// The platform's own id
    Id,
    /// The display name
    #[value(alias = "displayName")]
    Name,
    /// The connection
    Status,
    /// Live or not, and for how long
    #[value(alias = "streamStatus")]
    Stream,
    /// The number of viewers
    #[value(alias = "viewerCount")]
    Viewers,
    /// The authorization
    #[value(alias = "authStatus")]
    Auth,
    /// What the bot can do
    Can,
    /// The age of the oldest of status and stream
    Age,
    /// Roles and permissions of the bot
    #[value(alias = "permissions")]
    Roles,
    /// The time of a request
    #[value(alias = "latencyMs")]
    Latency,
    /// Chat messages received
    #[value(name = "in", aliases = ["messagesIn", "metrics.messagesIn"])]
    Received,
    /// Chat messages sent
    #[value(name = "out", aliases = ["messagesOut", "metrics.messagesOut"])]
    Sent,
    /// The number of errors
    #[value(alias = "metrics.errors")]
    Errors,
    /// The title of the stream
    #[value(alias = "metadata.title")]
    Title,
    /// ok, unknown, down or auth
    Health,
    /// Where the source is configured
    Configured,
    /// Whether a document is stored
    Stored,
    /// The current error
    #[value(aliases = ["lastError", "lastError.message"])]
    Note,
}

impl SourceColumn {
    /// The columns of `status`, apart from the note, which is shown where there are any.
    pub const STATUS: [Self; 8] = [
        Self::Source,
        Self::Name,
        Self::Status,
        Self::Stream,
        Self::Viewers,
        Self::Auth,
        Self::Can,
        Self::Age,
    ];

    /// The columns of `list`.
    pub const LIST: [Self; 5] = [
        Self::Source,
        Self::Name,
        Self::Platform,
        Self::Configured,
        Self::Stored,
    ];

    /// What `-o wide` adds to them.
    pub const WIDE: [Self; 6] = [
        Self::Roles,
        Self::Latency,
        Self::Received,
        Self::Sent,
        Self::Errors,
        Self::Title,
    ];

    /// Returns how it is laid out.
    pub(super) fn layout(self) -> Column {
        match self {
            Self::Source => Column::kept("SOURCE"),
            Self::Platform => Column::ranked("PLATFORM", 2),
            Self::Id => Column::ranked("ID", 1),
            Self::Name => Column::kept("NAME").elastic(8),
            Self::Status => Column::kept("STATUS"),
            Self::Stream => Column::kept("STREAM"),
            Self::Viewers => Column::ranked("VIEWERS", 2).right(),
            Self::Auth => Column::ranked("AUTH", 1),
            Self::Can => Column::ranked("CAN", 5).elastic(13),
            Self::Age => Column::ranked("AGE", 3).right(),
            Self::Roles => Column::ranked("ROLES", 6).elastic(10),
            Self::Latency => Column::ranked("LATENCY", 6).right(),
            Self::Received => Column::ranked("IN", 6).right(),
            Self::Sent => Column::ranked("OUT", 6).right(),
            Self::Errors => Column::ranked("ERRORS", 6).right(),
            Self::Title => Column::ranked("TITLE", 7).elastic(16),
            Self::Health => Column::ranked("HEALTH", 1),
            Self::Configured => Column::ranked("CONFIGURED BY", 1).elastic(12),
            Self::Stored => Column::kept("STORED").elastic(8),
            Self::Note => Column::ranked("NOTE", 4).elastic(16),
        }
    }

    /// Returns how it is laid out as the one at `place` of those that were chosen: on a narrow screen the last ones are dropped
    /// first, and the first one never.
    pub(super) fn chosen_layout(self, place: usize) -> Column {
        Column {
            rank: u8::try_from(place).unwrap_or(u8::MAX),
            ..self.layout()
        }
    }

    /// Returns the fields of the JSON output that it is made of.
    pub(super) fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Source => &["key"],
            Self::Platform => &["platform"],
            Self::Id => &["id"],
            Self::Name => &["displayName"],
            Self::Status => &["status"],
            Self::Stream => &["streamStatus"],
            Self::Viewers => &["viewerCount"],
            Self::Auth => &["authStatus"],
            Self::Can | Self::Roles => &["permissions"],
            Self::Age => &["statusAgeMs", "streamAgeMs"],
            Self::Latency => &["latencyMs"],
            Self::Received => &["metrics.messagesIn"],
            Self::Sent => &["metrics.messagesOut"],
            Self::Errors => &["metrics.errors"],
            Self::Title => &["metadata.title"],
            Self::Health => &["health"],
            Self::Configured => &["configured"],
            Self::Stored => &["stored"],
            Self::Note => &["lastError.code", "lastError.message"],
        }
    }
}

/// A row whose record is parsed when a column needs it, and then once.
pub(super) struct RowCells<'a> {
    row: &'a SourceRow,
    now: Timestamp,
    record: OnceCell<SourceRecord>,
}

impl<'a> RowCells<'a> {
    pub(super) fn new(row: &'a SourceRow, now: Timestamp) -> Self {
        Self {
            row,
            now,
            record: OnceCell::new(),
        }
    }

    fn record(&self) -> &SourceRecord {
        self.record.get_or_init(|| self.row.summary.record())
    }

    pub(super) fn cell(&self, column: SourceColumn) -> Cell {
        let SourceRow {
            summary, freshness, ..
        } = self.row;
        match column {
            SourceColumn::Source => Cell::new(summary.key.to_string()),
            SourceColumn::Platform => Cell::label(summary.key.platform().as_str()),
            SourceColumn::Id => Cell::new(summary.key.id()),
            SourceColumn::Name => Cell::maybe(summary.display_name.as_deref()).tone(Tone::Strong),
            SourceColumn::Status => cells::status(summary, freshness),
            SourceColumn::Stream => cells::stream(summary, freshness, self.now),
            SourceColumn::Viewers => cells::viewers(summary, freshness),
            SourceColumn::Auth => cells::auth(summary, freshness),
            SourceColumn::Can => cells::abilities(summary, freshness),
            SourceColumn::Age => self
                .row
                .age_ms()
                .map_or(Cell::none(), |age| Cell::new(humane::age(age)))
                .tone(Tone::Dim),
            SourceColumn::Roles => cells::roles(summary, freshness),
            SourceColumn::Latency => Cell::maybe(summary.latency_ms.map(|millis| format!("{millis} ms"))),
            SourceColumn::Received => Cell::new(humane::thousands(self.record().metrics.messages_in)),
            SourceColumn::Sent => Cell::new(humane::thousands(self.record().metrics.messages_out)),
            SourceColumn::Errors => Cell::new(humane::thousands(self.record().metrics.errors)),
            SourceColumn::Title => {
                let title = self.record().metadata.get("title");
                Cell::maybe(title.and_then(|title| title.as_str()))
            }
            SourceColumn::Health => match self.row.findings.worst() {
                Health::Ok => Cell::label("ok").glyph(Glyph::Good).tone(Tone::Good),
                Health::Unknown => Cell::label("unknown").glyph(Glyph::Unknown).tone(Tone::Dim),
                Health::Down => Cell::label("down").glyph(Glyph::Bad).tone(Tone::Bad),
                Health::Auth => Cell::label("auth").glyph(Glyph::Bad).tone(Tone::Bad),
            },
            SourceColumn::Configured => Cell::maybe(self.row.configured.as_deref()),
            SourceColumn::Stored if self.row.stored => Cell::label("yes").glyph(Glyph::Good).tone(Tone::Good),
            SourceColumn::Stored => Cell::label("not yet").tone(Tone::Dim),
            SourceColumn::Note => {
                let tone = if self.row.findings.needs_person() {
                    Tone::Bad
                } else {
                    Tone::Dim
                };
                self.row
                    .note()
                    .map_or(Cell::label(""), |note| Cell::new(note).tone(tone))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn column_is_accepted_by_the_name_of_its_json_field_too() {
        for column in SourceColumn::value_variants() {
            let name = column.to_possible_value().unwrap().get_name().to_owned();
            assert_eq!(SourceColumn::from_str(&name, true), Ok(*column));
        }
        for name in [
            "key",
            "viewerCount",
            "metrics.messagesIn",
            "lastError.message",
            "latencyms",
        ] {
            assert!(SourceColumn::from_str(name, true).is_ok(), "{name}");
        }
    }

    #[test]
    fn chosen_columns_are_dropped_from_the_end() {
        let ranks = [SourceColumn::Title, SourceColumn::Source, SourceColumn::Name];
        let ranks: Vec<u8> = ranks
            .iter()
            .enumerate()
            .map(|(place, column)| column.chosen_layout(place).rank)
            .collect();
        assert_eq!(ranks, [0, 1, 2]);
    }
}
