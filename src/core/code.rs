//! The registry of error codes: every code that users can meet, with its meaning and what to do.
//!
//! A code is `<area>.<situation>`. What can happen on every platform has one situation, so that it has the same name on each of
//! them. `bitbrat help errors` and `docs/errors.md` print this registry. A code without an entry cannot be constructed; programs
//! decide by [`Code`], never by its text.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::core::source::PlatformName;

/// What a code belongs to; a section of `docs/errors.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// What can happen on every platform.
    Platforms,
    /// Requests and connections.
    Network,
    /// What only Twitch has.
    Twitch,
    /// What only Kick has.
    Kick,
    /// What only Discord has.
    Discord,
    /// Messages on the bus that cannot be used.
    Messages,
    /// Failures of commands with `-o json`.
    Commands,
    /// Responses of the HTTP API.
    Api,
}

impl Group {
    /// Every group, in the order in which they are shown.
    pub const ALL: [Self; 8] = [
        Self::Platforms,
        Self::Network,
        Self::Twitch,
        Self::Kick,
        Self::Discord,
        Self::Messages,
        Self::Commands,
        Self::Api,
    ];

    /// Returns the heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Platforms => "Any platform",
            Self::Network => "Network and HTTP",
            Self::Twitch => "Twitch",
            Self::Kick => "Kick",
            Self::Discord => "Discord",
            Self::Messages => "Messages on the bus",
            Self::Commands => "Commands",
            Self::Api => "HTTP API",
        }
    }

    /// Returns where the codes of this group appear.
    pub fn place(self) -> &'static str {
        match self {
            Self::Platforms => {
                "`lastError.code` of a source, problems of a probe, and logs; `<platform>` is `twitch`, `kick` or `discord`"
            }
            Self::Network | Self::Twitch | Self::Kick | Self::Discord => {
                "`lastError.code` of a source, problems of a probe, and logs"
            }
            Self::Messages => "dead letters, and the log of the consumer",
            Self::Commands => "`code` of a failed command with `-o json`",
            Self::Api => "`error` of a response",
        }
    }
}

/// Defines [`Code`]. Each line is a variant, its text, its meaning, and what to do. The variants of the first section have a
/// platform, whose name precedes the text.
macro_rules! registry {
    (
        platforms { $($shared:ident $suffix:literal: $shared_meaning:literal, $shared_remedy:literal;)* }
        $($group:ident { $($own:ident $text:literal: $meaning:literal, $remedy:literal;)* })*
    ) => {
        /// A stable error code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $shared_meaning] $shared(PlatformName),)*
            /// An HTTP status that is no answer of the platform's API, or that reports a failure of the platform.
            Http(u16),
            $($(#[doc = $meaning] $own,)*)*
        }

        impl Code {
            /// One code of each entry, in the order in which they are shown. A family of codes is one entry.
            pub const ENTRIES: &'static [Self] = &[
                $(Self::$shared(PlatformName::ALL[0]),)*
                Self::Http(500),
                $($(Self::$own,)*)*
            ];

            /// Returns the text as a pattern: with placeholders for the platform and the status.
            pub fn pattern(self) -> &'static str {
                match self {
                    $(Self::$shared(_) => concat!("<platform>.", $suffix),)*
                    Self::Http(_) => "http.<status>",
                    $($(Self::$own => $text,)*)*
                }
            }

            /// Returns the meaning, in one sentence.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$shared(_) => $shared_meaning,)*
                    Self::Http(_) => {
                        "The HTTP status is no answer of the platform's API (a proxy or an edge may have sent it), or it reports a \
                         failure of the platform (5xx)."
                    }
                    $($(Self::$own => $meaning,)*)*
                }
            }

            /// Returns what to do now.
            pub fn remedy(self) -> &'static str {
                match self {
                    $(Self::$shared(_) => $shared_remedy,)*
                    Self::Http(_) => {
                        "Nothing for 5xx: the request is sent again. Otherwise run `bitbrat doctor`, and check proxies and the configured \
                         addresses."
                    }
                    $($(Self::$own => $remedy,)*)*
                }
            }

            /// Returns the group.
            pub fn group(self) -> Group {
                match self {
                    $(Self::$shared(_) => Group::Platforms,)*
                    Self::Http(_) => Group::Network,
                    $($(Self::$own)|* => Group::$group,)*
                }
            }

            fn platform(self) -> Option<PlatformName> {
                match self {
                    $(Self::$shared(platform))|* => Some(platform),
                    _ => None,
                }
            }

            fn of_platform(platform: PlatformName, suffix: &str) -> Option<Self> {
                match suffix {
                    $($suffix => Some(Self::$shared(platform)),)*
                    _ => None,
                }
            }

            fn of_text(text: &str) -> Option<Self> {
                match text {
                    $($($text => Some(Self::$own),)*)*
                    _ => None,
                }
            }
        }
    };
}

registry! {
    platforms {
        NotConfigured "not_configured":
            "There is no token, or no client id and secret, for what was requested.",
            "Run `bitbrat auth status`; set what is missing, or log in with `bitbrat auth login`.";
        Unauthorized "unauthorized":
            "The platform rejects the token.",
            "Run `bitbrat auth status`, then log in again.";
        TokenRevoked "token_revoked":
            "The authorization of an account that the source needs was revoked.",
            "Log in again: `bitbrat auth login`.";
        TokenRejected "token_rejected":
            "The platform rejects a token, and nothing shows that it was ever valid.",
            "Get a new token and log in with it; the stored one may be mistyped, expired or revoked.";
        TokenUnchecked "token_unchecked":
            "The platform did not answer whether a token is valid, or did not refresh it.",
            "Nothing: it is checked again. If it stays, run `bitbrat doctor`.";
        TokenStore "token_store":
            "The token store cannot be read or written.",
            "Run `bitbrat doctor tokens`, and check its permissions and the disk.";
        OtherAccount "other_account":
            "The token belongs to another account than the one that it is stored for.",
            "Log in with that account's own token.";
        ClientRejected "client_rejected":
            "The platform rejects the client id and secret.",
            "Copy both again from the platform's developer page; another login does not help.";
        Forbidden "forbidden":
            "The token is valid, and the platform does not allow what was requested.",
            "See the message; a scope or a role is missing, or the bot is banned or timed out.";
        NotFound "not_found":
            "There is no such source: the id is wrong, it was deleted or suspended, or (Discord) the bot is not a member of the guild.",
            "Check the id, or invite the bot; remove the source if it is gone (`bitbrat sources remove`).";
        Rejected "rejected":
            "The platform rejects the request as invalid.",
            "See the message. If it names nothing to correct, report it as a bug of bitbrat.";
        RateLimited "rate_limited":
            "The platform's rate limit is used up.",
            "Probe less often (Kick: lower `kick.requests_per_minute`), and find out which other program uses the same application or address.";
        Unreadable "unreadable":
            "A response, or the part of it that is about this source, is not what the platform documents.",
            "Nothing: it is requested again. If it stays, run `bitbrat doctor`; something in between may have answered.";
        EdgeBlocked "edge_blocked":
            "The network edge in front of the platform (Cloudflare) blocks or limits this address.",
            "Wait. If it stays, find other programs behind this address, or ask the platform to allow it.";
        ConnectionClosed "connection_closed":
            "The platform closed the push connection.",
            "Nothing: it is opened again, and polling continues.";
        KeepaliveTimeout "keepalive_timeout":
            "The push connection is open, and nothing arrived over it in time.",
            "Nothing: it is opened again, and polling continues.";
        NoWelcome "no_welcome":
            "The push connection was opened, and the platform did not begin a session in time.",
            "Nothing: it is opened again, and polling continues.";
        SessionEnded "session_ended":
            "The platform ended the session of the push connection.",
            "Nothing: a new session is begun, and polling continues.";
        MessageTooLarge "message_too_large":
            "A message over the push connection is larger than what is read, so the connection was closed.",
            "Nothing: it is opened again. If it stays, check what the configured address belongs to.";
        InvalidUtf8 "invalid_utf8":
            "A message over the push connection is not valid UTF-8, so the connection was closed.",
            "Nothing: it is opened again. If it stays, check what the configured address belongs to.";
        ProtocolError "protocol_error":
            "The other side of the push connection violated the websocket protocol.",
            "Nothing: it is opened again. If it stays, check proxies and the configured address.";
        PushSilent "push_silent":
            "Polls find changes that were not pushed.",
            "Nothing for Twitch: subscriptions are renewed. For Kick, check the webhook URL and the proxy in front of it.";
        PushStale "push_stale":
            "A pushed message was dropped because its time is too far off.",
            "Check the clock of this machine (`bitbrat doctor`). Polls find what the message was about.";
        PushUnreadable "push_unreadable":
            "A pushed message cannot be read and was dropped.",
            "Nothing: polls find what it was about. If it stays, report it as a bug of bitbrat.";
    }
    Network {
        HttpWebPage "http.web_page":
            "A web page came instead of an answer of the API.",
            "Check proxies and captive portals, and the configured address.";
        HttpTooLarge "http.too_large":
            "A response is larger than what is read.",
            "Check what the configured address belongs to.";
        HttpUnsendable "http.unsendable":
            "The token or client id has characters that cannot be sent.",
            "Copy it again.";
        NetworkTimeout "network.timeout":
            "No answer came in time.",
            "Nothing: the request is sent again. If it stays, run `bitbrat doctor`.";
        NetworkConnect "network.connect":
            "No connection could be opened.",
            "Check the network, a firewall and the configured address: `bitbrat doctor`.";
        NetworkDns "network.dns":
            "The host name cannot be resolved.",
            "Check the name server and the configured address: `bitbrat doctor`.";
        NetworkTls "network.tls":
            "No secure connection could be opened.",
            "See the message; check the clock, the trusted certificates (`SSL_CERT_FILE`) and proxies.";
        NetworkProxy "network.proxy":
            "The proxy cannot be reached, or does not let the request through.",
            "Check `HTTPS_PROXY` and `NO_PROXY`, and the user and password of the proxy.";
        NetworkReset "network.reset":
            "The connection broke.",
            "Nothing: it is opened again. If it stays, run `bitbrat doctor`.";
        NetworkAddress "network.address":
            "The configured address is not one.",
            "Correct it: `bitbrat config check`.";
        NetworkTooManyFiles "network.too_many_files":
            "This process has too many files and connections open.",
            "Raise its limit (`ulimit -n`, systemd `LimitNOFILE=`), or stop what holds connections open.";
    }
    Twitch {
        TwitchSubscriptionPending "twitch.subscription_pending":
            "Twitch has not accepted a subscription yet.",
            "Nothing: it is requested again, and polling continues.";
        TwitchSubscriptionLimit "twitch.subscription_limit":
            "The points or places for subscriptions are used up.",
            "Nothing: these channels are polled. `bitbrat watch --plan` shows which; a login of the broadcaster makes its channel free.";
        TwitchSubscriptionWithdrawn "twitch.subscription_withdrawn":
            "Twitch no longer offers this type of subscription.",
            "Upgrade bitbrat; until then the channel is polled.";
        TwitchSubscriptionDisabled "twitch.subscription_disabled":
            "Twitch created a subscription that is not enabled.",
            "See the message; it is requested again later.";
        TwitchDuplicateSubscription "twitch.duplicate_subscription":
            "Another connection of the same account has this subscription.",
            "Stop the other program, or give it another application; until then the channel is polled.";
        TwitchTooManySockets "twitch.too_many_sockets":
            "Another program uses the sockets of this account.",
            "Stop it, or give it another application.";
        TwitchSubscriptionRevoked "twitch.subscription_revoked":
            "Twitch ended a subscription.",
            "Nothing: it is requested again. If it stays, see the message.";
        TwitchAuthorizationRevoked "twitch.authorization_revoked":
            "Twitch ended a subscription because the authorization was withdrawn or the password changed.",
            "Log in again: `bitbrat auth login twitch`.";
        TwitchUserRemoved "twitch.user_removed":
            "Twitch ended a subscription because the user no longer exists.",
            "Remove the source: `bitbrat sources remove`.";
        TwitchVersionRemoved "twitch.version_removed":
            "Twitch ended a subscription because it no longer offers this version of it.",
            "Upgrade bitbrat; until then the channel is polled.";
        TwitchModeratorRemoved "twitch.moderator_removed":
            "Twitch ended a subscription because the bot is no longer a moderator.",
            "Ask the broadcaster.";
        TwitchChatUserBanned "twitch.chat_user_banned":
            "Twitch ended a subscription because the bot is banned from the chat.",
            "Ask the broadcaster.";
        TwitchSessionUnused "twitch.session_unused":
            "Twitch ended the session because no subscription was accepted in time.",
            "Nothing: it is opened again. If it stays, see the earlier messages about subscriptions.";
        TwitchConduit "twitch.conduit":
            "The conduit for EventSub cannot be used.",
            "See the message. A conduit that was deleted is replaced by itself, unless `twitch.conduit_id` names it.";
        TwitchConduitShards "twitch.conduit_shards":
            "Shards of the conduit receive nothing, so some pushed messages are lost.",
            "Nothing, if the process that holds them is restarting: polling continues. Otherwise start it, or see the message.";
        TwitchReconnectFailed "twitch.reconnect_failed":
            "Twitch asked for a move to another address, which did not succeed in time.",
            "Nothing: it is opened again, and polling continues.";
        TwitchClockJump "twitch.clock_jump":
            "The clock of this machine jumped, so the connection is opened again.",
            "Nothing after a suspend. If it stays, check the clock: `bitbrat doctor`.";
    }
    Kick {
        KickContradiction "kick.contradiction":
            "A channel reports that it is live, and the list of live streams does not contain it.",
            "Wait a minute.";
        KickGrantExpiring "kick.grant_expiring":
            "A token was not refreshed for weeks; Kick revokes a grant after about 30 days.",
            "Log in again soon: `bitbrat auth login kick`.";
        KickScopesLost "kick.scopes_lost":
            "A token has fewer scopes than before.",
            "Log in again with all scopes.";
        KickSubscriptionMissing "kick.subscription_missing":
            "Kick does not list a subscription that was requested.",
            "See the message. Nothing if it is new: it is requested again, and polling continues.";
    }
    Discord {
        DiscordMissingPermissions "discord.missing_permissions":
            "The bot lacks a permission in a configured channel.",
            "Follow the link that `bitbrat probe` prints, or change the channel's permissions.";
        DiscordChannelNotFound "discord.channel_not_found":
            "A configured channel does not exist.",
            "Correct `channels` of the source.";
        DiscordUnsuitableChannel "discord.unsuitable_channel":
            "A configured channel is a category or a directory, which contain no messages.",
            "Configure its channels instead.";
        DiscordAccountUnverified "discord.account_unverified":
            "The bot's owner must verify the account.",
            "Verify it on Discord.";
        DiscordClientBlocked "discord.client_blocked":
            "Cloudflare blocks this program.",
            "Upgrade bitbrat.";
        DiscordGuildUnavailable "discord.guild_unavailable":
            "The guild is unavailable because of an outage at Discord.",
            "Wait.";
        DiscordNotSent "discord.not_sent":
            "A request was not sent because it would have been useless or harmful; no gateway session may be started now.",
            "Wait; find out what restarts so often.";
        DiscordIdentifyLimit "discord.identify_limit":
            "The gateway sessions that may be started in a day are used up.",
            "Wait; find out what restarts so often.";
        DiscordGatewayRefused "discord.gateway_refused":
            "The gateway rejects the token, although Discord accepts it elsewhere.",
            "Nothing: it is tried again, and polling continues.";
        DiscordReconnectRequested "discord.reconnect_requested":
            "Discord asked for another connection.",
            "Nothing: the session is resumed.";
        DiscordInvalidShard "discord.invalid_shard":
            "Discord rejects the shard.",
            "Report it as a bug of bitbrat.";
        DiscordShardingRequired "discord.sharding_required":
            "The bot is in too many guilds for one gateway connection.",
            "Set `discord.gateway = false` and poll.";
        DiscordInvalidVersion "discord.invalid_version":
            "Discord no longer supports this version of the gateway.",
            "Upgrade bitbrat.";
        DiscordInvalidIntents "discord.invalid_intents":
            "Discord does not support the requested intents.",
            "Upgrade bitbrat.";
        DiscordDisallowedIntents "discord.disallowed_intents":
            "An intent is not enabled for the bot.",
            "Enable it in the developer portal.";
    }
    Messages {
        Unspecified "unknown":
            "Another program reported an error of a source without a code.",
            "See the message.";
        BodyTooLarge "body.too_large":
            "The message is too large.",
            "Correct the program that sent it.";
        JsonInvalid "json.invalid":
            "The message is not JSON.",
            "Correct the program that sent it.";
        JsonNotAnObject "json.not_an_object":
            "The message is not a JSON object.",
            "Correct the program that sent it.";
        TypeNotText "type.not_text":
            "The `type` of the message is not text.",
            "Correct the program that sent it.";
        SourcePlatform "source.platform":
            "The message names no platform that has sources.",
            "Correct the program that sent it.";
        SourceId "source.id":
            "The message names no source, or an invalid one.",
            "Correct the program that sent it.";
        StreamId "stream.id":
            "The id of the stream is invalid.",
            "Correct the program that sent it.";
        HeadersInvalid "headers.invalid":
            "The headers of the message cannot be read.",
            "Correct the program that sent it.";
        EvidenceUnreadable "evidence.unreadable":
            "The evidence in the message cannot be read.",
            "Upgrade bitbrat here if a newer one sent it; otherwise correct the program that sent it.";
        TimeFuture "time.future":
            "The message is dated in the future.",
            "Check the clocks of its sender and of this machine.";
        StoreBlocked "store.blocked":
            "The stored document of the source cannot be used, so the message was put aside.",
            "Run `bitbrat doctor` to list every document that cannot be used.";
    }
    Commands {
        Healthy "healthy":
            "No failure; the code of exit code 0.",
            "Nothing.";
        Failed "failed":
            "bitbrat failed, or the predicate is false.",
            "See the message, its causes and hints.";
        Usage "usage":
            "The command line is wrong.",
            "Correct it: `--help` describes the command.";
        Down "down":
            "A source is down or degraded.",
            "`bitbrat sources describe` shows why.";
        CommandUnauthorized "unauthorized":
            "An authorization is expired, revoked or missing.",
            "Run `bitbrat auth status`, then log in again.";
        NoSuchSource "no_such_source":
            "There is no such source.",
            "`bitbrat sources list` shows the configured sources.";
        ConfigurationInvalid "configuration_invalid":
            "The configuration is invalid.",
            "Correct it, then run `bitbrat config check`.";
        NoEvidence "no_evidence":
            "There is not enough evidence to answer.",
            "Check the source (`bitbrat probe`), then try again.";
        TimedOut "timed_out":
            "`wait` timed out.",
            "Try again with a longer `--timeout`.";
        Interrupted "interrupted":
            "The command was interrupted by a signal.",
            "Nothing.";
    }
    Api {
        ApiNotFound "api.not_found":
            "There is no such path.",
            "Correct it.";
        ApiTimeout "api.timeout":
            "The request was not complete in time.",
            "Send it again.";
        ApiBusy "api.busy":
            "Too many requests for large pages wait, or too many large responses are unread.",
            "Send it again after the seconds in `Retry-After`, and read responses to their end.";
        ApiUnauthorized "api.unauthorized":
            "The request has no token, or a wrong one.",
            "Send `Authorization: Bearer` with the value of `web.token`.";
        ApiForbiddenHost "api.forbidden_host":
            "The request is for a host that is not this machine, and there is no token.",
            "Set `web.token`, or use `localhost`.";
        ApiForbiddenOrigin "api.forbidden_origin":
            "The request was sent by a page of another site.",
            "Open the page of bitbrat itself, or send the request without a browser.";
        ApiMethodNotAllowed "api.method_not_allowed":
            "The path does not accept this method.",
            "Use GET: everything is read-only.";
        ApiInvalidQuery "api.invalid_query":
            "The query has an unknown parameter, or a value that is not allowed.",
            "`/api/v1/openapi.json` describes the parameters.";
        ApiUnknownAction "api.unknown_action":
            "The platform of the source has no such action.",
            "`/api/v1/actions` lists the actions.";
        ApiNoEvents "api.no_events":
            "This process publishes no events.",
            "Ask the process that runs `watch --role ingest`.";
        ApiTooManyStreams "api.too_many_streams":
            "Too many clients follow the updates.",
            "Close other tabs, or try again after the seconds in `Retry-After`.";
        ApiUnknownPlatform "api.unknown_platform":
            "There is no such platform.",
            "Correct the path.";
        ApiInvalidSource "api.invalid_source":
            "The path does not name a source.",
            "Write `platform:id` or a name.";
        ApiUnknownSource "api.unknown_source":
            "No stored source has this id or name.",
            "`/api/v1/sources` lists those that are stored.";
        ApiAmbiguousSource "api.ambiguous_source":
            "Several sources have this name.",
            "Request one of them as `platform:id`.";
        ApiInvalidMaxAge "api.invalid_max_age":
            "`max_age` is not a duration.",
            "Write for example `max_age=5m`.";
        ApiInvalidMessage "api.invalid_message":
            "The body is not a JSON-RPC message of the Model Context Protocol.",
            "Use a client of that protocol; `docs/agents.md` names some.";
        ApiInternal "api.internal":
            "The request failed inside bitbrat.",
            "Report it as a bug of bitbrat, with the log.";
        ApiStoreUnavailable "api.store_unavailable":
            "The store cannot be read.",
            "Run `bitbrat doctor`.";
    }
}

impl Code {
    /// Returns every code, except that the HTTP statuses are represented by one.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::ENTRIES
            .iter()
            .flat_map(|code| match code.pattern().split_once('.') {
                Some(("<platform>", suffix)) => PlatformName::ALL
                    .into_iter()
                    .filter_map(|platform| Self::of_platform(platform, suffix))
                    .collect(),
                _ => vec![*code],
            })
    }

    /// Returns the text.
    pub fn text(self) -> Cow<'static, str> {
        match (self, self.platform()) {
            (Self::Http(status), _) => format!("http.{status}").into(),
            (_, Some(platform)) => self.pattern().replacen("<platform>", platform.as_str(), 1).into(),
            (_, None) => self.pattern().into(),
        }
    }

    /// Returns whether the network failed: no complete answer was received.
    pub fn is_of_network(self) -> bool {
        matches!(
            self,
            Self::NetworkTimeout
                | Self::NetworkConnect
                | Self::NetworkDns
                | Self::NetworkTls
                | Self::NetworkProxy
                | Self::NetworkReset
                | Self::NetworkAddress
                | Self::NetworkTooManyFiles
        )
    }

    /// Returns whether the failure happened before anything was sent to the platform.
    pub fn is_before_sending(self) -> bool {
        matches!(
            self,
            Self::NetworkConnect | Self::NetworkDns | Self::NetworkProxy | Self::NetworkTls
        )
    }

    /// Returns whether a token is missing, cannot be used, or was rejected.
    pub fn is_of_token(self) -> bool {
        matches!(
            self,
            Self::NotConfigured(_)
                | Self::Unauthorized(_)
                | Self::TokenRevoked(_)
                | Self::TokenRejected(_)
                | Self::TokenStore(_)
        )
    }

    /// Returns whether there is no credential at all, or none that the platform accepts.
    pub fn lacks_credential(self) -> bool {
        matches!(
            self,
            Self::NotConfigured(_) | Self::Unauthorized(_) | Self::OtherAccount(_)
        )
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// There is no code with this text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownCode;

impl FromStr for Code {
    type Err = UnknownCode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (area, situation) = text.split_once('.').unwrap_or_default();
        let code = match area.parse() {
            Ok(platform) => Self::of_platform(platform, situation),
            Err(_) if area == "http" => http_status(situation).map(Self::Http),
            Err(_) => None,
        };
        code.or_else(|| Self::of_text(text)).ok_or(UnknownCode)
    }
}

/// Three digits, so that each code has exactly one text.
fn http_status(text: &str) -> Option<u16> {
    let is_status = text.len() == 3 && text.bytes().all(|digit| digit.is_ascii_digit());
    text.parse().ok().filter(|status| is_status && *status >= 100)
}

/// The code of a stored error. Documents and events may have codes of other programs and of newer versions, which are kept as
/// they are; errors of this program have a [`Code`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ErrorCode(Origin);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Origin {
    Ours(Code),
    /// Never the text of a [`Code`].
    Foreign(Box<str>),
}

impl ErrorCode {
    /// Converts the text of a code from a document or an event.
    pub fn read(text: &str) -> Self {
        Self(match text.parse() {
            Ok(code) => Origin::Ours(code),
            Err(UnknownCode) => Origin::Foreign(text.into()),
        })
    }

    /// Returns the registered code; `None` for a foreign one.
    pub fn known(&self) -> Option<Code> {
        match self.0 {
            Origin::Ours(code) => Some(code),
            Origin::Foreign(_) => None,
        }
    }

    /// Returns the text.
    pub fn text(&self) -> Cow<'_, str> {
        match &self.0 {
            Origin::Ours(code) => code.text(),
            Origin::Foreign(text) => (&**text).into(),
        }
    }
}

impl From<Code> for ErrorCode {
    fn from(code: Code) -> Self {
        Self(Origin::Ours(code))
    }
}

impl PartialEq<Code> for ErrorCode {
    fn eq(&self, other: &Code) -> bool {
        self.known() == Some(*other)
    }
}

/// By text, so that evidence is merged alike whether or not a version has registered the code.
impl Ord for ErrorCode {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text().cmp(&other.text())
    }
}

impl PartialOrd for ErrorCode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text())
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text(), f)
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::read(&Cow::<str>::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_text_belongs_to_one_code_and_is_read_back() {
        let mut texts = BTreeSet::new();
        for code in Code::all() {
            assert_eq!(code.text().parse(), Ok(code));
            assert!(texts.insert(code.text()), "{code} is the text of two codes");
        }
        for text in ["http.0", "http.5000", "http.+50", "twitch.", "twitch", "", "x.y"] {
            assert_eq!(text.parse::<Code>(), Err(UnknownCode), "{text}");
        }
    }

    #[test]
    fn codes_are_in_one_dialect() {
        for code in Code::all() {
            let text = code.text();
            let parts: Vec<_> = text.split('.').collect();
            let is_plain = |part: &&str| {
                !part.is_empty()
                    && part.bytes().all(|letter| {
                        letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'_'
                    })
            };
            assert!(parts.len() <= 2 && parts.iter().all(is_plain), "{text}");
        }
    }

    #[test]
    fn every_code_is_explained_in_sentences() {
        for code in Code::ENTRIES {
            for sentence in [code.meaning(), code.remedy()] {
                assert!(
                    sentence.ends_with(['.', '`']) && !sentence.contains('|'),
                    "{code}: {sentence}"
                );
            }
        }
    }

    #[test]
    fn foreign_code_survives_a_round_trip() {
        for text in ["HTTP_401", "twitch.of_the_future", "http.999999", ""] {
            let json = serde_json::to_string(text).unwrap();
            let code: ErrorCode = serde_json::from_str(&json).unwrap();
            assert_eq!(
                (code.known(), serde_json::to_string(&code).unwrap()),
                (None, json)
            );
        }
        let ours: ErrorCode = serde_json::from_str("\"kick.rate_limited\"").unwrap();
        assert_eq!(ours, Code::RateLimited(PlatformName::Kick));
        assert_eq!(serde_json::to_string(&ours).unwrap(), "\"kick.rate_limited\"");
    }

    #[test]
    fn codes_are_ordered_by_text_wherever_they_come_from() {
        let [one, foreign, three] = ["http.500", "kick.of_the_future", "network.tls"].map(ErrorCode::read);
        assert!(one < foreign && foreign < three);
    }
}
