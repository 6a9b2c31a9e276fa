//! A connection's calls to Twitch, which run concurrently with its loop.

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, FuturesUnordered, StreamExt};
use tokio::sync::oneshot;

use super::super::kinds::Subscription;
use super::super::machine::{Failure, SocketId};
use super::super::messages::SubscriptionInfo;
use super::super::rest::{self, Bill, Created};
use super::super::socket::{self, Frame};
use super::Context;
use crate::core::observation::{Identity, LinkState};
use crate::platforms::PlatformError;
use crate::platforms::kit::meter::Meter;

/// Timeout for opening a socket.
const OPEN_TIMEOUT: Duration = Duration::from_secs(12);

/// Calls in progress.
pub(super) struct Calls {
    cx: Context,
    identity: Identity,
    running: FuturesUnordered<BoxFuture<'static, Completed>>,
}

/// A completed call.
pub(super) enum Completed {
    Opened(
        SocketId,
        Result<BoxStream<'static, (SocketId, Frame)>, (Failure, bool)>,
        oneshot::Sender<()>,
    ),
    Created(String, Subscription, Created),
    Listed {
        session: Option<String>,
        without_earlier: bool,
        listed: Result<(Vec<SubscriptionInfo>, Bill), PlatformError>,
    },
    Deleted(Result<(), PlatformError>),
}

impl Calls {
    pub(super) fn new(cx: Context, identity: Identity) -> Self {
        let running = FuturesUnordered::new();
        Self {
            cx,
            identity,
            running,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    pub(super) async fn next(&mut self) -> Option<Completed> {
        self.running.next().await
    }

    /// Opens a socket to `url`, or to Twitch's usual address.
    pub(super) fn open(&self, id: SocketId, url: Option<String>) {
        let (cx, identity) = (self.cx.clone(), self.identity.clone());
        let (close, closed) = oneshot::channel();
        self.running.push(Box::pin(async move {
            let opened = async {
                let url = if let Some(url) = url {
                    url
                } else {
                    // A session is lost if it has no subscription within ten seconds, so the token is obtained first.
                    let access = cx.twitch.auth.access(&identity, &Meter::silent()).await;
                    access.map_err(|error| not_authorized(&error))?;
                    cx.twitch.options.eventsub_ws_url.to_string()
                };
                let socket = socket::open(&url, OPEN_TIMEOUT, cx.twitch.helix.http.tap()).await?;
                Ok(socket::frames(id, socket, closed))
            };
            Completed::Opened(id, opened.await, close)
        }));
    }

    pub(super) fn create(&self, session: String, subscription: Subscription) {
        let (cx, identity) = (self.cx.clone(), self.identity.clone());
        self.running.push(Box::pin(async move {
            let created = rest::create(&cx.twitch, &identity, &session, &subscription).await;
            Completed::Created(session, subscription, created)
        }));
    }

    pub(super) fn delete(&self, id: String) {
        let (cx, identity) = (self.cx.clone(), self.identity.clone());
        self.running.push(Box::pin(async move {
            Completed::Deleted(rest::delete(&cx.twitch, &identity, &id).await)
        }));
    }

    pub(super) fn list(&self, session: Option<String>, without_earlier: bool) {
        let (cx, identity) = (self.cx.clone(), self.identity.clone());
        self.running.push(Box::pin(async move {
            let listed = rest::list(&cx.twitch, &identity).await;
            Completed::Listed {
                session,
                without_earlier,
                listed,
            }
        }));
    }
}

fn not_authorized(error: &PlatformError) -> (Failure, bool) {
    let refused = matches!(error.link_state(), LinkState::Refused { .. });
    let failure = Failure {
        code: error.code(),
        reason: error.error_info().message,
        refused,
    };
    (failure, refused)
}
