//! One line: the loop that obeys `machine` and `roster`, reads sockets, and says of each source whether it is heard.
//!
//! The loop only parses and hands on. Calls to Twitch run beside it, so a slow answer never keeps a ping waiting.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, FuturesUnordered, SelectAll, StreamExt};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::super::TwitchPlatform;
use super::super::meter::Meter;
use super::hub::{Hub, LineStatus};
use super::kinds::{Kind, Subscription};
use super::machine::{self, Effect, HOPELESS_PAUSE, Input, Millis, Phase, SocketId, State, Trouble};
use super::rest::{self, Bill, Created};
use super::roster::{COST, Roster, Stand, Verdict};
use super::socket::{self, Frame};
use super::wire::{self, Body, Told};
use crate::core::observation::{ErrorInfo, Fact, Grants, Identity, LinkState, Transport};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::platforms::{PlatformError, Probe, ProbeSet};

/// A line that is back so soon was never worth telling of.
const DOWN_GRACE: Millis = 5_000;
/// How often a line that is up says so again.
const BEAT: Millis = 60_000;
/// How often the list of subscriptions is compared with ours.
const COMPARE: Millis = 10 * 60_000;
/// After a move the list is looked at soon: nothing else would tell of what got lost on the way.
const COMPARE_AFTER_MOVE: Millis = 15_000;
/// A session of this age has outlived whatever its predecessor left behind.
const SETTLED: Millis = 120_000;
/// How long sources wait for others to be looked at together with them.
const GATHER: Millis = 2_000;
/// So many sources are looked at without waiting for more.
const GATHERED: usize = 100;
/// The loop looks at the clocks so often.
const LONGEST_NAP: Millis = 5_000;
/// A difference between the wall clock and the steady one that no correction of a clock explains.
const JUMP_MS: i64 = 10_000;
/// Sources found silent at a time from which on the whole line is suspected.
const SILENT_LINE: usize = 3;

/// What a line needs of its surroundings.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) twitch: Arc<TwitchPlatform>,
    pub(super) hub: Arc<Hub>,
    /// Milliseconds of a line's time in a real one. Only tests hurry.
    pub(super) pace: u32,
    /// Whether differences between the clocks end the connection.
    pub(super) watch_clock: bool,
}

/// One line.
pub(super) struct Line {
    around: Surroundings,
    /// Unique among a listener's lines.
    name: String,
    identity: Identity,
    socket_number: usize,
    wanted: watch::Receiver<Vec<Subscription>>,
    state: State,
    roster: Roster,
    started: Instant,
    frames: SelectAll<BoxStream<'static, (SocketId, Frame)>>,
    closers: HashMap<SocketId, oneshot::Sender<()>>,
    works: FuturesUnordered<BoxFuture<'static, Work>>,
    told: BTreeMap<SourceKey, Telling>,
    pending_down: Option<PendingDown>,
    /// Sources that are heard again and have not been looked at since.
    fresh: BTreeSet<SourceKey>,
    fresh_since: Option<Millis>,
    past_sessions: Vec<String>,
    session_since: Millis,
    /// Twitch's time minus ours, by the newest welcome.
    offset: Option<i64>,
    clocks: (Timestamp, Instant),
    next_beat: Millis,
    next_suspicion: Millis,
    next_compare: Option<Millis>,
    comparing: bool,
    last_error: Option<ErrorInfo>,
    was_up: bool,
    dirty: bool,
}

/// What was last told of a source's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Telling {
    Nothing,
    Up,
    Trouble,
}

struct PendingDown {
    by: Millis,
    at: Timestamp,
    trouble: Trouble,
}

/// Something that ran beside the loop.
enum Work {
    Opened(
        SocketId,
        Result<BoxStream<'static, (SocketId, Frame)>, (Trouble, bool)>,
        oneshot::Sender<()>,
    ),
    Created(String, Subscription, Created),
    Listed {
        session: Option<String>,
        settled: bool,
        listed: Result<(Vec<Told>, Bill), PlatformError>,
    },
    Deleted(Result<(), PlatformError>),
}

impl Line {
    pub(super) fn new(
        around: Surroundings,
        identity: Identity,
        socket_number: usize,
        wanted: watch::Receiver<Vec<Subscription>>,
    ) -> Self {
        let started = Instant::now();
        let clocks = (around.twitch.clock.now(), started);
        Self {
            around,
            name: format!("{identity}#{socket_number}"),
            identity,
            socket_number,
            wanted,
            state: State::new(0),
            roster: Roster::default(),
            started,
            frames: SelectAll::new(),
            closers: HashMap::new(),
            works: FuturesUnordered::new(),
            told: BTreeMap::new(),
            pending_down: None,
            fresh: BTreeSet::new(),
            fresh_since: None,
            past_sessions: Vec::new(),
            session_since: 0,
            offset: None,
            clocks,
            next_beat: BEAT,
            next_suspicion: LONGEST_NAP,
            next_compare: None,
            comparing: false,
            last_error: None,
            was_up: false,
            dirty: true,
        }
    }

    /// Runs until `stop`, then closes and tells so.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        self.desire();
        while self.state.phase != Phase::Stopped {
            let nap = self.nap();
            tokio::select! {
                () = stop.cancelled() => self.step(Input::Stop),
                changed = self.wanted.changed() => match changed {
                    Ok(()) => self.desire(),
                    Err(_) => self.step(Input::Stop),
                },
                Some((socket, frame)) = self.frames.next(), if !self.frames.is_empty() => self.frame(socket, frame),
                Some(work) = self.works.next(), if !self.works.is_empty() => self.worked(work),
                () = tokio::time::sleep(nap) => {}
            }
            self.tend();
        }
        // Polite closes take a moment, and what is still said counts.
        while let Some((socket, frame)) = self.frames.next().await {
            self.frame(socket, frame);
        }
        self.around.hub.note_session(&self.name, None);
        self.around.hub.note_line(&self.name, None);
    }

    fn now(&self) -> Millis {
        let real = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        real.saturating_mul(u64::from(self.around.pace))
    }

    /// The present in Twitch's time.
    fn twitch_now(&self) -> Timestamp {
        let now = self.around.twitch.clock.now();
        let offset = self.offset.or_else(|| self.around.twitch.skew.measured());
        now.plus_millis(offset.unwrap_or(0))
    }

    /// How long to sleep when nothing happens.
    fn nap(&self) -> Duration {
        let now = self.now();
        let in_session = self.state.session().is_some();
        let deadlines = [
            self.state.deadline(),
            self.roster.deadline().filter(|_| in_session),
            self.pending_down.as_ref().map(|down| down.by),
            self.fresh_since.map(|since| since + GATHER),
            self.next_compare,
            Some(self.next_beat),
            Some(now + LONGEST_NAP),
        ];
        let next = deadlines.into_iter().flatten().min().unwrap_or(now);
        // Never zero: what is due but cannot be done yet must not spin.
        let wait = next.saturating_sub(now).max(5);
        Duration::from_millis(wait) / self.around.pace
    }

    /// Does everything that time or the last event made due.
    fn tend(&mut self) {
        let now = self.now();
        self.notice_jump();
        if self.state.deadline().is_some_and(|deadline| deadline <= now) {
            self.step(Input::Tick);
        }
        if matches!(self.state.phase, Phase::Open(_)) {
            self.create_due();
            self.delete_surplus();
            if self.next_compare.is_some_and(|at| at <= now) {
                self.compare(self.settled_for(SETTLED));
            }
        }
        self.tell_pending_down(now);
        self.ask_for_looks(now);
        if self.next_beat <= now {
            self.beat(now);
        }
        if self.next_suspicion <= now {
            self.next_suspicion = now + LONGEST_NAP;
            self.suspect_silence();
        }
        self.publish();
    }

    /// Notices that this machine slept or that its clock was set: the wall clock and the steady one disagree.
    fn notice_jump(&mut self) {
        let (wall, steady) = self.clocks;
        let now = (self.around.twitch.clock.now(), Instant::now());
        let steady_ms = now.1.duration_since(steady).as_millis() * u128::from(self.around.pace);
        let apart = now.0.millis_since(wall) - i64::try_from(steady_ms).unwrap_or(i64::MAX);
        self.clocks = now;
        if self.around.watch_clock && apart.abs() > JUMP_MS {
            info!(
                line = self.name,
                apart_ms = apart,
                "The clock jumped; connecting afresh"
            );
            self.step(Input::Jumped);
        }
    }

    /// Lets the machine decide and does what it says.
    fn step(&mut self, input: Input) {
        let dice = self.around.twitch.helix.chance.fraction();
        let state = std::mem::replace(&mut self.state, State::new(0));
        let before = state.phase.clone();
        let (state, effects) = machine::next(state, input, self.now(), dice);
        self.state = state;
        self.dirty |= std::mem::discriminant(&before) != std::mem::discriminant(&self.state.phase);
        for effect in effects {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        self.dirty = true;
        match effect {
            Effect::Open { socket, url } => self.open(socket, url),
            // Dropping the sender closes it; an opening one is closed when it turns up.
            Effect::Close(socket) => drop(self.closers.remove(&socket)),
            Effect::Subscribe { session } => {
                debug!(line = self.name, "Welcomed");
                self.adopt(&session);
                let now = self.now();
                self.roster.start_over(now);
                self.next_compare = Some(now + COMPARE);
            }
            Effect::Moved { session } => {
                info!(line = self.name, "Moved to another address of Twitch's");
                self.adopt(&session);
                self.next_compare = Some(self.now() + COMPARE_AFTER_MOVE);
            }
            Effect::Up => self.up(),
            Effect::Down(trouble) => self.down(trouble),
            Effect::Ended => self.ended(),
        }
    }

    fn adopt(&mut self, session: &str) {
        if self.past_sessions.len() == 20 {
            // Twitch forgets dead sessions within minutes.
            self.past_sessions.remove(0);
        }
        self.past_sessions.push(session.to_owned());
        self.session_since = self.now();
        self.around.hub.note_session(&self.name, Some(session));
    }

    fn open(&mut self, id: SocketId, url: Option<String>) {
        let (around, identity) = (self.around.clone(), self.identity.clone());
        let (close, closed) = oneshot::channel();
        self.works.push(Box::pin(async move {
            let opened = async {
                let url = if let Some(url) = url {
                    url
                } else {
                    // A session is lost if nothing is subscribed within ten seconds, so the token comes first.
                    let access = around.twitch.auth.access(&identity, &Meter::silent()).await;
                    access.map_err(|error| not_authorised(&error))?;
                    around.twitch.options.eventsub_ws_url.to_string()
                };
                let socket = socket::open(&url, Duration::from_secs(12)).await?;
                Ok(socket::frames(id, socket, closed))
            };
            Work::Opened(id, opened.await, close)
        }));
    }

    fn worked(&mut self, work: Work) {
        match work {
            Work::Opened(id, Ok(frames), close) => {
                self.closers.insert(id, close);
                self.frames.push(frames);
                self.step(Input::Opened(id));
            }
            Work::Opened(socket, Err((trouble, hopeless)), _) => self.step(Input::NotOpened {
                socket,
                trouble,
                hopeless,
            }),
            Work::Created(session, subscription, created) => self.created(session, &subscription, created),
            Work::Listed {
                session,
                settled,
                listed,
            } => self.listed(session.as_deref(), settled, listed),
            Work::Deleted(Ok(())) => {}
            Work::Deleted(Err(error)) => {
                debug!(
                    line = self.name,
                    error = &error as &dyn std::error::Error,
                    "A subscription was not deleted"
                );
            }
        }
    }

    fn frame(&mut self, socket: SocketId, frame: Frame) {
        let text = match frame {
            Frame::Text(text) => text,
            Frame::Ended(code) => {
                self.closers.remove(&socket);
                return self.step(Input::Closed { socket, code });
            }
        };
        let Some(message) = wire::read(&text) else {
            self.around.hub.unknown();
            return self.step(Input::Heard(socket));
        };
        match message.body {
            Body::Welcome {
                session,
                keepalive_secs,
            } => {
                let ours = self.around.twitch.clock.now();
                self.offset = message.at.map(|at| at.millis_since(ours)).or(self.offset);
                self.step(Input::Welcome {
                    socket,
                    session,
                    keepalive_secs,
                });
            }
            Body::Reconnect { url } => self.step(Input::Reconnect { socket, url }),
            Body::Notification { kind, event } => {
                self.step(Input::Heard(socket));
                let now = self.twitch_now();
                self.around
                    .hub
                    .notified(&message.id, &kind, event.get(), message.at, now);
            }
            Body::Revocation(told) => {
                self.step(Input::Heard(socket));
                self.revoked(&told);
            }
            Body::Keepalive => self.step(Input::Heard(socket)),
            Body::Unknown(kind) => {
                debug!(line = self.name, kind, "A message of an unknown type");
                self.around.hub.unknown();
                self.step(Input::Heard(socket));
            }
        }
    }

    /// Takes in what is wanted now.
    fn desire(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone();
        let now = self.now();
        let sources: BTreeSet<_> = wanted
            .iter()
            .filter(|subscription| subscription.kind.is_of_stream())
            .filter_map(source_of)
            .collect();
        self.roster.desire(wanted, now);
        let gone: Vec<_> = self
            .told
            .keys()
            .filter(|source| !sources.contains(*source))
            .cloned()
            .collect();
        for source in gone {
            if self.told.remove(&source) != Some(Telling::Nothing) {
                self.tell_link(&source, LinkState::Closed, self.twitch_now());
            }
            self.around.hub.silence(|silence| silence.deaf(&source));
        }
        for source in sources {
            self.told.entry(source).or_insert(Telling::Nothing);
        }
        self.dirty = true;
    }

    fn create_due(&mut self) {
        let Some(session) = self.state.session().map(|session| session.id.clone()) else {
            return;
        };
        for subscription in self.roster.take_due(self.now()) {
            let (around, identity, session) = (self.around.clone(), self.identity.clone(), session.clone());
            self.works.push(Box::pin(async move {
                let created = rest::create(&around.twitch, &identity, &session, &subscription).await;
                Work::Created(session, subscription, created)
            }));
        }
    }

    fn delete_surplus(&mut self) {
        for id in self.roster.take_surplus() {
            let (around, identity) = (self.around.clone(), self.identity.clone());
            self.works.push(Box::pin(async move {
                Work::Deleted(rest::delete(&around.twitch, &identity, &id).await)
            }));
        }
    }

    fn created(&mut self, session: String, subscription: &Subscription, created: Created) {
        self.dirty = true;
        let ours = self.state.session().is_some_and(|current| current.id == session);
        if !ours {
            // Made on a session that is gone, and gone with it; or a move was faster, and the list will tell.
            return;
        }
        if let Created::Enabled { cost, bill, .. } = &created {
            self.around.hub.learn_cost(subscription, *cost, *bill);
        }
        let now = self.now();
        match self.roster.created(subscription, created, now) {
            Verdict::Heard => {
                self.step(Input::Accepted(session));
                self.heard(subscription);
            }
            Verdict::Waiting => self.leave_if_idle(session),
            Verdict::Look => {
                self.compare(false);
                self.leave_if_idle(session);
            }
            Verdict::SessionGone => self.step(Input::SessionGone(session)),
            Verdict::NotHeard { code, reason } => {
                self.not_heard(subscription, &code, &reason);
                if let Some((code, reason)) = self.roster.all_refused() {
                    let refused = code != COST;
                    let trouble = Trouble {
                        code,
                        reason,
                        refused,
                    };
                    self.nothing_accepted(session, trouble, HOPELESS_PAUSE);
                }
            }
            Verdict::TooManySockets(reason) => {
                let trouble = Trouble::passing("twitch.eventsub.too_many_sockets", reason);
                self.nothing_accepted(session, trouble, HOPELESS_PAUSE);
            }
            Verdict::Unauthorized(reason) => {
                let trouble = Trouble {
                    code: "twitch.unauthorized".to_owned(),
                    reason,
                    refused: true,
                };
                self.ask_about_authorisation();
                self.nothing_accepted(session, trouble, HOPELESS_PAUSE);
            }
        }
    }

    fn nothing_accepted(&mut self, session: String, trouble: Trouble, pause: Millis) {
        self.step(Input::NothingAccepted {
            session,
            trouble,
            pause,
        });
    }

    /// Twitch ends a session that nothing was accepted on within ten seconds. Where the next try is later than that, the
    /// line rests until then instead.
    fn leave_if_idle(&mut self, session: String) {
        let now = self.now();
        let unused_at = self
            .state
            .session()
            .filter(|session| !session.proven)
            .map(|session| session.unused_at);
        if let (Some(unused_at), Some(due)) = (unused_at, self.roster.idle_until())
            && due + 1_000 > unused_at
        {
            let trouble = Trouble::passing(COST, "Twitch's points or places are used up for now");
            self.nothing_accepted(session, trouble, due.saturating_sub(now));
        }
    }

    /// A subscription is heard.
    fn heard(&mut self, subscription: &Subscription) {
        let Some(source) = source_of(subscription) else {
            return;
        };
        if subscription.kind == Kind::Chat {
            // Twitch lets nobody read who is banned.
            self.tell_ban(&source, false);
        }
        let whole = self.roster.hears(source.id()).of_stream == 2;
        if subscription.kind.is_of_stream() && whole {
            let at = self.twitch_now();
            self.around.hub.silence(|silence| silence.listening(&source, at));
            self.tell_link(&source, LinkState::Up, at);
            self.told.insert(source.clone(), Telling::Up);
            self.fresh.insert(source);
            self.fresh_since = self.fresh_since.or(Some(self.now()));
        }
    }

    /// A subscription is not heard, and will not be for a while.
    fn not_heard(&mut self, subscription: &Subscription, code: &str, reason: &str) {
        let Some(source) = source_of(subscription) else {
            return;
        };
        let at = self.twitch_now();
        self.around.hub.failed(&source, subscription.kind, at);
        warn!(
            source.key = %source, subscription = subscription.kind.name(), code, reason,
            "Twitch does not let us hear {} of `{source}`", subscription.kind.name()
        );
        if code == COST {
            return self.compare(true);
        }
        let error = ErrorInfo::new(code, format!("{}: {reason}", subscription.kind.name()));
        if subscription.kind.is_of_stream() {
            let state = LinkState::Down { error: error.clone() };
            self.tell_link(&source, state, at);
            self.told.insert(source.clone(), Telling::Trouble);
            self.around.hub.silence(|silence| silence.deaf(&source));
        } else {
            self.around.hub.observe(&source, at, Fact::Problem { error });
        }
    }

    /// Twitch ended a subscription.
    fn revoked(&mut self, told: &Told) {
        let Some(subscription) = Subscription::told(told) else {
            return self.around.hub.unknown();
        };
        let Some(source) = source_of(&subscription) else {
            return;
        };
        let (now, at) = (self.now(), self.twitch_now());
        let status = told.status.as_str();
        let code = format!("twitch.eventsub.{}", plain(status));
        let reason = revocation_reason(status);
        warn!(
            source.key = %source, subscription = subscription.kind.name(), status,
            "Twitch ended {} of `{source}`: {reason}", subscription.kind.name()
        );
        // What a person must mend is tried again now and then; the rest may heal by itself.
        let again_after = if is_lasting(status) { 30 * 60_000 } else { 60_000 };
        self.roster
            .revoked(&subscription, &code, reason, again_after, now);
        self.around.hub.failed(&source, subscription.kind, at);
        self.dirty = true;
        let error = ErrorInfo::new(&code, format!("{}: {reason}", subscription.kind.name()));
        if subscription.kind.is_of_stream() {
            let state = if is_lasting(status) {
                LinkState::Refused { error }
            } else {
                LinkState::Down { error }
            };
            self.tell_link(&source, state, at);
            self.told.insert(source.clone(), Telling::Trouble);
            self.around.hub.silence(|silence| silence.deaf(&source));
        } else {
            self.around.hub.observe(&source, at, Fact::Problem { error });
        }
        if status == "chat_user_banned" {
            self.tell_ban(&source, true);
        }
        // What it means beyond this subscription is for a look to find out.
        let probes: ProbeSet = match status {
            "authorization_revoked" => [Probe::Auth, Probe::Stream].into(),
            "moderator_removed" => [Probe::Permissions].into(),
            _ => [Probe::Connection, Probe::Stream].into(),
        };
        self.around.hub.missed([source], probes);
    }

    fn tell_ban(&self, source: &SourceKey, banned: bool) {
        let mut grants = Grants::default();
        let set = if banned {
            &mut grants.granted
        } else {
            &mut grants.denied
        };
        set.insert("BANNED".to_owned());
        let method = "twitch.chat".to_owned();
        let fact = Fact::Permissions { method, grants };
        self.around.hub.observe(source, self.twitch_now(), fact);
    }

    fn ask_about_authorisation(&self) {
        let sources = self.told.keys().cloned();
        self.around.hub.missed(sources, [Probe::Auth].into());
    }

    fn settled_for(&self, time: Millis) -> bool {
        self.state.is_up() && self.now().saturating_sub(self.session_since) >= time
    }

    /// Asks for Twitch's list. `settled`: whatever counts there and is not ours is of others, and not of our own past.
    fn compare(&mut self, settled: bool) {
        let session = self.state.session().map(|session| session.id.clone());
        self.next_compare = session.is_some().then_some(self.now() + COMPARE);
        if std::mem::replace(&mut self.comparing, true) {
            return;
        }
        let (around, identity) = (self.around.clone(), self.identity.clone());
        self.works.push(Box::pin(async move {
            let listed = rest::list(&around.twitch, &identity).await;
            Work::Listed {
                session,
                settled,
                listed,
            }
        }));
    }

    /// Compares Twitch's list with ours.
    fn listed(
        &mut self,
        session: Option<&str>,
        settled: bool,
        listed: Result<(Vec<Told>, Bill), PlatformError>,
    ) {
        self.comparing = false;
        let (listed, bill) = match listed {
            Ok(listed) => listed,
            Err(error) => {
                debug!(
                    line = self.name,
                    error = &error as &dyn std::error::Error,
                    "The subscriptions cannot be listed"
                );
                return;
            }
        };
        let hub = Arc::clone(&self.around.hub);
        let (mut on_this, mut dead, mut our_cost) = (BTreeMap::new(), Vec::new(), 0);
        for told in &listed {
            let enabled = told.status == "enabled";
            let own = hub.is_own_session(&told.transport.session_id);
            if enabled && own {
                our_cost += told.cost;
            }
            let Some(subscription) = Subscription::told(told) else {
                continue;
            };
            if enabled && Some(told.transport.session_id.as_str()) == session {
                on_this.insert(subscription, (told.id.clone(), told.cost));
            } else if !own && self.past_sessions.contains(&told.transport.session_id) {
                // Ours, on a session that is dead: it still counts until it is gone.
                dead.push(told.id.clone());
            }
        }
        if let Some(total) = bill.total.filter(|_| settled) {
            hub.learn_others(total.saturating_sub(our_cost), bill.max);
        }
        let current = self.state.session().map(|session| session.id.as_str());
        let Some(session) = session.filter(|session| current == Some(session)) else {
            return;
        };
        let now = self.now();
        let (heard, lost) = self.roster.compare(&on_this, &dead, now);
        self.dirty |= !heard.is_empty() || !lost.is_empty();
        for subscription in heard {
            self.step(Input::Accepted(session.to_owned()));
            self.heard(&subscription);
        }
        for subscription in lost {
            debug!(
                line = self.name,
                subscription = subscription.kind.name(),
                "A subscription got lost; making it again"
            );
        }
    }

    fn up(&mut self) {
        if self.was_up {
            self.around.hub.reconnected(self.told.keys());
        }
        self.was_up = true;
        self.pending_down = None;
        self.last_error = None;
        info!(line = self.name, "Listening to Twitch");
    }

    fn down(&mut self, trouble: Trouble) {
        let (now, at) = (self.now(), self.twitch_now());
        self.around.hub.note_session(&self.name, None);
        self.comparing = false;
        self.next_compare = None;
        self.last_error = Some(ErrorInfo::new(&trouble.code, &trouble.reason));
        if self.state.failures <= 1 {
            warn!(
                line = self.name,
                code = trouble.code,
                reason = trouble.reason,
                "Not listening to Twitch"
            );
        } else {
            debug!(
                line = self.name,
                code = trouble.code,
                attempt = self.state.failures,
                "Still not listening to Twitch"
            );
        }
        for source in self.told.keys() {
            self.around.hub.silence(|silence| silence.deaf(source));
        }
        let by = if trouble.refused { now } else { now + DOWN_GRACE };
        let first = self.pending_down.take();
        self.pending_down = Some(PendingDown {
            by: first.as_ref().map_or(by, |first| first.by.min(by)),
            at: first.map_or(at, |first| first.at),
            trouble,
        });
    }

    fn tell_pending_down(&mut self, now: Millis) {
        let Some(down) = self.pending_down.take_if(|down| down.by <= now) else {
            return;
        };
        let error = ErrorInfo::new(&down.trouble.code, &down.trouble.reason);
        let state = match &down.trouble {
            trouble if trouble.refused => LinkState::Refused { error },
            // Want of points is no trouble: those channels are polled, and nothing is claimed of this way to them.
            trouble if trouble.code == COST => LinkState::Closed,
            _ => LinkState::Down { error },
        };
        for (source, telling) in std::mem::take(&mut self.told) {
            let unclaimed = telling == Telling::Nothing && state == LinkState::Closed;
            if !unclaimed {
                self.tell_link(&source, state.clone(), down.at);
            }
            let telling = if state == LinkState::Closed {
                Telling::Nothing
            } else {
                Telling::Trouble
            };
            self.told.insert(source, telling);
        }
    }

    fn ended(&mut self) {
        let at = self.twitch_now();
        self.pending_down = None;
        for (source, telling) in std::mem::take(&mut self.told) {
            if telling != Telling::Nothing {
                self.tell_link(&source, LinkState::Closed, at);
            }
            self.around.hub.silence(|silence| silence.deaf(&source));
        }
        self.closers.clear();
    }

    /// After every gap a poll tells what was missed, once the sources are heard again.
    fn ask_for_looks(&mut self, now: Millis) {
        let waited = self.fresh_since.is_some_and(|since| since + GATHER <= now);
        if self.fresh.is_empty() || !(waited || self.fresh.len() >= GATHERED || self.roster.is_settled()) {
            return;
        }
        let sources = std::mem::take(&mut self.fresh);
        self.fresh_since = None;
        self.around.hub.missed(sources, [Probe::Stream].into());
    }

    /// Says again that what is up is up.
    fn beat(&mut self, now: Millis) {
        self.next_beat = now + BEAT;
        // While nobody reads, there is no point in repeating it.
        if !self.state.is_up() || self.around.hub.has_something_to_tell() {
            return;
        }
        let at = self.twitch_now();
        let up = self.told.iter().filter(|(_, telling)| **telling == Telling::Up);
        for (source, _) in up {
            self.tell_link(source, LinkState::Up, at);
        }
    }

    /// A line that is alive and does not tell what polls see is subscribed anew.
    fn suspect_silence(&mut self) {
        let now = self.around.twitch.skew.correct(self.around.twitch.clock.now());
        let ours = &self.told;
        let suspects = self
            .around
            .hub
            .silence(|silence| silence.suspects(now, |source| ours.contains_key(source)));
        if suspects.is_empty() {
            return;
        }
        let at = self.twitch_now();
        for source in &suspects {
            warn!(source.key = %source, "Twitch pushes nothing about `{source}` although polls see changes");
            let error = ErrorInfo::new(
                "twitch.eventsub.silent",
                "polls see changes that were not pushed; subscribing anew",
            );
            self.around.hub.observe(source, at, Fact::Problem { error });
        }
        if suspects.len() >= SILENT_LINE {
            return self.step(Input::Refresh);
        }
        let now = self.now();
        for source in suspects {
            self.roster.renew(source.id(), now);
        }
    }

    fn tell_link(&self, source: &SourceKey, state: LinkState, at: Timestamp) {
        let fact = Fact::Connection {
            transport: Transport::EventSub,
            state,
        };
        self.around.hub.observe(source, at, fact);
    }

    /// Shows how the line stands, if that has changed.
    fn publish(&mut self) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        let state = match &self.state.phase {
            Phase::Resting { .. } => "RESTING",
            Phase::Opening { .. } | Phase::Greeting { .. } => "CONNECTING",
            Phase::Open(session) if session.proven => "CONNECTED",
            Phase::Open(_) => "WELCOMED",
            Phase::Moving { .. } => "MOVING",
            Phase::Stopped => "STOPPED",
        };
        let status = LineStatus {
            identity: self.identity.to_string(),
            socket: self.socket_number,
            state,
            session: self.state.session().map(|session| session.id.clone()),
            failures: self.state.failures,
            last_error: self.last_error.clone(),
        };
        let subscriptions = self.roster.stands().map(|(subscription, stand)| {
            let status = match stand {
                Stand::Enabled { .. } => "enabled".to_owned(),
                Stand::Due { .. } | Stand::Creating { .. } => "pending".to_owned(),
                Stand::Refused { reason, .. } => format!("refused: {reason}"),
            };
            (subscription.clone(), status)
        });
        let subscriptions = subscriptions.collect();
        self.around
            .hub
            .note_line(&self.name, Some((status, subscriptions)));
    }
}

fn source_of(subscription: &Subscription) -> Option<SourceKey> {
    SourceKey::new(PlatformName::Twitch, &subscription.channel).ok()
}

fn not_authorised(error: &PlatformError) -> (Trouble, bool) {
    let info = error.error_info();
    let refused = matches!(error.link_state(), LinkState::Refused { .. });
    let trouble = Trouble {
        code: info.code,
        reason: info.message,
        refused,
    };
    (trouble, refused)
}

/// Whether a revocation is for good until a person acts.
fn is_lasting(status: &str) -> bool {
    matches!(
        status,
        "authorization_revoked"
            | "user_removed"
            | "version_removed"
            | "chat_user_banned"
            | "moderator_removed"
    )
}

fn revocation_reason(status: &str) -> &'static str {
    match status {
        "authorization_revoked" => "the authorisation was withdrawn, or the password changed",
        "user_removed" => "the user no longer exists",
        "version_removed" => "Twitch no longer offers it in this version",
        "moderator_removed" => "the bot is no longer moderator",
        "chat_user_banned" => "the bot is banned from the chat",
        _ => "Twitch ended it",
    }
}

/// A status as part of a code: letters, digits and underscores.
fn plain(status: &str) -> String {
    let plain: String = status
        .chars()
        .filter(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
        .take(40)
        .collect();
    if plain.is_empty() {
        "ended".to_owned()
    } else {
        plain
    }
}
