//! Creates, lists and deletes subscriptions, and interprets the answers.
//! <https://dev.twitch.tv/docs/api/reference/#create-eventsub-subscription>

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::TwitchPlatform;
use super::super::helix::contradiction;
use super::super::options::below;
use super::kinds::Subscription;
use super::messages::{Listed, SubscriptionInfo};
use crate::core::code::Code;
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::http::{Answer, HttpError};
use crate::platforms::PlatformError;
use crate::platforms::kit::answer::{Asked, foreign_text, is_foreign_refusal, reason};
use crate::platforms::kit::lenient;
use crate::platforms::kit::meter::Meter;
use crate::platforms::kit::oauth::Access;

/// Maximum number of pages that are read of a list.
const MOST_PAGES: usize = 100;
/// The code of an answer that is not what Twitch documents.
const UNREADABLE: Code = Code::Unreadable(PlatformName::Twitch);
/// The status of a subscription whose webhook gets a challenge first.
const VERIFICATION_PENDING: &str = "webhook_callback_verification_pending";
/// How long to wait if Twitch specifies no time.
const SOME_TIME: Duration = Duration::from_secs(20);

/// The result of creating a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::platforms::twitch) enum Created {
    /// It was created.
    Enabled { id: String, cost: u32, bill: Bill },
    /// It existed already; its id, if the answer names it.
    Exists { id: Option<String> },
    /// A success answer that does not describe what was created.
    Unclear { reason: String },
    /// The session no longer exists.
    SessionGone,
    /// It will not be accepted in the foreseeable future.
    Refused { code: Code, reason: String },
    /// The cost limit is reached, at least until Twitch removes dead subscriptions.
    CostExceeded,
    /// Too many sockets, or too many equal subscriptions: of others, or left over from our earlier sessions.
    Crowded { reason: String, sockets: bool },
    /// Temporary failure, with its code.
    Later {
        after: Duration,
        code: Code,
        reason: String,
    },
    /// The token is not valid.
    Unauthorized { reason: String },
}

/// The costs and the limit of an account from an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::platforms::twitch) struct Bill {
    pub(super) total: Option<u32>,
    pub(super) max: Option<u32>,
}

/// Where a subscription delivers.
#[derive(Debug, Clone)]
pub(in crate::platforms::twitch) enum Target {
    Session(String),
    Conduit(String),
    Webhook { callback: String, secret: SecretString },
}

impl Target {
    /// Returns the session or conduit.
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Session(id) | Self::Conduit(id) => id,
            Self::Webhook { callback, .. } => callback,
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Session(id) => json!({"method": "websocket", "session_id": id}),
            Self::Conduit(id) => json!({"method": "conduit", "conduit_id": id}),
            Self::Webhook { callback, secret } => {
                json!({"method": "webhook", "callback": callback, "secret": secret.expose_secret()})
            }
        }
    }

    /// Interprets an answer as one about this target.
    fn refine(&self, created: Created, status: Option<u16>) -> Created {
        let Self::Conduit(_) = self else {
            return created;
        };
        match created {
            // What exists on our conduit is ours.
            Created::Exists { id } => Created::Enabled {
                id: id.unwrap_or_default(),
                cost: 0,
                bill: Bill::default(),
            },
            Created::Refused { .. } if status == Some(404) => Created::SessionGone,
            other => other,
        }
    }
}

/// An answer with status 409.
#[derive(Deserialize)]
struct Conflict {
    #[serde(default, deserialize_with = "lenient::maybe_id")]
    id: Option<String>,
}

fn request(twitch: &TwitchPlatform, method: Method) -> RequestBuilder {
    let address = below(&twitch.options.eventsub_rest_url, "eventsub/subscriptions");
    twitch.helix.http.request(method, address)
}

/// Creates one subscription that delivers to `target`, as `identity`.
pub(in crate::platforms::twitch) async fn create(
    twitch: &TwitchPlatform,
    identity: &Identity,
    target: &Target,
    subscription: &Subscription,
) -> Created {
    let body = json!({
        "type": subscription.kind.name(),
        "version": subscription.kind.version(),
        "condition": subscription.condition(),
        "transport": target.to_json(),
    });
    let send = async |access: &Access| {
        let request = request(twitch, Method::POST).json(&body);
        let outcome = twitch.helix.send(access, request, &Meter::silent()).await;
        let status = outcome.as_ref().ok().map(|answer| answer.status);
        target.refine(read_created(outcome), status)
    };
    // The token is fetched for each pass: the one that opened the socket may have expired hours ago.
    let access = match twitch.auth.access(identity, &Meter::silent()).await {
        Ok(access) => access,
        Err(error) => return unusable(&error),
    };
    match send(&access).await {
        Created::Unauthorized { reason } => {
            match twitch
                .auth
                .after_refusal(&access, &reason, &Meter::silent())
                .await
            {
                Ok(Some(renewed)) => send(&renewed).await,
                // The token is valid and the message names nothing that is missing.
                Ok(None) => Created::Later {
                    after: SOME_TIME,
                    code: UNREADABLE,
                    reason: contradiction(&reason),
                },
                Err(error) => unusable(&error),
            }
        }
        created => created,
    }
}

fn unusable(error: &PlatformError) -> Created {
    match error {
        PlatformError::Unauthorized { .. }
        | PlatformError::NotConfigured { .. }
        | PlatformError::OtherAccount { .. } => Created::Unauthorized {
            reason: error.to_string(),
        },
        _ => Created::Later {
            after: SOME_TIME,
            code: error.code(),
            reason: error.to_string(),
        },
    }
}

/// Interprets the answer to a creation.
fn read_created(outcome: Result<Answer, HttpError>) -> Created {
    let later = |after, code: Code, reason: String| Created::Later { after, code, reason };
    let answer = match outcome {
        Ok(answer) => answer,
        Err(error) => return later(SOME_TIME / 4, error.code(), error.to_string()),
    };
    let words = reason(&answer);
    let lower = words.to_ascii_lowercase();
    let says = |word: &str| lower.contains(word);
    let refused = |code: Code| Created::Refused {
        code,
        reason: words.clone(),
    };
    if answer.is_web_page() {
        let code = if answer.is_success() {
            Code::HttpWebPage
        } else {
            Code::Http(answer.status)
        };
        return later(
            SOME_TIME,
            code,
            format!("a web page came with status {}", answer.status),
        );
    }
    match answer.status {
        200..300 => match answer.object::<Listed>() {
            Ok(listed) => enabled(&listed),
            // It may have been accepted all the same; the list shows the result.
            Err(reason) => Created::Unclear { reason },
        },
        status if is_foreign_refusal(PlatformName::Twitch, &answer) => {
            later(SOME_TIME, UNREADABLE, foreign_text(PlatformName::Twitch, status))
        }
        // Whatever the message, a session that is reported as invalid is replaced; the channel is not the cause.
        400 | 404 if says("session") => Created::SessionGone,
        401 if says("scope") || says("match") => refused(Code::Forbidden(PlatformName::Twitch)),
        401 => Created::Unauthorized { reason: words },
        403 => refused(Code::Forbidden(PlatformName::Twitch)),
        409 => Created::Exists {
            id: answer.object::<Conflict>().ok().and_then(|conflict| conflict.id),
        },
        410 => refused(Code::TwitchSubscriptionWithdrawn),
        429 if says("transport") => Created::Crowded {
            reason: words,
            sockets: true,
        },
        429 if says("type and condition") => Created::Crowded {
            reason: words,
            sockets: false,
        },
        429 if says("cost") => Created::CostExceeded,
        429 if is_rate_limit(&answer) => later(
            answer.requested_wait().unwrap_or(SOME_TIME),
            Code::RateLimited(PlatformName::Twitch),
            words,
        ),
        // Not a request rate limit, and an unknown message: points or sockets are exhausted.
        429 => Created::CostExceeded,
        400..500 => refused(Code::Rejected(PlatformName::Twitch)),
        _ => later(SOME_TIME / 4, Code::Http(answer.status), words),
    }
}

/// Whether a 429 is a request rate limit. An answer with points left in the bucket is about something else.
pub(super) fn is_rate_limit(answer: &Answer) -> bool {
    let left = answer.header("ratelimit-remaining");
    let left: Option<i64> = left.and_then(|left| left.trim().parse().ok());
    answer.headers.contains_key("retry-after") || left.is_none_or(|left| left <= 0)
}

fn enabled(listed: &Listed) -> Created {
    let bill = Bill {
        total: listed.total_cost,
        max: listed.max_total_cost,
    };
    match listed.data.read.first() {
        Some(info) if ["", "enabled", VERIFICATION_PENDING].contains(&info.status.as_str()) => {
            Created::Enabled {
                id: info.id.clone(),
                cost: info.cost,
                bill,
            }
        }
        Some(info) => Created::Refused {
            code: Code::TwitchSubscriptionDisabled,
            reason: format!("it was created with status {}", info.status),
        },
        None => Created::Unclear {
            reason: "the answer names no subscription".to_owned(),
        },
    }
}

/// Lists every subscription of `identity`, or those with this value of a filter, and the points in use.
pub(in crate::platforms::twitch) async fn list(
    twitch: &TwitchPlatform,
    identity: &Identity,
    filter: Option<(&str, &str)>,
) -> Result<(Vec<SubscriptionInfo>, Bill), PlatformError> {
    let asked = Asked::new(PlatformName::Twitch, "the list of subscriptions");
    let mut found: Vec<SubscriptionInfo> = Vec::new();
    let mut cursor: Option<String> = None;
    for _ in 0..MOST_PAGES {
        let access = twitch.auth.access(identity, &Meter::silent()).await?;
        let mut request = request(twitch, Method::GET);
        if let Some(filter) = filter {
            request = request.query(&[filter]);
        }
        if let Some(cursor) = &cursor {
            request = request.query(&[("after", cursor)]);
        }
        let answer = asked.judge(twitch.helix.send(&access, request, &Meter::silent()).await)?;
        let page: Listed = answer.object().map_err(|reason| asked.unreadable(reason))?;
        let next = page.pagination.cursor;
        let bill = Bill {
            total: page.total_cost,
            max: page.max_total_cost,
        };
        found.extend(page.data.read);
        if next.is_none() || next == cursor {
            return Ok((found, bill));
        }
        cursor = next;
    }
    Err(asked.unreadable("the list does not come to an end".to_owned()))
}

/// Deletes a subscription. One that is already gone counts as deleted.
pub(in crate::platforms::twitch) async fn delete(
    twitch: &TwitchPlatform,
    identity: &Identity,
    id: &str,
) -> Result<(), PlatformError> {
    let asked = Asked::new(PlatformName::Twitch, "the deletion of a subscription");
    let access = twitch.auth.access(identity, &Meter::silent()).await?;
    let request = request(twitch, Method::DELETE).query(&[("id", id)]);
    match asked.judge(twitch.helix.send(&access, request, &Meter::silent()).await) {
        Ok(_) | Err(PlatformError::Rejected { status: 404, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn answer(status: u16, body: &str) -> Created {
        read_created(Ok(Answer::made_up(status, &[], body)))
    }

    fn name(created: &Created) -> Cow<'static, str> {
        let name = match created {
            Created::Enabled { .. } => "enabled",
            Created::Exists { .. } => "exists",
            Created::Unclear { .. } => "unclear",
            Created::SessionGone => "session gone",
            Created::Refused { code, .. } => return code.text(),
            Created::CostExceeded => "cost",
            Created::Crowded { sockets: true, .. } => "sockets",
            Created::Crowded { .. } => "equals",
            Created::Later { .. } => "later",
            Created::Unauthorized { .. } => "unauthorized",
        };
        name.into()
    }

    #[test]
    fn rejections_are_classified_by_message() {
        for (status, message, expected) in [
            (
                400,
                "websocket transport session does not exist or has already disconnected",
                "session gone",
            ),
            (400, "non-existent session_id", "session gone"),
            (400, "Invalid session", "session gone"),
            (404, "no such session", "session gone"),
            (404, "not found", "twitch.rejected"),
            (
                400,
                "websocket transport cannot have subscriptions created by different users",
                "twitch.rejected",
            ),
            (
                400,
                "The combination of values in the type and version fields is not valid",
                "twitch.rejected",
            ),
            (401, "Invalid OAuth token", "unauthorized"),
            (401, "Missing scope: user:read:chat", "twitch.forbidden"),
            (
                403,
                "subscription missing proper authorization",
                "twitch.forbidden",
            ),
            (409, "subscription already exists", "exists"),
            (410, "gone", "twitch.subscription_withdrawn"),
            (429, "number of websocket transports limit exceeded", "sockets"),
            (
                429,
                "maximum subscriptions with type and condition exceeded",
                "equals",
            ),
            (429, "total cost exceeded", "cost"),
            (429, "slow down", "later"),
            (500, "oops", "later"),
            (302, "elsewhere", "later"),
        ] {
            let body = format!(r#"{{"status":{status},"message":"{message}"}}"#);
            assert_eq!(name(&answer(status, &body)), expected, "{status} {message}");
        }
        assert_eq!(name(&answer(403, "<html>blocked</html>")), "later");
        assert_eq!(name(&answer(401, "")), "later");
        assert_eq!(name(&answer(401, r#"{"message":"Unauthorized"}"#)), "later");
        for body in ["", "{}", r#"{"data":[]}"#] {
            assert_eq!(name(&answer(202, body)), "unclear", "{body}");
        }
    }

    #[test]
    fn failed_creation_keeps_the_code_of_its_cause() {
        for (status, body, expected) in [
            (502, "<html>bad gateway</html>", Code::Http(502)),
            (200, "<html>log in</html>", Code::HttpWebPage),
            (500, "oops", Code::Http(500)),
            (401, r#"{"code":401}"#, UNREADABLE),
            (
                403,
                r#"{"timestamp":"t","status":403,"error":"Forbidden","message":"no","path":"/"}"#,
                UNREADABLE,
            ),
            (404, "", UNREADABLE),
            (
                429,
                r#"{"message":"slow down"}"#,
                Code::RateLimited(PlatformName::Twitch),
            ),
        ] {
            let created = answer(status, body);
            assert!(
                matches!(&created, Created::Later { code, .. } if *code == expected),
                "{status} {body}: {created:?}"
            );
        }
    }

    #[test]
    fn rejection_with_remaining_points_is_not_a_rate_limit() {
        for (headers, expected) in [
            (vec![], "later"),
            (vec![("ratelimit-remaining", "0")], "later"),
            (vec![("ratelimit-remaining", "790")], "cost"),
            (
                vec![("ratelimit-remaining", "790"), ("retry-after", "3")],
                "later",
            ),
        ] {
            let answer = Answer::made_up(429, &headers, r#"{"message":"enough"}"#);
            let created = read_created(Ok(answer));
            assert_eq!(name(&created), expected, "{headers:?}");
        }
    }

    #[test]
    fn accepted_subscription_contains_id_cost_and_totals() {
        let created = answer(
            202,
            r#"{"data":[{"id":"6f0e","status":"enabled","cost":1}],"total":1,"total_cost":4,"max_total_cost":10}"#,
        );
        let bill = Bill {
            total: Some(4),
            max: Some(10),
        };
        let expected = Created::Enabled {
            id: "6f0e".to_owned(),
            cost: 1,
            bill,
        };
        assert_eq!(created, expected);
        let pending = answer(202, r#"{"data":[{"id":"6f0e","status":"novel_status"}]}"#);
        assert_eq!(name(&pending), "twitch.subscription_disabled");
    }
}
