//! Rendered reports as lines of the screen.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

/// Converts rendered text to lines. Reports contain no escape sequences but those of their own colors: foreign text is made
/// printable before.
pub(super) fn lines(text: &str) -> Vec<Line<'static>> {
    text.lines().map(line).collect()
}

fn line(text: &str) -> Line<'static> {
    let mut parts = text.split("\u{1b}[");
    let mut spans: Vec<Span<'static>> = parts
        .next()
        .filter(|first| !first.is_empty())
        .map(|first| first.to_owned().into())
        .into_iter()
        .collect();
    for part in parts {
        let (codes, text) = part.split_once('m').unwrap_or(("", part));
        if !text.is_empty() {
            spans.push(Span::styled(text.to_owned(), style(codes)));
        }
    }
    Line::from(spans)
}

fn style(codes: &str) -> Style {
    codes.split(';').fold(Style::default(), |style, code| match code {
        "1" => style.add_modifier(Modifier::BOLD),
        "2" => style.add_modifier(Modifier::DIM),
        "31" => style.fg(Color::Red),
        "32" => style.fg(Color::Green),
        "33" => style.fg(Color::Yellow),
        "35" => style.fg(Color::Magenta),
        _ => style,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output;
    use crate::cli::output::view::Tone;

    #[test]
    fn colors_of_reports_become_styles_of_the_screen() {
        let painter = output::Style {
            width: None,
            color: true,
            unicode: true,
        };
        for (tone, expected) in [
            (Tone::Plain, Style::default()),
            (Tone::Good, Style::default().fg(Color::Green)),
            (Tone::Warn, Style::default().fg(Color::Yellow)),
            (
                Tone::Bad,
                Style::default().fg(Color::Red).add_modifier(Modifier::BOLD),
            ),
            (
                Tone::Live,
                Style::default().fg(Color::Magenta).add_modifier(Modifier::BOLD),
            ),
            (Tone::Dim, Style::default().add_modifier(Modifier::DIM)),
            (Tone::Strong, Style::default().add_modifier(Modifier::BOLD)),
        ] {
            let text = format!("a {} c", painter.paint(tone, "[b]"));
            let line = line(&text);
            assert_eq!(line.to_string(), "a [b] c", "{tone:?}");
            let found = line.spans.iter().find(|span| span.content.contains("[b]"));
            assert_eq!(found.unwrap().style, expected, "{tone:?}");
        }
    }
}
