//! What changed about sources since a time: `diff`.

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::output::view::{Cell, Column, Tone, View};
use crate::cli::output::{Note, Report, humane};
use crate::core::facet::Facet;
use crate::core::freshness::age_ms;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::core::transition::Transition;
use crate::view::cells;
use crate::view::envelope::UnusableItem;
use crate::view::past::Difference;

#[derive(Debug, Clone)]
pub struct DiffReport {
    pub as_of: Timestamp,
    pub since: Timestamp,
    /// Number of sources that were compared.
    pub compared: usize,
    /// What changed, by source.
    pub differences: Vec<ChangedFacet>,
    /// Documents and names that cannot be used.
    pub unusable: Vec<UnusableItem>,
}

/// One facet of a source that changed.
#[derive(Debug, Clone)]
pub struct ChangedFacet {
    pub key: SourceKey,
    pub name: Option<String>,
    pub difference: Difference,
}

/// One facet of a source that changed, as JSON shows it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiffItem {
    /// The source.
    pub key: String,
    /// Its display name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// What changed.
    pub facet: Facet,
    /// What it was at the start; absent where nothing was known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What it is now; absent where it is not known any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Number of changes since.
    pub changes: u64,
    /// When it last changed.
    #[schemars(with = "String")]
    pub last_changed_at: Timestamp,
}

impl Report for DiffReport {
    type Item = DiffItem;
    const KIND: &'static str = "DiffList";
    const CSV: &'static [&'static str] = &[
        "key",
        "displayName",
        "facet",
        "from",
        "to",
        "changes",
        "lastChangedAt",
    ];

    fn as_of(&self) -> Timestamp {
        self.as_of
    }

    fn items(&self) -> Vec<DiffItem> {
        let item = |changed: &ChangedFacet| DiffItem {
            key: changed.key.to_string(),
            display_name: changed.name.clone(),
            facet: changed.difference.facet,
            from: changed.difference.from.clone(),
            to: changed.difference.to.clone(),
            changes: changed.difference.changes,
            last_changed_at: changed.difference.last,
        };
        self.differences.iter().map(item).collect()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .differences
            .iter()
            .map(|changed| changed.key.to_string())
            .collect();
        names.dedup();
        names
    }

    fn unusable(&self) -> Vec<UnusableItem> {
        self.unusable.clone()
    }

    fn view(&self) -> View {
        if self.differences.is_empty() {
            return View::default();
        }
        let rows = self.differences.iter().map(|changed| {
            let Difference {
                facet,
                from,
                to,
                changes,
                last,
            } = &changed.difference;
            let change = Transition {
                facet: *facet,
                from: from.clone(),
                to: to.clone(),
                at: *last,
                rule: String::new(),
                stream_id: None,
                initial: false,
            };
            let change = if from == to {
                Cell::new(format!("{} again", to.as_deref().unwrap_or("nothing")))
            } else {
                cells::change(&change)
            };
            vec![
                Cell::new(changed.key.to_string()),
                Cell::maybe(changed.name.as_deref()).tone(Tone::Strong),
                Cell::label(facet.as_str()),
                change,
                Cell::new(humane::thousands(*changes)),
                Cell::new(cells::ago(age_ms(*last, self.as_of))).tone(Tone::Dim),
            ]
        });
        let columns = vec![
            Column::kept("SOURCE"),
            Column::ranked("NAME", 1).elastic(8),
            Column::kept("WHAT"),
            Column::kept("CHANGE").elastic(20),
            Column::ranked("CHANGES", 2).right(),
            Column::kept("LAST").right(),
        ];
        View::table(columns, rows)
    }

    fn notes(&self) -> Vec<Note> {
        let compared = humane::count(self.compared as u64, "source");
        let since = cells::moment(self.since);
        if self.differences.is_empty() {
            let what = format!("nothing is recorded as changed about {compared} since {since}");
            return vec![Note::hint(Tone::Dim, what, None)];
        }
        let changed = humane::thousands(self.names().len() as u64);
        let parts = [format!("{changed} of {compared} changed since {since}")];
        vec![Note::Summary(parts.map(Cell::new).to_vec())]
    }
}
