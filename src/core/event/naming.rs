//! The ids of events: one fact, one id, whoever finds it and however often.

use uuid::Uuid;

use crate::core::document::SourceDocument;
use crate::core::event::EventKind;
use crate::core::source::SourceKey;
use crate::core::stream::{Patience, StreamStatus};
use crate::core::time::Timestamp;
use crate::core::transition::Transition;

/// The platform's consumers drop a repeated id for ten minutes and keep one event document per id for ever, so an id
/// must never name two facts, and two finders of one fact should come to the same id.
pub fn correlation_id(kind: EventKind, source: &SourceKey, discriminator: &str) -> String {
    // Keys have no spaces, so that no two lists of parts have the same text.
    let name = format!("bitbrat {} {source} {discriminator}", kind.as_str());
    Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).to_string()
}

/// Names the start or the end of a stream: by the stream and the episode of it.
///
/// A push and a poll find the same broadcast at different times, so time cannot be part of its name. But a stream that was told
/// to have ended may come back, and then both its resumption and its second end are facts of their own; they carry the moment of
/// the gap before them.
pub fn stream_discriminator(before: &SourceDocument, after: &SourceDocument, change: &Transition) -> String {
    let Some(id) = &change.stream_id else {
        return format!("unnamed {}", change.at);
    };
    // An end belongs to the episode that it ends, and what is known of that is known before.
    let was_live = before.verdict.stream.value == StreamStatus::Online;
    let whole_episode = if was_live && !is_online(change) {
        before
    } else {
        after
    };
    match gap_before_episode(whole_episode, id) {
        Some(gap) => format!("{id} after {gap}"),
        None => id.clone(),
    }
}

/// Names a state of a source: each change by facet, value and second.
pub fn status_discriminator(changes: &[Transition]) -> String {
    let parts: Vec<_> = changes
        .iter()
        .map(|change| {
            let value = change.to.as_deref().unwrap_or("");
            let second = change.at.as_millis().div_euclid(1000);
            format!("{} {value} {second}", change.facet.as_str())
        })
        .collect();
    parts.join(" ")
}

fn is_online(change: &Transition) -> bool {
    change.to.as_deref() == Some("ONLINE")
}

/// The newest moment at which stream `id` may have been told to have ended, between its beginning and its newest sign of
/// life: a pushed end, or a poll that missed it. Absent in its first episode, which is the usual one.
///
/// In doubt there was a gap: a fact told under two ids is a nuisance, two facts under one id are a loss.
fn gap_before_episode(document: &SourceDocument, id: &str) -> Option<Timestamp> {
    let evidence = &document.knowledge.evidence.stream;
    let stream = evidence.streams.get(id)?;
    let last_live = stream.pushed.max(stream.seen)?;
    let within = |gap: &Timestamp| last_live.started_at.is_none_or(|began| *gap > began);
    // No end follows from polls that miss a stream right after its pushed start.
    let deaf = stream.pushed.map(|start| {
        let patience = Patience::with(document.key.platform()).after_start;
        start.at..=start.at.plus_millis(patience)
    });
    let misses = evidence
        .missed
        .values()
        .flat_map(|missed| [missed.first, missed.last]);
    let counted = misses.filter(|miss| !deaf.as_ref().is_some_and(|deaf| deaf.contains(miss)));
    let unnamed = evidence.unnamed_end.into_iter().chain(counted).filter(within);
    let named = stream.ends.iter().copied();
    named.chain(unnamed).filter(|gap| *gap < last_live.at).max()
}
