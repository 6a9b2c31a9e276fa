//! The part of a look that finds out which channels exist and how they are called, as far as the budget goes.

use std::collections::BTreeMap;

use super::super::api::{CHANNELS_AT_ONCE, LIST_AT_ONCE, Told, USERS_AT_ONCE};
use super::super::facts;
use super::super::wire::Channel;
use super::{Look, SINGLY, is_hopeless};
use crate::core::observation::{Fact, Transport};
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::platforms::{PlatformError, Probe};

/// Calls for details beyond what the budget has to spare, while some channels were never looked up, and afterwards.
const DETAILS_AT_FIRST: usize = 4;
const DETAILS_LATER: usize = 1;

impl Look<'_> {
    /// Returns the channels that should be looked up: never seen ones first, then the longest unseen.
    pub(super) fn due(&self) -> Vec<u64> {
        if !self.wants(&[Probe::Connection, Probe::Stream]) {
            return Vec::new();
        }
        let now = self.now();
        let mut due: Vec<_> = self
            .targets
            .keys()
            .map(|id| (self.platform.memory.channel(*id).looked_up.map(|(at, _)| at), *id))
            .filter(|(at, _)| at.is_none_or(|at| now.since(at) >= self.platform.options.details_for))
            .collect();
        due.sort_unstable();
        let never = due.iter().any(|(at, _)| at.is_none());
        let lists = self.targets.len().div_ceil(LIST_AT_ONCE);
        let spare = self.platform.api.client.budget.left().saturating_sub(lists);
        let calls = spare.max(if never { DETAILS_AT_FIRST } else { DETAILS_LATER });
        due.truncate(calls * CHANNELS_AT_ONCE);
        due.into_iter().map(|(_, id)| id).collect()
    }

    /// Learns how the users are called whom no list has named, while the budget has calls to spare.
    pub(super) async fn learn_names(&self, due: &[u64]) {
        let memory = &self.platform.memory;
        let nameless: Vec<_> = due
            .iter()
            .copied()
            .filter(|id| memory.channel(*id).name.is_none())
            .collect();
        let needed = due.len().div_ceil(CHANNELS_AT_ONCE) + SINGLY;
        for chunk in nameless.chunks(USERS_AT_ONCE) {
            if self.platform.api.client.budget.left() <= needed {
                return;
            }
            self.meter.calls.expect(1);
            let told = self.platform.api.users(chunk, &self.meter).await;
            self.meter.calls.done();
            // Names are a nicety; what does not answer is left alone.
            let Ok(told) = told else { return };
            for user in told.items.iter().filter(|user| !user.name.is_empty()) {
                memory.named(user.user_id, &user.name);
            }
        }
    }

    pub(super) async fn look_up(&mut self, due: Vec<u64>) {
        let mut waiting: Vec<Vec<u64>> = due.chunks(CHANNELS_AT_ONCE).rev().map(<[u64]>::to_vec).collect();
        self.meter.calls.expect(waiting.len());
        while let Some(chunk) = waiting.pop() {
            let outcome = self.platform.api.channels(&chunk, &self.meter).await;
            self.meter.calls.done();
            match outcome {
                Ok(told) => self.compare(&chunk, told).await,
                Err(PlatformError::Rejected { status: 400, .. }) if chunk.len() > 1 => {
                    let (one, other) = chunk.split_at(chunk.len() / 2);
                    waiting.extend([other.to_vec(), one.to_vec()]);
                    self.meter.calls.expect(2);
                }
                Err(error) => {
                    // The list has told of these sources; this failure is no news of their connection.
                    let words = format!("the channels could not be looked up: {error}");
                    self.tell_all(&chunk, &facts::problem(facts::code(&error), &words));
                    self.meter.complain(format!("Kick: {words}"));
                    if is_hopeless(&error) {
                        break;
                    }
                }
            }
        }
        // What was not looked up after all is told as the list left it.
        let left = std::mem::take(&mut self.absent);
        for (id, at) in left {
            let gone = self
                .platform
                .memory
                .channel(id)
                .looked_up
                .is_some_and(|(_, exists)| !exists);
            if let Some(key) = self.targets.get(&id).filter(|_| !gone) {
                self.tell(key, at, Fact::StreamAbsent);
            }
        }
    }

    async fn compare(&mut self, chunk: &[u64], told: Told<Channel>) {
        let found: BTreeMap<u64, &Channel> = told
            .items
            .iter()
            .map(|channel| (channel.broadcaster_user_id, channel))
            .collect();
        for id in chunk {
            match found.get(id) {
                Some(channel) => self.tell_channel(channel, told.at).await,
                None if told.partial => {}
                None => self.look_up_singly(*id).await,
            }
        }
    }

    async fn tell_channel(&mut self, channel: &Channel, at: Timestamp) {
        let id = channel.broadcaster_user_id;
        let Some(key) = self.targets.get(&id).cloned() else {
            return;
        };
        let memory = &self.platform.memory;
        memory.looked_up(id, at, true);
        memory.remember_slug(&channel.slug.to_lowercase(), id);
        if !self.unlisted.contains(&id) {
            self.tell(&key, at, facts::up(Transport::Api));
        }
        let name = memory.channel(id).name;
        let listed = self.live.contains(&id);
        if let Some(profile) = facts::channel_profile(channel, name.as_deref(), listed) {
            self.tell(&key, at, profile);
        }
        let says_live = channel.stream.as_ref().and_then(|stream| stream.is_live);
        match (says_live, self.absent.remove(&id)) {
            (Some(true), Some(absent_at)) => self.settle(id, &key, absent_at).await,
            (_, Some(absent_at)) => self.tell(&key, absent_at, Fact::StreamAbsent),
            (_, None) => {}
        }
    }

    /// Asks the list again for a channel that it left out and that calls itself live. A list lags seconds behind a start,
    /// so what it leaves out twice is neither claimed to be live nor to be offline this time.
    async fn settle(&mut self, id: u64, key: &SourceKey, absent_at: Timestamp) {
        let told = if self.may_ask_singly() {
            self.platform.api.livestreams(&[id], &self.meter).await.ok()
        } else {
            None
        };
        let listed = told.is_some_and(|told| {
            let any = told.items.iter().any(|stream| stream.broadcaster == id);
            if any {
                self.tell_list(&[id], &told, &[]);
            }
            any
        });
        if !listed {
            let words = "the channel calls itself live, but the list of live streams leaves it out";
            self.tell(key, absent_at, facts::problem("kick.disagreement", words));
        }
    }

    /// Looks up one channel that a batch has left out, which alone means nothing.
    async fn look_up_singly(&mut self, id: u64) {
        if !self.may_ask_singly() {
            return;
        }
        let Some(key) = self.targets.get(&id).cloned() else {
            return;
        };
        let told = match self.platform.api.channels(&[id], &self.meter).await {
            Ok(told) => told,
            Err(error) => {
                let words = format!("the channel could not be looked up: {error}");
                return self.tell(&key, self.now(), facts::problem(facts::code(&error), &words));
            }
        };
        if let Some(channel) = told
            .items
            .iter()
            .find(|channel| channel.broadcaster_user_id == id)
        {
            return Box::pin(self.tell_channel(channel, told.at)).await;
        }
        // What the list shows exists, whatever this says.
        if told.partial || self.live.contains(&id) {
            return;
        }
        self.platform.memory.looked_up(id, told.at, false);
        self.absent.remove(&id);
        self.tell(&key, told.at, facts::not_found());
        self.meter.complain(format!("{key}: Kick knows no such channel"));
    }

    fn may_ask_singly(&mut self) -> bool {
        let left = self.singly > 0;
        self.singly = self.singly.saturating_sub(1);
        left
    }
}
