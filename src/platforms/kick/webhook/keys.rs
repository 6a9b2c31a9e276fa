//! The key for verifying deliveries: the built-in copy until Kick's key was fetched, fetched again when a signature does not
//! match.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::Method;
use tokio::sync::Mutex as AsyncMutex;

use super::super::answer::{asked, judge};
use super::super::client::{Client, without};
use super::super::signature::PublicKey;
use super::super::wire::{Enveloped, PublicKeyText};
use crate::clock::Clock;
use crate::core::time::Timestamp;

/// Minimum interval between fetches of the key after signatures that do not match, so that a forger cannot trigger requests.
const MIN_FETCH_INTERVAL: Duration = Duration::from_hours(1);
/// The same after an attempt that failed.
const RETRY_DELAY: Duration = Duration::from_mins(5);
/// Timeout of the fetch, because the sender of a delivery is waiting.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);

/// The current key.
pub(super) struct Keys {
    client: Arc<Client>,
    clock: Arc<dyn Clock>,
    current: Mutex<PublicKey>,
    next_try: AsyncMutex<Option<Timestamp>>,
}

/// The parts of a delivery that its signature covers.
pub(super) struct Signed<'a> {
    pub(super) message_id: &'a str,
    pub(super) timestamp: &'a str,
    pub(super) body: &'a [u8],
    pub(super) signature: &'a [u8],
}

impl Keys {
    pub(super) fn new(client: Arc<Client>, clock: Arc<dyn Clock>) -> Self {
        Self {
            client,
            clock,
            current: Mutex::new(PublicKey::published()),
            next_try: AsyncMutex::default(),
        }
    }

    /// Returns whether Kick has signed it.
    pub(super) async fn verify(&self, signed: &Signed<'_>) -> bool {
        if self.fits(signed) {
            return true;
        }
        // One fetch at a time: a waiting caller finds the key that the previous one has fetched.
        let mut next_try = self.next_try.lock().await;
        if self.fits(signed) {
            return true;
        }
        let now = self.clock.now();
        // A clock that was ahead and is set back must not extend the wait.
        if next_try.is_some_and(|next| next > now && next.since(now) <= MIN_FETCH_INTERVAL) {
            return false;
        }
        let fetched = self.fetch().await;
        let delay = if fetched.is_some() {
            MIN_FETCH_INTERVAL
        } else {
            RETRY_DELAY
        };
        *next_try = Some(now.plus(delay));
        let Some(key) = fetched else { return false };
        *self.current.lock() = key;
        self.fits(signed)
    }

    fn fits(&self, signed: &Signed<'_>) -> bool {
        let key = self.current.lock().clone();
        key.verifies(signed.message_id, signed.timestamp, signed.body, signed.signature)
    }

    /// Fetches Kick's key without waiting for the rate limit: a delivery cannot wait for it, and one request an hour is
    /// negligible.
    async fn fetch(&self) -> Option<PublicKey> {
        let base = without(&self.client.api_url, &["/v1", "/public"]);
        let url = format!("{base}/public/v1/public-key").parse().ok()?;
        let request = self.client.http.request(Method::GET, url).build().ok()?;
        let outcome = tokio::time::timeout(FETCH_TIMEOUT, self.client.http.send(request))
            .await
            .ok()?;
        let answer = judge(asked("the public key"), outcome).ok()?;
        let text = match answer.json::<Enveloped<PublicKeyText>>() {
            Ok(event) => event.open().public_key,
            // A bare key without an envelope cannot be confused with anything else.
            Err(_) => String::from_utf8(answer.body.to_vec()).ok()?,
        };
        PublicKey::from_pem(&text).ok()
    }
}
