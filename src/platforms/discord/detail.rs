//! The part of a look that takes several requests a guild: permissions in the channels that are configured.

use std::collections::BTreeMap;

use super::answer::ApiError;
use super::channels::{self, Access};
use super::facts;
use super::look::Look;
use super::permissions::{ChannelKind, NEEDED, Permissions};
use super::rest::Told;
use super::wire::{Channel, FullGuild, GuildMember};
use crate::core::facet::Facet;
use crate::core::observation::Fact;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;

impl Look<'_> {
    /// Computes the permissions in the configured channels of a guild.
    pub(super) async fn look_at_channels(&self, id: u64, key: &SourceKey) {
        match self.channel_report(id).await {
            Ok((at, base, report, timed_out)) => {
                for gone in &report.gone {
                    let message = format!("channel {gone} is configured but does not exist");
                    self.tell(key, at, facts::problem("discord.channel_not_found", &message));
                    self.complain(format!("{key}: {message}"));
                }
                for lacking in &report.lacking {
                    self.tell(key, at, facts::problem("discord.missing_permissions", lacking));
                    self.complain(format!("{key}: {lacking}"));
                }
                if timed_out {
                    self.complain(format!(
                        "{key}: the bot is in a timeout, which no invitation ends"
                    ));
                } else if NEEDED.without(base) != Permissions::NONE {
                    self.advise(key, at, base).await;
                }
                if let Some(grants) = report.grants {
                    let scope = report.scope.as_deref().unwrap_or("guild");
                    self.tell_permissions(key, at, grants, scope, Some(report.overview));
                }
            }
            Err(error) => self.fail_detail(key, Facet::Permissions, &error),
        }
    }

    /// Returns when it was so, what the bot may do in the guild as a whole and in its channels, and whether it is in a timeout.
    async fn channel_report(
        &self,
        id: u64,
    ) -> Result<(Timestamp, Permissions, channels::Report, bool), ApiError> {
        let me = self.me().await?;
        let guild: Told<FullGuild> = self.ask(GUILD, id, &format!("guilds/{id}")).await?;
        let member: Told<GuildMember> = self.ask(MEMBER, id, &format!("guilds/{id}/members/{me}")).await?;
        let listed = self.channels(id).await?;
        let at = listed.at;
        let rules = guild.value.rules();
        let subject = member.value.subject(me.0, at);
        let mut access = BTreeMap::new();
        for channel in self.channels_of(id) {
            let told = match listed.value.iter().find(|listed| listed.id.0 == *channel) {
                Some(found) => channels::access(&rules, &subject, found, &listed.value),
                None => {
                    self.unlisted(id, *channel, &listed.value, |found, others| {
                        channels::access(&rules, &subject, found, others)
                    })
                    .await?
                }
            };
            access.insert(*channel, told);
        }
        let base = rules.in_guild(&subject);
        Ok((at, base, channels::report(&access, base), subject.timed_out))
    }

    /// Finds out about a channel that the guild's list leaves out: threads are never in it, hidden channels may not be.
    async fn unlisted(
        &self,
        guild: u64,
        id: u64,
        others: &[Channel],
        judge: impl Fn(&Channel, &[Channel]) -> Access,
    ) -> Result<Access, ApiError> {
        let told: Result<Told<Channel>, _> = self.ask(CHANNEL, id, &format!("channels/{id}")).await;
        Ok(match told {
            Ok(told) if told.value.guild_id.is_some_and(|of| of.0 != guild) => Access::Gone,
            Ok(told) => judge(&told.value, others),
            Err(ApiError::NotFound { .. }) => Access::Gone,
            Err(ApiError::Forbidden { .. }) => Access::Known {
                kind: ChannelKind::Other,
                held: Permissions::NONE,
            },
            Err(error @ ApiError::TokenRefused { .. }) => return Err(error),
            Err(error) => Access::Unknown(error.to_string()),
        })
    }

    /// Tells how the bot gets what it lacks, with a link that names the application.
    async fn advise(&self, key: &SourceKey, at: Timestamp, base: Permissions) {
        // It only serves advice, so a failure is none.
        let application = self.connection.application(&self.tally).await;
        let application = application.ok().map(|id| id.to_string());
        if let Some(advice) = channels::advice(application.as_deref(), key.id(), base, NEEDED) {
            self.complain(format!("{key}: {advice}"));
        }
        if let Some(id) = application {
            let fields = BTreeMap::from([("applicationId".to_owned(), id)]);
            self.tell(key, at, Fact::Profile { fields });
        }
    }

    /// Asks for the channels of a guild.
    pub(super) async fn channels(&self, guild: u64) -> Result<Told<Vec<Channel>>, ApiError> {
        self.ask(CHANNELS, guild, &format!("guilds/{guild}/channels"))
            .await
    }
}

const GUILD: &str = "guilds/{}";
const MEMBER: &str = "guilds/{}/members/{}";
const CHANNELS: &str = "guilds/{}/channels";
const CHANNEL: &str = "channels/{}";
