//! What `top` shows, independent of the terminal.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::cli::output::view::Tone;
use crate::cli::output::{Note, Report as _};
use crate::cli::reports::history::HistoryReport;
use crate::cli::reports::source::SourceReport;
use crate::cli::reports::sources::{Choice, Show, SourcesReport};
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::platforms::Problem;
use crate::view::envelope::UnusableItem;
use crate::view::source_row::SourceRow;

/// Rows keep their places for this long after a key, so that none moves below the cursor.
const STEADY: Duration = Duration::from_secs(1);

/// What is known of the sources at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub as_of: Timestamp,
    pub rows: Vec<SourceRow>,
    pub unusable: Vec<UnusableItem>,
    pub problems: Vec<Problem>,
}

/// The state of the screen.
#[derive(Debug)]
pub struct Model {
    pub(super) snapshot: Snapshot,
    /// The summary of all sources, and what needs attention.
    pub(super) notes: Vec<Note>,
    /// The source below the cursor. Rows move, so it is never an index.
    pub(super) selected: Option<SourceKey>,
    /// First row on the screen.
    pub(super) offset: usize,
    /// Rows or lines on the screen, as last drawn: how far a page key goes.
    pub(super) height: usize,
    pub(super) filter: String,
    /// Whether keys are text of the filter.
    pub(super) is_typing: bool,
    pub(super) page: Option<Page>,
    pub(super) has_help: bool,
    pub(super) message: Option<(Tone, String)>,
    last_key: Option<Instant>,
    /// Whether rows kept their places although their order changed.
    is_unsorted: bool,
}

/// One source in full, over the table.
#[derive(Debug)]
pub struct Page {
    pub key: SourceKey,
    pub kind: PageKind,
    pub content: Content,
    /// Lines above the screen.
    pub(super) scroll: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageKind {
    Describe,
    History,
}

#[derive(Debug)]
pub enum Content {
    Loading,
    Failed(String),
    Source(Box<SourceReport>),
    History(Box<HistoryReport>),
}

/// What a key requests of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The screen may have changed, nothing else.
    None,
    Quit,
    Interrupt,
    /// The terminal is gone.
    HangUp,
    Suspend,
    Probe(SourceKey),
    /// Load the page of the source.
    Open(PageKind, SourceKey),
}

impl Model {
    pub fn new(mut snapshot: Snapshot) -> Self {
        let mut model = Self {
            notes: notes(&mut snapshot),
            snapshot,
            selected: None,
            offset: 0,
            height: 1,
            filter: String::new(),
            is_typing: false,
            page: None,
            has_help: false,
            message: None,
            last_key: None,
            is_unsorted: false,
        };
        model.sort();
        model.keep_selection(0);
        model
    }

    /// Replaces what is known. Within a second after a key no row moves.
    pub fn update(&mut self, mut next: Snapshot, now: Instant) {
        let place = self.place();
        self.notes = notes(&mut next);
        let before = std::mem::replace(&mut self.snapshot, next);
        if self.is_steady(now) {
            let places = before.rows.iter().enumerate();
            let places: BTreeMap<&SourceKey, usize> =
                places.map(|(place, row)| (&row.summary.key, place)).collect();
            let place_of = |row: &SourceRow| places.get(&row.summary.key).copied().unwrap_or(usize::MAX);
            self.snapshot.rows.sort_by_key(place_of);
            self.is_unsorted = true;
        } else {
            self.sort();
        }
        self.keep_selection(place);
    }

    /// Returns when rows that kept their places may move.
    pub fn sorts_at(&self) -> Option<Instant> {
        self.last_key.filter(|_| self.is_unsorted).map(|key| key + STEADY)
    }

    /// Moves rows that had to keep their places. Returns whether any had to.
    pub fn settle(&mut self, now: Instant) -> bool {
        let is_due = self.is_unsorted && !self.is_steady(now);
        if is_due {
            self.sort();
        }
        is_due
    }

    fn is_steady(&self, now: Instant) -> bool {
        self.last_key.is_some_and(|key| now < key + STEADY)
    }

    pub(super) fn touch(&mut self, now: Instant) {
        self.last_key = Some(now);
    }

    fn sort(&mut self) {
        let by_urgency = |row: &SourceRow| (row.urgency(), row.summary.key.clone());
        self.snapshot.rows.sort_by_cached_key(by_urgency);
        self.is_unsorted = false;
    }

    /// The rows that the filter leaves, in the order of the screen.
    pub fn shown(&self) -> Vec<&SourceRow> {
        let words: Vec<String> = self.filter.split_whitespace().map(str::to_lowercase).collect();
        let rows = self.snapshot.rows.iter();
        rows.filter(|row| matches(row, &words)).collect()
    }

    /// Returns the index of the selected source among the rows shown.
    pub fn place(&self) -> usize {
        let is_selected = |row: &&SourceRow| Some(&row.summary.key) == self.selected.as_ref();
        self.shown().iter().position(is_selected).unwrap_or(0)
    }

    /// Selects the source in the place of one that is not shown any more.
    pub(super) fn keep_selection(&mut self, place: usize) {
        let keys: Vec<SourceKey> = self.shown().iter().map(|row| row.summary.key.clone()).collect();
        if self.selected.as_ref().is_some_and(|key| keys.contains(key)) {
            return;
        }
        let last = keys.len().saturating_sub(1);
        self.selected = keys.get(place.min(last)).cloned();
    }

    /// Moves the cursor or the page by `lines`.
    pub(super) fn scroll(&mut self, lines: isize) {
        if let Some(page) = &mut self.page {
            // Drawing limits it to the length of the page.
            page.scroll = page.scroll.saturating_add_signed(lines);
            return;
        }
        let place = self.place().saturating_add_signed(lines);
        self.selected = None;
        self.keep_selection(place);
    }

    /// Shows `text` at the bottom until the next key.
    pub fn set_message(&mut self, tone: Tone, text: impl Into<String>) {
        self.message = Some((tone, text.into()));
    }

    /// Returns the page that is open.
    pub fn open_page(&self) -> Option<(PageKind, &SourceKey)> {
        self.page.as_ref().map(|page| (page.kind, &page.key))
    }

    /// Shows `content`, unless the page was closed in the meantime.
    pub fn show_page(&mut self, kind: PageKind, key: &SourceKey, content: Content) {
        let page = self.page.as_mut();
        if let Some(page) = page.filter(|page| page.kind == kind && page.key == *key) {
            page.content = content;
        }
    }
}

/// Returns the notes of `sources status` about all sources.
fn notes(snapshot: &mut Snapshot) -> Vec<Note> {
    let rows = std::mem::take(&mut snapshot.rows);
    let report = snapshot.report(rows);
    let notes = report.notes();
    snapshot.rows = report.rows;
    notes
}

impl Snapshot {
    /// Returns `rows` as the report that `sources status` prints.
    pub(super) fn report(&self, rows: Vec<SourceRow>) -> SourcesReport {
        SourcesReport {
            as_of: self.as_of,
            rows,
            unusable: self.unusable.clone(),
            problems: self.problems.clone(),
            show: Show::Status,
            choice: Choice::default(),
        }
    }
}

/// Whether all of `words`, in lower case, occur in the names or verdicts of a source.
fn matches(row: &SourceRow, words: &[String]) -> bool {
    if words.is_empty() {
        return true;
    }
    let summary = &row.summary;
    let status = if row.is_checked() {
        summary.status.as_str()
    } else {
        "not checked yet"
    };
    let live = if row.is_live() { "live" } else { "" };
    let auth = summary.auth_status.map(|auth| auth.to_string());
    let text = [
        &summary.key.to_string(),
        summary.display_name.as_deref().unwrap_or_default(),
        status,
        summary.stream_status.as_str(),
        live,
        auth.as_deref().unwrap_or_default(),
        row.note().as_deref().unwrap_or_default(),
    ]
    .join(" ")
    .to_lowercase();
    words.iter().all(|word| text.contains(word))
}
