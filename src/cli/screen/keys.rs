//! What the keys of `top` do.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use tokio::time::Instant;

use super::model::{Action, Content, Model, Page, PageKind};

/// The keys and what they do, as the help shows them.
pub(super) const HELP: [(&str, &str); 11] = [
    ("j, Down / k, Up", "next / previous source"),
    ("PgDn / PgUp", "a screen further / back"),
    ("g, Home / G, End", "first / last source"),
    ("Enter", "describe: each status with its evidence"),
    ("h", "what changed about the source"),
    ("p", "check the source now"),
    ("/", "filter by id, name, status or note"),
    ("Esc", "back, then remove the filter, then quit"),
    ("?", "this help"),
    ("Ctrl-Z", "suspend; `fg` continues"),
    ("q, Ctrl-C", "quit"),
];

/// Characters of a filter.
const FILTER: usize = 60;
/// More than there are rows or lines.
const FAR: isize = 1 << 40;

impl Model {
    /// Handles one key.
    pub fn key(&mut self, key: KeyEvent, now: Instant) -> Action {
        self.touch(now);
        self.message = None;
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Action::Interrupt,
                KeyCode::Char('z') => Action::Suspend,
                _ => Action::None,
            };
        }
        if self.is_typing {
            self.type_filter(key.code);
            return Action::None;
        }
        match key.code {
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Esc => return self.back(),
            KeyCode::Char('?') => self.has_help = !self.has_help,
            _ if self.has_help => self.has_help = false,
            KeyCode::Char('j') | KeyCode::Down => self.scroll(1),
            KeyCode::Char('k') | KeyCode::Up => self.scroll(-1),
            KeyCode::PageDown | KeyCode::Char(' ') => self.scroll(self.screenful()),
            KeyCode::PageUp => self.scroll(-self.screenful()),
            KeyCode::Char('g') | KeyCode::Home => self.scroll(-FAR),
            KeyCode::Char('G') | KeyCode::End => self.scroll(FAR),
            KeyCode::Enter => return self.open(PageKind::Describe),
            KeyCode::Char('h') => return self.open(PageKind::History),
            KeyCode::Char('p') => return self.probe(),
            KeyCode::Char('/') if self.page.is_none() => self.is_typing = true,
            _ => {}
        }
        Action::None
    }

    fn screenful(&self) -> isize {
        isize::try_from(self.height.max(1)).unwrap_or(FAR)
    }

    /// Closes what is on top; with nothing left to close, quits.
    fn back(&mut self) -> Action {
        if self.has_help {
            self.has_help = false;
        } else if self.page.take().is_some() {
        } else if self.filter.is_empty() {
            return Action::Quit;
        } else {
            self.filter.clear();
            self.keep_selection(0);
        }
        Action::None
    }

    fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) if self.filter.chars().count() < FILTER => self.filter.push(c),
            _ => {}
        }
        self.keep_selection(0);
    }

    fn probe(&mut self) -> Action {
        let shown = self.page.as_ref().map(|page| &page.key);
        match shown.or(self.selected.as_ref()) {
            Some(key) => Action::Probe(key.clone()),
            None => Action::None,
        }
    }

    /// Opens a page of the source that is shown or selected.
    fn open(&mut self, kind: PageKind) -> Action {
        let shown = self.page.as_ref().map(|page| page.key.clone());
        let Some(key) = shown.or_else(|| self.selected.clone()) else {
            return Action::None;
        };
        self.page = Some(Page {
            key: key.clone(),
            kind,
            content: Content::Loading,
            scroll: 0,
        });
        Action::Open(kind, key)
    }
}
