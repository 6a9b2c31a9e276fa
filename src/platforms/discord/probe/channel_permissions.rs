//! The part of a probe that takes several requests per guild: permissions in the channels that are configured.

use std::collections::BTreeMap;

use super::super::answer::ApiError;
use super::super::channels::{self, ChannelAccess};
use super::super::facts;
use super::super::permissions::{ChannelKind, NEEDED, Permissions};
use super::super::rest::Response;
use super::super::wire::{Channel, FullGuild, GuildMember, Rows};
use super::context::ProbeContext;
use crate::core::code::Code;
use crate::core::facet::Facet;
use crate::core::observation::Fact;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::platforms::Problem;

/// Computes the permissions in the configured channels of a guild.
pub(super) async fn probe(cx: &ProbeContext<'_>, id: u64, key: &SourceKey) {
    match channel_report(cx, id).await {
        Ok((at, base, report, timeout)) => {
            for gone in &report.gone {
                let message = format!("channel {gone} is configured but does not exist");
                cx.emit_problem(key, at, Code::DiscordChannelNotFound, &message);
            }
            for (id, reason) in &report.unsuitable {
                let message = format!("channel {id} cannot be used: {reason}");
                cx.emit_problem(key, at, Code::DiscordUnsuitableChannel, &message);
            }
            for lacking in &report.lacking {
                cx.emit_problem(key, at, Code::DiscordMissingPermissions, lacking);
            }
            if timeout.is_none() {
                cx.report_unknown_timeout(key, at);
            }
            if timeout == Some(true) {
                let text = format!("{key}: the bot is in a timeout, which no invitation ends");
                cx.problem(Problem::of_source(key, text));
            } else if NEEDED.without(base) != Permissions::NONE {
                advise(cx, key, at, base).await;
            }
            // Channel permissions are no evidence for guild-level ones: a hidden channel does not revoke the right to ban.
            let facts = facts::of_channels(base, report);
            let facts = match timeout {
                Some(_) => facts,
                None => facts::with_unclear_timeout(facts),
            };
            for fact in facts {
                cx.emit(key, at, fact);
            }
        }
        Err(error) => cx.fail_detail(key, Facet::Permissions, &error),
    }
}

/// Returns the time, the bot's permissions in the guild and in its channels, and whether it is in a timeout, if that is known
/// or does not matter.
async fn channel_report(
    cx: &ProbeContext<'_>,
    id: u64,
) -> Result<(Timestamp, Permissions, channels::Report, Option<bool>), ApiError> {
    let me = cx.me().await?;
    let guild: Response<FullGuild> = cx.ask(GUILD, id, &format!("guilds/{id}")).await?;
    let member: Response<GuildMember> = cx.ask(MEMBER, id, &format!("guilds/{id}/members/{me}")).await?;
    if !guild.value.covers(&member.value) {
        let reason = "a role that the bot may have cannot be read".to_owned();
        return Err(ApiError::Unreadable { reason });
    }
    let listed = channels(cx, id).await?;
    let at = listed.at;
    let rules = guild.value.rules();
    // A timeout expires by Discord's clock.
    let subject = member.value.subject(me.0, cx.connection.rest.skew.correct(at));
    let mut access = BTreeMap::new();
    for channel in cx.channels_of(id) {
        let access_of = match listed.value.read.iter().find(|listed| listed.id.0 == *channel) {
            Some(found) => channels::access(&rules, &subject, found, &listed.value.read),
            None => {
                unlisted(cx, id, *channel, &listed.value.read, |found, others| {
                    channels::access(&rules, &subject, found, others)
                })
                .await?
            }
        };
        access.insert(*channel, access_of);
    }
    let base = rules.in_guild(&subject);
    let timeout = (!member.value.has_unclear_timeout(base)).then_some(subject.timed_out);
    Ok((at, base, channels::report(&access, base), timeout))
}

/// Requests a channel that is missing from the guild's list: threads are never in it, hidden channels may not be.
async fn unlisted(
    cx: &ProbeContext<'_>,
    guild: u64,
    id: u64,
    others: &[Channel],
    judge: impl Fn(&Channel, &[Channel]) -> ChannelAccess,
) -> Result<ChannelAccess, ApiError> {
    let response: Result<Response<Channel>, _> = cx.ask(CHANNEL, id, &format!("channels/{id}")).await;
    Ok(match response {
        Ok(response) if response.value.guild_id.is_some_and(|of| of.0 != guild) => ChannelAccess::Gone,
        Ok(response) => judge(&response.value, others),
        Err(ApiError::NotFound { .. }) => ChannelAccess::Gone,
        Err(ApiError::Forbidden { .. }) => ChannelAccess::Known {
            kind: ChannelKind::Other,
            held: Permissions::NONE,
        },
        Err(error @ ApiError::TokenRefused { .. }) => return Err(error),
        Err(error) => ChannelAccess::Unknown(error.to_string()),
    })
}

/// Emits a hint on how to grant missing permissions, with a link that contains the application's id.
async fn advise(cx: &ProbeContext<'_>, key: &SourceKey, at: Timestamp, base: Permissions) {
    // It is only used for the hint, so a failed request is not reported.
    let application = cx.connection.application(&cx.meter).await;
    let application = application.ok().map(|id| id.to_string());
    if let Some(advice) = channels::advice(application.as_deref(), key.id(), base, NEEDED) {
        cx.problem(Problem::of_source(key, format!("{key}: {advice}")));
    }
    if let Some(id) = application {
        let fields = BTreeMap::from([("applicationId".to_owned(), id)]);
        cx.emit(key, at, Fact::Profile { fields });
    }
}

/// Requests the channels of a guild.
pub(super) async fn channels(cx: &ProbeContext<'_>, guild: u64) -> Result<Response<Rows<Channel>>, ApiError> {
    cx.ask(CHANNELS, guild, &format!("guilds/{guild}/channels")).await
}

const GUILD: &str = "guilds/{}";
const MEMBER: &str = "guilds/{}/members/{}";
const CHANNELS: &str = "guilds/{}/channels";
const CHANNEL: &str = "channels/{}";
