//! Finds the conduit to use, or creates one.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::super::super::TwitchPlatform;
use super::super::machine::Failure;
use super::rest::{self, ConduitInfo, Made};
use crate::core::code::Code;
use crate::core::observation::LinkState;
use crate::files::{self, Durability, FileAccess};
use crate::platforms::PlatformError;

/// Stores which conduit is ours across restarts.
pub trait ConduitMemory: Send + Sync {
    /// Returns the id of the conduit that was created for this application.
    fn recall(&self, client_id: &str) -> Option<String>;

    /// Replaces the id.
    fn keep(&self, client_id: &str, id: &str);
}

/// Stores the id in a file.
#[derive(Debug)]
pub struct ConduitFile {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    client_id: String,
    conduit_id: String,
}

impl ConduitFile {
    /// Uses the file at `path`; its directory must exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl ConduitMemory for ConduitFile {
    fn recall(&self, client_id: &str) -> Option<String> {
        let bytes = files::read_input(&self.path, files::SMALL).ok()?;
        let stored: Stored = serde_json::from_slice(&bytes).ok()?;
        (stored.client_id == client_id).then_some(stored.conduit_id)
    }

    fn keep(&self, client_id: &str, id: &str) {
        let stored = Stored {
            client_id: client_id.to_owned(),
            conduit_id: id.to_owned(),
        };
        let written = files::write(&self.path, FileAccess::Owner, Durability::Durable, |file| {
            file.write_all(serde_json::to_string(&stored)?.as_bytes())
        });
        if let Err(error) = written {
            warn!(
                error = &error as &dyn std::error::Error,
                path = %self.path.display(),
                "The id of the conduit `{id}` cannot be stored; the next start would create another one. Set twitch.conduit_id"
            );
        }
    }
}

/// How conduits are used.
#[derive(Clone)]
pub struct ConduitOptions {
    /// The id of an existing conduit; otherwise the stored one, or a new one.
    pub id: Option<String>,
    /// The number of its shards.
    pub shard_count: usize,
    /// The shards that this process receives messages for. The process with shard 0 keeps the subscriptions in order.
    pub own_shards: Vec<usize>,
    /// Stores the id across restarts.
    pub memory: Option<Arc<dyn ConduitMemory>>,
}

impl Default for ConduitOptions {
    fn default() -> Self {
        Self {
            id: None,
            shard_count: 1,
            own_shards: vec![0],
            memory: None,
        }
    }
}

impl ConduitOptions {
    /// Returns whether this process keeps the subscriptions in order.
    pub(in super::super) fn keeps_subscriptions(&self) -> bool {
        self.own_shards.contains(&0)
    }

    /// Returns whether this process receives all messages.
    pub(super) fn has_all_shards(&self) -> bool {
        (0..self.shard_count).all(|shard| self.own_shards.contains(&shard))
    }
}

fn needs_attention(reason: String) -> Failure {
    Failure {
        code: Code::TwitchConduit,
        reason,
        refused: true,
    }
}

pub(super) fn failure_of(error: &PlatformError) -> Failure {
    Failure {
        code: error.code(),
        reason: error.to_string(),
        refused: matches!(error.link_state(), LinkState::Refused { .. }),
    }
}

/// Finds the conduit by its configured or stored id, or creates one when there is none. A conduit of which only Twitch has a
/// record is never taken: it may belong to another program with the same application.
pub(super) async fn establish(
    twitch: &TwitchPlatform,
    options: &ConduitOptions,
) -> Result<ConduitInfo, Failure> {
    let client_id = twitch.options.client_id.clone().unwrap_or_default();
    let listed = rest::list(twitch).await.map_err(|error| failure_of(&error))?;
    let stored = || {
        options
            .memory
            .as_ref()
            .and_then(|memory| memory.recall(&client_id))
    };
    let wanted = options.id.clone().or_else(stored);
    let found = listed.iter().find(|conduit| Some(&conduit.id) == wanted.as_ref());
    let ids = || {
        listed
            .iter()
            .map(|conduit| conduit.id.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    match (found, &options.id) {
        (Some(found), _) if found.shard_count == options.shard_count => Ok(found.clone()),
        // Only one process changes it.
        (Some(found), _) if !options.keeps_subscriptions() => Ok(found.clone()),
        (Some(found), _) => {
            info!(
                conduit = found.id,
                from = found.shard_count,
                to = options.shard_count,
                "Changing the number of shards"
            );
            make(twitch, Some(&found.id), options, &ids()).await
        }
        (None, Some(id)) => Err(needs_attention(format!(
            "the conduit `{id}` of twitch.conduit_id does not exist; existing ones: {}. Correct the key, or remove it to use a new \
             conduit",
            if listed.is_empty() {
                "none".to_owned()
            } else {
                ids()
            },
        ))),
        (None, None) => {
            let made = make(twitch, None, options, &ids()).await?;
            info!(conduit = made.id, shards = made.shard_count, "Created a conduit");
            if let Some(memory) = &options.memory {
                memory.keep(&client_id, &made.id);
            }
            Ok(made)
        }
    }
}

async fn make(
    twitch: &TwitchPlatform,
    id: Option<&str>,
    options: &ConduitOptions,
    existing: &str,
) -> Result<ConduitInfo, Failure> {
    match rest::make(twitch, id, options.shard_count).await {
        Ok(Made::Done(made)) => Ok(made),
        Ok(Made::LimitReached(reason)) => Err(needs_attention(format!(
            "no further conduit can be created ({reason}); existing ones: {existing}. Delete one that is not used, or set \
             twitch.conduit_id"
        ))),
        Err(error) => Err(failure_of(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_conduit_belongs_to_its_application() {
        let dir = tempfile::tempdir().unwrap();
        let memory = ConduitFile::new(dir.path().join("conduit"));
        assert_eq!(memory.recall("app"), None);
        memory.keep("app", "c0ffee");
        assert_eq!(memory.recall("app").as_deref(), Some("c0ffee"));
        assert_eq!(memory.recall("another"), None);
        std::fs::write(&memory.path, "{").unwrap();
        assert_eq!(memory.recall("app"), None);
    }
}
