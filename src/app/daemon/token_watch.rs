//! Compares the token store with the tokens in use, so that a login takes effect at once in a running daemon, and again on
//! SIGHUP.

use std::sync::Arc;

use tokio::sync::watch;
use tracing::warn;

use crate::lifecycle::Stop;
use crate::watch::account_checks::{TOKEN_CHECK_INTERVAL, TokenWatch};
use crate::watch::engine::Engine;

/// Watches the token store until the stop.
pub(super) async fn run(
    engine: Arc<Engine>,
    mut watch: TokenWatch,
    mut reloads: watch::Receiver<u64>,
    stop: Stop,
) {
    let mut unreadable = false;
    loop {
        let asked = tokio::select! {
            () = stop.requested() => return,
            Ok(()) = reloads.changed() => true,
            () = tokio::time::sleep(TOKEN_CHECK_INTERVAL) => false,
        };
        match watch.changed().await {
            Ok(changed) => {
                unreadable = false;
                let checked = if asked { watch.all() } else { changed };
                if !checked.is_empty() {
                    engine.tokens_changed(&checked);
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut unreadable, true) {
                    warn!(
                        "The token store cannot be read, so changed tokens go unnoticed: {error}; {}",
                        error.hint()
                    );
                }
            }
        }
    }
}
