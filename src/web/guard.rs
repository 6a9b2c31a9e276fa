//! Who may look: anyone on this machine, and elsewhere whoever shows the token.

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::{Web, answer};

/// Paths that a supervisor asks without a token; they tell nothing but whether we live.
const OPEN: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// Lets a request through or refuses it.
///
/// Without a token we listen on loopback only, and then a request must name a loopback host: a page on the internet whose
/// name was pointed at 127.0.0.1 must not read a person's debug pages through their browser.
pub(super) async fn guard(State(web): State<Web>, request: Request, next: Next) -> Response {
    let open = OPEN.contains(&request.uri().path());
    let mut response = match &web.token {
        _ if open => next.run(request).await,
        Some(token) if shows(request.headers(), token.expose_secret()) => next.run(request).await,
        Some(_) => {
            let mut refused = answer(401, json!({"error": "unauthorized"}));
            refused
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            refused
        }
        None if names_loopback(request.headers()) => next.run(request).await,
        None => answer(403, json!({"error": "forbidden_host"})),
    };
    let headers = response.headers_mut();
    headers.insert("cache-control", HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

fn shows(headers: &HeaderMap, token: &str) -> bool {
    let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = shown
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or_default();
    aws_lc_rs::constant_time::verify_slices_are_equal(shown.as_bytes(), token.as_bytes()).is_ok()
}

fn names_loopback(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let address: Option<std::net::IpAddr> = name.parse().ok();
    name.eq_ignore_ascii_case("localhost") || address.is_some_and(|address| address.is_loopback())
}
