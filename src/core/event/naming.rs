//! Ids of events: the same fact has the same id, independent of the program and the number of times that it is found.

use uuid::Uuid;

use crate::core::document::SourceDocument;
use crate::core::event::EventKind;
use crate::core::source::SourceKey;
use crate::core::stream::StreamStatus;
use crate::core::time::Timestamp;
use crate::core::transition::Transition;
use crate::core::verdict::Existence;

/// The platform's consumers drop a repeated id for ten minutes and store one event document per id forever. Therefore an id
/// must never identify two facts, and two programs that find one fact should generate the same id.
pub fn correlation_id(kind: EventKind, source: &SourceKey, discriminator: &str) -> String {
    // Keys contain no spaces, so different lists of parts have different texts.
    let name = format!("bitbrat {} {source} {discriminator}", kind.as_str());
    Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).to_string()
}

/// Discriminator of the start or end of a stream: the stream and its episode.
///
/// A push and a poll find the same broadcast at different times, so time cannot be part of the discriminator. But a stream
/// that was reported as ended may come back; then its resumption and its second end are separate facts, and their
/// discriminators contain the time of the gap before them.
pub fn stream_discriminator(before: &SourceDocument, after: &SourceDocument, change: &Transition) -> String {
    let Some(id) = &change.stream_id else {
        return format!("unnamed {}", change.at);
    };
    // The source was gone in between, so this was published before, when the stream began or ended.
    let missing = &before.knowledge.evidence.existence.missing;
    if let (Existence::Gone, Some(missing)) = (before.verdict.existence.value, missing) {
        return format!("{id} after {}", missing.at);
    }
    // An end belongs to the episode that it ends, so the evidence from before it is used.
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

/// Discriminator of a status: each change by facet, value and second.
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

/// The latest time at which stream `id` may have been reported as ended, between its start and its newest evidence: a pushed
/// end, or a poll that missed it. `None` in its first episode, which is the usual one.
///
/// In doubt a gap is assumed: one fact with two ids is a duplicate, but two facts with one id lose one of them.
fn gap_before_episode(document: &SourceDocument, id: &str) -> Option<Timestamp> {
    let evidence = &document.knowledge.evidence.stream;
    let stream = evidence.streams.get(id)?;
    let last_live = stream.pushed.max(stream.seen)?;
    let within = |gap: &Timestamp| last_live.started_at.is_none_or(|began| *gap > began);
    // Polls that miss a stream right after its pushed start do not count as an end.
    let unsubscribed = stream.pushed.map(|start| {
        let patience = document.key.platform().rules().poll_tolerance.after_start;
        start.at..=start.at.plus_millis(patience)
    });
    let misses = evidence
        .missed
        .values()
        .flat_map(|missed| [missed.first, missed.last]);
    let counted = misses.filter(|miss| {
        !unsubscribed
            .as_ref()
            .is_some_and(|unsubscribed| unsubscribed.contains(miss))
    });
    let unnamed = evidence.unnamed_end.into_iter().chain(counted).filter(within);
    let named = stream.ends.iter().copied();
    named.chain(unnamed).filter(|gap| *gap < last_live.at).max()
}
