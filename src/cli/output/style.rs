//! Capabilities of the terminal: its width, color, and symbols beyond ASCII.

use std::io::IsTerminal as _;

use crate::cli::output::view::{Cell, Tone};

/// When to use color.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ColorChoice {
    /// On a terminal that can, unless `NO_COLOR` is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Columns that fit on a line; `None` when lines may be of any length.
    pub width: Option<u16>,
    pub color: bool,
    /// Whether symbols beyond ASCII are used.
    pub unicode: bool,
}

impl Style {
    /// No color, no symbols, no limit: the style for a file or a pipe.
    pub const PLAIN: Self = Self {
        width: None,
        color: false,
        unicode: false,
    };

    /// Determines the style of standard output.
    pub fn of_stdout(choice: ColorChoice, env: &Env<'_>) -> Self {
        Self::detect(choice, env, std::io::stdout().is_terminal())
    }

    /// Determines the style of standard error.
    pub fn of_stderr(choice: ColorChoice, env: &Env<'_>) -> Self {
        Self::detect(choice, env, std::io::stderr().is_terminal())
    }

    fn detect(choice: ColorChoice, env: &Env<'_>, terminal: bool) -> Self {
        let asked = env("COLUMNS").and_then(|columns| columns.trim().parse().ok());
        let measured = || {
            terminal
                .then(|| comfy_table::Table::new().width())
                .flatten()
                .filter(|width| *width > 0)
        };
        Self {
            width: asked.filter(|columns| *columns > 0).or_else(measured),
            color: wants_color(choice, env, terminal),
            unicode: supports_unicode(env),
        }
    }

    /// Returns the style with the terminal's present width. A width that was set explicitly stays.
    #[must_use]
    pub fn measured_again(self) -> Self {
        let is_asked = std::env::var("COLUMNS")
            .is_ok_and(|columns| columns.trim().parse::<u16>().is_ok_and(|columns| columns > 0));
        let measured = terminal_size::terminal_size().map(|(width, _)| width.0);
        Self {
            width: measured.filter(|width| *width > 0 && !is_asked).or(self.width),
            ..self
        }
    }

    /// Returns `text` in the color of `tone`.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let mut painted = String::new();
        self.paint_to(&mut painted, tone, text);
        painted
    }

    /// Appends `text` in the color of `tone`.
    pub fn paint_to(self, to: &mut String, tone: Tone, text: &str) {
        self.paint_parts(to, tone, [text]);
    }

    fn paint_parts<const N: usize>(self, to: &mut String, tone: Tone, parts: [&str; N]) {
        let codes = if self.color { codes(tone) } else { "" };
        let plain = codes.is_empty() || parts.iter().all(|part| part.is_empty());
        let (before, after): (&[&str], &[&str]) = match plain {
            true => (&[], &[]),
            false => (&["\u{1b}[", codes, "m"], &["\u{1b}[0m"]),
        };
        for part in before.iter().chain(&parts).chain(after) {
            to.push_str(part);
        }
    }

    /// Returns a cell's symbol and text, without color.
    pub fn spell(self, cell: &Cell) -> String {
        self.parts(cell).concat()
    }

    /// Returns a cell with symbol, text and color.
    pub fn show(self, cell: &Cell) -> String {
        let mut shown = String::new();
        self.add_observer(&mut shown, cell);
        shown
    }

    /// Appends a cell with symbol, text and color.
    pub fn add_observer(self, to: &mut String, cell: &Cell) {
        self.paint_parts(to, cell.tone, self.parts(cell));
    }

    /// The symbol, what separates it from the text, and the text.
    fn parts(self, cell: &Cell) -> [&str; 3] {
        let symbol = cell.glyph.map_or("", |glyph| glyph.draw(self.unicode));
        let both = !symbol.is_empty() && !cell.text.is_empty();
        [symbol, if both { " " } else { "" }, &cell.text]
    }

    pub fn separator(self) -> &'static str {
        if self.unicode { " · " } else { ", " }
    }
}

/// Reads a variable of the environment.
pub type Env<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// The flag decides, then `NO_COLOR`, then `CLICOLOR_FORCE`, then `CLICOLOR=0` and dumb terminals, then whether the output is a
/// terminal (<https://no-color.org>, <https://bixense.com/clicolors>).
fn wants_color(choice: ColorChoice, env: &Env<'_>, terminal: bool) -> bool {
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto if set("NO_COLOR").is_some() => false,
        ColorChoice::Auto if set("CLICOLOR_FORCE").is_some_and(|value| value != "0") => true,
        ColorChoice::Auto if set("CLICOLOR").is_some_and(|value| value == "0") => false,
        ColorChoice::Auto => terminal && set("TERM").is_none_or(|term| term != "dumb"),
    }
}

/// The first of the locale variables that is set decides, as in POSIX; without any the locale is `C`.
fn supports_unicode(env: &Env<'_>) -> bool {
    if cfg!(windows) {
        return true;
    }
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| env(name).filter(|value| !value.is_empty()))
        .unwrap_or_default()
        .to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// The terminal's own sixteen colors, so that its theme stays in effect.
fn codes(tone: Tone) -> &'static str {
    match tone {
        Tone::Plain => "",
        Tone::Good => "32",
        Tone::Warn => "33",
        Tone::Bad => "1;31",
        Tone::Live => "1;35",
        Tone::Dim => "2",
        Tone::Strong => "1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> {
        move |name| {
            let found = pairs.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        }
    }

    #[test]
    fn color_follows_flag_then_environment_then_terminal() {
        use ColorChoice::{Always, Auto, Never};
        for (choice, pairs, terminal, expected) in [
            (Auto, &[][..], true, true),
            (Auto, &[][..], false, false),
            (Auto, &[("NO_COLOR", "1")][..], true, false),
            (Auto, &[("NO_COLOR", "")][..], true, true),
            (Auto, &[("CLICOLOR_FORCE", "1")][..], false, true),
            (Auto, &[("CLICOLOR_FORCE", "0")][..], false, false),
            (
                Auto,
                &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")][..],
                true,
                false,
            ),
            (Auto, &[("CLICOLOR", "0")][..], true, false),
            (Auto, &[("TERM", "dumb")][..], true, false),
            (Always, &[("NO_COLOR", "1")][..], false, true),
            (Never, &[("CLICOLOR_FORCE", "1")][..], true, false),
        ] {
            assert_eq!(
                wants_color(choice, &env(pairs), terminal),
                expected,
                "{choice:?} {pairs:?}"
            );
        }
    }

    #[test]
    fn symbols_need_a_utf8_locale() {
        for (pairs, expected) in [
            (&[][..], false),
            (&[("LANG", "en_GB.UTF-8")][..], true),
            (&[("LANG", "C.utf8")][..], true),
            (&[("LANG", "en_GB.UTF-8"), ("LC_ALL", "C")][..], false),
            (&[("LC_ALL", ""), ("LC_CTYPE", "C.UTF-8")][..], true),
        ] {
            assert_eq!(
                supports_unicode(&env(pairs)),
                expected || cfg!(windows),
                "{pairs:?}"
            );
        }
    }

    #[test]
    fn columns_can_be_given() {
        let style = Style::detect(ColorChoice::Auto, &env(&[("COLUMNS", "72")]), false);
        assert_eq!(style.width, Some(72));
        assert_eq!(Style::detect(ColorChoice::Auto, &env(&[]), false).width, None);
    }
}
