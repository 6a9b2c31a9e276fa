//! `help errors`: the registry of error codes as pages.

use std::fmt::Write as _;

use clap::Args;

use crate::cli::output::write_out;
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
    code: Option<String>,
    /// Print the page of the documentation
    #[arg(long, conflicts_with = "code")]
    markdown: bool,
}

/// Prints all codes in groups, or explains one.
pub fn run(args: &ErrorsArgs) -> Result<ExitCode, Failure> {
    let text = match &args.code {
        Some(text) => explain(text.parse().map_err(|_| unknown(text))?),
        None if args.markdown => markdown(),
        None => list(),
    };
    write_out(&text)?;
    Ok(ExitCode::Healthy)
}

fn explain(code: Code) -> String {
    format!(
        "{code}\n\n{}\n\nWhat to do: {}\n\nWhere it appears: {}.\n",
        code.meaning(),
        code.remedy(),
        code.group().place()
    )
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

fn list() -> String {
    let mut text = String::from("Error codes. `bitbrat help errors CODE` explains one and what to do.\n");
    for group in Group::ALL {
        let _ = write!(text, "\n{} ({}):\n", group.title(), group.place());
        let width = in_group(group).map(|code| code.pattern().len()).max();
        for code in in_group(group) {
            let (pattern, width) = (code.pattern(), width.unwrap_or(0));
            let _ = writeln!(text, "  {pattern:width$}  {}", code.meaning());
        }
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
    fn every_code_is_explained_by_name() {
        for code in Code::all() {
            let args = code.text().parse().map(explain);
            assert!(args.is_ok_and(|page| page.starts_with(&*code.text())), "{code}");
        }
    }
}
