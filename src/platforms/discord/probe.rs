//! One probe of some guilds over REST: the token, the list of guilds, channels where they are configured, streams where
//! they are mapped. It never opens a gateway session: those are limited, and exceeding the limit resets the token.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use futures_util::StreamExt;
use parking_lot::{Mutex, MutexGuard};

use super::answer::ApiError;
use super::connection::Connection;
use super::facts::{self, BY_API};
use super::limits::Route;
use super::listing::{PAGE, Walk};
use super::memory::{DeadToken, TokenStatus};
use super::permissions::Permissions;
use super::rest::{Call, Response};
use super::wire::{GuildMember, Id, ListedGuild, Me, Rows};
use super::{DiscordPlatform, GuildOptions};
use crate::core::code::Code;
use crate::core::facet::Facet;
use crate::core::observation::{AuthResult, ErrorInfo, Fact, LinkState, Observation, Transport};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::platforms::kit::meter::Meter;
use crate::platforms::{Probe, ProbeSet, ProbeSink, ProbeSummary, Problem};

/// Guilds probed in detail at the same time.
const AT_ONCE: usize = 4;
/// Maximum number of guilds without configured channels for which timeouts of the bot are checked, with a request each. With more
/// of them only the list's permissions are used, or the gateway's.
const TIMEOUTS: usize = 25;

/// A probe in progress.
pub(super) struct ProbeRun<'a> {
    pub(super) platform: &'a DiscordPlatform,
    pub(super) connection: &'a Connection,
    probes: &'a ProbeSet,
    sink: &'a dyn ProbeSink,
    guilds: Arc<BTreeMap<u64, GuildOptions>>,
    targets: BTreeMap<u64, SourceKey>,
    pub(super) meter: Meter<'a>,
    accepted: AtomicBool,
    /// Why the check of the token gave no result.
    unchecked: OnceLock<ApiError>,
    /// Whether the token was ever accepted, once that was determined.
    accepted_ever: OnceLock<bool>,
    absent: Mutex<BTreeSet<u64>>,
    /// Permissions from the list that are yet to be checked for a timeout.
    listed_permissions: Mutex<Vec<(u64, Timestamp, Permissions)>>,
}

impl<'a> ProbeRun<'a> {
    /// Prepares a probe of `sources`.
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
            meter: Meter::with_progress(PlatformName::Discord, sink),
            accepted: AtomicBool::new(false),
            unchecked: OnceLock::new(),
            accepted_ever: OnceLock::new(),
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
                Err(_) => {
                    let text = format!("`{key}` is larger than any id of Discord");
                    look.problem(Problem::of_source(key, text));
                }
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

    /// Runs the probe.
    pub(super) async fn run(self) -> ProbeSummary {
        if !self.targets.is_empty() {
            match self.connection.rest.token_status() {
                TokenStatus::Good => self.look().await,
                TokenStatus::MayTryOnce(_) => {
                    if self.is_still_rejected().await {
                        return self.meter.summary();
                    }
                    self.look().await;
                }
                // A user who has just entered the token needs a current result.
                TokenStatus::Dead(_) if self.platform.options.try_refused => {
                    if self.is_still_rejected().await {
                        return self.meter.summary();
                    }
                    self.look().await;
                }
                TokenStatus::Dead(dead) => self.skip_rejected_token(dead),
            }
        }
        self.meter.summary()
    }

    /// Emits again the known refusal of a token, dated when it happened.
    fn skip_rejected_token(&self, dead: DeadToken) {
        self.fail_all(&ApiError::TokenRefused {
            at: dead.refused_at,
            reason: "refused".to_owned(),
        });
    }

    /// Tries a token that was refused long ago with one request; returns whether to stop there.
    async fn is_still_rejected(&self) -> bool {
        let tried: Result<Response<Me>, _> = self.connection.rest.try_once(&self.meter, ME).await;
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
        // While the token is in doubt no other request is useful, and its refusal must cost one request, not many.
        if self.probes.contains(&Probe::Auth) {
            match self.connection.rest.get::<Me>(&self.meter, ME).await {
                Ok(me) => {
                    self.token_accepted(me.at);
                    let _ = self.connection.me.set(me.value);
                }
                Err(error) if may_continue_after(&error) => {
                    let _ = self.unchecked.set(error);
                }
                Err(error) => return self.fail_me(&error),
            }
            self.meter.report_sent();
        }
        let is_listed = self.walk_list().await;
        // Whether the link has failed too depends on the list.
        if let Some(error) = self.unchecked.get().filter(|_| !self.connection.rest.is_dead()) {
            self.fail_me(error);
        }
        if !is_listed {
            return;
        }
        let absent = self.absent.lock().clone();
        let present = || self.targets.iter().filter(|(id, _)| !absent.contains(*id));
        if self.probes.contains(&Probe::Permissions) {
            let work = present().filter(|(id, _)| !self.channels_of(**id).is_empty());
            futures_util::stream::iter(work)
                .for_each_concurrent(AT_ONCE, |(id, key)| self.probe_channels(*id, key))
                .await;
            let listed = std::mem::take(&mut *self.listed_permissions());
            futures_util::stream::iter(listed)
                .for_each_concurrent(AT_ONCE, |(id, at, held)| self.check_timeout(id, at, held))
                .await;
        }
        if self.probes.contains(&Probe::Stream) && self.platform.options.stream_from.is_some() {
            futures_util::stream::iter(present())
                .for_each_concurrent(AT_ONCE, |(id, key)| self.probe_stream(*id, key))
                .await;
        }
        if let Some(millis) = self.connection.rest.latency().filter(|_| self.meter.count() > 0) {
            let now = self.now();
            for key in self.targets.values() {
                self.emit(key, now, Fact::Latency { millis });
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
        self.meter.expect(expected);
        self.meter.report_sent();
    }

    /// The guilds for which the list is needed.
    fn listed(&self) -> Vec<u64> {
        let all = self.probes.contains(&Probe::Connection);
        let some = self.probes.contains(&Probe::Permissions);
        self.targets
            .keys()
            .copied()
            .filter(|id| all || (some && self.channels_of(*id).is_empty()))
            .collect()
    }

    /// Finds the guilds in the bot's list; returns whether to continue.
    async fn walk_list(&self) -> bool {
        let mut walk = Walk::new(self.listed());
        while let Some(after) = walk.after() {
            let path = format!("users/@me/guilds?limit={PAGE}&after={after}&with_counts=true");
            let call = Call {
                route: LIST,
                path: &path,
            };
            let page: Response<Rows<ListedGuild>> = match self.connection.rest.get(&self.meter, call).await {
                Ok(page) => page,
                Err(ApiError::TokenRefused { at, reason }) => {
                    self.fail_all(&ApiError::TokenRefused { at, reason });
                    return false;
                }
                // No evidence about any guild, and no link failure either: a server has answered.
                Err(error) if error.is_missing() => {
                    self.connection.link_health.failed(GUILDS, self.now());
                    self.list_unanswered(walk.left(), &error);
                    return false;
                }
                Err(error) => {
                    self.connection.link_health.failed(GUILDS, self.now());
                    self.fail(walk.left(), &error);
                    return false;
                }
            };
            self.token_accepted(page.at);
            self.connection.link_health.answered(GUILDS, page.at);
            let found = walk.update(after, page.value);
            for guild in &found.listed {
                self.emit_listed(guild, page.at);
            }
            for id in found.absent {
                self.emit_absent(id, page.at);
            }
            self.leave_open(&found.unclear, page.at);
            self.meter.report_sent();
        }
        true
    }

    /// Reports that the list could not be fetched, so that these guilds remain unchecked.
    fn list_unanswered(&self, guilds: impl Iterator<Item = u64>, error: &ApiError) {
        let (now, message) = (self.now(), format!("the list of guilds: {error}"));
        let code = facts::code(error).unwrap_or(Code::Unreadable(PlatformName::Discord));
        for key in guilds.filter_map(|id| self.targets.get(&id)) {
            self.emit(key, now, facts::unanswered(Facet::Status, code, &message));
        }
        self.platform_problem(code, &message);
    }

    /// Records that the list, although received, gives no result for these guilds.
    fn leave_open(&self, guilds: &[u64], at: Timestamp) {
        let message = "the list of guilds does not settle this one: a row of it cannot be read, or it does not page by `after`";
        for key in guilds.iter().filter_map(|id| self.targets.get(id)) {
            self.emit(
                key,
                at,
                facts::unanswered(Facet::Status, Code::Unreadable(PlatformName::Discord), message),
            );
            self.source_problem(key, Code::Unreadable(PlatformName::Discord), message);
        }
    }

    fn emit_listed(&self, guild: &ListedGuild, at: Timestamp) {
        let Some(key) = self.targets.get(&guild.id.0) else {
            return;
        };
        if self.probes.contains(&Probe::Connection) {
            let fact = if guild.unavailable == Some(true) {
                facts::down(
                    Transport::Api,
                    Code::DiscordGuildUnavailable,
                    "the guild suffers an outage",
                )
            } else {
                facts::link(Transport::Api, LinkState::Up)
            };
            // The link comes first: a guild that the bot has joined again must not be judged by the link that it had before.
            self.emit(key, at, fact);
            self.emit(key, at, Fact::Exists);
            let incoming = self.connection.emitted().contains_key(&guild.id.0);
            let mode = if incoming { "gateway" } else { "poll" };
            self.emit(key, at, facts::profile(guild, mode));
        }
        if !self.probes.contains(&Probe::Permissions) || !self.channels_of(guild.id.0).is_empty() {
            return;
        }
        // A gateway session has better data than the list, which ignores timeouts.
        if let Some(known) = self.connection.emitted().get(&guild.id.0) {
            for fact in known {
                self.emit(key, at, fact.clone());
            }
            return;
        }
        match guild.held() {
            None => {
                let code = Code::Unreadable(PlatformName::Discord);
                let message = "its permissions: the row of the list of guilds cannot be read";
                self.emit(key, at, facts::unanswered(Facet::Permissions, code, message));
                self.source_problem(key, code, message);
            }
            Some(held) if held.contains(Permissions::ADMINISTRATOR) || self.plain_guilds() > TIMEOUTS => {
                self.emit_guild_permissions(key, at, held);
            }
            Some(held) => self.listed_permissions().push((guild.id.0, at, held)),
        }
    }

    /// Emits a guild's permissions from the list, reduced by a timeout, which the list ignores.
    async fn check_timeout(&self, id: u64, at: Timestamp, held: Permissions) {
        let Some(key) = self.targets.get(&id) else { return };
        let asked = async {
            let me = self.me().await?;
            let path = format!("guilds/{id}/members/{me}");
            let member: Response<GuildMember> = self.ask("guilds/{}/members/{}", id, &path).await?;
            let at = self.connection.rest.skew().correct(member.at);
            let timeout = member.value.communication_disabled_until;
            Ok::<_, ApiError>(timeout.lasts(at))
        };
        match asked.await {
            Ok(Some(timed_out)) => {
                let held = if timed_out { held.in_timeout() } else { held };
                self.emit_guild_permissions(key, at, held);
            }
            Ok(None) => {
                self.report_unknown_timeout(key, at);
                for fact in facts::with_unclear_timeout(facts::of_guild(held).into()) {
                    self.emit(key, at, fact);
                }
            }
            Err(error) => self.fail_detail(key, Facet::Permissions, &error),
        }
    }

    /// Returns how many guilds have no configured channels, so that the list determines their permissions.
    fn plain_guilds(&self) -> usize {
        let plain = |id: &&u64| self.channels_of(**id).is_empty();
        self.targets.keys().filter(plain).count()
    }

    fn listed_permissions(&self) -> MutexGuard<'_, Vec<(u64, Timestamp, Permissions)>> {
        self.listed_permissions.lock()
    }

    fn emit_absent(&self, id: u64, at: Timestamp) {
        let Some(key) = self.targets.get(&id) else {
            return;
        };
        self.absent.lock().insert(id);
        if self.probes.contains(&Probe::Connection) {
            for fact in facts::not_in_guild(Transport::Api) {
                self.emit(key, at, fact);
            }
            self.source_problem(key, Code::NotFound(PlatformName::Discord), facts::NOT_IN_GUILD);
        }
    }

    fn emit_guild_permissions(&self, key: &SourceKey, at: Timestamp, held: Permissions) {
        for fact in facts::of_guild(held) {
            self.emit(key, at, fact);
        }
    }

    /// Returns the bot's own id, which is requested once.
    pub(super) async fn me(&self) -> Result<Id, ApiError> {
        let ask = async || {
            let me: Response<Me> = self.connection.rest.get(&self.meter, ME).await?;
            self.token_accepted(me.at);
            Ok(me.value)
        };
        // One failed check is enough: every guild would repeat it.
        if let Some(error) = self
            .unchecked
            .get()
            .filter(|_| self.connection.me.get().is_none())
        {
            return Err(error.clone());
        }
        Ok(self.connection.me.get_or_try_init(ask).await?.id)
    }

    /// Sends one request about `top`.
    pub(super) async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        template: &'static str,
        top: u64,
        path: &str,
    ) -> Result<Response<T>, ApiError> {
        let route = Route {
            template,
            top: Some(top),
        };
        let response = self.connection.rest.get(&self.meter, Call { route, path }).await;
        self.meter.report_sent();
        response
    }

    pub(super) fn now(&self) -> Timestamp {
        self.connection.rest.clock().now()
    }

    pub(super) fn emit(&self, key: &SourceKey, at: Timestamp, mut fact: Fact) {
        if let Fact::Auth { identity, check } = &mut fact {
            identity.clone_from(&self.connection.identity);
            check.rejected = check.result == AuthResult::Revoked && !self.was_accepted();
        }
        // By Discord's clock: if ours is ahead, the fact must not outrank later ones.
        let at = self.connection.rest.skew().correct(at);
        self.sink.observe(Observation::new(key, at, BY_API, fact));
    }

    /// Returns whether Discord ever accepted the token; read once.
    fn was_accepted(&self) -> bool {
        *self
            .accepted_ever
            .get_or_init(|| self.connection.rest.was_accepted())
    }

    /// Emits once per probe that the token works: any response that required it proves that.
    fn token_accepted(&self, at: Timestamp) {
        if self.accepted.swap(true, Ordering::Relaxed) {
            return;
        }
        for key in self.targets.values() {
            self.emit(key, at, facts::auth(true, None));
        }
    }

    /// Reports that the token's user could not be determined. While the list of guilds is received, that is not a link failure.
    fn fail_me(&self, error: &ApiError) {
        let vouched = self
            .connection
            .link_health
            .another_probe_succeeded(ME.path, self.now());
        let of_the_link = |code: Code| {
            !error.is_missing() && (!vouched || !error.is_transient() || code.is_before_sending())
        };
        let code = facts::code(error).filter(|code| !of_the_link(*code));
        let Some(code) = code else {
            return self.fail_all(error);
        };
        let (now, message) = (self.now(), format!("whose the token is: {error}"));
        for key in self.targets.values() {
            self.emit(key, now, facts::unanswered(Facet::Auth, code, &message));
        }
        self.platform_problem(code, &message);
    }

    fn fail_all(&self, error: &ApiError) {
        self.fail(self.targets.keys().copied(), error);
    }

    fn fail(&self, guilds: impl Iterator<Item = u64>, error: &ApiError) {
        let now = self.now();
        let mut any = false;
        for key in guilds.filter_map(|id| self.targets.get(&id)) {
            any = true;
            for (at, fact) in facts::of_failed_probe(error, now) {
                self.emit(key, at, fact);
            }
        }
        if !any {
            return;
        }
        match error {
            ApiError::TokenRefused { at, .. } => {
                let identity = &self.connection.identity;
                let whose = if *identity == super::bot() {
                    String::new()
                } else {
                    format!("{identity}: ")
                };
                let text = format!("{whose}{} (refused at {at})", facts::TOKEN_REFUSED);
                self.problem(Problem::of_account(identity, text));
            }
            error => match facts::code(error) {
                Some(code) => self.platform_problem(code, &error.to_string()),
                None => self.problem(Problem::of_platform(format!("Discord: {error}"))),
            },
        }
    }

    /// Reports that one facet of one guild could not be checked. The link of the guild is checked elsewhere.
    pub(super) fn fail_detail(&self, key: &SourceKey, facet: Facet, error: &ApiError) {
        if let ApiError::TokenRefused { .. } = error {
            return self.fail_all(error);
        }
        let what = match facet {
            Facet::Status => "its connection",
            Facet::Stream => "its stream",
            Facet::Auth => "the authorization",
            Facet::Permissions => "its permissions",
        };
        let message = format!("{what}: {error}");
        match facts::code(error) {
            Some(code) => {
                self.emit(key, self.now(), facts::unanswered(facet, code, &message));
                self.source_problem(key, code, &message);
            }
            // Nothing was sent, so nothing was observed.
            None => self.problem(Problem::of_source(key, format!("{key}: {message}"))),
        }
    }

    /// Records a problem for the summary.
    pub(super) fn problem(&self, problem: Problem) {
        self.meter.problems.add(problem);
    }

    /// Records a problem of several guilds whose observations contain this error.
    fn platform_problem(&self, code: Code, message: &str) {
        let problem = Problem::of_platform(format!("Discord: {message}"));
        self.problem(problem.caused_by(ErrorInfo::new(code, message)));
    }

    /// Records a problem of a guild whose observations contain this error.
    pub(super) fn source_problem(&self, key: &SourceKey, code: Code, message: &str) {
        let problem = Problem::of_source(key, format!("{key}: {message}"));
        self.problem(problem.caused_by(ErrorInfo::new(code, message)));
    }
}

/// Returns whether other requests may succeed although the check of the token failed with `error`: each answer to them proves the
/// token as well.
fn may_continue_after(error: &ApiError) -> bool {
    let unreachable = matches!(error, ApiError::Unavailable { code, .. } if code.is_before_sending());
    (error.is_transient() && !unreachable) || error.is_missing()
}

const ME: Call<'static> = Call {
    route: Route {
        template: "users/@me",
        top: None,
    },
    path: "users/@me",
};
/// The request that determines link health: all probes send it.
const GUILDS: &str = "users/@me/guilds";
const LIST: Route = Route {
    template: GUILDS,
    top: None,
};
