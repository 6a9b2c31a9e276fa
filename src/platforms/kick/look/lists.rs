//! The part of a look that is the truth about streams: the list of those that are live.

use std::collections::{BTreeMap, BTreeSet};

use super::super::api::{LIST_AT_ONCE, Told};
use super::super::facts;
use super::super::viewers::Reading;
use super::super::wire::Livestream;
use super::{Look, is_hopeless};
use crate::core::observation::{Fact, Transport};
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::platforms::PlatformError;

impl Look<'_> {
    /// Asks for all live streams; returns whether going on makes sense.
    pub(super) async fn walk_lists(&mut self, due: &[u64]) -> bool {
        let ids = self.all();
        let mut waiting: Vec<Vec<u64>> = ids.chunks(LIST_AT_ONCE).rev().map(<[u64]>::to_vec).collect();
        while let Some(chunk) = waiting.pop() {
            let sent = self.meter.calls.count();
            let outcome = self.platform.api.livestreams(&chunk, &self.meter).await;
            self.meter.calls.done();
            let held = self.meter.calls.count() == sent;
            match outcome {
                Ok(told) => self.tell_list(&chunk, &told, due),
                Err(PlatformError::Rejected { status: 400, .. }) if chunk.len() > 1 => {
                    // One of them spoils the answer for all: halve until it stands alone.
                    let (one, other) = chunk.split_at(chunk.len() / 2);
                    waiting.extend([other.to_vec(), one.to_vec()]);
                    self.meter.calls.expect(2);
                }
                // Kick has asked for quiet before: nothing was sent, so nothing is known that was not told then.
                Err(error @ PlatformError::RateLimited { .. }) if held => {
                    self.complain_of(&error);
                    return false;
                }
                Err(error) => {
                    let hopeless = is_hopeless(&error);
                    let mut left = chunk;
                    if hopeless {
                        left.extend(waiting.drain(..).flatten());
                    }
                    self.fail(&left, &error);
                    self.unlisted.extend(&left);
                    if hopeless {
                        return false;
                    }
                }
            }
        }
        true
    }

    pub(super) fn tell_list(&mut self, asked: &[u64], told: &Told<Livestream>, due: &[u64]) {
        let mut newest: BTreeMap<u64, &Livestream> = BTreeMap::new();
        for stream in &told.items {
            self.tell_live(stream, told.at);
            let id = stream.broadcaster;
            let shown = newest.entry(id).or_insert(stream);
            if facts::started_at(&stream.started_at) > facts::started_at(&shown.started_at) {
                *shown = stream;
            }
        }
        for (id, stream) in &newest {
            self.tell_details_of_live(*id, stream, told.at);
        }
        if told.partial {
            let words = "some of the live streams listed cannot be read, so nothing is made of those missing";
            self.meter.complain(format!("Kick: {words}"));
            return;
        }
        let due: BTreeSet<_> = due.iter().copied().collect();
        for id in asked.iter().filter(|id| !newest.contains_key(id)) {
            let Some(key) = self.targets.get(id) else { continue };
            let known = self
                .platform
                .memory
                .channel(*id)
                .looked_up
                .map(|(_, exists)| exists);
            match known {
                Some(true) => self.tell(key, told.at, facts::up(Transport::Api)),
                // Whether it exists is yet to be looked up; that there was an answer is known.
                None => self.tell(key, told.at, facts::answered()),
                Some(false) => {}
            }
            if due.contains(id) {
                self.absent.insert(*id, told.at);
            } else if known != Some(false) {
                self.tell(key, told.at, Fact::StreamAbsent);
            }
        }
    }

    fn tell_live(&self, stream: &Livestream, at: Timestamp) {
        let stream_id = facts::stream_id(stream);
        let Some(key) = self.targets.get(&stream.broadcaster) else {
            return;
        };
        if stream_id.is_empty() {
            let words = "a live stream was listed without start and id";
            return self.tell(key, at, facts::problem("kick.unreadable", words));
        }
        let fact = Fact::StreamSeen {
            stream_id: stream_id.to_owned(),
            started_at: facts::started_at(&stream.started_at),
        };
        self.tell(key, at, fact);
    }

    fn tell_details_of_live(&mut self, id: u64, stream: &Livestream, at: Timestamp) {
        let Some(key) = self.targets.get(&id) else { return };
        self.live.insert(id);
        let memory = &self.platform.memory;
        if memory.channel(id).looked_up.is_none_or(|(_, exists)| !exists) {
            memory.looked_up(id, at, true);
        }
        if !stream.username.is_empty() {
            memory.named(id, &stream.username);
        }
        self.tell(key, at, facts::up(Transport::Api));
        if let Some(profile) = facts::live_profile(stream) {
            self.tell(key, at, profile);
        }
        if let Some(raw) = stream.viewer_count {
            self.tell_viewers(key, id, facts::stream_id(stream), raw, at);
        }
    }

    fn tell_viewers(&self, key: &SourceKey, id: u64, stream_id: &str, raw: u64, at: Timestamp) {
        let reading = self.platform.memory.read_count(id, stream_id, raw, at);
        if reading != Reading::Doubted {
            let fact = Fact::Viewers {
                count: raw,
                stream_id: Some(stream_id.to_owned()),
            };
            self.tell(key, at, fact);
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
            self.tell(key, at, flags);
        }
    }
}
