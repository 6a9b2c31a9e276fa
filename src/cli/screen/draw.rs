//! Draws `top`.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use super::keys::HELP;
use super::model::{Content, Model, Page, PageKind};
use super::spans;
use crate::cli::output::view::Tone;
use crate::cli::output::{Format, Note, Output, Report, render, style};
use crate::secrets;
use crate::view::cells;

/// The smallest screen that is drawn, in columns and rows.
const SMALLEST: (u16, u16) = (60, 15);
/// Columns from which on the head has a date.
const DATED: u16 = 100;
/// Columns of the mark beside the selected row.
const MARK: u16 = 2;

/// Draws the whole screen.
pub fn draw(frame: &mut Frame<'_>, model: &mut Model, output: &Output) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        return draw_too_small(frame, area);
    }
    let heights = [Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)];
    let [head, body, foot] = Layout::vertical(heights).areas(area);
    draw_head(frame, head, model, output);
    if model.has_help {
        draw_help(frame, body);
    } else if let Some(page) = &mut model.page {
        model.height = usize::from(body.height).saturating_sub(1);
        draw_page(frame, body, page, output);
    } else {
        draw_sources(frame, body, model, output);
    }
    draw_foot(frame, foot, model, output);
}

fn draw_too_small(frame: &mut Frame<'_>, area: Rect) {
    let text = format!(
        "too small: needs {}x{},\nhas {}x{} (q quits)",
        SMALLEST.0, SMALLEST.1, area.width, area.height
    );
    frame.render_widget(Paragraph::new(text).centered(), area);
}

/// Returns the style of reports that are `width` columns wide.
fn of_width(output: &Output, width: u16) -> style::Style {
    style::Style {
        width: Some(width),
        ..output.out
    }
}

/// Returns rendered text as lines of the screen, without secrets.
fn lines(text: &str) -> Vec<Line<'static>> {
    spans::lines(&secrets::mask(text))
}

fn of_tone(tone: Tone, output: &Output, text: &str) -> Line<'static> {
    lines(&output.out.paint(tone, text)).pop().unwrap_or_default()
}

/// The summary, and the time that all of it is of.
fn draw_head(frame: &mut Frame<'_>, area: Rect, model: &Model, output: &Output) {
    let moment = cells::moment(model.snapshot.as_of);
    let time = match moment.split_once(' ') {
        Some((_, time)) if area.width < DATED => format!(" {time}"),
        _ => format!(" {moment}"),
    };
    let widths = [
        Constraint::Min(1),
        Constraint::Length(u16::try_from(time.len()).unwrap_or(20)),
    ];
    let [left, right] = Layout::horizontal(widths).areas(area);
    let summary: Vec<Note> = model
        .notes
        .iter()
        .filter(|note| is_summary(note))
        .cloned()
        .collect();
    let text = output.text_of(&summary, of_width(output, u16::MAX));
    let summary = lines(text.trim_start()).into_iter().next();
    frame.render_widget(summary.unwrap_or_else(|| "bitbrat top".into()), left);
    frame.render_widget(of_tone(Tone::Dim, output, &time), right);
}

fn is_summary(note: &Note) -> bool {
    matches!(note, Note::Summary(_))
}

/// What needs attention, then the table.
fn draw_sources(frame: &mut Frame<'_>, area: Rect, model: &mut Model, output: &Output) {
    let hints: Vec<Note> = model
        .notes
        .iter()
        .filter(|note| !is_summary(note))
        .cloned()
        .collect();
    let mut attention = lines(&output.text_of(&hints, of_width(output, area.width)));
    if attention.is_empty() {
        attention.push(of_tone(Tone::Good, output, "Nothing needs attention."));
    }
    let most = usize::from(area.height / 3).max(3);
    if attention.len() > most {
        let more = format!(
            "+{} more lines; `bitbrat status` shows all",
            attention.len() - most + 1
        );
        attention.truncate(most - 1);
        attention.push(of_tone(Tone::Dim, output, &more));
    }
    let heights = [
        Constraint::Length(u16::try_from(attention.len()).unwrap_or(u16::MAX)),
        Constraint::Length(1),
        Constraint::Min(1),
    ];
    let [top, _, table] = Layout::vertical(heights).areas(area);
    frame.render_widget(Paragraph::new(attention), top);
    draw_table(frame, table, model, output);
}

/// The rows around the selected one.
fn draw_table(frame: &mut Frame<'_>, area: Rect, model: &mut Model, output: &Output) {
    model.height = usize::from(area.height).saturating_sub(1).max(1);
    let place = model.place();
    let count = model.shown().len();
    // The cursor stays on the screen, and the screen full.
    model.offset = model.offset.min(count.saturating_sub(model.height));
    model.offset = model
        .offset
        .clamp((place + 1).saturating_sub(model.height), place);
    let rows = model.shown().into_iter().skip(model.offset).take(model.height);
    let rows: Vec<_> = rows.cloned().collect();
    if rows.is_empty() {
        let text = if model.filter.is_empty() {
            "no sources are configured and none are stored"
        } else {
            "no source matches the filter; Esc removes it"
        };
        frame.render_widget(of_tone(Tone::Dim, output, text), area);
        return;
    }
    let mut report = model.snapshot.report(rows);
    // They are no sources that a key could act on; the notes count them.
    report.unusable.clear();
    let text = rendered(&report, of_width(output, area.width.saturating_sub(MARK)));
    let selected = place - model.offset + 1;
    let marked = lines(&text).into_iter().enumerate().map(|(index, mut line)| {
        let is_selected = index == selected;
        line.spans.insert(0, if is_selected { "> " } else { "  " }.into());
        if is_selected {
            line.style = Style::default().add_modifier(Modifier::REVERSED);
        }
        line
    });
    frame.render_widget(Paragraph::new(marked.collect::<Vec<_>>()), area);
}

fn rendered(report: &impl Report, style: style::Style) -> String {
    render(report, Format::Table, style).unwrap_or_else(|error| error.to_string())
}

/// One source in full, under a line that names the page.
fn draw_page(frame: &mut Frame<'_>, area: Rect, page: &mut Page, output: &Output) {
    let heights = [Constraint::Length(1), Constraint::Min(1)];
    let [title, body] = Layout::vertical(heights).areas(area);
    let style = of_width(output, body.width);
    let (text, as_of) = match &page.content {
        Content::Loading => ("reading the store ...".to_owned(), None),
        Content::Failed(reason) => (reason.clone(), None),
        Content::Source(report) => (rendered(&**report, style), Some(report.as_of)),
        Content::History(report) => {
            let mut text = rendered(&**report, style);
            text.push_str(&output.text_of(&report.notes(), style));
            (text, Some(report.as_of))
        }
    };
    let what = match page.kind {
        PageKind::Describe => "Description",
        PageKind::History => "History",
    };
    let as_of = as_of.map_or_else(String::new, |at| format!(" as of {}", cells::moment(at)));
    let heading = format!("{what} of {}{as_of}", page.key);
    frame.render_widget(of_tone(Tone::Strong, output, &heading), title);
    let lines = lines(&text);
    let room = usize::from(body.height);
    page.scroll = page.scroll.min(lines.len().saturating_sub(room));
    let shown: Vec<Line<'_>> = lines.into_iter().skip(page.scroll).take(room).collect();
    frame.render_widget(Paragraph::new(shown), body);
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let keys = HELP
        .iter()
        .map(|(key, what)| Line::from(format!("{key:<18}{what}")));
    let mut lines = vec![Line::from("Keys").style(Style::default().add_modifier(Modifier::BOLD))];
    lines.extend(keys);
    frame.render_widget(Paragraph::new(lines), area);
}

/// The filter while it is typed, else what happened last, else the keys.
fn draw_foot(frame: &mut Frame<'_>, area: Rect, model: &Model, output: &Output) {
    if model.is_typing {
        let line = Line::from(format!("/{}", model.filter));
        let column = u16::try_from(line.width()).unwrap_or(u16::MAX);
        frame.set_cursor_position((area.x + column.min(area.width.saturating_sub(1)), area.y));
        frame.render_widget(line, area);
        return;
    }
    if let Some((tone, text)) = &model.message {
        frame.render_widget(of_tone(*tone, output, text), area);
        return;
    }
    let keys = if model.page.is_some() {
        "q quit  Esc back  j/k scroll  Enter describe  h history  p check"
    } else {
        "q quit  ? help  j/k move  Enter describe  h history  p check  / filter"
    };
    let text = match model.filter.as_str() {
        "" => keys.to_owned(),
        filter => format!("filter: {filter}  (Esc removes it)"),
    };
    frame.render_widget(of_tone(Tone::Dim, output, &text), area);
}
