//! What all parts of a probe share: requests with the bot's token, and where results go.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::super::answer::ApiError;
use super::super::connection::Connection;
use super::super::facts::{self, BY_API};
use super::super::limits::Route;
use super::super::rest::{Call, ME, Response};
use super::super::wire::{Id, Me, UNCLEAR_TIMEOUT};
use super::super::{DiscordPlatform, GuildOptions, bot};
use crate::core::code::Code;
use crate::core::facet::Facet;
use crate::core::observation::{AuthResult, ErrorInfo, Fact, Observation};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::platforms::kit::meter::Meter;
use crate::platforms::{ProbeSet, ProbeSink, Problem};

/// The bot and the guilds of a probe, and where its results go.
pub(super) struct ProbeContext<'a> {
    pub(super) platform: &'a DiscordPlatform,
    pub(super) connection: &'a Connection,
    pub(super) probes: &'a ProbeSet,
    sink: &'a dyn ProbeSink,
    guilds: Arc<BTreeMap<u64, GuildOptions>>,
    pub(super) targets: BTreeMap<u64, SourceKey>,
    pub(super) meter: Meter<'a>,
    accepted: AtomicBool,
    /// Why the check of the token gave no result.
    pub(super) unchecked: OnceLock<ApiError>,
    /// Whether the token was ever accepted, once that was determined.
    accepted_ever: OnceLock<bool>,
}

impl<'a> ProbeContext<'a> {
    /// Prepares a probe of `sources`.
    pub(super) fn new(
        platform: &'a DiscordPlatform,
        connection: &'a Connection,
        probes: &'a ProbeSet,
        sources: &[SourceKey],
        sink: &'a dyn ProbeSink,
    ) -> Self {
        let mut cx = Self {
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
        };
        for key in sources
            .iter()
            .filter(|key| key.platform() == PlatformName::Discord)
        {
            match key.id().parse() {
                Ok(id) => {
                    cx.targets.insert(id, key.clone());
                }
                Err(_) => {
                    let text = format!("`{key}` is larger than any id of Discord");
                    cx.problem(Problem::of_source(key, text));
                }
            }
        }
        cx
    }

    pub(super) fn guild_options(&self, id: u64) -> Option<&GuildOptions> {
        self.guilds.get(&id)
    }

    pub(super) fn channels_of(&self, guild: u64) -> &[u64] {
        self.guild_options(guild)
            .map_or(&[], |guild| guild.channels.as_slice())
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
        self.connection.rest.clock.now()
    }

    pub(super) fn emit(&self, key: &SourceKey, at: Timestamp, mut fact: Fact) {
        if let Fact::Auth { identity, check } = &mut fact {
            identity.clone_from(&self.connection.identity);
            Arc::make_mut(check).rejected = check.result == AuthResult::Revoked && !self.was_accepted();
        }
        // By Discord's clock: if ours is ahead, the fact must not outrank later ones.
        let at = self.connection.rest.skew.correct(at);
        self.sink.observe(Observation::new(key, at, BY_API, fact));
    }

    /// Returns whether Discord ever accepted the token; read once.
    fn was_accepted(&self) -> bool {
        *self
            .accepted_ever
            .get_or_init(|| self.connection.rest.was_accepted())
    }

    /// Emits once per probe that the token works: any response that required it proves that.
    pub(super) fn token_accepted(&self, at: Timestamp) {
        if self.accepted.swap(true, Ordering::Relaxed) {
            return;
        }
        for key in self.targets.values() {
            self.emit(key, at, facts::auth(true, None));
        }
    }

    /// Reports that the token's user could not be determined. While the list of guilds is received, that is not a link failure.
    pub(super) fn fail_me(&self, error: &ApiError) {
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

    pub(super) fn fail_all(&self, error: &ApiError) {
        self.fail(self.targets.keys().copied(), error);
    }

    pub(super) fn fail(&self, guilds: impl Iterator<Item = u64>, error: &ApiError) {
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
                let whose = if *identity == bot() {
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
        self.meter.problem(problem);
    }

    /// Records a problem of several guilds whose observations contain this error.
    pub(super) fn platform_problem(&self, code: Code, message: &str) {
        let problem = Problem::of_platform(format!("Discord: {message}"));
        self.problem(problem.caused_by(ErrorInfo::new(code, message)));
    }

    /// Records a problem of a guild whose observations contain this error.
    pub(super) fn source_problem(&self, key: &SourceKey, code: Code, message: &str) {
        let problem = Problem::of_source(key, format!("{key}: {message}"));
        self.problem(problem.caused_by(ErrorInfo::new(code, message)));
    }

    /// Emits an error that changes no verdict, and adds it to the summary.
    pub(super) fn emit_problem(&self, key: &SourceKey, at: Timestamp, code: Code, message: &str) {
        self.emit(key, at, facts::problem(code, message));
        self.source_problem(key, code, message);
    }

    /// Reports that whether the bot is in a timeout is unknown.
    pub(super) fn report_unknown_timeout(&self, key: &SourceKey, at: Timestamp) {
        self.emit_problem(key, at, Code::Unreadable(PlatformName::Discord), UNCLEAR_TIMEOUT);
    }
}
