//! Does somebody answer at a platform's address, and is that the platform?
//!
//! A web server says something at every address, so an answer alone proves little: Twitch is asked what it documents an
//! answer to, without credentials, and has to refuse that as it does.

use std::time::Duration;

use url::Url;

use crate::cli::context::Context;
use crate::cli::reports::doctor::{Check, Outcome};
use crate::core::source::PlatformName;
use crate::http::{Answer, HttpError, Retries};

/// One failure alone says nothing: what may be over in two seconds is asked once more.
const ONCE_MORE: Retries = Retries {
    attempts: 2,
    base: Duration::from_millis(400),
    cap: Duration::from_millis(400),
    patience: Duration::from_secs(2),
};

/// Asks at one of a platform's addresses. Returns also how far its clock is ahead of ours, in milliseconds.
pub(super) async fn check(
    cx: &Context,
    platform: PlatformName,
    what: &str,
    base: &Url,
) -> (Check, Option<i64>) {
    let area = platform.as_str();
    let url = door(platform, what, base);
    let shown = url.host_str().unwrap_or_default().to_owned();
    let build = || cx.app.http.request(reqwest::Method::GET, url.clone()).build();
    let Ok(request) = build() else {
        let detail = format!("{shown} is not an address");
        return (Check::new(area, what, Outcome::Fail, detail), None);
    };
    let look_closer = format!("curl -v {url}");
    let mut outcome = cx.app.http.send(request).await;
    let mut before = String::new();
    if let Some(trouble) = passing(&outcome)
        && let Some(wait) = ONCE_MORE.wait_after(1, &outcome, &cx.app.chance)
        && let Ok(again) = build()
    {
        tokio::time::sleep(wait).await;
        outcome = cx.app.http.send(again).await;
        before = format!(", when asked once more (at first: {trouble})");
    }
    match outcome {
        Ok(answer) => {
            let skew = answer
                .server_date()
                .map(|date| date.millis_since(answer.received_at));
            let check = match stranger(platform, &answer) {
                None => {
                    let detail = format!("{shown} answers in {} ms{before}", answer.rtt.as_millis());
                    Check::new(area, what, Outcome::Ok, detail)
                }
                Some(odd) => {
                    let detail = match platform {
                        PlatformName::Twitch if answer.status < 500 => {
                            format!("{shown} {odd}; is {} right?", key(what))
                        }
                        _ => format!("{shown} {odd}"),
                    };
                    Check::new(area, what, Outcome::Fail, detail).next(look_closer)
                }
            };
            (check, skew)
        }
        Err(error) => {
            let detail = format!("{shown}: {error} ({})", error.code());
            (
                Check::new(area, what, Outcome::Fail, detail).next(look_closer),
                None,
            )
        }
    }
}

/// Returns what went wrong, when it may go well a moment later.
fn passing(outcome: &Result<Answer, HttpError>) -> Option<String> {
    match outcome {
        Ok(answer) => (answer.status >= 500).then(|| format!("status {}", answer.status)),
        Err(error) => Some(error.code().to_owned()),
    }
}

/// Returns what is asked for at `base`. Twitch refuses both with a 401 to whoever shows no token.
fn door(platform: PlatformName, what: &str, base: &Url) -> Url {
    let path = match (platform, what) {
        (PlatformName::Twitch, "authorisation") => "validate",
        (PlatformName::Twitch, _) => "users",
        _ => return base.clone(),
    };
    let mut url = base.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().push(path);
    }
    url
}

fn key(what: &str) -> &'static str {
    match what {
        "authorisation" => "twitch.auth_url",
        _ => "twitch.helix_url",
    }
}

/// Returns in which way `answer` is not one that the platform gives.
fn stranger(platform: PlatformName, answer: &Answer) -> Option<String> {
    let status = answer.status;
    if status >= 500 {
        return Some(format!("answers with status {status}"));
    }
    // What the others say to a bare address is documented nowhere.
    if platform != PlatformName::Twitch {
        return None;
    }
    if answer.is_web_page() {
        return Some(format!("answers with a web page (status {status})"));
    }
    // A stand-in may be less strict than Twitch, which says 401; an address without Twitch behind it says 404 or moves on.
    let twitchs = matches!(status, 200..300 | 400 | 401 | 403 | 429);
    (!twitchs).then(|| format!("answers with status {status}, which Twitch does not"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_not_the_platforms_is_no_proof_of_it() {
        const REFUSAL: &str = r#"{"status":401,"message":"missing authorization token"}"#;
        for (platform, status, body, passes) in [
            (PlatformName::Twitch, 401, REFUSAL, true),
            (PlatformName::Twitch, 401, "", true),
            (PlatformName::Twitch, 429, "", true),
            (PlatformName::Twitch, 404, "404 page not found", false),
            (PlatformName::Twitch, 302, "", false),
            (
                PlatformName::Twitch,
                200,
                "<html>Sign in to the hotel</html>",
                false,
            ),
            (PlatformName::Twitch, 401, "<html>proxy</html>", false),
            (PlatformName::Twitch, 503, "", false),
            (PlatformName::Kick, 404, "<html>", true),
            (PlatformName::Kick, 503, "", false),
            (
                PlatformName::Discord,
                404,
                r#"{"message":"404: Not Found"}"#,
                true,
            ),
        ] {
            let odd = stranger(platform, &Answer::made_up(status, &[], body));
            assert_eq!(odd.is_none(), passes, "{platform} {status} {body}: {odd:?}");
        }
    }

    #[test]
    fn twitch_is_asked_at_documented_addresses() {
        for (what, base, expected) in [
            (
                "authorisation",
                "https://id.twitch.tv/oauth2",
                "https://id.twitch.tv/oauth2/validate",
            ),
            (
                "api",
                "http://127.0.0.1:8080/mock/",
                "http://127.0.0.1:8080/mock/users",
            ),
        ] {
            let url = door(PlatformName::Twitch, what, &base.parse().unwrap());
            assert_eq!(url.as_str(), expected);
        }
    }
}
