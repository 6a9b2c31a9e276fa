//! The redirect address of invitations at the web server. It needs no token: strangers come from the platform, with the `state` of
//! their link.

use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, Method, Response, StatusCode};
use axum::routing::any;

use super::{Received, receive};
use crate::app::App;
use crate::platforms::kit::oauth::callback::{Callback, is_prefetch, page, parse};
use crate::platforms::kit::oauth::pkce;

/// The path of the redirect address.
pub const PATH: &str = "/auth/callback";

/// Returns the route.
pub fn router(app: Arc<App>) -> Router {
    Router::new().route(PATH, any(answer)).with_state(app)
}

async fn answer(
    State(app): State<Arc<App>>,
    method: Method,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response<String> {
    // Only GET is a browser that was redirected; other methods carry the same query and would spend the code.
    if method != Method::GET {
        return page(StatusCode::METHOD_NOT_ALLOWED, "There is nothing here.");
    }
    if is_prefetch(&headers) {
        return page(StatusCode::SERVICE_UNAVAILABLE, "");
    }
    let (state, callback) = parse(query.as_deref().unwrap_or_default());
    // Anything else is no state of ours, and costs no look into the file.
    let is_possible = state.len() == pkce::LENGTH && state.bytes().all(|byte| byte.is_ascii_graphic());
    let result = match callback.filter(|_| is_possible) {
        Some(Callback::Code(code)) => Ok(code),
        Some(Callback::Refused(error)) => Err(error),
        None => return shown(&Received::Unknown),
    };
    shown(&receive(&app, &state, result).await)
}

fn shown(received: &Received) -> Response<String> {
    let (status, text) = match received {
        Received::Consented => (
            StatusCode::OK,
            "Thank you: your consent was received. This page can be closed.",
        ),
        Received::Declined => (
            StatusCode::OK,
            "You declined, and nothing was stored. The link stays valid until it expires.",
        ),
        Received::Unknown => (
            StatusCode::BAD_REQUEST,
            "This link is not valid: it was used already or has expired. Ask for a new one.",
        ),
        Received::OtherAccount => (
            StatusCode::FORBIDDEN,
            "This link is for another account, so nothing was stored. Log in with the account of the channel, and ask for a new link.",
        ),
        Received::Unconfirmed => (
            StatusCode::BAD_GATEWAY,
            "Your consent was not confirmed by the platform, so nothing was stored. Open the link again in some minutes: it stays valid.",
        ),
        Received::Failed => (
            StatusCode::BAD_GATEWAY,
            "Your consent could not be stored. Open the link again later, or ask for a new one.",
        ),
    };
    page(status, text)
}
