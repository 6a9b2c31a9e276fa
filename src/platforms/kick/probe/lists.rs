//! The part of a probe that is authoritative about streams: the list of live ones.

use std::collections::BTreeSet;

use super::super::api::{LIST_AT_ONCE, Page};
use super::super::facts;
use super::super::viewers::Reading;
use super::super::wire::Livestream;
use super::{ProbeRun, is_backoff, is_permanent};
use crate::core::code::Code;
use crate::core::facet::Facet;
use crate::core::observation::{Fact, Transport};
use crate::core::source::PlatformName;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::platforms::{PlatformError, Problem};

impl ProbeRun<'_> {
    /// Requests all live streams; returns whether to continue.
    pub(super) async fn walk_lists(&mut self, due: &[u64]) -> bool {
        let ids = self.all();
        let mut waiting: Vec<Vec<u64>> = ids.chunks(LIST_AT_ONCE).rev().map(<[u64]>::to_vec).collect();
        while let Some(chunk) = waiting.pop() {
            let sent = self.meter.count();
            let outcome = self.platform.api.livestreams(&chunk, &self.meter).await;
            self.meter.done();
            let held = self.meter.count() == sent;
            match outcome {
                Ok(page) => self.emit_list(&chunk, &page, due),
                Err(PlatformError::Rejected { status: 400, .. }) if chunk.len() > 1 => {
                    // One of the ids fails the whole request: halve until it is isolated.
                    let (one, other) = chunk.split_at(chunk.len() / 2);
                    waiting.extend([other.to_vec(), one.to_vec()]);
                    self.meter.expect(2);
                }
                // Refused earlier: nothing was sent, so there is nothing new to report.
                Err(error) if held && is_backoff(&error) => {
                    self.problem_of(&error);
                    return false;
                }
                Err(error) => {
                    let permanent = is_permanent(&error);
                    let mut left = chunk;
                    if permanent {
                        left.extend(waiting.drain(..).flatten());
                    }
                    self.fail(&left, &error);
                    self.unlisted.extend(&left);
                    if permanent {
                        return false;
                    }
                }
            }
        }
        true
    }

    pub(super) fn emit_list(&mut self, asked: &[u64], page: &Page<Livestream>, due: &[u64]) {
        // If a channel is listed twice, its newer stream is the live one, in whatever order they are listed.
        let newest = facts::newest(&page.items, |stream| {
            let id = stream.broadcaster;
            (id, (facts::started_at(&stream.started_at), stream.id.as_str()))
        });
        // The details come first, so that the event of a start contains them.
        for (id, stream) in &newest {
            self.emit_details_of_live(*id, stream, page.at);
        }
        for stream in newest.values() {
            self.emit_live(stream, page.at);
        }
        if page.unclear.is_any() {
            let words = "some rows of the list of live streams cannot be read; channels missing from it are left as they were";
            self.problem(Problem::of_platform(format!("Kick: {words}")));
        }
        let due: BTreeSet<_> = due.iter().copied().collect();
        for id in asked.iter().filter(|id| !newest.contains_key(id)) {
            let Some(key) = self.targets.get(id) else { continue };
            if page.unclear.concerns(id) {
                let words = "a row of Kick's list that may be about this channel cannot be read";
                self.emit(
                    key,
                    page.at,
                    facts::unanswered(Facet::Stream, Code::Unreadable(PlatformName::Kick), words),
                );
                continue;
            }
            let known = self
                .platform
                .memory
                .channel(*id)
                .looked_up
                .map(|(_, exists)| exists);
            match known {
                Some(true) => self.emit(key, page.at, facts::up(Transport::Api)),
                // Whether it exists is checked later, or was checked; it is certain that the API has answered.
                None | Some(false) => self.emit(key, page.at, facts::answered()),
            }
            if due.contains(id) {
                self.absent.insert(*id, page.at);
            } else if known != Some(false) {
                self.emit(key, page.at, Fact::StreamAbsent);
            }
        }
    }

    fn emit_live(&self, stream: &Livestream, at: Timestamp) {
        let Some(key) = self.targets.get(&stream.broadcaster) else {
            return;
        };
        let Some(stream_id) = facts::stream_id(stream) else {
            let words = "a live stream was listed without start and id";
            return self.emit(
                key,
                at,
                facts::problem(Code::Unreadable(PlatformName::Kick), words),
            );
        };
        let fact = Fact::StreamSeen {
            stream_id,
            started_at: facts::started_at(&stream.started_at),
        };
        self.emit(key, at, fact);
    }

    fn emit_details_of_live(&mut self, id: u64, stream: &Livestream, at: Timestamp) {
        let Some(key) = self.targets.get(&id) else { return };
        self.live.insert(id);
        let memory = &self.platform.memory;
        if memory.channel(id).looked_up.is_none_or(|(_, exists)| !exists) {
            memory.looked_up(id, at, true);
        }
        if !stream.username.is_empty() {
            memory.named(id, &stream.username);
        }
        if let Some(profile) = facts::live_profile(stream) {
            self.emit(key, at, profile);
        }
        if let Some(raw) = stream.viewer_count {
            let stream_id = facts::stream_id(stream).unwrap_or_default();
            self.emit_viewers(key, id, &stream_id, raw, at);
        }
        self.emit(key, at, facts::up(Transport::Api));
    }

    fn emit_viewers(&self, key: &SourceKey, id: u64, stream_id: &str, raw: u64, at: Timestamp) {
        let reading = self.platform.memory.read_count(id, stream_id, raw, at);
        let stream_id = Some(stream_id.to_owned());
        match reading {
            Reading::Plain => {
                let count = raw;
                self.emit(key, at, Fact::Viewers { count, stream_id });
            }
            Reading::MaybeHidden => self.emit(key, at, Fact::ViewersHidden { stream_id }),
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
            self.emit(key, at, flags);
        }
    }
}
