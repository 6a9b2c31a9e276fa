//! The screen of `top` as text, and its keys.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Modifier;
use tokio::time::Instant;

use super::draw::draw;
use super::model::{Action, Content, Model, PageKind, Snapshot};
use crate::cli::output::{Format, Output, Style};
use crate::cli::reports::history::HistoryReport;
use crate::cli::reports::source::SourceReport;
use crate::core::source::SourceKey;
use crate::view::detail::SourceInFull;
use crate::view::tests::{Story, gone, guild, now, old_knowledge, ratcaster, revoked};

/// Sources of every kind, in the order of their keys.
fn stories() -> Vec<Story> {
    vec![
        guild(),
        old_knowledge(),
        Story::of("kick:70001"),
        ratcaster(),
        revoked(),
        gone(),
        Story::of("twitch:900211").up(5).named("雪の庭", ""),
    ]
}

fn snapshot(stories: &[Story]) -> Snapshot {
    Snapshot {
        as_of: now(),
        rows: stories.iter().map(Story::row).collect(),
        unusable: Vec::new(),
        problems: Vec::new(),
    }
}

fn output() -> Output {
    let style = Style {
        width: None,
        color: false,
        unicode: true,
    };
    Output {
        format: Format::Table,
        is_chosen: false,
        out: style,
        err: style,
        quiet: true,
        invocation: Box::leak(Box::default()),
        is_terminal: true,
    }
}

/// Draws a screen of this size.
fn terminal(model: &mut Model, (width, height): (u16, u16)) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model, &output())).unwrap();
    terminal
}

/// Returns the screen as text.
fn screen(model: &mut Model, size: (u16, u16)) -> String {
    let shown = terminal(model, size).backend().to_string();
    // The backend quotes its rows, and notes which cells wide characters hide.
    let rows = shown.lines().map(|line| {
        let row = line.get(1..).unwrap_or_default();
        row.split('"').next().unwrap_or_default().trim_end()
    });
    rows.collect::<Vec<_>>().join("\n")
}

fn press(model: &mut Model, code: KeyCode) -> Action {
    model.key(KeyEvent::new(code, KeyModifiers::NONE), Instant::now())
}

fn types(model: &mut Model, text: &str) {
    for c in text.chars() {
        press(model, KeyCode::Char(c));
    }
}

fn key(text: &str) -> SourceKey {
    text.parse().unwrap()
}

fn keys(model: &Model) -> Vec<String> {
    let shown = model.shown();
    shown.iter().map(|row| row.summary.key.to_string()).collect()
}

#[test]
fn attention_comes_first_at_every_size() {
    for size in [(80, 24), (60, 15), (200, 60)] {
        let mut model = Model::new(snapshot(&stories()));
        insta::assert_snapshot!(format!("top_{}x{}", size.0, size.1), screen(&mut model, size));
    }
}

#[test]
fn terminal_below_the_minimum_shows_both_sizes() {
    let mut model = Model::new(snapshot(&stories()));
    for size in [(59, 15), (60, 14), (30, 5)] {
        let text = screen(&mut model, size);
        assert!(text.contains("needs 60x15"), "{text}");
    }
    for size in [(1, 1), (2, 1)] {
        screen(&mut model, size);
    }
}

#[test]
fn table_without_sources_shows_how_to_add_one() {
    let mut model = Model::new(snapshot(&[]));
    let text = screen(&mut model, (80, 24));
    assert!(text.contains("no sources are configured"), "{text}");
    assert!(text.contains("bitbrat init"), "{text}");
    for code in [KeyCode::Enter, KeyCode::Char('p'), KeyCode::Down, KeyCode::End] {
        assert_eq!(press(&mut model, code), Action::None);
    }
}

#[test]
fn selected_row_is_marked_and_reversed() {
    let mut model = Model::new(snapshot(&stories()));
    let terminal = terminal(&mut model, (80, 24));
    let buffer = terminal.backend().buffer();
    let marked: Vec<u16> = (0..24).filter(|row| buffer[(0, *row)].symbol() == ">").collect();
    assert_eq!(marked.len(), 1);
    for row in 0..24 {
        let is_reversed = buffer[(2, row)].modifier.contains(Modifier::REVERSED);
        assert_eq!(is_reversed, row == marked[0], "{row}");
    }
}

#[test]
fn selection_stays_on_its_source_while_rows_move() {
    let healed = || Story::of("twitch:900207").up(1).named("LapsedLynx", "");
    let start = Instant::now();
    let mut model = Model::new(snapshot(&stories()));
    assert_eq!(model.selected, Some(key("twitch:900207")));
    let mut next = stories();
    next[4] = healed();
    model.update(snapshot(&next), start + Duration::from_secs(5));
    assert_eq!(model.selected, Some(key("twitch:900207")));
    assert_ne!(model.place(), 0, "{:?}", keys(&model));
}

#[test]
fn rows_keep_their_places_within_a_second_after_a_key() {
    let start = Instant::now();
    let mut model = Model::new(snapshot(&stories()));
    let before = keys(&model);
    model.key(KeyEvent::new(KeyCode::Down, KeyModifiers::NONE), start);
    let mut next = stories();
    next[4] = Story::of("twitch:900207").up(1);
    next.push(Story::of("kick:1"));
    model.update(snapshot(&next), start + Duration::from_millis(999));
    let steady = keys(&model);
    assert_eq!(steady[..before.len()], before);
    assert_eq!(steady.last().unwrap(), "kick:1");
    assert_eq!(model.sorts_at(), Some(start + Duration::from_secs(1)));
    assert!(!model.settle(start + Duration::from_millis(999)));
    assert!(model.settle(start + Duration::from_secs(1)));
    assert_ne!(keys(&model)[..before.len()], before);
    assert_eq!(model.selected, Some(key(&before[1])));
    assert_eq!(model.sorts_at(), None);
}

#[test]
fn source_in_the_same_place_is_selected_when_one_is_gone() {
    let mut model = Model::new(snapshot(&stories()));
    press(&mut model, KeyCode::Down);
    let before = keys(&model);
    let mut next = stories();
    next.retain(|story| story.key != before[1]);
    model.update(snapshot(&next), Instant::now());
    assert_eq!(model.selected, Some(key(&before[2])));
    model.update(snapshot(&[]), Instant::now());
    assert_eq!(model.selected, None);
}

#[test]
fn filter_matches_names_and_verdicts_and_escape_removes_it() {
    for (filter, expected) in [
        ("ratcaster", vec!["twitch:900200"]),
        ("KICK", vec!["kick:55501", "kick:70001"]),
        ("twitch revoked", vec!["twitch:900207"]),
        ("live", vec!["twitch:900200"]),
        ("not checked", vec!["kick:70001"]),
        ("雪", vec!["twitch:900211"]),
        ("nonsense", vec![]),
    ] {
        let mut model = Model::new(snapshot(&stories()));
        press(&mut model, KeyCode::Char('/'));
        types(&mut model, filter);
        let mut shown = keys(&model);
        shown.sort_unstable();
        assert_eq!(shown, expected, "{filter}");
        assert!(screen(&mut model, (80, 24)).contains(&format!("/{filter}")));
        press(&mut model, KeyCode::Enter);
        // What is typed now are keys again.
        assert_eq!(press(&mut model, KeyCode::Esc), Action::None);
        assert_eq!(keys(&model).len(), 7);
        assert_eq!(press(&mut model, KeyCode::Esc), Action::Quit);
    }
}

#[test]
fn keys_act_on_the_selected_source_or_the_open_page() {
    let mut model = Model::new(snapshot(&stories()));
    let selected = key("twitch:900207");
    assert_eq!(
        press(&mut model, KeyCode::Char('p')),
        Action::Probe(selected.clone())
    );
    let open = Action::Open(PageKind::Describe, selected.clone());
    assert_eq!(press(&mut model, KeyCode::Enter), open);
    let open = Action::Open(PageKind::History, selected.clone());
    assert_eq!(press(&mut model, KeyCode::Char('h')), open);
    assert_eq!(press(&mut model, KeyCode::Char('p')), Action::Probe(selected));
    assert_eq!(press(&mut model, KeyCode::Esc), Action::None);
    assert!(model.open_page().is_none());
    let control = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
    assert_eq!(model.key(control('c'), Instant::now()), Action::Interrupt);
    assert_eq!(model.key(control('z'), Instant::now()), Action::Suspend);
    press(&mut model, KeyCode::Char('/'));
    assert_eq!(press(&mut model, KeyCode::Char('q')), Action::None);
    assert_eq!(model.key(control('c'), Instant::now()), Action::Interrupt);
}

#[test]
fn pages_show_the_reports_of_describe_and_history() {
    let story = ratcaster();
    let selected = key(story.key);
    let found = story.found();
    let report = SourceReport {
        as_of: now(),
        sources: vec![SourceInFull {
            as_of: now(),
            row: found.row,
            document: found.document,
            listening: None,
            history: story.history(),
        }],
        unusable: Vec::new(),
        total: 1,
        notes: Vec::new(),
    };
    let history = HistoryReport {
        as_of: now(),
        keys: vec![selected.clone()],
        entries: story
            .history()
            .into_iter()
            .map(|entry| (selected.clone(), entry))
            .collect(),
        unusable: Vec::new(),
        since: None,
    };
    let mut model = Model::new(snapshot(&[ratcaster()]));
    press(&mut model, KeyCode::Enter);
    assert!(screen(&mut model, (80, 24)).contains("reading the store"));
    model.show_page(PageKind::Describe, &selected, Content::Source(Box::new(report)));
    insta::assert_snapshot!("top_describe", screen(&mut model, (80, 24)));
    press(&mut model, KeyCode::End);
    let end = screen(&mut model, (80, 24));
    press(&mut model, KeyCode::Down);
    assert_eq!(screen(&mut model, (80, 24)), end, "nothing is below the end");
    press(&mut model, KeyCode::Char('h'));
    model.show_page(PageKind::Describe, &selected, Content::Failed("late".into()));
    assert!(!screen(&mut model, (80, 24)).contains("late"));
    model.show_page(PageKind::History, &selected, Content::History(Box::new(history)));
    insta::assert_snapshot!("top_history", screen(&mut model, (80, 24)));
}

#[test]
fn help_lists_the_keys_until_the_next_one() {
    let mut model = Model::new(snapshot(&stories()));
    press(&mut model, KeyCode::Char('?'));
    insta::assert_snapshot!("top_help", screen(&mut model, (60, 15)));
    let before = model.selected.clone();
    assert_eq!(press(&mut model, KeyCode::Down), Action::None);
    assert_eq!(model.selected, before);
    assert!(screen(&mut model, (60, 15)).contains("SOURCE"));
}

#[test]
fn cursor_stays_on_the_screen_of_many_sources() {
    let keys: Vec<String> = (1000..2000).map(|id| format!("kick:{id}")).collect();
    let stories: Vec<Story> = keys
        .iter()
        .map(|key| Story::of(Box::leak(key.clone().into_boxed_str())))
        .collect();
    let mut model = Model::new(snapshot(&stories));
    for (code, expected) in [
        (KeyCode::End, "> kick:1999"),
        (KeyCode::Up, "> kick:1998"),
        (KeyCode::Home, "> kick:1000"),
        (KeyCode::PageDown, "> kick:10"),
        (KeyCode::Char('G'), "> kick:1999"),
    ] {
        press(&mut model, code);
        let text = screen(&mut model, (80, 24));
        assert!(text.contains(expected), "{code:?}:\n{text}");
    }
}
