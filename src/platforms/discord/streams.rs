//! What counts as a stream in a guild. Discord has no streams of its own, so nothing does unless configured.

use std::collections::BTreeSet;

use super::StreamFrom;
use super::answer::ApiError;
use super::permissions::ChannelKind;
use super::probe::ProbeRun;
use super::rest::Response;
use super::wire::{Id, Rows, ScheduledEvent, StageInstance, VoiceState};
use crate::core::facet::Facet;
use crate::core::observation::Fact;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;

/// Maximum number of stages checked in a guild whose stage is not configured.
const STAGES: usize = 10;

/// Result of a complete check.
enum Seen {
    Live {
        id: String,
        started_at: Option<Timestamp>,
    },
    Nothing,
}

impl ProbeRun<'_> {
    /// Checks whether what counts as a stream is live in a guild.
    pub(super) async fn probe_stream(&self, id: u64, key: &SourceKey) {
        let response = match self.platform.options.stream_from {
            Some(StreamFrom::Stage) => self.stage(id).await,
            Some(StreamFrom::Event) => self.event(id).await,
            Some(StreamFrom::GoLive) => match self.guild_options(id).and_then(|guild| guild.stream_user) {
                Some(user) => self.go_live(id, user).await,
                // REST returns the voice state of one user only; the gateway sends those of all users.
                None => return,
            },
            None => return,
        };
        match response {
            Ok((at, Seen::Live { id, started_at })) => {
                let seen = Fact::StreamSeen {
                    stream_id: id,
                    started_at,
                };
                self.emit(key, at, seen);
            }
            Ok((at, Seen::Nothing)) => self.emit(key, at, Fact::StreamAbsent),
            Err(error) => self.fail_detail(key, Facet::Stream, &error),
        }
    }

    async fn stage(&self, guild: u64) -> Result<(Timestamp, Seen), ApiError> {
        let configured = self.guild_options(guild).and_then(|guild| guild.stream_channel);
        let mut unclassified = false;
        let (mut at, stages) = if let Some(stage) = configured {
            (self.now(), vec![stage])
        } else {
            let channels = self.channels(guild).await?;
            let rows = &channels.value;
            unclassified = !rows.unread.is_empty() || rows.read.iter().any(|row| row.kind().is_none());
            let stages = rows
                .read
                .iter()
                .filter(|channel| channel.kind() == Some(ChannelKind::Stage));
            // The order of the list and its repetitions must not decide which stages are checked.
            let stages: BTreeSet<_> = stages.map(|stage| stage.id.0).collect();
            (channels.at, stages.into_iter().take(STAGES).collect())
        };
        let mut oldest: Option<(Timestamp, Id)> = None;
        let mut failed = None;
        for stage in stages {
            let asked_at = self.now();
            let response: Result<Response<StageInstance>, _> = self
                .ask("stage-instances/{}", stage, &format!("stage-instances/{stage}"))
                .await;
            match response {
                // Of several live stages the oldest is the stream, as over the gateway, so that the order of the channels does not
                // decide.
                Ok(live) => {
                    if oldest.is_none_or(|(_, id)| live.value.id < id) {
                        oldest = Some((live.at, live.value.id));
                    }
                }
                Err(ApiError::NotFound { code: 10_067, .. }) => at = at.min(asked_at),
                Err(error @ ApiError::TokenRefused { .. }) => return Err(error),
                Err(error) => failed = Some(error),
            }
        }
        if let Some((at, id)) = oldest {
            let seen = Seen::Live {
                id: id.to_string(),
                started_at: Some(created_at(id)),
            };
            return Ok((at, seen));
        }
        if let Some(error) = failed {
            return Err(error);
        }
        if unclassified {
            // One of them may be a live stage.
            return Err(ApiError::Unreadable {
                reason: "a channel of the guild or its type cannot be read, so not every stage was checked"
                    .to_owned(),
            });
        }
        Ok((at, Seen::Nothing))
    }

    async fn event(&self, guild: u64) -> Result<(Timestamp, Seen), ApiError> {
        let path = format!("guilds/{guild}/scheduled-events?with_user_count=true");
        let response: Response<Rows<ScheduledEvent>> =
            self.ask("guilds/{}/scheduled-events", guild, &path).await?;
        let events = &response.value;
        let active = events.read.iter().filter(|event| event.is_active());
        let seen = active
            .min_by_key(|event| event.id)
            .map_or(Seen::Nothing, |event| Seen::Live {
                id: event.id.to_string(),
                // The scheduled start is a plan, not a fact.
                started_at: None,
            });
        if matches!(seen, Seen::Nothing) && !events.unread.is_empty() {
            return Err(ApiError::Unreadable {
                reason: "a scheduled event cannot be read, so whether one is active is open".to_owned(),
            });
        }
        Ok((response.at, seen))
    }

    async fn go_live(&self, guild: u64, user: u64) -> Result<(Timestamp, Seen), ApiError> {
        let path = format!("guilds/{guild}/voice-states/{user}");
        let asked_at = self.now();
        let response: Result<Response<VoiceState>, _> =
            self.ask("guilds/{}/voice-states/{}", guild, &path).await;
        let channel = self.guild_options(guild).and_then(|guild| guild.stream_channel);
        match response {
            Ok(response) => {
                let here = channel.is_none_or(|channel| response.value.channel_id == Some(Id(channel)));
                let seen = if response.value.streams() && here {
                    Seen::Live {
                        id: response.value.stream_id(),
                        started_at: None,
                    }
                } else {
                    Seen::Nothing
                };
                Ok((response.at, seen))
            }
            Err(ApiError::NotFound { code: 10_065, .. }) => Ok((asked_at, Seen::Nothing)),
            Err(error) => Err(error),
        }
    }
}

/// Returns when the object with this id was created; every Discord id contains its time.
pub(super) fn created_at(id: Id) -> Timestamp {
    const EPOCH: i64 = 1_420_070_400_000;
    Timestamp::from_millis(EPOCH.saturating_add(i64::try_from(id.0 >> 22).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snowflake_contains_its_creation_time() {
        // The example in Discord's documentation.
        assert_eq!(
            created_at(Id(175_928_847_299_117_063)).to_string(),
            "2016-04-30T11:18:25.796Z"
        );
    }
}
