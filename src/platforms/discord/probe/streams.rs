//! What counts as a stream in a guild. Discord has no streams of its own, so nothing does unless configured.

use std::collections::BTreeSet;

use super::super::StreamFrom;
use super::super::answer::ApiError;
use super::super::permissions::ChannelKind;
use super::super::rest::Response;
use super::super::wire::{Id, Rows, ScheduledEvent, StageInstance};
use super::channel_permissions::channels;
use super::context::ProbeContext;
use crate::core::facet::Facet;
use crate::core::observation::Fact;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;

/// Maximum number of stages checked in a guild.
const STAGES: usize = 10;

/// Result of a complete check.
enum StreamState {
    Live {
        id: String,
        started_at: Option<Timestamp>,
    },
    Nothing,
}

/// Checks whether what counts as a stream is live in a guild.
pub(super) async fn probe(cx: &ProbeContext<'_>, id: u64, key: &SourceKey) {
    let response = match cx.platform.options.stream_from {
        Some(StreamFrom::Stage) => stage(cx, id).await,
        Some(StreamFrom::Event) => event(cx, id).await,
        // REST returns the voice state of one user only; the gateway sends those of all users.
        Some(StreamFrom::GoLive) | None => return,
    };
    match response {
        Ok((at, StreamState::Live { id, started_at })) => {
            let seen = Fact::StreamSeen {
                stream_id: id,
                started_at,
            };
            cx.emit(key, at, seen);
        }
        Ok((at, StreamState::Nothing)) => cx.emit(key, at, Fact::StreamAbsent),
        Err(error) => cx.fail_detail(key, Facet::Stream, &error),
    }
}

async fn stage(cx: &ProbeContext<'_>, guild: u64) -> Result<(Timestamp, StreamState), ApiError> {
    let channels = channels(cx, guild).await?;
    let rows = &channels.value;
    let unclassified = !rows.unread.is_empty() || rows.read.iter().any(|row| row.kind().is_none());
    let stages = rows
        .read
        .iter()
        .filter(|channel| channel.kind() == Some(ChannelKind::Stage));
    // The order of the list and its repetitions must not decide which stages are checked.
    let stages: BTreeSet<_> = stages.map(|stage| stage.id.0).collect();
    let mut at = channels.at;
    let mut oldest: Option<(Timestamp, Id)> = None;
    let mut failed = None;
    for stage in stages.into_iter().take(STAGES) {
        let asked_at = cx.now();
        let response: Result<Response<StageInstance>, _> = cx
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
        let seen = StreamState::Live {
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
    Ok((at, StreamState::Nothing))
}

async fn event(cx: &ProbeContext<'_>, guild: u64) -> Result<(Timestamp, StreamState), ApiError> {
    let path = format!("guilds/{guild}/scheduled-events?with_user_count=true");
    let response: Response<Rows<ScheduledEvent>> = cx.ask("guilds/{}/scheduled-events", guild, &path).await?;
    let events = &response.value;
    let active = events.read.iter().filter(|event| event.is_active());
    let seen = active
        .min_by_key(|event| event.id)
        .map_or(StreamState::Nothing, |event| StreamState::Live {
            id: event.id.to_string(),
            // The scheduled start is a plan, not a fact.
            started_at: None,
        });
    if matches!(seen, StreamState::Nothing) && !events.unread.is_empty() {
        return Err(ApiError::Unreadable {
            reason: "a scheduled event cannot be read, so whether one is active is open".to_owned(),
        });
    }
    Ok((response.at, seen))
}

/// Returns when the object with this id was created; every Discord id contains its time.
pub(in super::super) fn created_at(id: Id) -> Timestamp {
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
