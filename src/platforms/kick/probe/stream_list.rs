//! The part of a probe that is authoritative about streams: the list of live ones.

use std::collections::{BTreeMap, BTreeSet};

use super::super::api::{LIST_AT_ONCE, Page};
use super::super::facts;
use super::super::viewers::Reading;
use super::super::wire::Livestream;
use super::context::ProbeContext;
use super::{is_backoff, is_permanent};
use crate::core::code::Code;
use crate::core::facet::Facet;
use crate::core::observation::{Fact, Transport};
use crate::core::source::PlatformName;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::platforms::{PlatformError, Problem};

/// What the list has shown about the channels.
#[derive(Default)]
pub(super) struct StreamList {
    pub(super) live: BTreeSet<u64>,
    /// Channels that the list could not be requested for. Other responses about them are too rare to be evidence about the link.
    pub(super) unlisted: BTreeSet<u64>,
    /// Channels that the list left out, and when; those whose details this probe requests wait for that result.
    pub(super) absent: BTreeMap<u64, Timestamp>,
}

impl StreamList {
    /// Requests all live streams; returns whether to continue.
    pub(super) async fn walk(&mut self, cx: &ProbeContext<'_>, due: &[u64]) -> bool {
        let ids = cx.all();
        let mut waiting: Vec<Vec<u64>> = ids.chunks(LIST_AT_ONCE).rev().map(<[u64]>::to_vec).collect();
        while let Some(chunk) = waiting.pop() {
            let sent = cx.meter.count();
            let outcome = cx.platform.api.livestreams(&chunk, &cx.meter).await;
            cx.meter.done();
            let held = cx.meter.count() == sent;
            match outcome {
                Ok(page) => self.update(cx, &chunk, &page, due),
                Err(PlatformError::Rejected { status: 400, .. }) if chunk.len() > 1 => {
                    // One of the ids fails the whole request: halve until it is isolated.
                    let (one, other) = chunk.split_at(chunk.len() / 2);
                    waiting.extend([other.to_vec(), one.to_vec()]);
                    cx.meter.expect(2);
                }
                // Refused earlier: nothing was sent, so there is nothing new to report.
                Err(error) if held && is_backoff(&error) => {
                    cx.problem_of(&error);
                    return false;
                }
                Err(error) => {
                    let permanent = is_permanent(&error);
                    let mut left = chunk;
                    if permanent {
                        left.extend(waiting.drain(..).flatten());
                    }
                    cx.fail(&left, &error);
                    self.unlisted.extend(&left);
                    if permanent {
                        return false;
                    }
                }
            }
        }
        true
    }

    /// Reports what a response to the request for `asked` contains. What it leaves out of `due` is reported with the details.
    pub(super) fn update(
        &mut self,
        cx: &ProbeContext<'_>,
        asked: &[u64],
        page: &Page<Livestream>,
        due: &[u64],
    ) {
        // If a channel is listed twice, its newer stream is the live one, in whatever order they are listed.
        let newest = facts::newest(&page.items, |stream| {
            let id = stream.broadcaster;
            (id, (facts::started_at(&stream.started_at), stream.id.as_str()))
        });
        // The details come first, so that the event of a start contains them.
        for (id, stream) in &newest {
            self.emit_details_of_live(cx, *id, stream, page.at);
        }
        for stream in newest.values() {
            emit_live(cx, stream, page.at);
        }
        if page.unclear.is_any() {
            let words = "some rows of the list of live streams cannot be read; channels missing from it are left as they were";
            cx.problem(Problem::of_platform(format!("Kick: {words}")));
        }
        let due: BTreeSet<_> = due.iter().copied().collect();
        for id in asked.iter().filter(|id| !newest.contains_key(id)) {
            let Some(key) = cx.targets.get(id) else { continue };
            if page.unclear.concerns(id) {
                let words = "a row of Kick's list that may be about this channel cannot be read";
                cx.emit(
                    key,
                    page.at,
                    facts::unanswered(Facet::Stream, Code::Unreadable(PlatformName::Kick), words),
                );
                continue;
            }
            let known = cx
                .platform
                .memory
                .channel(*id)
                .looked_up
                .map(|(_, exists)| exists);
            match known {
                Some(true) => cx.emit(key, page.at, facts::up(Transport::Api)),
                // Whether it exists is checked later, or was checked; it is certain that the API has answered.
                None | Some(false) => cx.emit(key, page.at, facts::answered()),
            }
            if due.contains(id) {
                self.absent.insert(*id, page.at);
            } else if known != Some(false) {
                cx.emit(key, page.at, Fact::StreamAbsent);
            }
        }
    }

    fn emit_details_of_live(&mut self, cx: &ProbeContext<'_>, id: u64, stream: &Livestream, at: Timestamp) {
        let Some(key) = cx.targets.get(&id) else { return };
        self.live.insert(id);
        let memory = &cx.platform.memory;
        if memory.channel(id).looked_up.is_none_or(|(_, exists)| !exists) {
            memory.looked_up(id, at, true);
        }
        if !stream.username.is_empty() {
            memory.named(id, &stream.username);
        }
        if let Some(profile) = facts::live_profile(stream) {
            cx.emit(key, at, profile);
        }
        if let Some(raw) = stream.viewer_count {
            let stream_id = facts::stream_id(stream).unwrap_or_default();
            emit_viewers(cx, key, id, &stream_id, raw, at);
        }
        cx.emit(key, at, facts::up(Transport::Api));
    }
}

fn emit_live(cx: &ProbeContext<'_>, stream: &Livestream, at: Timestamp) {
    let Some(key) = cx.targets.get(&stream.broadcaster) else {
        return;
    };
    let Some(stream_id) = facts::stream_id(stream) else {
        let words = "a live stream was listed without start and id";
        return cx.emit(
            key,
            at,
            facts::problem(Code::Unreadable(PlatformName::Kick), words),
        );
    };
    let fact = Fact::StreamSeen {
        stream_id,
        started_at: facts::started_at(&stream.started_at),
    };
    cx.emit(key, at, fact);
}

fn emit_viewers(cx: &ProbeContext<'_>, key: &SourceKey, id: u64, stream_id: &str, raw: u64, at: Timestamp) {
    let reading = cx.platform.memory.read_count(id, stream_id, raw, at);
    let stream_id = Some(stream_id.to_owned());
    match reading {
        Reading::Plain => {
            let count = raw;
            cx.emit(key, at, Fact::Viewers { count, stream_id });
        }
        Reading::MaybeHidden => cx.emit(key, at, Fact::ViewersHidden { stream_id }),
        Reading::Doubted => {}
    }
    let hidden = if reading == Reading::MaybeHidden {
        "true"
    } else {
        "false"
    };
    let raw = raw.to_string();
    let flags = facts::profile([
        ("viewerCountRaw", Some(raw.as_str())),
        ("viewerCountMaybeHidden", Some(hidden)),
    ]);
    if let Some(flags) = flags {
        cx.emit(key, at, flags);
    }
}
