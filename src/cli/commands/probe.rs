//! `probe`: look once, and keep what was seen.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use std::sync::Arc;

use clap::Args;

use crate::app::Access;
use crate::cli::commands::sources::known::no_such_source;
use crate::cli::context::Context;
use crate::cli::look::{self, Kept, PlatformLook};
use crate::cli::reports::probe::{ProbeReport, ProbedRow};
use crate::cli::reports::sources::SourceRow;
use crate::core::document::SourceDocument;
use crate::core::evidence::Knowledge;
use crate::core::facet::Facet;
use crate::core::observation::{Fact, Observation};
use crate::core::source::SourceKey;
use crate::core::summary::SourceSummary;
use crate::failure::{ExitCode, Failure};
use crate::platforms::{Probe, ProbeSet};
use crate::store::{SourceStore, StoreError, Versioned};

/// Look at the platforms once and keep what was seen
///
/// Without words everything is looked at, at every configured source. A look that fails never turns a stream OFFLINE or a
/// token REVOKED: it is a failed look, and shown as one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat probe
  bitbrat probe stream viewers
  bitbrat probe permissions twitch:123456 --dry-run
  bitbrat probe -o json | jq '.items[].transitions[]'")]
pub struct ProbeArgs {
    /// What to look at (connection, auth, stream, viewers, permissions, all), then sources as platform:id
    #[arg(value_name = "WHAT|ID")]
    what: Vec<Target>,
    /// Only show what was seen; write nothing
    #[arg(long)]
    dry_run: bool,
}

/// One word of the command line.
#[derive(Debug, Clone)]
enum Target {
    All,
    Probe(Probe),
    Source(SourceKey),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        if text.contains(':') {
            return text
                .parse()
                .map(Self::Source)
                .map_err(|error: crate::core::source::InvalidSourceKey| error.to_string());
        }
        text.parse()
            .map(Self::Probe)
            .map_err(|error: String| format!("{error} or all, or a source as platform:id"))
    }
}

/// Runs the command.
pub async fn run(cx: &Context, args: &ProbeArgs) -> Result<ExitCode, Failure> {
    let (probes, asked) = targets(&args.what);
    let platforms = cx.app.platforms().await?;
    let access = if args.dry_run { Access::Read } else { Access::Write };
    let store = cx.app.store(access).await?;
    let sources = cx.app.resolve(&platforms).await?;
    let keys = if asked.is_empty() { sources.keys() } else { asked };
    let known = sources.known.iter().map(|source| (&source.key, &source.origin));
    let origins: BTreeMap<&SourceKey, &String> = known.collect();
    let before = load(store.as_ref(), &keys).await?;
    let is_nobodys =
        |(key, stored): &(&SourceKey, &Option<_>)| stored.is_none() && !origins.contains_key(key);
    if let Some((unknown, _)) = before.iter().find(is_nobodys) {
        return Err(no_such_source(unknown));
    }
    let looked = look::look(cx, &platforms, &probes, &keys).await;
    let kept = if args.dry_run {
        Kept::default()
    } else {
        look::keep(cx, Arc::clone(&store), &looked.observations).await
    };
    if let Some(error) = kept.first_refusal() {
        return Err(Failure::from(error).while_doing("what was seen could not be kept"));
    }
    let after = match args.dry_run {
        true => before,
        false => load(store.as_ref(), &keys).await?,
    };
    let mut seen: HashMap<SourceKey, Vec<Observation>> = HashMap::new();
    for observation in looked.observations {
        let of_source = seen.entry(observation.source.clone()).or_default();
        of_source.push(observation);
    }
    let (now, intervals) = (cx.app.clock.now(), cx.app.intervals());
    let mut rows = Vec::with_capacity(after.len());
    for (key, stored) in after {
        let seen = seen.remove(&key).unwrap_or_default();
        let mut document = stored.unwrap_or_else(|| SourceDocument::new(key.clone()));
        document.join(Knowledge::of(&seen));
        let mut row = SourceRow::new(SourceSummary::of(&document), &intervals, now);
        row.configured = origins.get(&key).map(|origin| (*origin).clone());
        rows.push(ProbedRow {
            transitions: kept.transitions.get(&key).cloned().unwrap_or_default(),
            row,
            seen,
        });
    }
    let exit = rows.iter().map(|row| exit_code(row, &probes)).fold(
        if keys.is_empty() {
            ExitCode::NoEvidence
        } else {
            ExitCode::Healthy
        },
        ExitCode::worse,
    );
    cx.output.print(&report(
        cx,
        args,
        &probes,
        rows,
        looked.platforms,
        &sources.unresolved,
    ))?;
    Ok(exit)
}

fn targets(words: &[Target]) -> (ProbeSet, Vec<SourceKey>) {
    let mut probes = ProbeSet::new();
    let mut keys = Vec::new();
    for word in words {
        match word {
            Target::All => probes.extend(Probe::ALL),
            Target::Probe(probe) => {
                probes.insert(*probe);
            }
            Target::Source(key) if keys.contains(key) => {}
            Target::Source(key) => keys.push(key.clone()),
        }
    }
    if probes.is_empty() {
        probes.extend(Probe::ALL);
    }
    (probes, keys)
}

/// Reads a document; one that cannot be used is not in the way of a look, and shown by `sources status`.
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

/// What was not looked at does not count as unknown; what was looked at in vain does not count as healthy, whatever is known
/// from earlier.
fn exit_code(probed: &ProbedRow, probes: &ProbeSet) -> ExitCode {
    let found = probed.row.findings;
    let in_vain = probed.seen.iter().any(|seen| {
        matches!(
            seen.fact,
            Fact::Unanswered {
                facet: Facet::Status | Facet::Stream,
                ..
            }
        )
    });
    if found.auth {
        ExitCode::Unauthorised
    } else if found.refused || found.disconnected || in_vain {
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
    platforms: Vec<PlatformLook>,
    unresolved: &[crate::app::Unresolved],
) -> ProbeReport {
    let mut problems: Vec<String> = platforms.iter().flat_map(|look| look.problems.clone()).collect();
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
        kept_in: (!args.dry_run && !cx.app.is_store_temporary())
            .then(|| cx.app.settings.store.target.to_string()),
        dry_run: args.dry_run,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_probes_or_sources_in_any_order() {
        let words = ["stream", "twitch:1", "viewers", "twitch:1"];
        let words: Vec<Target> = words.iter().map(|word| word.parse().unwrap()).collect();
        let (probes, keys) = targets(&words);
        assert_eq!(probes, ProbeSet::from([Probe::Stream, Probe::Viewers]));
        assert_eq!(keys, ["twitch:1".parse().unwrap()]);
        assert_eq!(targets(&[]).0.len(), 5);
    }

    #[test]
    fn a_word_that_is_neither_is_refused_with_what_could_be_meant() {
        for (word, reason) in [
            ("streams", "not a probe"),
            ("myspace:1", "not a platform"),
            ("twitch:rat", "numeric"),
        ] {
            let error = word.parse::<Target>().unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
