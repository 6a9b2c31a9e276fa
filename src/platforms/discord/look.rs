//! One look at some guilds over REST: the token, the list of guilds, channels where they are configured, streams where
//! they are mapped. It never opens a gateway session: those are rationed, and spending them kills the bot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;

use super::answer::ApiError;
use super::connection::Connection;
use super::facts::{self, BY_API, PERMISSIONS};
use super::limits::Route;
use super::listing::{PAGE, Walk};
use super::memory::{DeadToken, Standing};
use super::permissions::Permissions;
use super::rest::{Call, Tally, Told};
use super::wire::{GuildMember, Id, ListedGuild, Me};
use super::{DiscordPlatform, GuildOptions};
use crate::core::facet::Facet;
use crate::core::observation::{Fact, Grants, LinkState, Observation, Transport};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::platforms::witnesses::is_of_the_way;
use crate::platforms::{Probe, ProbeSet, ProbeSink, ProbeSummary};

/// Guilds looked at in detail at the same time.
const AT_ONCE: usize = 4;
/// Guilds without configured channels up to which it is looked at whether the bot is in a timeout, a request each. With more of
/// them only the list's word counts, or the gateway's.
const TIMEOUTS: usize = 25;
/// Problems told to a person in one look; the rest is in the documents.
const PROBLEMS: usize = 20;

/// A look in progress.
pub(super) struct Look<'a> {
    pub(super) platform: &'a DiscordPlatform,
    pub(super) connection: &'a Connection,
    probes: &'a ProbeSet,
    sink: &'a dyn ProbeSink,
    guilds: Arc<BTreeMap<u64, GuildOptions>>,
    targets: BTreeMap<u64, SourceKey>,
    pub(super) tally: Tally,
    problems: Mutex<Vec<String>>,
    expected: AtomicUsize,
    accepted: AtomicBool,
    absent: Mutex<BTreeSet<u64>>,
    /// What the list says of permissions that are yet to be held against a timeout.
    listed_permissions: Mutex<Vec<(u64, Timestamp, Permissions)>>,
}

impl<'a> Look<'a> {
    /// Prepares a look at `sources`.
    pub(super) fn new(
        platform: &'a DiscordPlatform,
        connection: &'a Connection,
        probes: &'a ProbeSet,
        sources: &[SourceKey],
        sink: &'a dyn ProbeSink,
    ) -> Self {
        let mut look = Self {
            platform,
            connection,
            probes,
            sink,
            guilds: platform.guilds(),
            targets: BTreeMap::new(),
            tally: Tally::default(),
            problems: Mutex::default(),
            expected: AtomicUsize::new(0),
            accepted: AtomicBool::new(false),
            absent: Mutex::default(),
            listed_permissions: Mutex::default(),
        };
        for key in sources
            .iter()
            .filter(|key| key.platform() == PlatformName::Discord)
        {
            match key.id().parse() {
                Ok(id) => {
                    look.targets.insert(id, key.clone());
                }
                Err(_) => look.complain(format!("`{key}` is larger than any id of Discord")),
            }
        }
        look
    }

    pub(super) fn guild_options(&self, id: u64) -> Option<&GuildOptions> {
        self.guilds.get(&id)
    }

    pub(super) fn channels_of(&self, guild: u64) -> &[u64] {
        self.guild_options(guild)
            .map_or(&[], |guild| guild.channels.as_slice())
    }

    /// Looks.
    pub(super) async fn run(self) -> ProbeSummary {
        if !self.targets.is_empty() {
            match self.connection.rest.standing() {
                Standing::Good => self.look().await,
                Standing::MayTryOnce(_) => {
                    if self.still_dead().await {
                        return self.summary();
                    }
                    self.look().await;
                }
                Standing::Dead(dead) => self.stay_silent(dead),
            }
        }
        self.summary()
    }

    fn summary(self) -> ProbeSummary {
        ProbeSummary {
            calls: self.tally.sent(),
            problems: self.problems.into_inner().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Tells again what is known of a token that was refused, dated when it was.
    fn stay_silent(&self, dead: DeadToken) {
        self.fail_all(&ApiError::TokenRefused {
            at: dead.refused_at,
            reason: "refused".to_owned(),
        });
    }

    /// Tries a token that was refused long ago with one request; returns whether to leave it at that.
    async fn still_dead(&self) -> bool {
        let tried: Result<Told<Me>, _> = self.connection.rest.try_once(&self.tally, ME).await;
        match tried {
            Ok(me) => {
                self.token_accepted(me.at);
                let _ = self.connection.me.set(me.value);
                false
            }
            Err(error) => {
                self.fail_all(&error);
                true
            }
        }
    }

    async fn look(&self) {
        self.plan();
        // With the token in doubt nothing else is worth asking, and its refusal must cost one request, not many.
        if self.probes.contains(&Probe::Auth) {
            match self.connection.rest.get::<Me>(&self.tally, ME).await {
                Ok(me) => {
                    self.token_accepted(me.at);
                    let _ = self.connection.me.set(me.value);
                }
                Err(error) => return self.fail_me(&error),
            }
            self.advanced();
        }
        if !self.walk_list().await {
            return;
        }
        let absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let present = || self.targets.iter().filter(|(id, _)| !absent.contains(*id));
        if self.probes.contains(&Probe::Permissions) {
            let work = present().filter(|(id, _)| !self.channels_of(**id).is_empty());
            futures_util::stream::iter(work)
                .for_each_concurrent(AT_ONCE, |(id, key)| self.look_at_channels(*id, key))
                .await;
            let listed = std::mem::take(&mut *self.listed_permissions());
            futures_util::stream::iter(listed)
                .for_each_concurrent(AT_ONCE, |(id, at, held)| self.look_at_timeout(id, at, held))
                .await;
        }
        if self.probes.contains(&Probe::Stream) && self.platform.options.stream_from.is_some() {
            futures_util::stream::iter(present())
                .for_each_concurrent(AT_ONCE, |(id, key)| self.look_at_stream(*id, key))
                .await;
        }
        if let Some(millis) = self.connection.rest.latency().filter(|_| self.tally.sent() > 0) {
            let now = self.now();
            for key in self.targets.values() {
                self.tell(key, now, Fact::Latency { millis });
            }
        }
    }

    fn plan(&self) {
        let mut expected = usize::from(self.probes.contains(&Probe::Auth));
        expected += Walk::new(self.listed()).expected();
        if self.probes.contains(&Probe::Permissions) {
            let exact = self
                .targets
                .keys()
                .filter(|id| !self.channels_of(**id).is_empty());
            expected += exact.count() * 3;
            let plain = self.plain_guilds();
            expected += if plain > TIMEOUTS { 0 } else { plain };
        }
        if self.probes.contains(&Probe::Stream) && self.platform.options.stream_from.is_some() {
            expected += self.targets.len();
        }
        self.expected.store(expected, Ordering::Relaxed);
        self.advanced();
    }

    /// The guilds that the list is needed for.
    fn listed(&self) -> Vec<u64> {
        let all = self.probes.contains(&Probe::Connection);
        let some = self.probes.contains(&Probe::Permissions);
        self.targets
            .keys()
            .copied()
            .filter(|id| all || (some && self.channels_of(*id).is_empty()))
            .collect()
    }

    /// Finds the guilds in the bot's list; returns whether going on makes sense.
    async fn walk_list(&self) -> bool {
        let mut walk = Walk::new(self.listed());
        while let Some(after) = walk.after() {
            let path = format!("users/@me/guilds?limit={PAGE}&after={after}&with_counts=true");
            let call = Call {
                route: LIST,
                path: &path,
            };
            let page: Told<Vec<ListedGuild>> = match self.connection.rest.get(&self.tally, call).await {
                Ok(page) => page,
                Err(ApiError::TokenRefused { at, reason }) => {
                    self.fail_all(&ApiError::TokenRefused { at, reason });
                    return false;
                }
                Err(error) => {
                    self.connection.witnesses.failed(GUILDS, self.now());
                    self.fail(walk.left(), &error);
                    return false;
                }
            };
            self.token_accepted(page.at);
            self.connection.witnesses.answered(GUILDS, page.at);
            let found = walk.learn(after, page.value);
            for guild in &found.listed {
                self.tell_listed(guild, page.at);
            }
            for id in found.absent {
                self.tell_absent(id, page.at);
            }
            let unreadable = ApiError::Unreadable {
                reason: "the list of guilds does not page by `after`".to_owned(),
            };
            self.fail(found.unclear.into_iter(), &unreadable);
            self.advanced();
        }
        true
    }

    fn tell_listed(&self, guild: &ListedGuild, at: Timestamp) {
        let Some(key) = self.targets.get(&guild.id.0) else {
            return;
        };
        if self.probes.contains(&Probe::Connection) {
            let fact = if guild.unavailable == Some(true) {
                facts::down(
                    Transport::Api,
                    "discord.guild_unavailable",
                    "the guild suffers an outage",
                )
            } else {
                facts::link(Transport::Api, LinkState::Up)
            };
            self.tell(key, at, fact);
            let heard = self.connection.told().contains_key(&guild.id.0);
            let mode = if heard { "gateway" } else { "poll" };
            self.tell(key, at, facts::profile(guild, mode));
        }
        if !self.probes.contains(&Probe::Permissions) || !self.channels_of(guild.id.0).is_empty() {
            return;
        }
        // A session that listens knows better than the list, which leaves timeouts out.
        if let Some(known) = self.connection.told().get(&guild.id.0) {
            for fact in known {
                self.tell(key, at, fact.clone());
            }
            return;
        }
        if let Some(permissions) = guild.permissions {
            let held = permissions.expanded(guild.owner == Some(true));
            if held.contains(Permissions::ADMINISTRATOR) || self.plain_guilds() > TIMEOUTS {
                self.tell_permissions(key, at, held.grants(), "guild", None);
            } else {
                self.listed_permissions().push((guild.id.0, at, held));
            }
        }
    }

    /// Tells what the list says of a guild's permissions, less what a timeout takes away: of that the list knows nothing.
    async fn look_at_timeout(&self, id: u64, at: Timestamp, held: Permissions) {
        let Some(key) = self.targets.get(&id) else { return };
        let asked = async {
            let me = self.me().await?;
            let path = format!("guilds/{id}/members/{me}");
            let member: Told<GuildMember> = self.ask("guilds/{}/members/{}", id, &path).await?;
            Ok::<_, ApiError>(member.value.subject(me.0, member.at).timed_out)
        };
        match asked.await {
            Ok(timed_out) => {
                let held = if timed_out { held.in_timeout() } else { held };
                self.tell_permissions(key, at, held.grants(), "guild", None);
            }
            Err(error) => self.fail_detail(key, Facet::Permissions, &error),
        }
    }

    /// Returns how many guilds have no configured channels, whose permissions the list tells.
    fn plain_guilds(&self) -> usize {
        let plain = |id: &&u64| self.channels_of(**id).is_empty();
        self.targets.keys().filter(plain).count()
    }

    fn listed_permissions(&self) -> MutexGuard<'_, Vec<(u64, Timestamp, Permissions)>> {
        self.listed_permissions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_absent(&self, id: u64, at: Timestamp) {
        let Some(key) = self.targets.get(&id) else {
            return;
        };
        self.absent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id);
        if self.probes.contains(&Probe::Connection) {
            let message = "the bot is not a member of this guild, or there is no such guild; invite it";
            self.tell(
                key,
                at,
                facts::refused(Transport::Api, "discord.not_in_guild", message),
            );
            self.complain(format!("{key}: {message}"));
        }
    }

    pub(super) fn tell_permissions(
        &self,
        key: &SourceKey,
        at: Timestamp,
        grants: Grants,
        scope: &str,
        overview: Option<String>,
    ) {
        let method = PERMISSIONS.to_owned();
        self.tell(key, at, Fact::Permissions { method, grants });
        let mut fields = BTreeMap::from([("permissionScope".to_owned(), scope.to_owned())]);
        fields.extend(overview.map(|overview| ("channelPermissions".to_owned(), overview)));
        self.tell(key, at, Fact::Profile { fields });
    }

    /// Returns the bot's own id, asking once.
    pub(super) async fn me(&self) -> Result<Id, ApiError> {
        let ask = async || {
            let me: Told<Me> = self.connection.rest.get(&self.tally, ME).await?;
            self.token_accepted(me.at);
            Ok(me.value)
        };
        Ok(self.connection.me.get_or_try_init(ask).await?.id)
    }

    /// Asks for one thing about `top`.
    pub(super) async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        template: &'static str,
        top: u64,
        path: &str,
    ) -> Result<Told<T>, ApiError> {
        let route = Route {
            template,
            top: Some(top),
        };
        let told = self.connection.rest.get(&self.tally, Call { route, path }).await;
        self.advanced();
        told
    }

    pub(super) fn now(&self) -> Timestamp {
        self.connection.rest.clock().now()
    }

    pub(super) fn tell(&self, key: &SourceKey, at: Timestamp, mut fact: Fact) {
        if let Fact::Auth { identity, .. } = &mut fact {
            identity.clone_from(&self.connection.identity);
        }
        self.sink.observe(Observation::new(key, at, BY_API, fact));
    }

    /// Tells once a look that the token works: any answer that needed it proves that.
    fn token_accepted(&self, at: Timestamp) {
        if self.accepted.swap(true, Ordering::Relaxed) {
            return;
        }
        for key in self.targets.values() {
            self.tell(key, at, facts::auth(true, None));
        }
    }

    /// Tells that nobody knows whose the token is. While the list of guilds comes, that is not the link's fault.
    fn fail_me(&self, error: &ApiError) {
        let vouched = self.connection.witnesses.vouch_against(ME.path, self.now());
        let code = facts::code(error).filter(|code| vouched && error.is_transient() && !is_of_the_way(code));
        let Some(code) = code else {
            return self.fail_all(error);
        };
        let (now, message) = (self.now(), format!("whose the token is: {error}"));
        for key in self.targets.values() {
            self.tell(key, now, facts::unanswered(Facet::Auth, code, &message));
        }
        self.complain(format!("Discord: {message}"));
    }

    fn fail_all(&self, error: &ApiError) {
        self.fail(self.targets.keys().copied(), error);
    }

    fn fail(&self, guilds: impl Iterator<Item = u64>, error: &ApiError) {
        let now = self.now();
        let mut any = false;
        for key in guilds.filter_map(|id| self.targets.get(&id)) {
            any = true;
            for (at, fact) in facts::of_failed_look(error, now) {
                self.tell(key, at, fact);
            }
        }
        if any {
            self.complain(match error {
                ApiError::TokenRefused { at, .. } => {
                    let identity = &self.connection.identity;
                    let whose = if *identity == super::bot() {
                        String::new()
                    } else {
                        format!("{identity}: ")
                    };
                    format!("{whose}{} (refused at {at})", facts::TOKEN_REFUSED)
                }
                error => format!("Discord: {error}"),
            });
        }
    }

    /// Tells that one thing about one guild could not be found out. The guild's connection was looked at elsewhere.
    pub(super) fn fail_detail(&self, key: &SourceKey, facet: Facet, error: &ApiError) {
        if let ApiError::TokenRefused { .. } = error {
            return self.fail_all(error);
        }
        let what = match facet {
            Facet::Status => "its connection",
            Facet::Stream => "its stream",
            Facet::Auth => "the authorisation",
            Facet::Permissions => "its permissions",
        };
        if let Some(code) = facts::code(error) {
            let fact = facts::unanswered(facet, code, &format!("{what}: {error}"));
            self.tell(key, self.now(), fact);
        }
        self.complain(format!("{key}: {what}: {error}"));
    }

    pub(super) fn complain(&self, problem: String) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        if problems.len() < PROBLEMS && !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    fn advanced(&self) {
        let done = self.tally.sent();
        let expected = self.expected.load(Ordering::Relaxed).max(done);
        self.sink.progress(PlatformName::Discord, done, expected);
    }
}

const ME: Call<'static> = Call {
    route: Route {
        template: "users/@me",
        top: None,
    },
    path: "users/@me",
};
/// The witness of the link: the question that all looks at the connection ask.
const GUILDS: &str = "users/@me/guilds";
const LIST: Route = Route {
    template: GUILDS,
    top: None,
};
