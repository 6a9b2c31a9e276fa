//! The task of one receiver: sends its messages until each is accepted, rejected or too old; those about one incident in order.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use tokio::sync::Notify;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::message::Message;
use super::receivers::{ReceiverRequest, Reply, is_private_address, reply, request};
use super::rule::{AlertRule, Receiver};
use crate::blocking::blocking;
use crate::clock::{Chance, Clock};
use crate::core::time::Timestamp;
use crate::fault::fault_point;
use crate::http::{Http, HttpError, HttpOptions, proxy_of};
use crate::lifecycle::Stop;
use crate::watch::state_file::{FailedAttempt, StateFile, StateFileError, Stopped, StoredDelivery};

/// How long to wait after the first, the second, … failed attempt; after the last one, the same again.
const RETRIES: [u64; 6] = [5, 30, 120, 600, 1800, 3600];
/// How long a message is worth sending (ms).
const EXPIRES_MS: i64 = 24 * 3_600_000;
/// The longest time that a receiver may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// How often the queue is checked without a notification.
const IDLE: Duration = Duration::from_secs(1);
/// How long an exchange may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How much of a response is read, in bytes.
const ANSWER: usize = 64 * 1024;

/// Sends the messages of one alert.
pub struct Deliverer {
    /// Where the messages wait.
    pub state_file: Arc<StateFile>,
    /// The alert.
    pub rule: AlertRule,
    /// Sends requests.
    pub http: Http,
    /// The time of retries.
    pub clock: Arc<dyn Clock>,
    /// Randomness of retries.
    pub chance: Chance,
    /// Notified when messages wait.
    pub wake: Arc<Notify>,
}

/// A message that is to be sent, and what is known for that.
struct NextDelivery {
    delivery: StoredDelivery,
    /// The message of the receiver that it replaces.
    remote_ref: Option<String>,
    /// Whether the receiver accepts nothing until someone acts.
    is_stopped: bool,
    /// When it may be sent; `None` at once.
    due: Option<Timestamp>,
}

/// Creates the client of a receiver. Names that lead into a private network are not resolved, unless that is allowed; a proxy
/// resolves them itself.
pub fn client(receiver: &Receiver, clock: Arc<dyn Clock>) -> Http {
    let guarded = !receiver.allow_private && proxy_of(&receiver.url).is_none();
    let accepts: fn(IpAddr) -> bool = |address| !is_private_address(address);
    let options = HttpOptions {
        timeout: TIMEOUT,
        max_body: ANSWER,
        accepts_address: guarded.then_some(accepts),
        ..HttpOptions::default()
    };
    Http::new(options, clock)
}

/// Returns a digest of the address of a receiver, which does not reveal it.
pub fn fingerprint(receiver: &Receiver) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, receiver.url.as_str().as_bytes()).to_string()
}

/// Sends a request once and interprets the response.
pub async fn send(http: &Http, receiver: &Receiver, request: ReceiverRequest, is_edit: bool) -> Reply {
    let method = if request.method == "PATCH" {
        Method::PATCH
    } else {
        Method::POST
    };
    let mut builder = http
        .request(method, request.url)
        .header("content-type", "application/json")
        .body(request.body);
    for (name, value) in request.headers {
        builder = builder.header(name, value);
    }
    let Ok(built) = builder.build() else {
        let reason = "the request cannot be encoded; check the token".to_owned();
        return Reply::Rejected { reason };
    };
    match http.send(built).await {
        Ok(answer) => {
            let wait = answer.requested_wait();
            reply(receiver.kind, answer.status, wait, &answer.body, is_edit)
        }
        // The status decides; of a long body nothing is needed.
        Err(HttpError::TooLarge { status, .. }) => reply(receiver.kind, status, None, b"", is_edit),
        Err(error) => Reply::Later {
            wait: None,
            reason: error.to_string(),
        },
    }
}

impl Deliverer {
    /// Runs until it is stopped. What is not accepted by then waits in the file.
    pub async fn run(self, stop: Stop) -> Result<(), StateFileError> {
        let mut is_failing = false;
        loop {
            let wait = match self.turn(&mut is_failing, &stop).await {
                Ok(wait) => wait,
                Err(error) if error.is_transient() => IDLE,
                Err(error) => return Err(error),
            };
            if stop.is_requested() {
                return Ok(());
            }
            tokio::select! {
                () = self.wake.notified(), if wait > Duration::ZERO => {}
                () = tokio::time::sleep(wait) => {}
                () = stop.requested() => return Ok(()),
            }
        }
    }

    /// Returns the message to send next.
    async fn next(&self, now: Timestamp, expired: Timestamp) -> Result<Option<NextDelivery>, StateFileError> {
        let (file, name) = (Arc::clone(&self.state_file), self.rule.name.clone());
        let address = fingerprint(&self.rule.receiver);
        // After a clock that was set back, dates may be far away.
        let latest = now.plus(2 * LONGEST_WAIT);
        blocking(move || {
            let Some(delivery) = file.next_delivery(&name, now, latest, expired)? else {
                return Ok(None);
            };
            let stopped = file.stopped_receivers()?;
            let paused = file.receiver_records()?.remove(&name);
            let dates = [Some(delivery.due), paused.and_then(|record| record.paused_until)];
            Ok::<_, StateFileError>(Some(NextDelivery {
                is_stopped: stopped
                    .iter()
                    .any(|stopped| stopped.receiver == name && stopped.address == address),
                due: dates.into_iter().flatten().filter(|due| *due <= latest).max(),
                remote_ref: match delivery.kind.as_str() {
                    "open" => None,
                    _ => file.remote_ref(&delivery)?,
                },
                delivery,
            }))
        })
        .await
    }

    /// Sends the oldest message that is due. Returns how long to wait before the next turn.
    async fn turn(&self, is_failing: &mut bool, stop: &Stop) -> Result<Duration, StateFileError> {
        let now = self.clock.now();
        let expired = now.plus_millis(-EXPIRES_MS);
        let Some(next) = self.next(now, expired).await? else {
            return Ok(IDLE);
        };
        let (delivery, remote_ref) = (next.delivery, next.remote_ref);
        if delivery.created_at <= expired {
            self.drop_delivery(delivery, true, "not accepted for 24 hours".to_owned())
                .await?;
            return Ok(Duration::ZERO);
        }
        if next.is_stopped {
            return Ok(IDLE);
        }
        if let Some(due) = next.due.filter(|due| *due > now) {
            return Ok(due.since(now).min(IDLE));
        }
        let Ok(message) = serde_json::from_str::<Message>(&delivery.message) else {
            self.drop_delivery(delivery, false, "it cannot be read".to_owned())
                .await?;
            return Ok(Duration::ZERO);
        };
        let receiver = &self.rule.receiver;
        let plain = delivery.reason.as_deref().is_some_and(is_rejection);
        let built = request(receiver, &message, remote_ref.as_deref(), plain, now);
        let sending = send(&self.http, receiver, built, remote_ref.is_some());
        let mut answer = tokio::select! {
            answer = sending => answer,
            () = stop.cut() => return Ok(IDLE),
        };
        if answer == Reply::Gone {
            // The message to be edited was deleted, so this one is sent as a new one.
            let built = request(receiver, &message, None, plain, now);
            answer = send(&self.http, receiver, built, false).await;
        }
        fault_point("alert-sent");
        self.apply(delivery, answer, remote_ref, plain, is_failing).await
    }

    async fn apply(
        &self,
        delivery: StoredDelivery,
        answer: Reply,
        edited: Option<String>,
        plain: bool,
        is_failing: &mut bool,
    ) -> Result<Duration, StateFileError> {
        let (file, alert) = (Arc::clone(&self.state_file), &self.rule.name);
        match answer {
            Reply::Accepted { remote_ref } => {
                if std::mem::take(is_failing) {
                    info!(
                        alert,
                        "The receiver of the alert `{alert}` accepts messages again"
                    );
                }
                let remote_ref = remote_ref.or(edited);
                let at = self.clock.now();
                blocking(move || file.delivered(&delivery, remote_ref.as_deref(), Some(at))).await?;
                Ok(Duration::ZERO)
            }
            Reply::Later { wait, reason } => {
                if !std::mem::replace(is_failing, true) {
                    warn!(
                        alert,
                        reason, "The receiver of the alert `{alert}` does not accept messages; they wait"
                    );
                }
                // Others may be accepted where one is not, but a receiver that accepts none gets one request at a time.
                let pause = self.backoff(0, wait);
                let wait = self.backoff(delivery.attempts, wait);
                self.postpone(delivery, wait, Some(pause), reason).await
            }
            Reply::Rejected { reason } if !plain => {
                self.postpone(delivery, Duration::ZERO, None, format!("{REJECTED}{reason}"))
                    .await
            }
            Reply::Rejected { reason } => {
                self.drop_delivery(delivery, false, reason).await?;
                Ok(Duration::ZERO)
            }
            Reply::Gone => {
                let wait = self.backoff(delivery.attempts, None);
                self.postpone(delivery, wait, None, "not found".to_owned()).await
            }
            Reply::Stopped { reason } => self.stop_receiver(reason).await,
        }
    }

    /// Records that the receiver does not accept messages until someone acts.
    async fn stop_receiver(&self, reason: String) -> Result<Duration, StateFileError> {
        let (file, alert) = (Arc::clone(&self.state_file), &self.rule.name);
        error!(
            alert,
            reason,
            "The receiver of the alert `{alert}` does not accept messages until someone acts; correct its address, then run `bitbrat alert test {alert}`"
        );
        let stopped = Stopped {
            receiver: alert.clone(),
            address: fingerprint(&self.rule.receiver),
            at: self.clock.now(),
            reason,
        };
        blocking(move || {
            file.record_attempt(&stopped.receiver, stopped.at, Some(&stopped.reason))?;
            file.stop_receiver(&stopped)
        })
        .await?;
        Ok(IDLE)
    }

    /// Returns the wait before the next attempt: what the receiver asks for, or else the schedule with a fifth of jitter.
    fn backoff(&self, attempts: u32, asked: Option<Duration>) -> Duration {
        let place = usize::try_from(attempts)
            .unwrap_or(usize::MAX)
            .min(RETRIES.len() - 1);
        let jitter = 0.8 + 0.4 * self.chance.fraction();
        match asked {
            // Never before, and at most a second after.
            Some(asked) => asked.min(LONGEST_WAIT) + Duration::from_millis(200),
            None => Duration::from_secs(RETRIES[place]).mul_f64(jitter),
        }
    }

    async fn postpone(
        &self,
        delivery: StoredDelivery,
        wait: Duration,
        pause: Option<Duration>,
        reason: String,
    ) -> Result<Duration, StateFileError> {
        let (file, at) = (Arc::clone(&self.state_file), self.clock.now());
        blocking(move || {
            let failed = FailedAttempt {
                at,
                reason: &reason,
                due: at.plus(wait),
                paused_until: pause.map(|pause| at.plus(pause)),
            };
            file.postpone_delivery(&delivery, failed)
        })
        .await?;
        Ok(wait.min(IDLE))
    }

    async fn drop_delivery(
        &self,
        delivery: StoredDelivery,
        whole: bool,
        reason: String,
    ) -> Result<(), StateFileError> {
        let alert = &self.rule.name;
        error!(
            alert,
            incident = delivery.incident,
            kind = delivery.kind,
            reason,
            "A message of the alert `{alert}` was not delivered and is dropped"
        );
        let (file, at) = (Arc::clone(&self.state_file), self.clock.now());
        blocking(move || {
            file.record_attempt(&delivery.receiver, at, Some(&reason))?;
            file.drop_delivery(&delivery, whole, &reason)
        })
        .await
    }
}

/// How the reason of a message begins that the receiver has rejected, so that it is sent in a plain form.
const REJECTED: &str = "rejected: ";

fn is_rejection(reason: &str) -> bool {
    reason.starts_with(REJECTED)
}
