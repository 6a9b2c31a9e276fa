//! A conduit's own calls to Twitch, which run concurrently with its loop.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::super::machine::Failure;
use super::rest::{self, ConduitInfo, Updated};
use super::setup::{self, ConduitOptions};
use super::shards::ShardInfo;
use crate::platforms::PlatformError;
use crate::platforms::twitch::TwitchPlatform;

/// Maximum number of shards in one update.
const SHARDS_PER_UPDATE: usize = 100;

/// Calls in progress.
pub(super) struct ConduitCalls {
    twitch: Arc<TwitchPlatform>,
    running: FuturesUnordered<BoxFuture<'static, Finished>>,
}

/// A completed call.
pub(super) enum Finished {
    Established(Result<ConduitInfo, Failure>),
    Attached {
        conduit: String,
        session: String,
        shards: Vec<usize>,
        updated: Result<Option<Updated>, PlatformError>,
    },
    Checked {
        conduit: String,
        listed: Result<Option<Vec<ShardInfo>>, PlatformError>,
    },
}

impl ConduitCalls {
    pub(super) fn new(twitch: Arc<TwitchPlatform>) -> Self {
        Self {
            twitch,
            running: FuturesUnordered::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    pub(super) async fn next(&mut self) -> Option<Finished> {
        self.running.next().await
    }

    pub(super) fn establish(&self, options: ConduitOptions) {
        let twitch = Arc::clone(&self.twitch);
        self.running.push(Box::pin(async move {
            Finished::Established(setup::establish(&twitch, &options).await)
        }));
    }

    /// Assigns shards to a session. The updates follow each other; a failure ends them.
    pub(super) fn attach(&self, conduit: String, session: String, shards: Vec<usize>) {
        let twitch = Arc::clone(&self.twitch);
        self.running.push(Box::pin(async move {
            let updated = async {
                let mut all = Updated::default();
                for chunk in shards.chunks(SHARDS_PER_UPDATE) {
                    let Some(one) = rest::attach(&twitch, &conduit, &session, chunk).await? else {
                        return Ok(None);
                    };
                    all.data.read.extend(one.data.read);
                    all.errors.read.extend(one.errors.read);
                }
                Ok(Some(all))
            };
            let updated = updated.await;
            Finished::Attached {
                conduit,
                session,
                shards,
                updated,
            }
        }));
    }

    /// Lists the shards.
    pub(super) fn check(&self, conduit: String) {
        let twitch = Arc::clone(&self.twitch);
        self.running.push(Box::pin(async move {
            let listed = rest::shards(&twitch, &conduit).await;
            Finished::Checked { conduit, listed }
        }));
    }
}
