//! One probe of some guilds over REST: the token, the list of guilds, channels where they are configured, streams where
//! they are mapped. It never opens a gateway session: those are limited, and exceeding the limit resets the token.

mod channel_permissions;
mod context;
mod streams;

use std::collections::BTreeSet;

use futures_util::StreamExt;

use self::context::ProbeContext;

use super::DiscordPlatform;
use super::answer::ApiError;
use super::connection::Connection;
use super::facts;
use super::guild_list::{PAGE, Walk};
use super::limits::Route;
use super::memory::TokenStatus;
use super::permissions::Permissions;
use super::rest::{Call, ME, Response};
use super::wire::{GuildMember, ListedGuild, Me, Rows};
use crate::core::code::Code;
use crate::core::facet::Facet;
use crate::core::observation::{Fact, Transport};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::platforms::{Probe, ProbeSet, ProbeSink, ProbeSummary};

pub(super) use self::streams::created_at;

/// Guilds probed in detail at the same time.
const MAX_PARALLEL_GUILDS: usize = 4;
/// Maximum number of guilds without configured channels for which timeouts of the bot are checked, with a request each. With more
/// of them only the list's permissions are used, or the gateway's.
const MAX_TIMEOUT_CHECKS: usize = 25;

/// A probe in progress.
pub(super) struct DiscordProbe<'a> {
    cx: ProbeContext<'a>,
    /// Guilds that the list proved absent.
    absent: BTreeSet<u64>,
    /// Permissions from the list that are yet to be checked for a timeout.
    listed_permissions: Vec<(u64, Timestamp, Permissions)>,
}

impl<'a> DiscordProbe<'a> {
    /// Prepares a probe of `sources`.
    pub(super) fn new(
        platform: &'a DiscordPlatform,
        connection: &'a Connection,
        probes: &'a ProbeSet,
        sources: &[SourceKey],
        sink: &'a dyn ProbeSink,
    ) -> Self {
        Self {
            cx: ProbeContext::new(platform, connection, probes, sources, sink),
            absent: BTreeSet::new(),
            listed_permissions: Vec::new(),
        }
    }

    pub(super) async fn run(mut self) -> ProbeSummary {
        if !self.cx.targets.is_empty() {
            match self.cx.connection.rest.token_status() {
                TokenStatus::Good => self.execute().await,
                // The known refusal is emitted again, dated when it happened.
                TokenStatus::Rejected(rejected) if !self.cx.platform.options.try_refused => {
                    self.cx.fail_all(&ApiError::TokenRefused {
                        at: rejected.refused_at,
                        reason: "refused".to_owned(),
                    });
                }
                // A user who has just entered the token needs a current result.
                TokenStatus::MayTryOnce(_) | TokenStatus::Rejected(_) => {
                    if !self.is_still_rejected().await {
                        self.execute().await;
                    }
                }
            }
        }
        self.cx.meter.summary()
    }

    /// Tries a token that was refused long ago with one request; returns whether to stop there.
    async fn is_still_rejected(&self) -> bool {
        let tried: Result<Response<Me>, _> = self.cx.connection.rest.get_once(&self.cx.meter, ME).await;
        match tried {
            Ok(me) => {
                self.cx.token_accepted(me.at);
                let _ = self.cx.connection.me.set(me.value);
                false
            }
            Err(error) => {
                self.cx.fail_all(&error);
                true
            }
        }
    }

    async fn execute(&mut self) {
        self.plan();
        // While the token is in doubt no other request is useful, and its refusal must cost one request, not many.
        if self.cx.probes.contains(&Probe::Auth) {
            match self.cx.connection.rest.get::<Me>(&self.cx.meter, ME).await {
                Ok(me) => {
                    self.cx.token_accepted(me.at);
                    let _ = self.cx.connection.me.set(me.value);
                }
                Err(error) if may_continue_after(&error) => {
                    let _ = self.cx.unchecked.set(error);
                }
                Err(error) => return self.cx.fail_me(&error),
            }
            self.cx.meter.report_sent();
        }
        let is_listed = self.walk_list().await;
        // Whether the link has failed too depends on the list.
        if let Some(error) = self
            .cx
            .unchecked
            .get()
            .filter(|_| !self.cx.connection.rest.is_token_rejected())
        {
            self.cx.fail_me(error);
        }
        if !is_listed {
            return;
        }
        let cx = &self.cx;
        let present = || cx.targets.iter().filter(|(id, _)| !self.absent.contains(*id));
        if self.cx.probes.contains(&Probe::Permissions) {
            let work = present().filter(|(id, _)| !self.cx.channels_of(**id).is_empty());
            futures_util::stream::iter(work)
                .for_each_concurrent(MAX_PARALLEL_GUILDS, |(id, key)| {
                    channel_permissions::probe(cx, *id, key)
                })
                .await;
            futures_util::stream::iter(&self.listed_permissions)
                .for_each_concurrent(MAX_PARALLEL_GUILDS, |(id, at, held)| {
                    check_timeout(cx, *id, *at, *held)
                })
                .await;
        }
        if self.cx.probes.contains(&Probe::Stream) && self.cx.platform.options.stream_from.is_some() {
            futures_util::stream::iter(present())
                .for_each_concurrent(MAX_PARALLEL_GUILDS, |(id, key)| streams::probe(cx, *id, key))
                .await;
        }
        if let Some(millis) = self
            .cx
            .connection
            .rest
            .round_trip
            .millis()
            .filter(|_| self.cx.meter.count() > 0)
        {
            let now = self.cx.now();
            for key in self.cx.targets.values() {
                self.cx.emit(key, now, Fact::Latency { millis });
            }
        }
    }

    fn plan(&self) {
        let mut expected = usize::from(self.cx.probes.contains(&Probe::Auth));
        expected += Walk::new(self.listed()).expected();
        if self.cx.probes.contains(&Probe::Permissions) {
            let exact = self
                .cx
                .targets
                .keys()
                .filter(|id| !self.cx.channels_of(**id).is_empty());
            expected += exact.count() * 3;
            let plain = self.plain_guilds();
            expected += if plain > MAX_TIMEOUT_CHECKS { 0 } else { plain };
        }
        if self.cx.probes.contains(&Probe::Stream) && self.cx.platform.options.stream_from.is_some() {
            expected += self.cx.targets.len();
        }
        self.cx.meter.expect(expected);
        self.cx.meter.report_sent();
    }

    /// The guilds for which the list is needed.
    fn listed(&self) -> Vec<u64> {
        let all = self.cx.probes.contains(&Probe::Connection);
        let some = self.cx.probes.contains(&Probe::Permissions);
        self.cx
            .targets
            .keys()
            .copied()
            .filter(|id| all || (some && self.cx.channels_of(*id).is_empty()))
            .collect()
    }

    /// Finds the guilds in the bot's list; returns whether to continue.
    async fn walk_list(&mut self) -> bool {
        let mut walk = Walk::new(self.listed());
        while let Some(after) = walk.after() {
            let path = format!("users/@me/guilds?limit={PAGE}&after={after}&with_counts=true");
            let call = Call {
                route: LIST,
                path: &path,
            };
            let page: Response<Rows<ListedGuild>> =
                match self.cx.connection.rest.get(&self.cx.meter, call).await {
                    Ok(page) => page,
                    Err(ApiError::TokenRefused { at, reason }) => {
                        self.cx.fail_all(&ApiError::TokenRefused { at, reason });
                        return false;
                    }
                    // No evidence about any guild, and no link failure either: a server has answered.
                    Err(error) if error.is_missing() => {
                        self.cx.connection.link_health.failed(GUILDS, self.cx.now());
                        self.list_unanswered(walk.left(), &error);
                        return false;
                    }
                    Err(error) => {
                        self.cx.connection.link_health.failed(GUILDS, self.cx.now());
                        self.cx.fail(walk.left(), &error);
                        return false;
                    }
                };
            self.cx.token_accepted(page.at);
            self.cx.connection.link_health.answered(GUILDS, page.at);
            let found = walk.update(after, page.value);
            for guild in &found.listed {
                self.emit_listed(guild, page.at);
            }
            for id in found.absent {
                self.emit_absent(id, page.at);
            }
            self.leave_open(&found.unclear, page.at);
            self.cx.meter.report_sent();
        }
        true
    }

    /// Reports that the list could not be fetched, so that these guilds remain unchecked.
    fn list_unanswered(&self, guilds: impl Iterator<Item = u64>, error: &ApiError) {
        let (now, message) = (self.cx.now(), format!("the list of guilds: {error}"));
        let code = facts::code(error).unwrap_or(Code::Unreadable(PlatformName::Discord));
        for key in guilds.filter_map(|id| self.cx.targets.get(&id)) {
            self.cx
                .emit(key, now, facts::unanswered(Facet::Status, code, &message));
        }
        self.cx.platform_problem(code, &message);
    }

    /// Records that the list, although received, gives no result for these guilds.
    fn leave_open(&self, guilds: &[u64], at: Timestamp) {
        let message = "the list of guilds does not settle this one: a row of it cannot be read, or it does not page by `after`";
        for key in guilds.iter().filter_map(|id| self.cx.targets.get(id)) {
            self.cx.emit(
                key,
                at,
                facts::unanswered(Facet::Status, Code::Unreadable(PlatformName::Discord), message),
            );
            self.cx
                .source_problem(key, Code::Unreadable(PlatformName::Discord), message);
        }
    }

    fn emit_listed(&mut self, guild: &ListedGuild, at: Timestamp) {
        let Some(key) = self.cx.targets.get(&guild.id.0) else {
            return;
        };
        if self.cx.probes.contains(&Probe::Connection) {
            let fact = if guild.unavailable == Some(true) {
                facts::down(
                    Transport::Api,
                    Code::DiscordGuildUnavailable,
                    "the guild suffers an outage",
                )
            } else {
                facts::up(Transport::Api)
            };
            // The link comes first: a guild that the bot has joined again must not be judged by the link that it had before.
            self.cx.emit(key, at, fact);
            self.cx.emit(key, at, Fact::Exists);
            let incoming = self.cx.connection.emitted.lock().contains_key(&guild.id.0);
            let mode = if incoming { "gateway" } else { "poll" };
            self.cx.emit(key, at, facts::profile(guild, mode));
        }
        if !self.cx.probes.contains(&Probe::Permissions) || !self.cx.channels_of(guild.id.0).is_empty() {
            return;
        }
        // A gateway session has better data than the list, which ignores timeouts.
        if let Some(known) = self.cx.connection.emitted.lock().get(&guild.id.0) {
            for fact in known {
                self.cx.emit(key, at, fact.clone());
            }
            return;
        }
        match guild.held() {
            None => {
                let code = Code::Unreadable(PlatformName::Discord);
                let message = "its permissions: the row of the list of guilds cannot be read";
                self.cx
                    .emit(key, at, facts::unanswered(Facet::Permissions, code, message));
                self.cx.source_problem(key, code, message);
            }
            Some(held)
                if held.contains(Permissions::ADMINISTRATOR) || self.plain_guilds() > MAX_TIMEOUT_CHECKS =>
            {
                emit_guild_permissions(&self.cx, key, at, held);
            }
            Some(held) => self.listed_permissions.push((guild.id.0, at, held)),
        }
    }

    /// Returns how many guilds have no configured channels, so that the list determines their permissions.
    fn plain_guilds(&self) -> usize {
        let plain = |id: &&u64| self.cx.channels_of(**id).is_empty();
        self.cx.targets.keys().filter(plain).count()
    }

    fn emit_absent(&mut self, id: u64, at: Timestamp) {
        let Some(key) = self.cx.targets.get(&id) else {
            return;
        };
        self.absent.insert(id);
        if self.cx.probes.contains(&Probe::Connection) {
            for fact in facts::not_in_guild(Transport::Api) {
                self.cx.emit(key, at, fact);
            }
            self.cx
                .source_problem(key, Code::NotFound(PlatformName::Discord), facts::NOT_IN_GUILD);
        }
    }
}

/// Emits a guild's permissions from the list, reduced by a timeout, which the list ignores.
async fn check_timeout(cx: &ProbeContext<'_>, id: u64, at: Timestamp, held: Permissions) {
    let Some(key) = cx.targets.get(&id) else { return };
    let asked = async {
        let me = cx.me().await?;
        let path = format!("guilds/{id}/members/{me}");
        let member: Response<GuildMember> = cx.ask("guilds/{}/members/{}", id, &path).await?;
        let at = cx.connection.rest.skew.correct(member.at);
        let timeout = member.value.communication_disabled_until;
        Ok::<_, ApiError>(timeout.lasts(at))
    };
    match asked.await {
        Ok(Some(timed_out)) => {
            let held = if timed_out { held.in_timeout() } else { held };
            emit_guild_permissions(cx, key, at, held);
        }
        Ok(None) => {
            cx.report_unknown_timeout(key, at);
            for fact in facts::with_unclear_timeout(facts::of_guild(held).into()) {
                cx.emit(key, at, fact);
            }
        }
        Err(error) => cx.fail_detail(key, Facet::Permissions, &error),
    }
}

fn emit_guild_permissions(cx: &ProbeContext<'_>, key: &SourceKey, at: Timestamp, held: Permissions) {
    for fact in facts::of_guild(held) {
        cx.emit(key, at, fact);
    }
}

/// Returns whether other requests may succeed although the check of the token failed with `error`: each answer to them proves the
/// token as well.
fn may_continue_after(error: &ApiError) -> bool {
    let unreachable = matches!(error, ApiError::Unavailable { code, .. } if code.is_before_sending());
    (error.is_transient() && !unreachable) || error.is_missing()
}

/// The request that determines link health: all probes send it.
const GUILDS: &str = "users/@me/guilds";
const LIST: Route = Route {
    template: GUILDS,
    top: None,
};
