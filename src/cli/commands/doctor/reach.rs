//! Checks whether a platform's address answers, and whether the platform is behind it.
//!
//! A web server responds at every address, so a response alone proves little: the check sends a request without credentials
//! and, where its response is documented, expects the platform's own error.

use std::time::Duration;

use url::Url;

use crate::cli::context::Context;
use crate::cli::reports::doctor::{Check, Outcome};
use crate::core::code::Code;
use crate::core::source::PlatformName;
use crate::http::{self, Answer, HttpError, Retries};
use crate::platforms::descriptor::Endpoint;
use crate::platforms::kit::answer::is_own_error;

/// One failure alone proves little: what may be over in two seconds is tried once more.
const ONCE_MORE: Retries = Retries {
    attempts: 2,
    base: Duration::from_millis(400),
    cap: Duration::from_millis(400),
    patience: Duration::from_secs(2),
};

/// Sends a request to one of a platform's addresses. Also returns how far its clock is ahead of ours, in milliseconds.
pub async fn check(cx: &Context, platform: PlatformName, endpoint: &Endpoint) -> (Check, Option<i64>) {
    let area = platform.as_str();
    let (what, url) = (endpoint.what, door(endpoint));
    let shown = url.host_str().unwrap_or_default().to_owned();
    let build = || cx.app.http.request(reqwest::Method::GET, url.clone()).build();
    let Ok(request) = build() else {
        let detail = format!("{shown} is not an address");
        return (Check::new(area, what, Outcome::Fail, detail), None);
    };
    let inspect = format!("curl -v {}", bare(&url));
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
            let check = match stranger(platform, endpoint, &answer) {
                None => {
                    let detail = format!("{shown} answers in {} ms{before}", answer.rtt.as_millis());
                    Check::new(area, what, Outcome::Ok, detail)
                }
                Some((outcome, odd)) => {
                    let detail = match endpoint.documented {
                        Some(key) if answer.status < 500 => format!("{shown} {odd}; is {key} right?"),
                        _ => format!("{shown} {odd}"),
                    };
                    Check::new(area, what, outcome, detail).next(inspect)
                }
            };
            (check, skew)
        }
        Err(error) => {
            let detail = format!("{shown}: {error} ({})", error.code());
            let next = match http::proxy_of(&url).filter(|_| error.code() == Code::NetworkProxy) {
                Some(proxy) => format!("curl -v -x {} {}", http::place_of(&proxy), bare(&url)),
                None => inspect,
            };
            (Check::new(area, what, Outcome::Fail, detail).next(next), None)
        }
    }
}

/// Returns the error if it may be temporary.
fn passing(outcome: &Result<Answer, HttpError>) -> Option<String> {
    match outcome {
        Ok(answer) => (answer.status >= 500).then(|| format!("status {}", answer.status)),
        Err(error) => Some(error.code().to_string()),
    }
}

/// Returns the URL to request.
fn door(endpoint: &Endpoint) -> Url {
    let mut url = endpoint.base.clone();
    if !endpoint.path.is_empty()
        && let Ok(mut segments) = url.path_segments_mut()
    {
        segments.pop_if_empty().extend(endpoint.path.split('/'));
    }
    url
}

/// Returns why `answer` cannot be the platform's, and how certain that is.
fn stranger(platform: PlatformName, endpoint: &Endpoint, answer: &Answer) -> Option<(Outcome, String)> {
    let status = answer.status;
    let fail = |odd: String| Some((Outcome::Fail, odd));
    if status >= 500 {
        return fail(format!("answers with status {status}"));
    }
    endpoint.documented?;
    let title = platform.rules().title;
    if answer.is_web_page() {
        return fail(format!("answers with a web page (status {status})"));
    }
    // Proxies and gateways reject too; only the platform's own error format identifies it. Twitch's official mock server has none.
    if matches!(status, 400 | 401 | 403) && !is_own_error(platform, answer) {
        let odd = format!("answers with status {status} without {title}'s own error, as a proxy does");
        return Some((Outcome::Warn, odd));
    }
    // A mock may be less strict than the platform, which returns 401; an address without it returns 404 or redirects.
    if !matches!(status, 200..300 | 400 | 401 | 403 | 429) {
        return fail(format!("answers with status {status}, which {title} does not"));
    }
    None
}

/// Returns an address without its possibly secret parts: a suggested command is copied into chats and tickets.
fn bare(url: &Url) -> Url {
    let mut bare = url.clone();
    // Both fail only for addresses without a host, which have no user either.
    let _ = bare.set_username("");
    let _ = bare.set_password(None);
    bare.set_query(None);
    bare.set_fragment(None);
    bare
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_not_the_platforms_is_no_proof_of_it() {
        const REFUSAL: &str = r#"{"status":401,"message":"missing authorization token"}"#;
        for (platform, status, body, passes) in [
            (PlatformName::Twitch, 401, REFUSAL, true),
            (PlatformName::Twitch, 401, "", false),
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
            let endpoint = Endpoint {
                what: "api",
                base: "https://api.example".parse().unwrap(),
                path: "users",
                documented: (platform == PlatformName::Twitch).then_some("twitch.helix_url"),
            };
            let odd = stranger(platform, &endpoint, &Answer::made_up(status, &[], body));
            assert_eq!(odd.is_none(), passes, "{platform} {status} {body}: {odd:?}");
        }
    }

    #[test]
    fn requested_path_is_below_the_base_address() {
        for (path, base, expected) in [
            (
                "validate",
                "https://id.twitch.tv/oauth2",
                "https://id.twitch.tv/oauth2/validate",
            ),
            (
                "users",
                "http://127.0.0.1:8080/mock/",
                "http://127.0.0.1:8080/mock/users",
            ),
            (
                "eventsub/subscriptions",
                "http://127.0.0.1:8081",
                "http://127.0.0.1:8081/eventsub/subscriptions",
            ),
            ("", "https://discord.com/api/v10", "https://discord.com/api/v10"),
        ] {
            let endpoint = Endpoint {
                what: "api",
                base: base.parse().unwrap(),
                path,
                documented: None,
            };
            assert_eq!(door(&endpoint).as_str(), expected);
        }
    }

    #[test]
    fn a_suggested_command_holds_no_password() {
        let url = "https://bot:hunter2@proxy.example/oauth2/validate?token=hush#x"
            .parse()
            .unwrap();
        assert_eq!(bare(&url).as_str(), "https://proxy.example/oauth2/validate");
    }
}
