//! Servers other than our simulator's, and an adapter that is pointed at one.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use bitbrat::clock::{Chance, Clock as _, SystemClock};
use bitbrat::core::observation::Identity;
use bitbrat::http::{Http, HttpOptions};
use bitbrat::platforms::twitch::{TwitchOptions, TwitchPlatform};
use bitbrat::tokens::{MemoryTokenStore, StoredToken};
use tokio_util::task::AbortOnDropHandle;

use super::listener_harness::own;
use super::put_token;

/// Serves `app` on a free port until the handle is dropped.
pub(super) async fn serve(app: Router) -> (SocketAddr, AbortOnDropHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = own(async move { axum::serve(listener, app).await.unwrap() });
    (address, server)
}

/// An adapter on the real clock, with the token `access` for each of `identities`.
pub(super) async fn adapter(
    options: TwitchOptions,
    access: &str,
    identities: &[Identity],
) -> Arc<TwitchPlatform> {
    let store = Arc::new(MemoryTokenStore::default());
    for identity in identities {
        let token = StoredToken::unproven(access.to_owned(), SystemClock.now());
        put_token(store.as_ref(), identity, Some(token)).await;
    }
    let clock = Arc::new(SystemClock);
    let http = Http::new(HttpOptions::default(), clock.clone());
    Arc::new(TwitchPlatform::new(
        options,
        store,
        http,
        clock,
        Chance::seeded(1),
    ))
}
