//! What counts as a stream in a guild. Discord has no such thing, so nothing does unless the configuration says so.

use super::StreamFrom;
use super::answer::ApiError;
use super::look::Look;
use super::permissions::ChannelKind;
use super::rest::Told;
use super::wire::{Id, ScheduledEvent, StageInstance, VoiceState};
use crate::core::facet::Facet;
use crate::core::observation::Fact;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;

/// Stages looked at in a guild whose stage is not named in the configuration.
const STAGES: usize = 10;

/// What a complete look found.
enum Seen {
    Live {
        id: String,
        started_at: Option<Timestamp>,
    },
    Nothing,
}

impl Look<'_> {
    /// Looks whether what counts as a stream is going on in a guild.
    pub(super) async fn look_at_stream(&self, id: u64, key: &SourceKey) {
        let told = match self.platform.options.stream_from {
            Some(StreamFrom::Stage) => self.stage(id).await,
            Some(StreamFrom::Event) => self.event(id).await,
            Some(StreamFrom::GoLive) => match self.guild_options(id).and_then(|guild| guild.stream_user) {
                Some(user) => self.go_live(id, user).await,
                // Over REST one can only ask about one user; the gateway tells about all.
                None => return,
            },
            None => return,
        };
        match told {
            Ok((at, Seen::Live { id, started_at })) => {
                let seen = Fact::StreamSeen {
                    stream_id: id,
                    started_at,
                };
                self.tell(key, at, seen);
            }
            Ok((at, Seen::Nothing)) => self.tell(key, at, Fact::StreamAbsent),
            Err(error) => self.fail_detail(key, Facet::Stream, &error),
        }
    }

    async fn stage(&self, guild: u64) -> Result<(Timestamp, Seen), ApiError> {
        let configured = self.guild_options(guild).and_then(|guild| guild.stream_channel);
        let (mut at, stages) = if let Some(stage) = configured {
            (self.now(), vec![stage])
        } else {
            let channels = self.channels(guild).await?;
            let stages = channels
                .value
                .iter()
                .filter(|channel| channel.kind() == ChannelKind::Stage);
            (channels.at, stages.map(|stage| stage.id.0).take(STAGES).collect())
        };
        for stage in stages {
            let told: Result<Told<StageInstance>, _> = self
                .ask("stage-instances/{}", stage, &format!("stage-instances/{stage}"))
                .await;
            match told {
                Ok(live) => {
                    let seen = Seen::Live {
                        id: live.value.id.to_string(),
                        started_at: Some(created_at(live.value.id)),
                    };
                    return Ok((live.at, seen));
                }
                Err(ApiError::NotFound { code: 10_067, .. }) => at = self.now(),
                Err(error) => return Err(error),
            }
        }
        Ok((at, Seen::Nothing))
    }

    async fn event(&self, guild: u64) -> Result<(Timestamp, Seen), ApiError> {
        let path = format!("guilds/{guild}/scheduled-events?with_user_count=true");
        let told: Told<Vec<ScheduledEvent>> = self.ask("guilds/{}/scheduled-events", guild, &path).await?;
        let active = told.value.iter().filter(|event| event.is_active());
        let seen = active
            .min_by_key(|event| event.id)
            .map_or(Seen::Nothing, |event| Seen::Live {
                id: event.id.to_string(),
                // The scheduled start is a plan, not a fact.
                started_at: None,
            });
        Ok((told.at, seen))
    }

    async fn go_live(&self, guild: u64, user: u64) -> Result<(Timestamp, Seen), ApiError> {
        let path = format!("guilds/{guild}/voice-states/{user}");
        let told: Result<Told<VoiceState>, _> = self.ask("guilds/{}/voice-states/{}", guild, &path).await;
        let channel = self.guild_options(guild).and_then(|guild| guild.stream_channel);
        match told {
            Ok(told) => {
                let here = channel.is_none_or(|channel| told.value.channel_id == Some(Id(channel)));
                let seen = if told.value.streams() && here {
                    Seen::Live {
                        id: told.value.stream_id(),
                        started_at: None,
                    }
                } else {
                    Seen::Nothing
                };
                Ok((told.at, seen))
            }
            Err(ApiError::NotFound { code: 10_065, .. }) => Ok((self.now(), Seen::Nothing)),
            Err(error) => Err(error),
        }
    }
}

/// Returns when the thing with this id was created; every id of Discord carries it.
pub(super) fn created_at(id: Id) -> Timestamp {
    const EPOCH: i64 = 1_420_070_400_000;
    Timestamp::from_millis(EPOCH.saturating_add(i64::try_from(id.0 >> 22).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_when_it_was_made() {
        // The example of Discord's documentation.
        assert_eq!(
            created_at(Id(175_928_847_299_117_063)).to_string(),
            "2016-04-30T11:18:25.796Z"
        );
    }
}
