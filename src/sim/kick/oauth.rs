//! `id.kick.com/oauth`: token (three grants), introspect, revoke, authorize. There is no device flow.

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::answer::{Outcome, Query, Refusal, envelope};
use super::handle::KickSim;
use super::tokens::{KickTokenSpec, KickTokens};
use super::world::World;
use crate::core::time::Timestamp;

/// Every scope that exists.
pub(super) const SCOPES: [&str; 11] = [
    "user:read",
    "channel:read",
    "channel:write",
    "channel:rewards:read",
    "channel:rewards:write",
    "chat:write",
    "streamkey:read",
    "events:subscribe",
    "moderation:ban",
    "moderation:chat_message:manage",
    "kicks:read",
];

/// Returns the routes below `/oauth`, and the deprecated introspection on the API's host.
pub(super) fn routes(kick: KickSim) -> Router {
    Router::new()
        .route("/oauth/authorize", get(authorize))
        .route("/oauth/token", post(token))
        .route("/oauth/revoke", post(revoke))
        .route("/oauth/token/introspect", post(introspect))
        .route("/public/v1/token/introspect", post(introspect))
        .with_state(kick)
}

/// Returns the token of an `Authorization: Bearer` header.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, text) = headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(text.trim())
}

fn malformed() -> Refusal {
    Refusal {
        status: 400,
        body: json!({"error": "Invalid request"}),
    }
}

async fn token(State(kick): State<KickSim>, body: String) -> Response {
    let form = Query::parse(&body);
    let outcome = kick.with_world(|world, now| {
        let client_id = form.get("client_id").ok_or_else(malformed)?;
        let secret = form.get("client_secret").unwrap_or_default();
        if !world.tokens.knows(client_id, secret) {
            let words = "Client authentication failed";
            return Err(Refusal::oauth(401, "invalid_client", words));
        }
        grant(world, &form, client_id, now)
    });
    match outcome {
        Ok(body) => Json(body).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

fn grant(world: &mut World, form: &Query, client_id: &str, now: Timestamp) -> Outcome {
    let chance = world.chance.clone();
    let gone = |world: &World| {
        let status = if world.knobs.invalid_grant_401 { 401 } else { 400 };
        let words = "The provided authorization grant (e.g., authorization code, resource owner credentials) or \
                     refresh token is invalid, expired, revoked, does not match the redirection URI, or was issued \
                     to another client.";
        Refusal::oauth(status, "invalid_grant", words)
    };
    match form.get("grant_type") {
        Some("client_credentials") => {
            let spec = KickTokenSpec {
                client_id: client_id.to_owned(),
                ..KickTokenSpec::default()
            };
            let tokens = world.tokens.issue(spec, now, &chance);
            Ok(token_json(world, &tokens))
        }
        Some("refresh_token") => {
            let text = form.get("refresh_token").ok_or_else(malformed)?;
            let tokens = world.tokens.refresh(client_id, text, now, &chance);
            tokens.map_or_else(|| Err(gone(world)), |tokens| Ok(token_json(world, &tokens)))
        }
        Some("authorization_code") => {
            let code = form.get("code").ok_or_else(malformed)?;
            let code = world.tokens.take_code(code, now).ok_or_else(|| gone(world))?;
            let verifier = form.get("code_verifier").unwrap_or_default();
            let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes());
            let proven = URL_SAFE_NO_PAD.encode(hash.as_ref()) == code.challenge;
            let same_place = form.get("redirect_uri") == Some(code.redirect_uri.as_str());
            if !proven || !same_place || code.client_id != client_id {
                return Err(gone(world));
            }
            let spec = KickTokenSpec {
                client_id: client_id.to_owned(),
                user_id: Some(code.user_id),
                scopes: code.scopes.into_iter().collect(),
                ..KickTokenSpec::default()
            };
            let tokens = world.tokens.issue(spec, now, &chance);
            Ok(token_json(world, &tokens))
        }
        _ => Err(malformed()),
    }
}

fn token_json(world: &World, tokens: &KickTokens) -> Value {
    let expires_in = if world.knobs.expires_in_text {
        json!(tokens.expires_in.to_string())
    } else {
        json!(tokens.expires_in)
    };
    let mut body = json!({"access_token": tokens.access, "token_type": "Bearer", "expires_in": expires_in});
    if let Some(refresh) = &tokens.refresh {
        body["refresh_token"] = json!(refresh);
        body["scope"] = json!(tokens.scopes.join(" "));
    }
    body
}

async fn introspect(State(kick): State<KickSim>, headers: HeaderMap) -> Response {
    envelope(kick.with_world(|world, now| {
        let text = bearer(&headers).ok_or_else(Refusal::unauthorized)?;
        let Some(token) = world.tokens.check(text, now) else {
            return if world.knobs.introspect_inactive_401 {
                Err(Refusal::unauthorized())
            } else {
                Ok(json!({"active": false}))
            };
        };
        Ok(json!({
            "active": true,
            "client_id": token.client_id,
            "token_type": if token.user_id.is_some() { "user" } else { "app" },
            "scope": token.scopes.iter().map(String::as_str).collect::<Vec<_>>().join(" "),
            "exp": token.expires_at.plus_millis(world.clock.skew()).as_millis().div_euclid(1000),
        }))
    }))
}

async fn revoke(State(kick): State<KickSim>, RawQuery(query): RawQuery, body: String) -> Response {
    let query = Query::parse(&query.unwrap_or_default());
    let form = Query::parse(&body);
    let token = query.get("token").or_else(|| form.get("token"));
    match token {
        Some(token) => {
            kick.with_world(|world, _| world.tokens.revoke(token));
            "OK".into_response()
        }
        None => malformed().into_response(),
    }
}

/// The consent page; the user set by the knob `consent` agrees at once.
async fn authorize(State(kick): State<KickSim>, RawQuery(query): RawQuery) -> Response {
    let query = Query::parse(&query.unwrap_or_default());
    let target = kick.with_world(|world, now| {
        let need = |name| query.get(name).ok_or_else(malformed);
        let (client_id, redirect_uri, state) = (need("client_id")?, need("redirect_uri")?, need("state")?);
        let (challenge, scope) = (need("code_challenge")?, need("scope")?);
        let user_id = world.knobs.consent.ok_or_else(malformed)?;
        let known = world.tokens.apps.contains_key(client_id);
        let plain = query.get("response_type") == Some("code")
            && query.get("code_challenge_method") == Some("S256")
            && scope.split(' ').all(|scope| SCOPES.contains(&scope));
        let mut target: url::Url = redirect_uri.parse().map_err(|_| malformed())?;
        if !known || !plain {
            return Err(malformed());
        }
        let chance = world.chance.clone();
        let scopes = scope.split(' ').map(str::to_owned).collect();
        let place = (redirect_uri, challenge);
        let code = world
            .tokens
            .agree(client_id, user_id, scopes, place, now, &chance);
        target
            .query_pairs_mut()
            .append_pair("code", &code)
            .append_pair("state", state);
        Ok(target)
    });
    match target {
        Ok(target) => Redirect::to(target.as_str()).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}
