//! Help that belongs to no single command.

use std::fmt::Write as _;

use crate::failure::ExitCode;

/// What stands under the list of commands.
pub const ROOT: &str = "\
Examples:
  bitbrat --demo sources status --probe   see it work, without any credentials
  bitbrat config init                     write a configuration to begin with
  bitbrat sources status                  what is known now, and how old that is
  bitbrat doctor                          check everything, with the next command to run

`bitbrat help exit-codes` tells what the exit codes mean.";

/// The page on exit codes.
pub fn exit_codes() -> String {
    let mut text = String::from("What the exit codes mean:\n\n");
    for code in ExitCode::ALL {
        let _ = writeln!(text, "  {:>3}  {}", code.number(), code.meaning());
    }
    text.push_str(
        "\nWhen several apply to what was shown, the first of 4, 3, 8, 0 counts. A stream that is OFFLINE is not a failure.\n\
         `sources status --fail-on` chooses what counts.",
    );
    text
}
