//! `help errors`: the registry of error codes as pages.

use std::fmt::Write as _;

use clap::Args;
use clap_complete::ArgValueCompleter;

use crate::cli::complete;
use crate::cli::output::view::{Cell, Column, Grid};
use crate::cli::output::{Style, grid, wrap, write_out};
use crate::config::closest;
use crate::core::code::{Code, Group};
use crate::failure::{ExitCode, Failure};

/// Describe the error codes
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat help errors
  bitbrat help errors twitch.not_found
  bitbrat help errors --markdown > errors.md")]
pub struct ErrorsArgs {
    /// The code to explain; all codes when none is given
    #[arg(add = ArgValueCompleter::new(complete::error_codes))]
    code: Option<String>,
    /// Print the page of the documentation
    #[arg(long, conflicts_with = "code")]
    markdown: bool,
}

/// Prints all codes in groups, or explains one.
pub fn run(args: &ErrorsArgs, style: Style) -> Result<ExitCode, Failure> {
    let text = match &args.code {
        Some(text) => explain(text.parse().map_err(|_| unknown(text))?, style),
        None if args.markdown => markdown(),
        None => list(style),
    };
    write_out(&text)?;
    Ok(ExitCode::Healthy)
}

fn explain(code: Code, style: Style) -> String {
    let mut text = format!("{code}\n");
    for paragraph in [
        code.meaning().to_owned(),
        format!("What to do: {}", code.remedy()),
        format!("Where it appears: {}.", code.group().place()),
    ] {
        text.push('\n');
        wrap::paragraph(&mut text, &paragraph, style);
    }
    text
}

fn unknown(text: &str) -> Failure {
    let codes: Vec<_> = Code::all().map(Code::text).collect();
    let failure = Failure::new(ExitCode::Usage, "there is no error code of this name");
    let failure = match closest(text, codes.iter().map(|code| &**code)) {
        Some(meant) => failure.hint(format!("did you mean `{meant}`?")),
        None => failure,
    };
    failure.hint("run `bitbrat help errors` to see every code")
}

fn in_group(group: Group) -> impl Iterator<Item = Code> {
    Code::ENTRIES
        .iter()
        .copied()
        .filter(move |code| code.group() == group)
}

fn list(style: Style) -> String {
    let mut text = String::new();
    let title = "Error codes. `bitbrat help errors CODE` explains one and what to do.";
    wrap::paragraph(&mut text, title, style);
    for group in Group::ALL {
        text.push('\n');
        let heading = format!("{} ({}):", group.title(), group.place());
        wrap::paragraph(&mut text, &heading, style);
        let codes = Grid {
            columns: vec![Column::kept(""); 2],
            rows: in_group(group)
                .map(|code| vec![Cell::new(code.pattern()), Cell::new(code.meaning())])
                .collect(),
            headed: false,
        };
        grid::draw_wrapped(&mut text, &codes, style, 2);
    }
    text
}

/// Returns `docs/errors.md`.
fn markdown() -> String {
    let mut text = String::from(
        "# Error codes\n\n\
         <!-- Generated from the registry in `src/core/code.rs`: UPDATE_GENERATED=1 cargo nextest run errors_page -->\n\n\
         Codes are stable: programs may decide by them. The message beside a code is for people and may change. A situation that can occur on\n\
         every platform has the same name on each of them. `bitbrat help errors CODE` prints one entry of this page.\n\n\
         Documents and events of other programs may have codes that are not listed here; they are stored and shown as they are.\n",
    );
    for group in Group::ALL {
        let _ = write!(
            text,
            "\n## {}\n\nAppear in: {}.\n\n",
            group.title(),
            group.place()
        );
        text.push_str("| code | meaning | what to do |\n| --- | --- | --- |\n");
        for code in in_group(group) {
            let _ = writeln!(
                text,
                "| `{}` | {} | {} |",
                code.pattern(),
                code.meaning(),
                code.remedy()
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_errors_page_is_the_generated_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/errors.md");
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            std::fs::write(path, markdown()).unwrap();
        }
        let shipped = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            shipped == markdown(),
            "docs/errors.md differs from the registry; run this test with UPDATE_GENERATED=1"
        );
    }

    #[test]
    fn pages_are_wrapped_to_the_terminal_and_whole_on_a_pipe() {
        for width in [60, 80, 120] {
            let style = Style {
                width: Some(width),
                ..Style::PLAIN
            };
            let pages = Code::all().map(|code| explain(code, style));
            for line in pages.chain([list(style)]).collect::<String>().lines() {
                assert!(wrap::width(line) <= usize::from(width), "{width}: {line}");
            }
        }
        let list = list(Style::PLAIN);
        let not_found = Code::ENTRIES
            .iter()
            .find(|code| code.pattern().ends_with(".not_found"));
        let meaning = not_found.unwrap().meaning();
        assert!(list.lines().any(|line| line.ends_with(meaning)), "{list}");
    }

    #[test]
    fn every_code_is_explained_by_name() {
        for code in Code::all() {
            let args = code.text().parse().map(|code| explain(code, Style::PLAIN));
            assert!(args.is_ok_and(|page| page.starts_with(&*code.text())), "{code}");
        }
    }
}
