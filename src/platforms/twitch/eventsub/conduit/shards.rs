//! What Twitch's answers say about shards. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::messages::Transport;
use super::rest::Updated;
use crate::platforms::kit::lenient::{or_default, text};

/// The status of a shard that receives messages.
const ENABLED: &str = "enabled";

/// A shard as Twitch describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct ShardInfo {
    #[serde(deserialize_with = "text")]
    pub(super) id: String,
    #[serde(deserialize_with = "text")]
    pub(super) status: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) transport: Transport,
}

/// Returns those of the `wanted` shards that an update did not assign to `session`, with the reason. Only a row that names the
/// shard, this session and the status `enabled` is a success.
pub(super) fn failed(updated: &Updated, session: &str, wanted: &[usize]) -> BTreeMap<usize, String> {
    let mut failed = BTreeMap::new();
    for shard in wanted {
        let id = shard.to_string();
        let row = updated.data.read.iter().find(|row| row.id == id);
        let error = updated.errors.read.iter().find(|error| error.id == id);
        let reason = match (row, error) {
            (_, Some(error)) if error.code.is_empty() => error.message.clone(),
            (_, Some(error)) => format!("{} ({})", error.message, error.code),
            (Some(row), None) if row.status != ENABLED => format!("its status is {}", row.status),
            (Some(row), None) if row.transport.session_id != session => "it has another session".to_owned(),
            (Some(_), None) => continue,
            (None, None) => "the answer does not name it".to_owned(),
        };
        failed.insert(*shard, reason);
    }
    failed
}

/// The shards of a conduit that matter to this process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// Our own that are not assigned to our session.
    pub(super) lost: Vec<usize>,
    /// Those of them that another session receives.
    pub(super) elsewhere: Vec<usize>,
    /// All that receive nothing, ours included.
    pub(super) disabled: Vec<usize>,
}

impl Health {
    /// Judges Twitch's list. Shards above the count may stay listed after it was reduced, and do not count. A shard that is not
    /// listed receives nothing.
    pub(super) fn of(listed: &[ShardInfo], shard_count: usize, own: &[usize], session: Option<&str>) -> Self {
        let by_id: BTreeMap<usize, &ShardInfo> = listed
            .iter()
            .filter_map(|shard| Some((shard.id.parse().ok()?, shard)))
            .collect();
        let is_enabled = |id: &usize| by_id.get(id).is_some_and(|shard| shard.status == ENABLED);
        let is_ours = |id: &usize| {
            let known = by_id.get(id).map(|shard| shard.transport.session_id.as_str());
            is_enabled(id) && known == session
        };
        let lost: Vec<_> = own.iter().copied().filter(|id| !is_ours(id)).collect();
        Self {
            elsewhere: lost.iter().copied().filter(is_enabled).collect(),
            lost,
            disabled: (0..shard_count).filter(|id| !is_enabled(id)).collect(),
        }
    }

    /// Returns whether every message reaches a shard: Twitch tries one other shard when one is disabled, and drops the message
    /// when that one is disabled too.
    pub(super) fn loses_nothing(&self, shard_count: usize) -> bool {
        let is_received = self.disabled.is_empty() || (self.disabled.len() == 1 && shard_count > 1);
        is_received && self.elsewhere.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn updated(body: &str) -> Updated {
        serde_json::from_str(body).unwrap()
    }

    #[test]
    fn only_our_enabled_session_in_the_data_is_a_success() {
        let row = |status: &str, session: &str| {
            format!(r#"{{"id":"0","status":"{status}","transport":{{"session_id":"{session}"}}}}"#)
        };
        for (body, expected) in [
            (format!(r#"{{"data":[{}]}}"#, row("enabled", "S")), None),
            (
                format!(r#"{{"data":[{}]}}"#, row("websocket_disconnected", "S")),
                Some("its status is websocket_disconnected"),
            ),
            (
                format!(r#"{{"data":[{}]}}"#, row("enabled", "other")),
                Some("it has another session"),
            ),
            (r#"{"data":[]}"#.to_owned(), Some("the answer does not name it")),
            ("{}".to_owned(), Some("the answer does not name it")),
            (
                r#"{"data":[],"errors":[{"id":"0","message":"outside","code":"invalid_parameter"}]}"#
                    .to_owned(),
                Some("outside (invalid_parameter)"),
            ),
            (
                format!(
                    r#"{{"data":[{}],"errors":[{{"id":"0","message":"both"}}]}}"#,
                    row("enabled", "S")
                ),
                Some("both"),
            ),
        ] {
            let failed = failed(&updated(&body), "S", &[0]);
            assert_eq!(failed.get(&0).map(String::as_str), expected, "{body}");
        }
    }

    #[test]
    fn shards_above_the_count_and_sessions_of_others_do_not_count() {
        let shard = |id: &str, status: &str, session: &str| ShardInfo {
            id: id.to_owned(),
            status: status.to_owned(),
            transport: Transport {
                session_id: session.to_owned(),
                ..Transport::default()
            },
        };
        let listed = [
            shard("0", "enabled", "S"),
            shard("1", "enabled", "theirs"),
            shard("2", "websocket_disconnected", "S"),
            shard("7", "enabled", "ghost"),
        ];
        let health = Health::of(&listed, 4, &[0, 1, 2], Some("S"));
        assert_eq!(
            (health.lost.as_slice(), health.disabled.as_slice()),
            (&[1, 2][..], &[2, 3][..])
        );
        assert_eq!(health.elsewhere, [1]);
        for (disabled, count, nothing_lost) in [
            (vec![], 1, true),
            (vec![0], 1, false),
            (vec![2], 3, true),
            (vec![1, 2], 3, false),
        ] {
            let health = Health {
                disabled,
                ..Health::default()
            };
            assert_eq!(health.loses_nothing(count), nothing_lost, "{health:?} of {count}");
        }
    }
}
