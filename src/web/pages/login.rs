//! Logging in with a browser where a token is configured: the token is typed once, and a cookie stands for it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::hmac;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::{COOKIE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER, SET_COOKIE};
use axum::response::{IntoResponse as _, Response};
use maud::html;
use parking_lot::Mutex;
use secrecy::ExposeSecret as _;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Page, Site};
use crate::core::time::Timestamp;
use crate::web::connections::Peer;
use crate::web::guard::is_same;

const NAME: &str = "bitbrat";
/// For how long a login is valid.
const VALID: i64 = 12 * 3600;
/// Wrong tokens of one address per minute, and of all.
const PER_ADDRESS: usize = 5;
const PER_MINUTE: usize = 30;
const MINUTE: Duration = Duration::from_secs(60);
/// Maximum size of a form, in bytes.
const FORM: usize = 4096;

/// Wrong tokens of the last minute.
#[derive(Debug, Default)]
pub(in crate::web) struct Attempts(Mutex<Vec<(Option<IpAddr>, Instant)>>);

impl Attempts {
    /// Whether another attempt may be made now.
    fn may(&self, address: Option<IpAddr>) -> bool {
        let mut wrong = self.0.lock();
        wrong.retain(|(_, at)| at.elapsed() < MINUTE);
        let own = wrong.iter().filter(|(from, _)| *from == address).count();
        own < PER_ADDRESS && wrong.len() < PER_MINUTE
    }

    fn wrong(&self, address: Option<IpAddr>) {
        self.0.lock().push((address, Instant::now()));
    }
}

/// Logins that were ended before their time, by which copies of their cookies are refused. A restart forgets them: what must not be
/// valid then needs another token.
#[derive(Debug)]
pub(in crate::web) struct Ended {
    /// Until when each would have been valid (s).
    logins: Mutex<BTreeMap<String, i64>>,
    changes: watch::Sender<()>,
}

impl Default for Ended {
    fn default() -> Self {
        Self {
            logins: Mutex::default(),
            changes: watch::Sender::new(()),
        }
    }
}

impl Ended {
    /// Maximum number; the login that would have been valid for the shortest time is forgotten first.
    const KEPT: usize = 1000;

    fn end(&self, shown: &str, until: i64, now: Timestamp) {
        let mut ended = self.logins.lock();
        ended.retain(|_, until| *until > now.as_millis() / 1000);
        if ended.len() >= Self::KEPT
            && let Some(first) = ended.iter().min_by_key(|(_, until)| **until)
        {
            let first = first.0.clone();
            ended.remove(&first);
        }
        ended.insert(shown.to_owned(), until);
        drop(ended);
        self.changes.send_replace(());
    }

    fn contains(&self, shown: &str) -> bool {
        self.logins.lock().contains_key(shown)
    }

    /// Waits until a login is ended by a logout.
    async fn contain(&self, shown: &str) {
        // Subscribed first, so that no logout after the check is missed.
        let mut changes = self.changes.subscribe();
        while !self.contains(shown) && changes.changed().await.is_ok() {}
    }
}

/// A login by which a request is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::web) struct Login {
    shown: String,
    /// The end of its validity, in seconds since the epoch.
    until: i64,
}

impl Login {
    /// Waits for its end: a logout, or the end of its validity.
    pub(in crate::web) async fn ended(self, ended: &Ended, now: Timestamp) {
        let left = u64::try_from(self.until - now.as_millis() / 1000).unwrap_or(0);
        let _expired = tokio::time::timeout(Duration::from_secs(left), ended.contain(&self.shown)).await;
    }
}

/// Returns the cookie of the login `id` that is valid until `until`: its end, its id, and a proof that the token was known. It is
/// valid for every process with the same token, and for none with another.
fn cookie(token: &str, until: i64, id: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes());
    let proof = hmac::sign(&key, format!("bitbrat login {until} {id}").as_bytes());
    let proof: String = proof.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{until}.{id}.{proof}")
}

/// Returns a new cookie. No two are equal, or the logout of one would end another.
fn new_cookie(token: &str, until: i64) -> String {
    cookie(token, until, &Uuid::new_v4().simple().to_string())
}

/// Returns the valid login whose cookie a request contains.
pub(in crate::web) fn login_of(
    headers: &HeaderMap,
    token: &str,
    ended: &Ended,
    now: Timestamp,
) -> Option<Login> {
    logins(headers, token, now).find(|login| !ended.contains(&login.shown))
}

/// Returns the logins whose cookies a request contains, and that have not expired.
fn logins(headers: &HeaderMap, token: &str, now: Timestamp) -> impl Iterator<Item = Login> {
    let sent = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let cookies = sent.flat_map(|value| value.split(';')).map(str::trim);
    cookies.filter_map(move |pair| {
        let shown = pair.strip_prefix(NAME)?.strip_prefix('=')?;
        let mut parts = shown.split('.');
        let (until, id) = (parts.next()?.parse().ok()?, parts.next()?);
        let is_valid = until > now.as_millis() / 1000 && is_same(shown, &cookie(token, until, id));
        is_valid.then(|| Login {
            shown: shown.to_owned(),
            until,
        })
    })
}

pub(super) async fn page(State(site): State<Site>, RawQuery(query): RawQuery) -> Response {
    if site.token.is_none() {
        return redirect("./");
    }
    let fields = fields(query.unwrap_or_default().as_bytes());
    form(200, fields.get("next").map_or("/", String::as_str), None)
}

/// The form. It is sent to a fixed path; where the person wanted to go is in it.
pub(in crate::web) fn form(status: u16, next: &str, wrong: Option<&str>) -> Response {
    let depth = next.split('?').next().unwrap_or_default().matches('/').count();
    // Relative to the page on which the form is shown, so that the server may be behind any prefix.
    let root = if status == 401 && wrong.is_none() {
        "../".repeat(depth.saturating_sub(1))
    } else {
        String::new()
    };
    let content = html! {
        div.login {
            h1 { "Log in" }
            @if let Some(text) = wrong { p.bad role="alert" { (text) } }
            form method="post" action={ (root) "login" } {
                input type="hidden" name="next" value=(next);
                label for="token" { "Token" }
                input #token name="token" type="password" autocomplete="current-password" required autofocus;
                button type="submit" { "Log in" }
            }
            p.dim { "The value of " code { "web.token" } " in the configuration of this server." }
        }
    };
    let page = Page {
        root: &root,
        title: "Log in – bitbrat",
        live: None,
        now: Timestamp::EPOCH,
        is_private: false,
        content,
    };
    page.respond(status)
}

pub(super) async fn submit(State(site): State<Site>, peer: Option<Extension<Peer>>, body: Bytes) -> Response {
    let Some(token) = &site.token else {
        return redirect("./");
    };
    let address = peer.map(|Extension(Peer(address))| address);
    let fields = fields(body.get(..FORM).unwrap_or(&body));
    let next = fields.get("next").map_or("/", String::as_str);
    if !site.attempts.may(address) {
        let mut response = form(429, next, Some("Too many wrong tokens. Try again in a minute."));
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("60"));
        return response;
    }
    let shown = fields.get("token").map_or("", |token| token.trim());
    if !is_same(shown, token.expose_secret()) {
        site.attempts.wrong(address);
        return form(401, next, Some("This is not the token."));
    }
    let until = site.clock.now().as_millis() / 1000 + VALID;
    let cookie = new_cookie(token.expose_secret(), until);
    let mut response = redirect(target(next));
    set_cookie(
        &mut response,
        &format!("{NAME}={cookie}; Path=/; Max-Age={VALID}; HttpOnly; SameSite=Strict"),
    );
    response
}

pub(super) async fn leave(State(site): State<Site>, headers: HeaderMap) -> Response {
    if let Some(token) = &site.token {
        let now = site.clock.now();
        for login in logins(&headers, token.expose_secret(), now) {
            site.ended.end(&login.shown, login.until, now);
        }
    }
    let mut response = redirect("login");
    set_cookie(
        &mut response,
        &format!("{NAME}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict"),
    );
    response
}

/// Returns where a person is sent after a login: a path of this server, relative to the form's.
fn target(next: &str) -> &str {
    let path = next.strip_prefix('/').unwrap_or_default();
    let is_own =
        !path.starts_with(['/', '\\']) && !path.split(['/', '?']).next().unwrap_or_default().contains(':');
    let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic());
    if is_own && is_plain && !path.is_empty() {
        path
    } else {
        "./"
    }
}

fn redirect(to: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    let to = HeaderValue::from_str(to).unwrap_or(HeaderValue::from_static("./"));
    response.headers_mut().insert(LOCATION, to);
    response
}

fn set_cookie(response: &mut Response, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        response.headers_mut().insert(SET_COOKIE, value);
    }
}

fn fields(form: &[u8]) -> BTreeMap<String, String> {
    let pairs = url::form_urlencoded::parse(form);
    pairs
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookie_is_valid_for_its_token_and_time_only() {
        let now = Timestamp::from_millis(1_780_000_000_000);
        let until = now.as_millis() / 1000 + 10;
        let logged_in = |cookie: &str, token: &str, now: Timestamp| {
            let mut headers = HeaderMap::new();
            let text = format!("a=b; bitbrat={cookie}; c=d");
            headers.insert(COOKIE, HeaderValue::from_str(&text).unwrap());
            login_of(&headers, token, &Ended::default(), now).is_some()
        };
        let own = new_cookie("s3cret", until);
        assert!(logged_in(&own, "s3cret", now));
        assert!(!logged_in(&own, "other", now));
        assert!(!logged_in(&own, "s3cret", now.plus_secs(11)));
        assert!(!logged_in(
            &own.replace(&until.to_string(), &(until + 99).to_string()),
            "s3cret",
            now
        ));
        assert!(!logged_in("", "s3cret", now));
        assert!(!own.contains("s3cret"));
    }

    #[test]
    fn two_logins_of_the_same_second_have_different_cookies() {
        assert_ne!(
            new_cookie("s3cret", 1_780_000_000),
            new_cookie("s3cret", 1_780_000_000)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn login_ends_by_logout_or_at_the_end_of_its_validity() {
        let now = Timestamp::from_millis(1_780_000_000_000);
        let login = |shown: &str| Login {
            shown: shown.to_owned(),
            until: now.as_millis() / 1000 + VALID,
        };
        let ended = Ended::default();
        let began = Instant::now();
        login("one").ended(&ended, now).await;
        assert!(began.elapsed() >= Duration::from_secs(VALID.unsigned_abs()));
        let began = Instant::now();
        let logout = async { ended.end("two", login("two").until, now) };
        tokio::join!(login("two").ended(&ended, now), logout);
        assert!(began.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn copy_of_an_ended_login_is_refused() {
        let now = Timestamp::from_millis(1_780_000_000_000);
        let until = now.as_millis() / 1000 + 10;
        let (ended, own) = (Ended::default(), new_cookie("s3cret", until));
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_str(&format!("bitbrat={own}")).unwrap());
        let other = new_cookie("s3cret", until);
        assert!(login_of(&headers, "s3cret", &ended, now).is_some());
        ended.end(&other, until, now);
        assert!(login_of(&headers, "s3cret", &ended, now).is_some());
        ended.end(&own, until, now);
        assert_eq!(login_of(&headers, "s3cret", &ended, now), None);
        for later in 0..2000 {
            ended.end(&later.to_string(), until + later, now);
        }
        assert!(ended.logins.lock().len() <= Ended::KEPT);
    }

    #[test]
    fn login_leads_to_no_other_site() {
        for (next, expected) in [
            ("/", "./"),
            ("/?q=rat", "?q=rat"),
            ("/sources/twitch:1", "sources/twitch:1"),
            ("//evil.example", "./"),
            ("/\\evil.example", "./"),
            ("https://evil.example", "./"),
            ("/javascript:alert(1)", "./"),
            ("/a\r\nb", "./"),
            ("", "./"),
        ] {
            assert_eq!(target(next), expected, "{next}");
        }
    }

    #[test]
    fn wrong_tokens_are_limited_per_address_and_in_all() {
        let attempts = Attempts::default();
        let address = |last: u8| Some(IpAddr::from([127, 0, 0, last]));
        for _ in 0..PER_ADDRESS {
            assert!(attempts.may(address(1)));
            attempts.wrong(address(1));
        }
        assert!(!attempts.may(address(1)));
        assert!(attempts.may(address(2)));
        for last in 2..40 {
            attempts.wrong(address(last));
        }
        assert!(!attempts.may(address(99)));
    }
}
