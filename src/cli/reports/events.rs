//! Output of `events tail` and `events publish`.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::bus::event_lines::Line;
use crate::cli::output::view::{Block, Cell, Column, Glyph, Tone, View};
use crate::cli::output::{Listed, Note, Report, Style};
use crate::core::event::fields::text;
use crate::core::time::Timestamp;

/// Returns a message as a line that is complete in itself: the next one may arrive an hour later, so column widths are fixed.
pub fn line(line: &Line, style: Style) -> String {
    let time = line
        .published_at
        .map_or_else(|| "–".to_owned(), |at| at.to_string());
    let time = time.get(11..19).unwrap_or(&time).to_owned();
    let source = line
        .source
        .as_ref()
        .map_or_else(|| "–".to_owned(), ToString::to_string);
    let kind = line.kind.as_deref().unwrap_or("–");
    let tone = match line.meaning.as_str() {
        "source" | "chat" => Tone::Plain,
        meaning if meaning.starts_with("dead") => Tone::Bad,
        _ => Tone::Dim,
    };
    let cells = [
        Cell::new(format!("{time:8}")).tone(Tone::Dim),
        Cell::new(format!("{source:20}")).tone(Tone::Strong),
        Cell::new(format!("{kind:22}")),
        Cell::new(summary(line)).tone(tone),
    ];
    let shown: Vec<_> = cells.iter().map(|cell| style.show(cell)).collect();
    shown.join("  ").trim_end().to_owned() + "\n"
}

fn summary(line: &Line) -> String {
    let payload = &line.event["payload"];
    let changes = payload["transitions"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let change_texts: Vec<_> = changes.iter().filter_map(change).collect();
    match line.meaning.as_str() {
        "source" if !change_texts.is_empty() => change_texts.join(", "),
        "source" => ["status", "authStatus"]
            .iter()
            .filter_map(|field| text(payload, &[field]))
            .collect::<Vec<_>>()
            .join(" "),
        meaning => meaning.to_owned(),
    }
}

fn change(change: &Value) -> Option<String> {
    let facet = text(change, &["facet"])?;
    let label = |field: &str| text(change, &[field]).unwrap_or("unknown");
    Some(match facet {
        // A first observation changes nothing.
        _ if change["initial"] == true && facet == "permissions" => "permissions are known".to_owned(),
        _ if change["initial"] == true => format!("{facet} is {}", label("to")),
        "permissions" => "permissions changed".to_owned(),
        _ => format!("{facet} {} → {}", label("from"), label("to")),
    })
}

impl Listed for Line {
    const KIND: &'static str = "EventList";
    const CSV: &'static [&'static str] =
        &["publishedAt", "topic", "type", "source", "meaning", "transportId"];

    fn name(&self) -> String {
        let id = text(&self.event, &["correlationId"]);
        id.map_or_else(|| self.transport_id.clone(), str::to_owned)
    }

    fn view(items: &[Self]) -> View {
        let rows = items.iter().map(|line| vec![Cell::new(summary(line))]);
        View {
            blocks: rows.map(Block::Line).collect(),
        }
    }
}

/// Events that were published by hand.
#[derive(Debug, Clone)]
pub struct PublishReport {
    pub as_of: Timestamp,
    pub items: Vec<PublishItem>,
    pub to: String,
}

/// One event.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PublishItem {
    /// Its `correlationId`, or one made of its contents: also the bus's de-duplication id.
    pub id: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The source that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What became of it.
    pub outcome: Published,
    /// Its size.
    pub bytes: usize,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Published {
    /// The bus took it.
    Published,
    /// The bus, or the store, had it already.
    Duplicate,
    /// It went straight into the store, because the bus is local.
    Stored,
}

impl Published {
    fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Duplicate => "duplicate",
            Self::Stored => "stored",
        }
    }
}

impl Report for PublishReport {
    type Item = PublishItem;
    const KIND: &'static str = "PublishList";
    const CSV: &'static [&'static str] = &["id", "type", "source", "outcome", "bytes"];

    fn as_of(&self) -> Timestamp {
        self.as_of
    }

    fn items(&self) -> Vec<PublishItem> {
        self.items.clone()
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|item| item.id.clone()).collect()
    }

    fn view(&self) -> View {
        let rows = self.items.iter().map(|item| {
            let (glyph, tone) = match item.outcome {
                Published::Published | Published::Stored => (Glyph::Good, Tone::Good),
                Published::Duplicate => (Glyph::Off, Tone::Dim),
            };
            vec![
                Cell::new(&item.kind),
                Cell::maybe(item.source.as_ref()),
                Cell::new(item.outcome.as_str()).glyph(glyph).tone(tone),
                Cell::new(&item.id).tone(Tone::Dim),
            ]
        });
        View::table(
            vec![
                Column::kept("TYPE"),
                Column::kept("SOURCE"),
                Column::kept("OUTCOME"),
                Column::ranked("ID", 1),
            ],
            rows,
        )
    }

    fn notes(&self) -> Vec<Note> {
        let count = |outcome| self.items.iter().filter(|item| item.outcome == outcome).count();
        let parts = [Published::Published, Published::Stored, Published::Duplicate]
            .into_iter()
            .map(|outcome| (outcome, count(outcome)))
            .filter(|(_, count)| *count > 0)
            .map(|(outcome, count)| Cell::new(format!("{count} {}", outcome.as_str())));
        vec![Note::Summary(parts.chain([Cell::new(&self.to)]).collect())]
    }
}
