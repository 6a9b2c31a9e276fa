//! The time limit of each check, without interrupting a refresh: a one-time refresh token whose answer is not received is lost.

use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use parking_lot::Mutex;

use crate::cli::context::Context;

/// How long each check may take. They run at the same time, and start and output take the rest of three seconds.
pub(super) const LIMIT: Duration = Duration::from_millis(2_200);
/// How long the lookup of ids may take that are not known yet. The checks wait for it, so it is a part of the same three seconds.
pub(super) const NAMES_LIMIT: Duration = Duration::from_millis(500);
/// How long a refresh that was sent is waited for. The timeout of its request is shorter.
const REFRESH_LIMIT: Duration = Duration::from_secs(30);

/// Checks that were not completed in time.
#[derive(Default)]
pub(super) struct Limited<'a>(Mutex<Vec<BoxFuture<'a, ()>>>);

impl<'a> Limited<'a> {
    /// Runs `check`; returns `None` if it takes longer than the limit. It is kept then, because it may be refreshing a token.
    pub(super) async fn run<T: 'a>(&self, check: impl Future<Output = T> + Send + 'a) -> Option<T> {
        self.within(LIMIT, check).await
    }

    /// As [`Limited::run`], with another limit.
    pub(super) async fn within<T: 'a>(
        &self,
        limit: Duration,
        check: impl Future<Output = T> + Send + 'a,
    ) -> Option<T> {
        let mut check = check.boxed();
        let done = tokio::time::timeout(limit, &mut check).await.ok();
        if done.is_none() {
            self.0.lock().push(check.map(drop).boxed());
        }
        done
    }

    /// Completes the refreshes that were begun. The lock of an account is held until its refresh has ended, and is kept here so
    /// that no other check begins one.
    pub(super) async fn finish_refreshes(self, cx: &Context) {
        let mut unfinished: FuturesUnordered<_> = self.0.into_inner().into_iter().collect();
        if unfinished.is_empty() {
            return;
        }
        let ended = async {
            let tokens = cx.app.tokens();
            let mut locks = Vec::new();
            for identity in tokens.identities().await.unwrap_or_default() {
                locks.extend(tokens.lock(&identity).await.ok());
            }
            locks
        };
        let all = async { while unfinished.next().await.is_some() {} };
        let done = async {
            tokio::select! {
                _locks = ended => {}
                () = all => {}
            }
        };
        // After that a request has timed out, and nothing can be received any more.
        let _ = tokio::time::timeout(REFRESH_LIMIT, done).await;
    }
}
