//! `support bundle`: what is needed to understand a problem on another machine, without secrets, in one file.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::cli::commands::doctor;
use crate::cli::commands::sources::known::{self, Ask};
use crate::cli::commands::sources::{describe, past};
use crate::cli::context::{Context, Setup};
use crate::cli::login::Keyboard;
use crate::cli::output::{Listing, humane, machine, write_err, write_out};
use crate::cli::reports::config::ConfigReport;
use crate::cli::reports::source::SourceReport;
use crate::cli::selection::Selection;
use crate::config::{self, Configuration};
use crate::core::time::Timestamp;
use crate::failure::{ExitCode, Failure};
use crate::{files, secrets};

/// Sources in full; of more, the others are not included.
const SOURCES: usize = 500;
/// Log lines from the end of the file.
const LINES: usize = 5_000;
/// Size of a log file that is read (bytes).
const LOG_LIMIT: u64 = 256 * 1024 * 1024;

/// Collect what explains a problem in one file
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  bitbrat support bundle
  bitbrat support bundle --yes --file /tmp/bitbrat.tar.gz")]
pub enum SupportCommand {
    Bundle(BundleArgs),
}

/// Write a file with configuration, versions, checks, sources and log lines, without secrets
///
/// It lists what the file would contain, and asks before it writes it. Tokens, keys and passwords are masked; names and titles of
/// channels, paths and addresses are not. Works with a broken configuration, too.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat support bundle
  bitbrat support bundle --file bundle.tar.gz --yes
  journalctl -u bitbrat-watch -n 5000 > watch.log; bitbrat support bundle --log watch.log")]
pub struct BundleArgs {
    /// The file to write; default: bitbrat-support-TIME.tar.gz here
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// A log of `bitbrat watch`, whose last 5,000 lines are included
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    log: Option<PathBuf>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// One file of the bundle.
struct Part {
    name: &'static str,
    about: &'static str,
    text: String,
}

/// Runs the command. `cx` is absent when the configuration is invalid.
pub async fn run(
    setup: &Setup,
    configuration: &Configuration,
    cx: Option<&Context>,
    command: &SupportCommand,
) -> Result<ExitCode, Failure> {
    let SupportCommand::Bundle(args) = command;
    let now = setup.clock.now();
    let path = args.file.clone().unwrap_or_else(|| default_name(now));
    if path.symlink_metadata().is_ok() {
        let what = format!("{} exists already", path.display());
        return Err(Failure::new(ExitCode::Usage, what).hint("choose another file with --file"));
    }
    let mut parts = vec![versions(now), of_configuration(configuration, now)?];
    parts.extend(args.log.as_deref().map(log_lines).transpose()?);
    let checks = doctor::checks(configuration, cx, &[]).await;
    parts.push(Part {
        name: "doctor.json",
        about: "the result of every check",
        text: machine::json(&Listing::new(now, checks))?,
    });
    if let Some(cx) = cx {
        parts.extend(documents(cx).await?);
    }
    for part in &mut parts {
        // As foreign text: whatever has the form of a credential is masked, whether or not it is known.
        part.text = secrets::masked(std::mem::take(&mut part.text));
    }
    write_err(&listing(&path, &parts))?;
    if !args.yes {
        match Keyboard::open().confirms("Write it?", false).await? {
            Some(true) => {}
            Some(false) => return Err(Failure::new(ExitCode::Failed, "nothing was written")),
            None => {
                let what =
                    "the bundle is written only after a confirmation, and there is no terminal to ask on";
                return Err(Failure::new(ExitCode::Usage, what).hint("check the list above, then add --yes"));
            }
        }
    }
    write(&path, &parts, now).map_err(|error| {
        Failure::new(ExitCode::Failed, format!("cannot write {}", path.display())).because(&error)
    })?;
    write_out(&format!("{}\n", path.display()))?;
    Ok(ExitCode::Healthy)
}

fn default_name(now: Timestamp) -> PathBuf {
    let time: String = now
        .to_string()
        .chars()
        .filter(char::is_ascii_digit)
        .take(14)
        .collect();
    PathBuf::from(format!("bitbrat-support-{time}.tar.gz"))
}

fn versions(now: Timestamp) -> Part {
    Part {
        name: "versions.txt",
        about: "version, operating system and time",
        text: format!(
            "bitbrat {}\n{} {}\n{now}\n",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::OS,
            std::env::consts::ARCH
        ),
    }
}

fn of_configuration(configuration: &Configuration, now: Timestamp) -> Result<Part, Failure> {
    let report = ConfigReport {
        as_of: now,
        keys: config::shown(configuration),
        sources: configuration.settings.sources.clone(),
        problems: configuration.problems.len(),
    };
    Ok(Part {
        name: "configuration.json",
        about: "every key with its origin, secrets masked",
        text: machine::json(&report)?,
    })
}

/// Returns the last lines of a log.
fn log_lines(path: &Path) -> Result<Part, Failure> {
    let bytes = files::read_given(path, LOG_LIMIT).map_err(|error| {
        Failure::new(ExitCode::Usage, format!("cannot read the log {}", path.display())).because(&error)
    })?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    Ok(Part {
        name: "log.txt",
        about: "the last lines of the log",
        text: last.join("\n") + "\n",
    })
}

/// Returns the stored documents with their evidence and latest changes, and when daemons ran.
async fn documents(cx: &Context) -> Result<Vec<Part>, Failure> {
    // Where the store cannot be read, the checks contain the reason.
    let Ok(several) = known::in_full(cx, &Selection::default(), Ask::STORED).await else {
        return Ok(Vec::new());
    };
    let total = several.found.len();
    let mut sources = Vec::new();
    for found in several.found.into_iter().take(SOURCES) {
        sources.push(describe::in_full(cx, found).await?);
    }
    let report = SourceReport {
        as_of: cx.app.clock.now(),
        sources,
        unusable: several.unusable,
        total,
        notes: Vec::new(),
    };
    let runs = past::runs(cx).await.into_iter();
    let runs = runs.map(|run| format!("{} {}\n", run.from, run.until));
    Ok(vec![
        Part {
            name: "sources.json",
            about: "documents of sources with their evidence and latest changes",
            text: machine::json(&report)?,
        },
        Part {
            name: "runs.txt",
            about: "when `bitbrat watch` ran, a line each",
            text: runs.collect(),
        },
    ])
}

fn listing(path: &Path, parts: &[Part]) -> String {
    let line = |part: &Part| {
        let size = humane::thousands(part.text.len() as u64);
        format!("  {:<20} {size:>12} bytes  {}\n", part.name, part.about)
    };
    let lines: String = parts.iter().map(line).collect();
    format!(
        "{} would contain:\n{lines}Names and titles of channels, paths and addresses are in it.\n",
        path.display()
    )
}

/// Writes the archive, readable by its owner only, and never over another file.
fn write(path: &Path, parts: &[Part], now: Timestamp) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let file = crate::os::private_file(options.write(true).create_new(true)).open(path)?;
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    for part in parts {
        let mut header = tar::Header::new_gnu();
        header.set_size(part.text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(now.as_millis() / 1000).unwrap_or(0));
        let name = format!("bitbrat-support/{}", part.name);
        archive.append_data(&mut header, name, part.text.as_bytes())?;
    }
    archive.into_inner()?.finish()?.flush()
}
