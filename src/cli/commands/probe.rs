//! `probe`: probe once and store the observations.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::str::FromStr;
use std::sync::Arc;

use clap::Args;
use clap_complete::ArgValueCompleter;

use crate::app::StoreAccess;
use crate::cli::commands::sources::known::no_such_source;
use crate::cli::complete;
use crate::cli::context::Context;
use crate::cli::reports::probe::{ProbeReport, ProbedRow};
use crate::cli::run_probe::{self, PlatformResult, SaveResult};
use crate::cli::source_arg::{self, SourceSelector};
use crate::config;
use crate::core::document::SourceDocument;
use crate::core::evidence::Knowledge;
use crate::core::observation::Observation;
use crate::core::source::SourceKey;
use crate::core::summary::SourceSummary;
use crate::failure::{ExitCode, Failure};
use crate::platforms::{Probe, ProbeSet};
use crate::store::{SourceStore, StoreError, Versioned};
use crate::view::found::has_no_answer;
use crate::view::source_row::SourceRow;

/// Check the platforms once and save the result
///
/// Without arguments everything is checked, for every configured source. A failed check never turns a stream OFFLINE or a
/// token REVOKED: it is shown as a failed check.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat probe
  bitbrat probe stream viewers
  bitbrat probe permissions twitch:123456 --dry-run
  bitbrat probe -o json | jq '.items[].transitions[]'")]
pub struct ProbeArgs {
    /// What to check (connection, auth, stream, viewers, permissions, all), then sources: ids, names, globs
    #[arg(value_name = "WHAT|SOURCE", add = ArgValueCompleter::new(complete::probe_targets))]
    what: Vec<Target>,
    /// Only show the result; write nothing
    #[arg(long)]
    dry_run: bool,
}

/// One argument of `probe`.
#[derive(Debug, Clone)]
enum Target {
    All,
    Probe(Probe),
    Source(SourceSelector),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        if let Ok(probe) = text.parse() {
            return Ok(Self::Probe(probe));
        }
        // A misspelled name of a probe is not taken for the name of a source.
        let is_slip = config::closest(text, Probe::ALL.iter().map(|probe| probe.as_str())).is_some();
        if is_slip {
            let error = text.parse::<Probe>().err().unwrap_or_default();
            return Err(format!(
                "{error} or all, or a source as platform:id or platform:name"
            ));
        }
        text.parse().map(Self::Source)
    }
}

pub async fn run(cx: &Context, args: &ProbeArgs) -> Result<ExitCode, Failure> {
    let (probes, asked) = targets(&args.what);
    let platforms = cx.app.platforms.needed().await?;
    let access = if args.dry_run {
        StoreAccess::Read
    } else {
        StoreAccess::Write
    };
    let store = cx.app.store(access).await?;
    let sources = cx.app.sources.resolve(&platforms).await?;
    let keys = if asked.is_empty() {
        sources.keys()
    } else {
        source_arg::select_keys(cx, &asked, true).await?
    };
    let origins = sources.origins();
    let unconfigured = keys.iter().filter(|key| !origins.contains_key(key)).cloned();
    let stored = load(store.as_ref(), &unconfigured.collect::<Vec<_>>()).await?;
    if let Some((unknown, _)) = stored.iter().find(|(_, stored)| stored.is_none()) {
        return Err(no_such_source(unknown));
    }
    let probed = run_probe::run_probe(cx, &platforms, &probes, &keys).await;
    let mut kept = if args.dry_run {
        SaveResult::default()
    } else {
        run_probe::save(cx, Arc::clone(&store), &probed.observations)
            .await
            .map_err(|failure| failure.while_doing("the results could not be saved"))?
    };
    if let Some(error) = kept.first_refusal() {
        return Err(Failure::from(error).while_doing("the results could not be saved"));
    }
    let unsaved = keys
        .iter()
        .filter(|key| !kept.summaries.contains_key(key))
        .cloned();
    let mut unsaved = load(store.as_ref(), &unsaved.collect::<Vec<_>>()).await?;
    let mut seen: HashMap<SourceKey, Vec<Observation>> = HashMap::new();
    for observation in probed.observations {
        let of_source = seen.entry(observation.source.clone()).or_default();
        of_source.push(observation);
    }
    let (now, intervals) = (cx.app.clock.now(), cx.app.intervals());
    let mut rows = Vec::with_capacity(keys.len());
    for key in keys.iter().cloned().collect::<BTreeSet<_>>() {
        let seen = seen.remove(&key).unwrap_or_default();
        let summary = kept.summaries.remove(&key).unwrap_or_else(|| {
            let stored = unsaved.remove(&key).flatten();
            let mut document = stored.unwrap_or_else(|| SourceDocument::new(key.clone()));
            document.join(Knowledge::of(&seen));
            SourceSummary::of(&document)
        });
        let mut row = SourceRow::new(summary, &intervals, now);
        row.configured = origins.get(&key).map(|origin| (*origin).clone());
        rows.push(ProbedRow {
            transitions: kept.transitions.remove(&key).unwrap_or_default(),
            row,
            seen,
        });
    }
    let mut not_stored = Vec::new();
    for (key, error) in &kept.failures {
        not_stored.push(format!("nothing was stored for {key}: {}", error.reason()));
    }
    let exit = rows.iter().map(|row| exit_code(row, &probes)).fold(
        if keys.is_empty() {
            ExitCode::NoEvidence
        } else {
            ExitCode::Healthy
        },
        ExitCode::worse,
    );
    let mut report = report(cx, args, &probes, rows, probed.platforms, &sources.unresolved);
    if !not_stored.is_empty() && not_stored.len() == report.rows.len() {
        report.saved_in = None;
    }
    let exit = match not_stored.is_empty() {
        true => exit,
        false => exit.worse(ExitCode::Failed),
    };
    report.problems.extend(not_stored);
    cx.output.print(&report)?;
    Ok(exit)
}

fn targets(words: &[Target]) -> (ProbeSet, Vec<SourceSelector>) {
    let mut probes = ProbeSet::new();
    let mut args = Vec::new();
    for word in words {
        match word {
            Target::All => probes.extend(Probe::ALL),
            Target::Probe(probe) => {
                probes.insert(*probe);
            }
            Target::Source(arg) if args.contains(arg) => {}
            Target::Source(arg) => args.push(arg.clone()),
        }
    }
    if probes.is_empty() {
        probes.extend(Probe::ALL);
    }
    (probes, args)
}

/// Reads a document; one that cannot be used does not prevent a probe, and `sources status` shows it.
async fn load(
    store: &dyn SourceStore,
    keys: &[SourceKey],
) -> Result<BTreeMap<SourceKey, Option<SourceDocument>>, Failure> {
    let found = store.load_some(keys).await;
    let read = |(key, found): (&SourceKey, Result<Option<Versioned<_>>, _>)| match found {
        Ok(found) => Ok((key.clone(), found.map(|found| found.value))),
        Err(StoreError::Unusable { .. }) => Ok((key.clone(), Some(SourceDocument::new(key.clone())))),
        Err(error) => Err(error.into()),
    };
    keys.iter().zip(found).map(read).collect()
}

/// What was not probed does not count as unknown; what was probed without an answer does not count as healthy, whatever earlier
/// evidence there is.
fn exit_code(probed: &ProbedRow, probes: &ProbeSet) -> ExitCode {
    let found = probed.row.findings;
    let without_answer = has_no_answer(&probed.seen);
    if found.auth {
        ExitCode::Unauthorized
    } else if found.refused || found.disconnected || without_answer {
        ExitCode::Down
    } else if (found.unknown || found.stale) && probes.len() == Probe::ALL.len() {
        ExitCode::NoEvidence
    } else {
        ExitCode::Healthy
    }
}

fn report(
    cx: &Context,
    args: &ProbeArgs,
    probes: &ProbeSet,
    rows: Vec<ProbedRow>,
    platforms: Vec<PlatformResult>,
    unresolved: &[crate::app::Unresolved],
) -> ProbeReport {
    let mut problems: Vec<String> = platforms
        .iter()
        .flat_map(|result| &result.problems)
        .map(|problem| problem.text.clone())
        .collect();
    problems.extend(
        unresolved
            .iter()
            .map(|name| format!("{}: {}", name.name, name.reason)),
    );
    ProbeReport {
        as_of: cx.app.clock.now(),
        probes: probes.clone(),
        rows,
        platforms,
        problems,
        saved_in: (!args.dry_run && !cx.app.is_store_temporary())
            .then(|| cx.app.settings.store.target.to_string()),
        dry_run: args.dry_run,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_probes_or_sources_in_any_order() {
        let words = ["stream", "twitch:1", "viewers", "twitch:1"];
        let words: Vec<Target> = words.iter().map(|word| word.parse().unwrap()).collect();
        let (probes, keys) = targets(&words);
        assert_eq!(probes, ProbeSet::from([Probe::Stream, Probe::Viewers]));
        assert_eq!(keys, ["twitch:1".parse::<SourceSelector>().unwrap()]);
        assert_eq!(targets(&[]).0.len(), 5);
    }

    #[test]
    fn a_word_that_is_neither_is_refused_with_what_could_be_meant() {
        for (word, reason) in [
            ("streams", "not a probe"),
            ("myspace:1", "not a platform"),
            ("twitch:rat!", "cannot be a name"),
        ] {
            let error = word.parse::<Target>().unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
