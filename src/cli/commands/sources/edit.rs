//! `sources add|remove`: changes the list of sources in the configuration file.

use std::path::{Path, PathBuf};

use clap::Args;
use clap_complete::ArgValueCompleter;

use crate::app::Lookup;
use crate::cli::complete;
use crate::cli::context::{Context, Setup};
use crate::cli::output::view::Tone;
use crate::cli::output::{Listing, Note};
use crate::cli::reports::edit::{EditItem, EditResult};
use crate::cli::source_arg::{self, SourceArg};
use crate::config::{self, ConfigInputs, EditError, FileText, SourceAddress, SourceEntry};
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::failure::{ExitCode, Failure};
use crate::files::{self, Durability, FileAccess};

/// Add sources to the configuration file
///
/// Comments and layout of the file stay as they are; a file that does not exist is created. A running `bitbrat watch` takes the
/// change over on SIGHUP.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat sources add twitch:pixelmeadow kick:ratcaster
  bitbrat sources add https://www.twitch.tv/pixelmeadow --priority 10
  bitbrat sources add discord:987654321 --channels 111111,222222")]
pub struct AddArgs {
    /// Sources: platform:id, platform:name, names, or channels' addresses
    #[arg(value_name = "SOURCE", required = true)]
    ids: Vec<SourceArg>,
    /// Sources with a higher number are subscribed to first where a platform limits that
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    priority: i64,
    /// Discord: the channels that matter
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    channels: Vec<String>,
}

/// Remove sources from the configuration file
///
/// Comments and layout of the rest stay as they are. What is stored about a source stays too; `bitbrat sources prune
/// --unconfigured` removes it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat sources remove twitch:pixelmeadow
  bitbrat sources remove kick:55501 discord:987654321")]
pub struct RemoveArgs {
    /// Sources: platform:id, platform:name, names, or channels' addresses
    #[arg(value_name = "SOURCE", required = true, add = ArgValueCompleter::new(complete::sources))]
    ids: Vec<SourceArg>,
}

pub async fn add(setup: &Setup, cx: &Context, args: &AddArgs) -> Result<ExitCode, Failure> {
    let file = file(setup)?;
    let mut content = read(&file)?;
    let mut text = std::mem::take(&mut content.text);
    let mut items = Vec::new();
    for arg in &args.ids {
        let (platform, address) = address(cx, arg).await?;
        if !platform.rules().has_channels && !args.channels.is_empty() {
            let with_channels = PlatformName::with_channels();
            let what = format!("--channels is for {with_channels} only, and `{arg}` is on {platform}");
            return Err(Failure::new(ExitCode::Usage, what));
        }
        let entry = SourceEntry {
            platform,
            address,
            priority: args.priority,
            channels: args.channels.clone(),
        };
        let there = config::sources_of(&text).map_err(|error| unusable(&file, &error))?;
        let changed = match is_in_another_spelling(cx, platform, &entry.address, &there).await {
            true => None,
            false => config::add_source(&text, &entry).map_err(|error| unusable(&file, &error))?,
        };
        let result = match changed {
            Some(changed) => {
                text = changed;
                EditResult::Added
            }
            None => EditResult::Unchanged,
        };
        items.push(EditItem {
            source: shown(platform, &entry.address),
            result,
            file: file.display().to_string(),
        });
    }
    content.text = text;
    finish(setup, cx, &file, &content, items)
}

/// Timeout for the check whether a name and an id are the same source, before the source is added.
const ASKING: std::time::Duration = std::time::Duration::from_secs(5);

/// Whether a source is in the file under its id and added by its name, or the other way round. Where that is not known locally,
/// the platform is asked; one that does not answer does not prevent adding a source.
async fn is_in_another_spelling(
    cx: &Context,
    platform: PlatformName,
    meant: &SourceAddress,
    there: &[(PlatformName, SourceAddress)],
) -> bool {
    let others = || {
        there
            .iter()
            .filter(|(of, _)| *of == platform)
            .map(|(_, address)| address)
    };
    let resolved = cx.app.sources.resolved_names();
    let known = |name: &str| {
        let mut found = resolved
            .iter()
            .filter(|(known, key)| known == name && key.platform() == platform);
        found.next().map(|(_, key)| key.clone())
    };
    let asked =
        async |name: &str| match tokio::time::timeout(ASKING, cx.app.look_up_name(platform, name)).await {
            Ok(Ok(Lookup::Found(key))) => Some(key),
            _ => None,
        };
    match meant {
        SourceAddress::Name(name) => {
            if !others().any(|address| matches!(address, SourceAddress::Id(_))) {
                return false;
            }
            let key = match known(name) {
                Some(key) => Some(key),
                None => asked(name).await,
            };
            key.is_some_and(|key| others().any(|address| *address == SourceAddress::Id(key.clone())))
        }
        SourceAddress::Id(key) => {
            for address in others() {
                let SourceAddress::Name(name) = address else {
                    continue;
                };
                let found = match known(name) {
                    Some(found) => Some(found),
                    None => asked(name).await,
                };
                if found.as_ref() == Some(key) {
                    return true;
                }
            }
            false
        }
    }
}

pub async fn remove(setup: &Setup, cx: &Context, args: &RemoveArgs) -> Result<ExitCode, Failure> {
    let file = file(setup)?;
    let mut content = read(&file)?;
    let mut text = std::mem::take(&mut content.text);
    let resolved = cx.app.sources.resolved_names();
    let mut items = Vec::new();
    for arg in &args.ids {
        let (platform, meant) = address(cx, arg).await?;
        // A source may be configured by its name and removed by its id, or the other way round.
        let same = |name: &str, key: &crate::core::source::SourceKey| {
            resolved.iter().any(|(known, of)| known == name && of == key)
        };
        let is_meant = |of: PlatformName, address: &SourceAddress| {
            of == platform
                && (*address == meant
                    || match (address, &meant) {
                        (SourceAddress::Name(name), SourceAddress::Id(key))
                        | (SourceAddress::Id(key), SourceAddress::Name(name)) => same(name, key),
                        _ => false,
                    })
        };
        let (left, count) =
            config::remove_sources(&text, is_meant).map_err(|error| unusable(&file, &error))?;
        text = left;
        if count == 0 {
            let what = format!("`{}` is not in {}", shown(platform, &meant), file.display());
            return Err(Failure::new(ExitCode::NoSuchSource, what)
                .hint("run `bitbrat sources list` to see where each source is configured"));
        }
        items.push(EditItem {
            source: shown(platform, &meant),
            result: EditResult::Removed,
            file: file.display().to_string(),
        });
    }
    content.text = text;
    finish(setup, cx, &file, &content, items)
}

fn finish(
    setup: &Setup,
    cx: &Context,
    file: &Path,
    content: &FileText,
    items: Vec<EditItem>,
) -> Result<ExitCode, Failure> {
    if items.iter().any(|item| item.result != EditResult::Unchanged) {
        refuse_invalid(&setup.inputs, cx.app.clock.now(), file, &content.text)?;
        replace(file, &content.encode())?;
    }
    let mut notes = Vec::new();
    let after = setup.configuration();
    for problem in &after.problems {
        notes.push(Note::hint(
            Tone::Warn,
            problem.to_string(),
            Some("bitbrat config check"),
        ));
    }
    let origin = after
        .settings
        .sources
        .iter()
        .find(|spec| !matches!(&spec.origin, config::Origin::File(path) if path == file));
    if let Some(spec) = origin {
        let what = format!(
            "sources are also configured by {}; where that is the `sources` list, the [[source]] list of the file is not used",
            spec.origin
        );
        notes.push(Note::hint(Tone::Warn, what, Some("bitbrat sources list")));
    }
    cx.output.print(&Listing {
        as_of: cx.app.clock.now(),
        items,
        notes,
    })?;
    Ok(ExitCode::Healthy)
}

/// Parses `text` as the file will be parsed, and rejects changes that would make the configuration invalid: no command would run
/// any more, nor the one that undoes the change. Existing problems are no reason.
fn refuse_invalid(inputs: &ConfigInputs, now: Timestamp, file: &Path, text: &str) -> Result<(), Failure> {
    let draft = ConfigInputs {
        draft: Some((file.to_owned(), text.to_owned())),
        ..inputs.clone()
    };
    let before = config::load(inputs, now).problems;
    let mut new = config::load(&draft, now).problems;
    new.retain(|problem| !before.contains(problem));
    if new.is_empty() {
        return Ok(());
    }
    let reasons: Vec<_> = new.iter().map(config::Problem::with_hint).collect();
    let what = format!("{} is left as it is, because it would be invalid", file.display());
    Err(
        Failure::new(ExitCode::Configuration, format!("{what}: {}", reasons.join("; ")))
            .hint("give ids and channels as they are: `bitbrat sources add --help` shows examples"),
    )
}

/// A name with its platform is written as it is: the first check resolves it. Any other is resolved now.
async fn address(cx: &Context, arg: &SourceArg) -> Result<(PlatformName, SourceAddress), Failure> {
    match arg {
        SourceArg::Key(key) => Ok((key.platform(), SourceAddress::Id(key.clone()))),
        SourceArg::Name {
            platform: Some(platform),
            name,
        } if platform.rules().names.is_some() => Ok((*platform, SourceAddress::Name(name.clone()))),
        SourceArg::Name { .. } => {
            let key = source_arg::resolve(cx, arg, true).await?;
            Ok((key.platform(), SourceAddress::Id(key)))
        }
    }
}

fn shown(platform: PlatformName, address: &SourceAddress) -> String {
    match address {
        SourceAddress::Id(key) => key.to_string(),
        SourceAddress::Name(name) => format!("{platform}:{name}"),
    }
}

/// Returns the configuration file: the one that was given, else the first that exists, else the one in the working directory.
fn file(setup: &Setup) -> Result<PathBuf, Failure> {
    if setup.demo {
        let what = "the demo has sources of its own, and no file to change";
        return Err(Failure::new(ExitCode::Usage, what).hint("leave out --demo"));
    }
    let inputs = &setup.inputs;
    if let Some(file) = &inputs.config_file {
        return Ok(inputs.work_dir.join(file));
    }
    let read = setup.configuration().files.into_iter();
    let mut read = read.filter(|file| file.extension().is_some_and(|extension| extension == "toml"));
    Ok(read
        .next()
        .unwrap_or_else(|| inputs.work_dir.join("bitbrat.toml")))
}

fn read(file: &Path) -> Result<FileText, Failure> {
    let what = || format!("cannot read {}", file.display());
    match crate::files::read_input(file, crate::files::CONFIGURATION) {
        Ok(bytes) => FileText::decode(&bytes)
            .map_err(|reason| Failure::new(ExitCode::Configuration, format!("{}: {reason}", what()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(FileText::default()),
        Err(error) => Err(Failure::new(ExitCode::Failed, what()).because(&error)),
    }
}

fn unusable(file: &Path, error: &EditError) -> Failure {
    let what = format!("cannot change {}", file.display());
    Failure::new(ExitCode::Configuration, what)
        .because(error)
        .hint("run `bitbrat config check` to see what is wrong with it")
}

/// Replaces the file as a whole, so that a crash leaves the old one; a link is followed, and permissions stay.
fn replace(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let written = || -> std::io::Result<()> {
        let target = match file.canonicalize() {
            Ok(target) => target,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => file.to_owned(),
            Err(error) => return Err(error),
        };
        files::write(&target, FileAccess::Unchanged, Durability::Durable, |next| {
            next.write_all(bytes)
        })
    };
    written().map_err(|error| {
        let what = format!("cannot write {}", file.display());
        Failure::new(ExitCode::Failed, what)
            .because(&error)
            .hint("name a file with --config, in a directory that exists and that this account may write to")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_that_would_make_the_file_invalid_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bitbrat.toml");
        let inputs = ConfigInputs {
            work_dir: dir.path().to_owned(),
            ..ConfigInputs::default()
        };
        let now = Timestamp::EPOCH;
        let entry = |channels: &[&str]| SourceEntry {
            platform: PlatformName::Discord,
            address: SourceAddress::Id("discord:888002".parse().unwrap()),
            priority: 0,
            channels: channels.iter().map(|&id| id.to_owned()).collect(),
        };
        for before in ["", "# mine\n[web]\nlisten = 5\n"] {
            if !before.is_empty() {
                std::fs::write(&file, before).unwrap();
            }
            let invalid = config::add_source(before, &entry(&["8880020", "abc"]))
                .unwrap()
                .unwrap();
            let failure = refuse_invalid(&inputs, now, &file, &invalid).unwrap_err();
            assert_eq!(failure.exit, ExitCode::Configuration);
            assert!(failure.to_string().contains("abc"), "{failure}");
            assert_eq!(std::fs::read_to_string(&file).unwrap_or_default(), before);
            let valid = config::add_source(before, &entry(&["8880020"])).unwrap().unwrap();
            refuse_invalid(&inputs, now, &file, &valid).unwrap();
        }
    }
}
