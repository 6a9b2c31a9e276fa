//! `events publish`: puts events from a file on the bus.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::value::RawValue;
use tokio::io::AsyncReadExt as _;

use super::failed;
use crate::app::StoreAccess;
use crate::blocking::blocking;
use crate::bus::EventBus;
use crate::bus::event_lines::{Prepared, UseOfIt, prepare};
use crate::cli::context::Context;
use crate::cli::reports::events::{PublishItem, PublishReport, Published};
use crate::failure::{ExitCode, Failure};
use crate::files;
use crate::persist::ApplyOutcome;

/// Publish events from a file as they are
///
/// The file holds one JSON object, or several one after the other. What no consumer could use is refused before anything is
/// published, with exit code 2. With the local bus, events about sources go straight into the store.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat events publish online.json
  bitbrat events tail --since 1h --for 2s | jq -c .event | bitbrat --config other.toml events publish -
  bitbrat events publish odd.json --force")]
pub struct PublishArgs {
    /// The file; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Also publish what no consumer could use
    #[arg(long)]
    force: bool,
}

pub async fn run(cx: &Context, args: &PublishArgs) -> Result<ExitCode, Failure> {
    let events = read(cx, args).await?;
    let outcomes = match cx.app.bus().await? {
        Some(bus) => publish(bus, &events).await?,
        None => store(cx, &events).await?,
    };
    let items = events.iter().zip(outcomes).map(|(event, outcome)| PublishItem {
        id: event.message.id.clone(),
        kind: event.kind.clone(),
        source: match &event.use_of_it {
            UseOfIt::Source(source, _) => Some(source.to_string()),
            _ => None,
        },
        outcome,
        bytes: event.message.data.len(),
    });
    cx.output.print(&PublishReport {
        as_of: cx.app.clock.now(),
        items: items.collect(),
        to: cx.app.settings.bus.target.to_string(),
    })?;
    Ok(ExitCode::Healthy)
}

/// Reads all events of the file, or rejects them all.
async fn read(cx: &Context, args: &PublishArgs) -> Result<Vec<Prepared>, Failure> {
    let name = args.file.display();
    let refused = |what: String| Failure::new(ExitCode::Usage, what);
    let unreadable = |error: std::io::Error| refused(format!("cannot read {name}")).because(&error);
    let mut data = Vec::new();
    if args.file.as_os_str() == "-" {
        tokio::io::stdin()
            .take(files::LARGE)
            .read_to_end(&mut data)
            .await
            .map_err(unreadable)?;
    } else {
        let file = args.file.clone();
        data = blocking(move || files::read_given(&file, files::LARGE))
            .await
            .map_err(unreadable)?;
    }
    let mut events = Vec::new();
    for value in serde_json::Deserializer::from_slice(&data).into_iter::<&RawValue>() {
        let place = format!("event {} in {name}", events.len() + 1);
        let value = value.map_err(|error| {
            refused(format!("{place} is not JSON"))
                .because(&error)
                .hint("`bitbrat events schema` describes an event, and `bitbrat events tail` shows some")
        })?;
        let event = prepare(value.get().as_bytes(), cx.app.clock.now());
        let event = event.map_err(|error| refused(format!("{place} is no event")).because(&error))?;
        let trouble = match &event.use_of_it {
            UseOfIt::Source(..) | UseOfIt::Chat => None,
            UseOfIt::Nothing(why) => Some((*why).to_owned()),
            UseOfIt::DeadLetter(reason) => Some(format!("it would be a dead letter: {reason}")),
        };
        if let Some(trouble) = trouble.filter(|_| !args.force) {
            let mut failure = refused(format!("no consumer could use {place} (type `{}`)", event.kind));
            failure.causes.push(trouble);
            return Err(failure.hint("add --force to publish it nevertheless"));
        }
        events.push(event);
    }
    if events.is_empty() {
        return Err(refused(format!("there is no event in {name}")));
    }
    Ok(events)
}

async fn publish(bus: Arc<dyn EventBus>, events: &[Prepared]) -> Result<Vec<Published>, Failure> {
    let messages = events.iter().map(|event| event.message.clone()).collect();
    let results = bus.publish_many(messages).await;
    bus.close().await;
    let done = results.iter().filter(|result| result.is_ok()).count();
    let mut outcomes = Vec::new();
    for result in results {
        outcomes.push(match result {
            Ok(accepted) if accepted.duplicate => Published::Duplicate,
            Ok(_) => Published::Published,
            Err(error) => {
                let failure = failed("publish to", bus.as_ref(), &error);
                return Err(match events.len() {
                    1 => failure,
                    all => failure.hint(format!(
                        "{done} of {all} events were taken; publishing the file again repeats none of them"
                    )),
                });
            }
        });
    }
    Ok(outcomes)
}

/// Writes events to the store, as the local bus does.
async fn store(cx: &Context, events: &[Prepared]) -> Result<Vec<Published>, Failure> {
    let updates: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.use_of_it {
            UseOfIt::Source(source, knowledge) => Some((source.clone(), knowledge.as_ref().clone())),
            _ => None,
        })
        .collect();
    if updates.len() < events.len() {
        let what = "with the local bus only events about sources are received";
        return Err(Failure::new(ExitCode::Usage, what).hint("set bus.url to nats:// or pubsub:"));
    }
    let persister = cx.app.persister(cx.app.store(StoreAccess::Write).await?);
    let mut applied = persister.apply(updates).await;
    let flushed = persister.flush().await;
    applied.outcomes.extend(flushed.outcomes);
    applied.failures.extend(flushed.failures);
    events
        .iter()
        .map(|event| {
            let UseOfIt::Source(source, _) = &event.use_of_it else {
                unreachable!("what is not about a source was refused above")
            };
            match applied.outcomes.get(source) {
                Some(ApplyOutcome::Written | ApplyOutcome::Coalesced) => Ok(Published::Stored),
                Some(ApplyOutcome::Unchanged) => Ok(Published::Duplicate),
                Some(ApplyOutcome::Waiting | ApplyOutcome::Blocked) | None => {
                    let failed = applied.failures.iter().rev().find(|(failed, _)| failed == source);
                    Err(failed.map_or_else(
                        || Failure::new(ExitCode::Failed, format!("{source} was not stored")),
                        |(_, error)| Failure::from(error.clone()),
                    ))
                }
            }
        })
        .collect()
}
