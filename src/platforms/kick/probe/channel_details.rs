//! The part of a probe that checks which channels exist and what their names are, as far as the rate limit allows.

use std::collections::BTreeMap;

use super::super::api::{CHANNELS_AT_ONCE, LIST_AT_ONCE, Page, USERS_AT_ONCE};
use super::super::facts;
use super::super::wire::Channel;
use super::context::ProbeContext;
use super::is_permanent;
use super::stream_list::StreamList;
use crate::core::code::Code;
use crate::core::observation::{Fact, Transport};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::platforms::{PlatformError, Probe, Problem};

/// Why a channel that the channels do not list may exist.
const UNREADABLE_ROW: &str = "a row of the channels that may be about this one cannot be read";

/// Channels requested individually in one probe, each a request.
const MAX_SINGLE_REQUESTS: usize = 8;
/// Requests for details beyond the spare capacity of the rate limit, while some channels were never checked, and afterwards.
const DETAILS_AT_FIRST: usize = 4;
const DETAILS_LATER: usize = 1;

/// Returns the row of each channel; of two rows the one with the newer stream.
fn newest(rows: &[Channel]) -> BTreeMap<u64, &Channel> {
    facts::newest(rows, |channel| {
        let stream = channel.stream.as_ref();
        let is_live = stream.and_then(|stream| stream.is_live);
        let start = stream.and_then(|stream| facts::started_at(&stream.start_time));
        (channel.broadcaster_user_id, (is_live, start))
    })
}

/// Returns the channels that should be checked: never checked ones first, then those checked longest ago.
pub(super) fn due(cx: &ProbeContext<'_>) -> Vec<u64> {
    if !cx.wants(&[Probe::Connection, Probe::Stream]) {
        return Vec::new();
    }
    let now = cx.now();
    let mut due: Vec<_> = cx
        .targets
        .keys()
        .map(|id| (cx.platform.memory.channel(*id).looked_up.map(|(at, _)| at), *id))
        .filter(|(at, _)| at.is_none_or(|at| now.since(at) >= cx.platform.options.details_for))
        .collect();
    due.sort_unstable();
    let never = due.iter().any(|(at, _)| at.is_none());
    let lists = cx.targets.len().div_ceil(LIST_AT_ONCE);
    let spare = cx.platform.api.client.rate_limiter.left().saturating_sub(lists);
    let calls = spare.max(if never { DETAILS_AT_FIRST } else { DETAILS_LATER });
    due.truncate(calls * CHANNELS_AT_ONCE);
    due.into_iter().map(|(_, id)| id).collect()
}

/// Requests the names of users that no list contained, while the rate limit has spare capacity.
pub(super) async fn fetch_names(cx: &ProbeContext<'_>, due: &[u64]) {
    let memory = &cx.platform.memory;
    let nameless: Vec<_> = due
        .iter()
        .copied()
        .filter(|id| memory.channel(*id).name.is_none())
        .collect();
    let needed = due.len().div_ceil(CHANNELS_AT_ONCE) + MAX_SINGLE_REQUESTS;
    for chunk in nameless.chunks(USERS_AT_ONCE) {
        if cx.platform.api.client.rate_limiter.left() <= needed {
            return;
        }
        cx.meter.expect(1);
        let page = cx.platform.api.users(chunk, &cx.meter).await;
        cx.meter.done();
        // Names are optional; a failed request is ignored.
        let Ok(page) = page else { return };
        for user in page.items.iter().filter(|user| !user.name.is_empty()) {
            memory.named(user.user_id, &user.name);
        }
    }
}

/// Requests the details of channels, with what the list has shown about them.
pub(super) struct ChannelDetails<'c, 'a> {
    cx: &'c ProbeContext<'a>,
    streams: StreamList,
    /// Remaining requests for single channels.
    singly: usize,
}

impl<'c, 'a> ChannelDetails<'c, 'a> {
    pub(super) fn new(cx: &'c ProbeContext<'a>, streams: StreamList) -> Self {
        Self {
            cx,
            streams,
            singly: MAX_SINGLE_REQUESTS,
        }
    }

    pub(super) async fn fetch(mut self, due: Vec<u64>) {
        let mut waiting: Vec<Vec<u64>> = due.chunks(CHANNELS_AT_ONCE).rev().map(<[u64]>::to_vec).collect();
        self.cx.meter.expect(waiting.len());
        while let Some(chunk) = waiting.pop() {
            let outcome = self.cx.platform.api.channels(&chunk, &self.cx.meter).await;
            self.cx.meter.done();
            match outcome {
                Ok(page) => self.compare(&chunk, page).await,
                Err(PlatformError::Rejected { status: 400, .. }) if chunk.len() > 1 => {
                    let (one, other) = chunk.split_at(chunk.len() / 2);
                    waiting.extend([other.to_vec(), one.to_vec()]);
                    self.cx.meter.expect(2);
                }
                Err(error) => {
                    // The list has reported these sources; this failure does not affect their connection.
                    let words = format!("cannot resolve the channels: {error}");
                    let info = facts::error(&error, &words);
                    self.cx.emit_all(&chunk, &Fact::Problem { error: info.clone() });
                    self.cx
                        .problem(Problem::of_platform(format!("Kick: {words}")).caused_by(info));
                    if is_permanent(&error) {
                        break;
                    }
                }
            }
        }
        // Channels that were not checked after all are reported as the list left them.
        let left = std::mem::take(&mut self.streams.absent);
        for (id, at) in left {
            let gone = self
                .cx
                .platform
                .memory
                .channel(id)
                .looked_up
                .is_some_and(|(_, exists)| !exists);
            if let Some(key) = self.cx.targets.get(&id).filter(|_| !gone) {
                self.cx.emit(key, at, Fact::StreamAbsent);
            }
        }
    }

    async fn compare(&mut self, chunk: &[u64], page: Page<Channel>) {
        let found = newest(&page.items);
        if page.unclear.is_any() {
            self.cx
                .problem(Problem::of_platform(format!("Kick: {UNREADABLE_ROW}")));
        }
        for id in chunk {
            match found.get(id) {
                Some(channel) => self.emit_channel(channel, page.at).await,
                None if page.unclear.concerns(id) => self.leave_existence_open(*id, page.at),
                None => self.fetch_singly(*id).await,
            }
        }
    }

    /// Records that the channels, although received, do not show whether this one exists.
    fn leave_existence_open(&self, id: u64, at: Timestamp) {
        if let Some(key) = self.cx.targets.get(&id) {
            let code = Code::Unreadable(PlatformName::Kick);
            self.cx.emit(key, at, facts::problem(code, UNREADABLE_ROW));
        }
    }

    async fn emit_channel(&mut self, channel: &Channel, at: Timestamp) {
        let id = channel.broadcaster_user_id;
        let Some(key) = self.cx.targets.get(&id).cloned() else {
            return;
        };
        let memory = &self.cx.platform.memory;
        memory.looked_up(id, at, true);
        memory.remember_slug(&channel.slug.to_lowercase(), id);
        // The link comes first: a channel that exists again must not be judged by the link that it had before.
        if !self.streams.unlisted.contains(&id) {
            self.cx.emit(&key, at, facts::up(Transport::Api));
        }
        self.cx.emit(&key, at, Fact::Exists);
        let name = memory.channel(id).name;
        let listed = self.streams.live.contains(&id);
        if let Some(profile) = facts::channel_profile(channel, name.as_deref(), listed) {
            self.cx.emit(&key, at, profile);
        }
        let says_live = channel.stream.as_ref().and_then(|stream| stream.is_live);
        match (says_live, self.streams.absent.remove(&id)) {
            (Some(true), Some(absent_at)) => self.list_again(id, &key, absent_at).await,
            (_, Some(absent_at)) => self.cx.emit(&key, absent_at, Fact::StreamAbsent),
            (_, None) => {}
        }
    }

    /// Requests the list again for a channel that it left out and that is marked as live. A list lags seconds behind a start,
    /// so a channel that it leaves out twice is reported neither as live nor as offline this time.
    async fn list_again(&mut self, id: u64, key: &SourceKey, absent_at: Timestamp) {
        let page = if self.may_request_singly() {
            self.cx.platform.api.livestreams(&[id], &self.cx.meter).await.ok()
        } else {
            None
        };
        let listed = page.is_some_and(|page| {
            let any = page.items.iter().any(|stream| stream.broadcaster == id);
            if any {
                self.streams.update(self.cx, &[id], &page, &[]);
            }
            any
        });
        if !listed {
            let words = "the channel calls itself live, but the list of live streams leaves it out";
            self.cx
                .emit(key, absent_at, facts::problem(Code::KickContradiction, words));
        }
    }

    /// Requests one channel that a batch has left out, which alone proves nothing.
    async fn fetch_singly(&mut self, id: u64) {
        if !self.may_request_singly() {
            return;
        }
        let Some(key) = self.cx.targets.get(&id).cloned() else {
            return;
        };
        let page = match self.cx.platform.api.channels(&[id], &self.cx.meter).await {
            Ok(page) => page,
            Err(error) => {
                let words = format!("cannot resolve the channel: {error}");
                return self
                    .cx
                    .emit(&key, self.cx.now(), facts::problem(error.code(), &words));
            }
        };
        if let Some(channel) = newest(&page.items).get(&id) {
            return Box::pin(self.emit_channel(channel, page.at)).await;
        }
        // A channel in the list exists, whatever this response contains.
        if page.unclear.concerns(&id) {
            return self.leave_existence_open(id, page.at);
        }
        if self.streams.live.contains(&id) {
            return;
        }
        self.cx.platform.memory.looked_up(id, page.at, false);
        self.streams.absent.remove(&id);
        for fact in facts::not_found() {
            self.cx.emit(&key, page.at, fact);
        }
        let error = facts::no_such_channel();
        let problem = Problem::of_source(&key, format!("{key}: {}", error.message));
        self.cx.problem(problem.caused_by(error));
    }

    fn may_request_singly(&mut self) -> bool {
        let left = self.singly > 0;
        self.singly = self.singly.saturating_sub(1);
        left
    }
}
