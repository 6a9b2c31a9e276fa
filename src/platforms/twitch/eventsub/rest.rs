//! Creating, listing and deleting subscriptions, and what the answers mean.
//! <https://dev.twitch.tv/docs/api/reference/#create-eventsub-subscription>

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::super::TwitchPlatform;
use super::super::auth::Access;
use super::super::options::below;
use super::kinds::Subscription;
use super::wire::{Listed, Told};
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::http::{Answer, HttpError};
use crate::platforms::PlatformError;
use crate::platforms::answer::{Asked, reason};
use crate::platforms::meter::Meter;

/// Pages of a list that we are ready to read.
const MOST_PAGES: usize = 100;
/// How long to wait where Twitch names no time.
const SOME_TIME: Duration = Duration::from_secs(20);

/// What came of creating a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Created {
    /// It is there.
    Enabled { id: String, cost: u32, bill: Bill },
    /// It was there already, under this id where Twitch says so.
    Exists,
    /// The session is gone.
    SessionGone,
    /// It will not be accepted in the foreseeable future.
    Refused { code: String, reason: String },
    /// The points are used up, at least until Twitch notices what is dead.
    CostExceeded,
    /// Too many sockets, or too many equal subscriptions: remains of others or of our own past.
    Crowded { reason: String, sockets: bool },
    /// Later.
    Later { after: Duration, reason: String },
    /// The token is not good.
    Unauthorized { reason: String },
}

/// The points of an account as an answer tells them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bill {
    pub(super) total: Option<u32>,
    pub(super) max: Option<u32>,
}

/// Asks as `identity` for one subscription on a session.
pub(super) async fn create(
    twitch: &TwitchPlatform,
    identity: &Identity,
    session: &str,
    subscription: &Subscription,
) -> Created {
    let body = json!({
        "type": subscription.kind.name(),
        "version": subscription.kind.version(),
        "condition": subscription.condition(),
        "transport": {"method": "websocket", "session_id": session},
    });
    let send = async |access: &Access| {
        let address = below(&twitch.options.eventsub_rest_url, "eventsub/subscriptions");
        let request = twitch.helix.http.request(Method::POST, address).json(&body);
        read_created(twitch.helix.send(access, request, &Meter::silent()).await)
    };
    // The token is looked up for each pass: the one that opened the socket may have ended hours ago.
    let access = match twitch.auth.access(identity, &Meter::silent()).await {
        Ok(access) => access,
        Err(error) => return unusable(&error),
    };
    match send(&access).await {
        Created::Unauthorized { reason } => {
            match twitch.auth.after_refusal(&access, &Meter::silent()).await {
                Ok(Some(renewed)) => send(&renewed).await,
                Ok(None) => Created::Refused {
                    code: "twitch.eventsub.refused".to_owned(),
                    reason,
                },
                Err(error) => unusable(&error),
            }
        }
        created => created,
    }
}

fn unusable(error: &PlatformError) -> Created {
    match error {
        PlatformError::Unauthorized { .. } | PlatformError::NotConfigured { .. } => Created::Unauthorized {
            reason: error.to_string(),
        },
        _ => Created::Later {
            after: SOME_TIME,
            reason: error.to_string(),
        },
    }
}

/// Reads the answer to a creation.
fn read_created(outcome: Result<Answer, HttpError>) -> Created {
    let later = |after, reason: String| Created::Later { after, reason };
    let answer = match outcome {
        Ok(answer) => answer,
        Err(error) => return later(SOME_TIME / 4, error.to_string()),
    };
    let words = reason(&answer);
    let lower = words.to_ascii_lowercase();
    let says = |word: &str| lower.contains(word);
    let refused = |code: &str| Created::Refused {
        code: format!("twitch.eventsub.{code}"),
        reason: words.clone(),
    };
    if answer.is_web_page() {
        return later(
            SOME_TIME,
            format!("a web page came with status {}", answer.status),
        );
    }
    match answer.status {
        200..300 => match answer.json::<Listed>() {
            Ok(listed) => enabled(&listed),
            // Accepted all the same: what became of it is seen in the list.
            Err(_) => Created::Exists,
        },
        // Whatever the words, a session that is found fault with is replaced; the channel is not to blame.
        400 | 404 if says("session") => Created::SessionGone,
        401 if says("scope") || says("match") => refused("forbidden"),
        401 => Created::Unauthorized { reason: words },
        403 => refused("forbidden"),
        409 => Created::Exists,
        410 => refused("withdrawn"),
        429 if says("transport") => Created::Crowded {
            reason: words,
            sockets: true,
        },
        429 if says("type and condition") => Created::Crowded {
            reason: words,
            sockets: false,
        },
        429 if says("cost") => Created::CostExceeded,
        429 if is_rate_limit(&answer) => later(answer.asked_wait().unwrap_or(SOME_TIME), words),
        // Not too fast but too much, in words that we do not know: points or places are used up.
        429 => Created::CostExceeded,
        400..500 => refused("rejected"),
        _ => later(SOME_TIME / 4, words),
    }
}

/// Whether a 429 is about the pace of calls. One that leaves points in the bucket is about something else.
fn is_rate_limit(answer: &Answer) -> bool {
    let header = |name: &str| {
        answer
            .headers
            .get(name)?
            .to_str()
            .ok()?
            .trim()
            .parse::<i64>()
            .ok()
    };
    let left = header("ratelimit-remaining");
    answer.headers.contains_key("retry-after") || left.is_none_or(|left| left <= 0)
}

fn enabled(listed: &Listed) -> Created {
    let bill = Bill {
        total: listed.total_cost,
        max: listed.max_total_cost,
    };
    match listed.data.first() {
        Some(told) if told.status.is_empty() || told.status == "enabled" => Created::Enabled {
            id: told.id.clone(),
            cost: told.cost,
            bill,
        },
        Some(told) => Created::Refused {
            code: "twitch.eventsub.disabled".to_owned(),
            reason: format!("it was created with status {}", told.status),
        },
        None => Created::Exists,
    }
}

/// Lists every subscription of `identity`, with the points in use.
pub(super) async fn list(
    twitch: &TwitchPlatform,
    identity: &Identity,
) -> Result<(Vec<Told>, Bill), PlatformError> {
    let asked = Asked {
        platform: PlatformName::Twitch,
        operation: "the list of subscriptions",
    };
    let mut found: Vec<Told> = Vec::new();
    let mut cursor: Option<String> = None;
    for _ in 0..MOST_PAGES {
        let access = twitch.auth.access(identity, &Meter::silent()).await?;
        let address = below(&twitch.options.eventsub_rest_url, "eventsub/subscriptions");
        let mut request = twitch.helix.http.request(Method::GET, address);
        if let Some(cursor) = &cursor {
            request = request.query(&[("after", cursor)]);
        }
        let answer = asked.judge(twitch.helix.send(&access, request, &Meter::silent()).await)?;
        let page: Listed = answer.json().map_err(|reason| asked.unreadable(reason))?;
        let next = page.cursor().map(str::to_owned);
        let bill = Bill {
            total: page.total_cost,
            max: page.max_total_cost,
        };
        found.extend(page.data);
        if next.is_none() || next == cursor {
            return Ok((found, bill));
        }
        cursor = next;
    }
    Err(asked.unreadable("the list does not come to an end".to_owned()))
}

/// Deletes a subscription. What is gone already is as good.
pub(super) async fn delete(
    twitch: &TwitchPlatform,
    identity: &Identity,
    id: &str,
) -> Result<(), PlatformError> {
    let asked = Asked {
        platform: PlatformName::Twitch,
        operation: "the deletion of a subscription",
    };
    let access = twitch.auth.access(identity, &Meter::silent()).await?;
    let address = below(&twitch.options.eventsub_rest_url, "eventsub/subscriptions");
    let request = twitch
        .helix
        .http
        .request(Method::DELETE, address)
        .query(&[("id", id)]);
    match asked.judge(twitch.helix.send(&access, request, &Meter::silent()).await) {
        Ok(_) | Err(PlatformError::Rejected { status: 404, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Created {
        read_created(Ok(Answer::made_up(status, &[], body)))
    }

    fn name(created: &Created) -> &str {
        match created {
            Created::Enabled { .. } => "enabled",
            Created::Exists => "exists",
            Created::SessionGone => "session gone",
            Created::Refused { code, .. } => code,
            Created::CostExceeded => "cost",
            Created::Crowded { sockets: true, .. } => "sockets",
            Created::Crowded { .. } => "equals",
            Created::Later { .. } => "later",
            Created::Unauthorized { .. } => "unauthorized",
        }
    }

    #[test]
    fn refusals_are_told_apart_by_their_words() {
        for (status, message, expected) in [
            (
                400,
                "websocket transport session does not exist or has already disconnected",
                "session gone",
            ),
            (400, "non-existent session_id", "session gone"),
            (400, "Invalid session", "session gone"),
            (404, "no such session", "session gone"),
            (404, "not found", "twitch.eventsub.rejected"),
            (
                400,
                "websocket transport cannot have subscriptions created by different users",
                "twitch.eventsub.rejected",
            ),
            (
                400,
                "The combination of values in the type and version fields is not valid",
                "twitch.eventsub.rejected",
            ),
            (401, "Invalid OAuth token", "unauthorized"),
            (401, "Missing scope: user:read:chat", "twitch.eventsub.forbidden"),
            (
                403,
                "subscription missing proper authorization",
                "twitch.eventsub.forbidden",
            ),
            (409, "subscription already exists", "exists"),
            (410, "gone", "twitch.eventsub.withdrawn"),
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
            let body: &'static str = Box::leak(
                format!(r#"{{"error":"E","status":{status},"message":"{message}"}}"#).into_boxed_str(),
            );
            assert_eq!(name(&answer(status, body)), expected, "{status} {message}");
        }
        assert_eq!(name(&answer(403, "<html>blocked</html>")), "later");
        assert_eq!(name(&answer(202, "")), "exists");
    }

    #[test]
    fn a_refusal_that_leaves_points_in_the_bucket_is_not_about_the_pace() {
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
    fn an_acceptance_tells_id_cost_and_what_is_left() {
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
        assert_eq!(name(&pending), "twitch.eventsub.disabled");
    }
}
