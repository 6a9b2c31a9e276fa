//! Servers that are neither Twitch nor our simulator, such as the official mock: deviations are tolerated, and still nothing is
//! claimed without evidence.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::Query;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bitbrat::core::stream::StreamStatus;
use bitbrat::core::verdict::{Holding, holding};
use bitbrat::platforms::Probe;
use bitbrat::platforms::twitch::{self, TwitchOptions};
use serde_json::json;

use super::foreign::{adapter, serve};
use super::{Seen, look};

fn allowed(headers: &HeaderMap) -> bool {
    headers
        .get("authorization")
        .is_some_and(|value| value == "Bearer mocktoken")
        && headers
            .get("client-id")
            .is_some_and(|value| value == "mockclient")
}

fn refused(message: &str) -> Response {
    let body = json!({"status": 401, "error": "Unauthorized", "message": message});
    (StatusCode::UNAUTHORIZED, Json(body)).into_response()
}

/// Helix and OAuth as in the official mock: no rate headers, no `pagination`, expiries that are not checked, endpoints that are
/// missing, bodies that are empty.
fn mock() -> Router {
    let validate = get(|headers: HeaderMap| async move {
        match headers.get("authorization").and_then(|value| value.to_str().ok()) {
            Some("OAuth mocktoken") => Json(json!({
                "client_id": "mockclient", "user_id": "1", "login": "mockbot", "expires_in": -217_476_466,
                "scopes": ["moderation:read", "channel:read:vips"]
            }))
            .into_response(),
            _ => StatusCode::UNAUTHORIZED.into_response(),
        }
    });
    let users = get(
        |headers: HeaderMap, Query(query): Query<Vec<(String, String)>>| async move {
            if !allowed(&headers) {
                return refused("Missing Client ID or OAuth token");
            }
            let known = HashMap::from([("1", "MockBot"), ("2", "MockCaster")]);
            let rows: Vec<_> = query
            .iter()
            .filter_map(|(_, id)| known.get(id.as_str()).map(|name| (id, name)))
            .map(|(id, name)| json!({"id": id, "login": name.to_lowercase(), "display_name": name, "view_count": 0}))
            .collect();
            Json(json!({"data": rows})).into_response()
        },
    );
    let streams = get(|headers: HeaderMap| async move {
        if !allowed(&headers) {
            return refused("Invalid OAuth token");
        }
        Json(json!({"data": [{
            "id": "eb64768e-04f2-6310-505e-9f32f3d52a3b", "user_id": "2", "user_login": "mockcaster",
            "user_name": "MockCaster", "type": "live", "viewer_count": 84_806, "tag_ids": null, "tags": null,
            "started_at": "2026-11-22T01:58:58Z", "title": "Sample stream!", "game_name": "", "thumbnail_url": ""
        }]}))
        .into_response()
    });
    let vips = get(|| async { Json(json!({"data": []})) });
    Router::new()
        .route("/auth/validate", validate)
        .route("/mock/users", users)
        .route("/mock/streams", streams)
        .route("/mock/channels/vips", vips.clone())
        .route("/mock/moderation/moderators", vips)
        .fallback(|| async { (StatusCode::NOT_FOUND, "404 page not found\n") })
}

async fn probe_mock(access: &str, probes: &[Probe]) -> Seen {
    let (address, _server) = serve(mock()).await;
    let options = TwitchOptions {
        auth_url: format!("http://{address}/auth/").parse().unwrap(),
        helix_url: format!("http://{address}/mock").parse().unwrap(),
        client_id: Some("mockclient".to_owned()),
        ..TwitchOptions::default()
    };
    let platform = adapter(options, access, &[twitch::bot(), twitch::broadcaster("1")]).await;
    look(&platform, probes, &["1", "2", "3"]).await
}

#[tokio::test]
async fn the_official_mock_is_understood() {
    let seen = probe_mock("mocktoken", &Probe::ALL).await;
    assert_eq!(seen.verdict("2").stream.value, StreamStatus::Online);
    assert_eq!(seen.verdict("2").viewer_count, Some(84_806));
    assert_eq!(seen.verdict("1").stream.value, StreamStatus::Offline);
    assert_eq!(seen.verdict("3").stream.value, StreamStatus::Unknown);
    assert_eq!(seen.no_such_source("3").as_deref(), Some("twitch.not_found"));
    let auth = seen.verdict("2").auth.unwrap();
    assert_eq!(
        auth.value.to_string(),
        "VALID",
        "it says 200, whatever its figure"
    );
    assert_eq!(seen.verdict("2").status.value.to_string(), "CONNECTED");
    let moderator = holding(&seen.knowledge("2").evidence, "MODERATOR").0;
    assert!(matches!(moderator, Holding::Unknown(Some(_))), "{moderator:?}");
}

#[tokio::test]
async fn its_empty_401_is_a_refusal_and_its_refusals_claim_nothing() {
    let seen = probe_mock("another", &[Probe::Auth, Probe::Connection, Probe::Stream]).await;
    assert_eq!(seen.verdict("2").auth.unwrap().value.to_string(), "EXPIRED");
    assert_eq!(seen.failure("2"), Some((true, "twitch.unauthorized".to_owned())));
    assert_eq!(seen.verdict("2").stream.value, StreamStatus::Unknown);
}

#[tokio::test]
async fn a_server_that_always_sends_a_cursor_is_asked_at_most_twice() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let streams = get(move |Query(query): Query<HashMap<String, String>>| {
        let counted = Arc::clone(&counted);
        async move {
            counted.fetch_add(1, Ordering::SeqCst);
            let rows = match query.get("after") {
                None => json!([{"id": "1", "user_id": "1", "type": "live"}]),
                Some(_) => json!([{"id": "1", "user_id": "1", "type": "live"},
                                  {"id": "2", "user_id": "2", "type": "live"}]),
            };
            let next = format!("after-{}", counted.load(Ordering::SeqCst));
            Json(json!({"data": rows, "pagination": {"cursor": next}}))
        }
    });
    // The mock server's tokens expired long ago by their own data, so a request to the API checks whether it accepts this one.
    let users = get(|| async { Json(json!({"data": []})) });
    let app = mock().route("/odd/users", users).route("/odd/streams", streams);
    let (address, _server) = serve(app).await;
    let options = TwitchOptions {
        auth_url: format!("http://{address}/auth").parse().unwrap(),
        helix_url: format!("http://{address}/odd").parse().unwrap(),
        ..TwitchOptions::default()
    };
    let platform = adapter(options, "mocktoken", &[twitch::bot()]).await;
    let seen = look(&platform, &[Probe::Stream], &["1", "2", "3"]).await;
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    assert_eq!(seen.verdict("2").stream.value, StreamStatus::Online);
    // The third was not listed, but there are further pages: its state is unknown.
    assert_eq!(seen.verdict("3").stream.value, StreamStatus::Unknown);
}
