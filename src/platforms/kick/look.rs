//! One look at some channels: authorisations, the list of live streams, then as many channels in detail as are due.
//!
//! Only a successful list that was asked for a channel tells that it is not live. Absence from `/channels` means that the
//! channel is gone, and what the two disagree about is asked for singly.

use std::collections::{BTreeMap, BTreeSet};

use super::KickPlatform;
use super::api::{CHANNELS_AT_ONCE, LIST_AT_ONCE, Told, USERS_AT_ONCE};
use super::facts::{self, BADGES_METHOD, BY_API, OWNER_METHOD, SCOPES_METHOD};
use super::meter::Meter;
use super::options::{BOT, broadcaster_of};
use super::standing::Standing;
use super::viewers::Reading;
use super::wire::{Channel, Livestream};
use crate::core::observation::{Fact, Grants, Identity, Observation, Transport};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::platforms::{PlatformError, Probe, ProbeSet, ProbeSink, ProbeSummary};

/// An introspection this old (ms) still tells permissions.
const SCOPES_KNOWN_FOR: i64 = 300_000;
/// Channels asked for singly in one look, each a call.
const SINGLY: usize = 8;
/// Calls for details beyond what the budget has to spare, while some channels were never looked up, and afterwards.
const DETAILS_AT_FIRST: usize = 4;
const DETAILS_LATER: usize = 1;

/// A look in progress.
pub(super) struct Look<'a> {
    platform: &'a KickPlatform,
    probes: &'a ProbeSet,
    sink: &'a dyn ProbeSink,
    meter: Meter<'a>,
    targets: BTreeMap<u64, SourceKey>,
    live: BTreeSet<u64>,
    /// Channels that the list left out, and when; those to be looked up in this look wait for what that brings.
    absent: BTreeMap<u64, Timestamp>,
    singly: usize,
}

impl<'a> Look<'a> {
    pub(super) fn new(
        platform: &'a KickPlatform,
        probes: &'a ProbeSet,
        sources: &[SourceKey],
        sink: &'a dyn ProbeSink,
    ) -> Self {
        let targets = sources
            .iter()
            .filter(|key| key.platform() == PlatformName::Kick)
            .filter_map(|key| Some((key.id().parse().ok()?, key.clone())))
            .collect();
        Self {
            platform,
            probes,
            sink,
            meter: Meter::telling(sink),
            targets,
            live: BTreeSet::new(),
            absent: BTreeMap::new(),
            singly: SINGLY,
        }
    }

    /// Looks.
    pub(super) async fn run(mut self) -> ProbeSummary {
        if !self.targets.is_empty() {
            self.look().await;
        }
        ProbeSummary {
            calls: self.meter.count(),
            problems: self.meter.problems(),
        }
    }

    async fn look(&mut self) {
        if self.wants(&[Probe::Auth, Probe::Permissions]) {
            self.look_at_identities().await;
        }
        if self.wants(&[Probe::Connection, Probe::Stream, Probe::Viewers]) {
            let due = self.due();
            let chunks = self.targets.len().div_ceil(LIST_AT_ONCE);
            self.meter.expect(chunks);
            if self.walk_lists(&due).await {
                self.learn_names(&due).await;
                self.look_up(due).await;
            }
            self.tell_latency();
        }
        self.tell_checks();
    }

    fn wants(&self, probes: &[Probe]) -> bool {
        probes.iter().any(|probe| self.probes.contains(probe))
    }

    // Authorisations and permissions.

    async fn look_at_identities(&mut self) {
        let identities = match self.platform.api.auth.identities().await {
            Ok(identities) if identities.is_empty() => return self.fail_everything_without_identity(),
            Ok(identities) => identities,
            Err(error) => return self.fail(&self.all(), &error),
        };
        let wanted: Vec<_> = identities
            .into_iter()
            .filter(|identity| broadcaster_of(identity).is_none_or(|id| self.targets.contains_key(&id)))
            .collect();
        self.meter.expect(wanted.len());
        for identity in &wanted {
            let max_age = if self.probes.contains(&Probe::Auth) {
                -1
            } else {
                SCOPES_KNOWN_FOR
            };
            let checked = self
                .platform
                .api
                .auth
                .checked_within(max_age, identity, &self.meter)
                .await;
            match checked {
                Ok(checked) => {
                    if self.probes.contains(&Probe::Permissions) && identity.as_str() == BOT {
                        self.tell_scopes(&checked);
                    }
                }
                Err(error) => {
                    let fact = facts::of_failed_look(&error);
                    let concerned = self.concerned(identity);
                    // A host that cannot be reached for a token is no news of the API, which the list will bring.
                    if matches!(
                        error,
                        PlatformError::Unavailable { .. } | PlatformError::Unreadable { .. }
                    ) {
                        let words = format!("{identity}: {error}");
                        self.tell_all(&concerned, &facts::problem(facts::code(&error), &words));
                    } else {
                        self.tell_all(&concerned, &fact);
                    }
                    self.meter.complain(format!("{identity}: {error}"));
                }
            }
            self.meter.done();
        }
        if self.probes.contains(&Probe::Permissions) {
            self.tell_badges();
        }
    }

    fn fail_everything_without_identity(&self) {
        let needs = "Kick needs a client id and secret (`kick.client_id`, `kick.client_secret`), or a token of the bot";
        self.tell_all(&self.all(), &facts::refused("config.token", needs));
        self.meter.complain(needs.to_owned());
    }

    fn tell_scopes(&self, checked: &super::auth::Checked) {
        if checked.standing != Standing::Valid {
            return;
        }
        for (id, key) in &self.targets {
            self.tell(
                key,
                checked.at,
                permissions(SCOPES_METHOD, facts::scopes(&checked.scopes)),
            );
            if checked.user_id == Some(*id) {
                let granted = Grants {
                    granted: ["badge:broadcaster".to_owned()].into(),
                    ..Grants::default()
                };
                self.tell(key, checked.at, permissions(OWNER_METHOD, granted));
            }
        }
    }

    fn tell_badges(&self) {
        let now = self.now();
        for (id, key) in &self.targets {
            let grants = self
                .platform
                .badges
                .grants(*id, now, self.platform.options.badges_for);
            if let Some((at, grants)) = grants {
                self.tell(key, at, permissions(BADGES_METHOD, grants));
            }
        }
    }

    /// The sources that need an identity.
    fn concerned(&self, identity: &Identity) -> Vec<u64> {
        match broadcaster_of(identity) {
            Some(id) => vec![id],
            None => self.all(),
        }
    }

    /// Tells what was found of authorisations on the way, also where a refused token was the reason to look.
    fn tell_checks(&self) {
        for (identity, checked) in self.meter.take_checked() {
            if let Some(id) = checked.user_id.filter(|_| identity.as_str() == BOT) {
                self.platform.bot.learn(id);
            }
            let facts = facts::of_check(&identity, &checked);
            for id in self.concerned(&identity) {
                for fact in &facts {
                    if let Some(key) = self.targets.get(&id) {
                        self.tell(key, checked.at, fact.clone());
                    }
                }
            }
            for (_, worry) in facts::worries(&identity, &checked) {
                self.meter.complain(worry);
            }
            if let Standing::Expired(reason) | Standing::Revoked(reason) | Standing::Unknown(reason) =
                &checked.standing
            {
                self.meter.complain(format!("{identity}: {reason}"));
            }
        }
    }

    // Streams.

    /// Asks for all live streams; returns whether going on makes sense.
    async fn walk_lists(&mut self, due: &[u64]) -> bool {
        let ids = self.all();
        let mut waiting: Vec<Vec<u64>> = ids.chunks(LIST_AT_ONCE).rev().map(<[u64]>::to_vec).collect();
        while let Some(chunk) = waiting.pop() {
            let outcome = self.platform.api.livestreams(&chunk, &self.meter).await;
            self.meter.done();
            match outcome {
                Ok(told) => self.tell_list(&chunk, &told, due),
                Err(PlatformError::Rejected { status: 400, .. }) if chunk.len() > 1 => {
                    // One of them spoils the answer for all: halve until it stands alone.
                    let (one, other) = chunk.split_at(chunk.len() / 2);
                    waiting.extend([other.to_vec(), one.to_vec()]);
                    self.meter.expect(2);
                }
                Err(error) => {
                    let hopeless = is_hopeless(&error);
                    let mut left = chunk;
                    if hopeless {
                        left.extend(waiting.drain(..).flatten());
                    }
                    self.fail(&left, &error);
                    if hopeless {
                        return false;
                    }
                }
            }
        }
        true
    }

    fn tell_list(&mut self, asked: &[u64], told: &Told<Livestream>, due: &[u64]) {
        let mut newest: BTreeMap<u64, &Livestream> = BTreeMap::new();
        for stream in &told.items {
            self.tell_live(stream, told.at);
            let id = stream.broadcaster_user.id;
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
            if known == Some(true) {
                self.tell(key, told.at, facts::up(Transport::Api));
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
        let Some(key) = self.targets.get(&stream.broadcaster_user.id) else {
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
        if !stream.broadcaster_user.username.is_empty() {
            memory.named(id, &stream.broadcaster_user.username);
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

    // Channels.

    /// Returns the channels that should be looked up: never seen ones first, then the longest unseen.
    fn due(&self) -> Vec<u64> {
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
    async fn learn_names(&self, due: &[u64]) {
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
            self.meter.expect(1);
            let told = self.platform.api.users(chunk, &self.meter).await;
            self.meter.done();
            // Names are a nicety; what does not answer is left alone.
            let Ok(told) = told else { return };
            for user in told.items.iter().filter(|user| !user.name.is_empty()) {
                memory.named(user.user_id, &user.name);
            }
        }
    }

    async fn look_up(&mut self, due: Vec<u64>) {
        let mut waiting: Vec<Vec<u64>> = due.chunks(CHANNELS_AT_ONCE).rev().map(<[u64]>::to_vec).collect();
        self.meter.expect(waiting.len());
        while let Some(chunk) = waiting.pop() {
            let outcome = self.platform.api.channels(&chunk, &self.meter).await;
            self.meter.done();
            match outcome {
                Ok(told) => self.compare(&chunk, told).await,
                Err(PlatformError::Rejected { status: 400, .. }) if chunk.len() > 1 => {
                    let (one, other) = chunk.split_at(chunk.len() / 2);
                    waiting.extend([other.to_vec(), one.to_vec()]);
                    self.meter.expect(2);
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
        self.tell(&key, at, facts::up(Transport::Api));
        let name = memory.channel(id).name;
        let listed = self.live.contains(&id);
        if let Some(profile) = facts::channel_profile(channel, name.as_deref(), listed) {
            self.tell(&key, at, profile);
        }
        let says_live = channel.stream.as_ref().map(|stream| stream.is_live);
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
            let any = told.items.iter().any(|stream| stream.broadcaster_user.id == id);
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

    // Telling.

    fn all(&self) -> Vec<u64> {
        self.targets.keys().copied().collect()
    }

    fn now(&self) -> Timestamp {
        self.platform.clock.now()
    }

    fn tell(&self, key: &SourceKey, at: Timestamp, fact: Fact) {
        self.sink.observe(Observation::new(key, at, BY_API, fact));
    }

    fn tell_all(&self, ids: &[u64], fact: &Fact) {
        let now = self.now();
        for key in ids.iter().filter_map(|id| self.targets.get(id)) {
            self.tell(key, now, fact.clone());
        }
    }

    fn fail(&self, ids: &[u64], error: &PlatformError) {
        self.tell_all(ids, &facts::of_failed_look(error));
        self.meter.complain(match error {
            PlatformError::RateLimited { .. } => format!("{error}; this look is left at what it has"),
            error => error.to_string(),
        });
    }

    fn tell_latency(&self) {
        let now = self.now();
        if let Some(millis) = self
            .platform
            .api
            .client
            .latency()
            .filter(|_| self.meter.count() > 0)
        {
            for key in self.targets.values() {
                self.tell(key, now, Fact::Latency { millis });
            }
        }
    }
}

/// Returns whether a failure will meet every other call of this look too.
fn is_hopeless(error: &PlatformError) -> bool {
    !matches!(
        error,
        PlatformError::Unavailable { .. }
            | PlatformError::Unreadable { .. }
            | PlatformError::Rejected { status: 400, .. }
    ) || super::answer::is_blocked(error)
}

fn permissions(method: &str, grants: Grants) -> Fact {
    Fact::Permissions {
        method: method.to_owned(),
        grants,
    }
}
