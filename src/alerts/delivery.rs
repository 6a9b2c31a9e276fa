//! The task of one receiver: sends its messages in order, until each is accepted, rejected or too old.

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
use crate::fault::fault_point;
use crate::http::{Http, HttpError, HttpOptions, proxy_of};
use crate::lifecycle::Stop;
use crate::watch::state_file::{StateFile, StateFileError, Stopped, StoredDelivery};

/// How long to wait after the first, the second, … failed attempt; after the last one, the same again.
const RETRIES: [u64; 6] = [5, 30, 120, 600, 1800, 3600];
/// How long a message is worth sending.
const EXPIRES: Duration = Duration::from_secs(24 * 3600);
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

    /// Sends the oldest message if it is due. Returns how long to wait before the next turn.
    async fn turn(&self, is_failing: &mut bool, stop: &Stop) -> Result<Duration, StateFileError> {
        let now = self.clock.now();
        let (file, name) = (Arc::clone(&self.state_file), self.rule.name.clone());
        let address = fingerprint(&self.rule.receiver);
        let found = blocking(move || {
            let stopped = file.stopped_receivers()?;
            let is_stopped = stopped
                .iter()
                .any(|stopped| stopped.receiver == name && stopped.address == address);
            let next = file.next_deliveries(&name, 1)?.pop();
            let remote_ref = match &next {
                Some(next) if next.kind != "open" => file.remote_ref(&next.incident)?,
                _ => None,
            };
            Ok::<_, StateFileError>((is_stopped, next, remote_ref))
        });
        let (is_stopped, next, remote_ref) = found.await?;
        let Some(delivery) = next else { return Ok(IDLE) };
        if now.since(delivery.created_at) >= EXPIRES {
            self.drop_delivery(delivery, true, "not accepted for 24 hours".to_owned())
                .await?;
            return Ok(Duration::ZERO);
        }
        if is_stopped {
            return Ok(IDLE);
        }
        // After a clock that was set back, a due date may be far away.
        if delivery.due > now && delivery.due.since(now) <= 2 * LONGEST_WAIT {
            return Ok(delivery.due.since(now).min(IDLE));
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
                blocking(move || file.delivered(delivery.seq, remote_ref.as_deref())).await?;
                Ok(Duration::ZERO)
            }
            Reply::Later { wait, reason } => {
                if !std::mem::replace(is_failing, true) {
                    warn!(
                        alert,
                        reason, "The receiver of the alert `{alert}` does not accept messages; they wait"
                    );
                }
                let wait = self.backoff(delivery.attempts, wait);
                self.postpone(&delivery, wait, reason).await
            }
            Reply::Rejected { reason } if !plain => {
                self.postpone(&delivery, Duration::ZERO, format!("{REJECTED}{reason}"))
                    .await
            }
            Reply::Rejected { reason } => {
                self.drop_delivery(delivery, false, reason).await?;
                Ok(Duration::ZERO)
            }
            Reply::Gone => {
                self.postpone(
                    &delivery,
                    self.backoff(delivery.attempts, None),
                    "not found".to_owned(),
                )
                .await
            }
            Reply::Stopped { reason } => {
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
                blocking(move || file.stop_receiver(&stopped)).await?;
                Ok(IDLE)
            }
        }
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
        delivery: &StoredDelivery,
        wait: Duration,
        reason: String,
    ) -> Result<Duration, StateFileError> {
        let (file, seq, due) = (
            Arc::clone(&self.state_file),
            delivery.seq,
            self.clock.now().plus(wait),
        );
        blocking(move || file.postpone_delivery(seq, due, &reason)).await?;
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
        let file = Arc::clone(&self.state_file);
        blocking(move || file.drop_delivery(&delivery, whole, &reason)).await
    }
}

/// How the reason of a message begins that the receiver has rejected, so that it is sent in a plain form.
const REJECTED: &str = "rejected: ";

fn is_rejection(reason: &str) -> bool {
    reason.starts_with(REJECTED)
}
