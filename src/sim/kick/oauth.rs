//! `id.kick.com/oauth`: token (three grants), introspect, revoke, authorize. There is no device flow.

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::answer::{Refusal, envelope};
use super::handle::KickSim;
use super::world::World;
use crate::sim::kit::oauth::{self, Code, Consent, Denied, OAuth, Refused, TokenPair, Tokens};
use crate::sim::kit::query::Query;

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
        .route("/oauth/authorize", get(oauth::authorize::<World>))
        .route("/oauth/token", post(oauth::token::<World>))
        .route("/oauth/revoke", post(revoke))
        .route("/oauth/token/introspect", post(introspect))
        .route("/public/v1/token/introspect", post(introspect))
        .with_state(kick)
}

impl OAuth for World {
    type User = u64;
    const DEVICE_CODES: bool = false;
    const QUERY_PARAMETERS: bool = false;
    const GRANT_TYPE_FIRST: bool = false;

    fn tokens(&mut self) -> &mut Tokens<u64> {
        &mut self.tokens
    }

    fn deny(&self, denied: &Denied) -> Refused {
        match denied {
            Denied::Client | Denied::Secret | Denied::Missing("client_secret") => {
                failed(401, "invalid_client", "Client authentication failed")
            }
            Denied::Missing(_) | Denied::GrantType | Denied::Device(_) => malformed(),
            Denied::RefreshToken | Denied::Code | Denied::RedirectUri => {
                let status = if self.knobs.invalid_grant_401 { 401 } else { 400 };
                let words = "The provided authorization grant (e.g., authorization code, resource owner credentials) \
                             or refresh token is invalid, expired, revoked, does not match the redirection URI, or \
                             was issued to another client.";
                failed(status, "invalid_grant", words)
            }
        }
    }

    fn granted(&self, pair: &TokenPair) -> Value {
        let expires_in = if self.knobs.expires_in_text {
            json!(pair.expires_in.to_string())
        } else {
            json!(pair.expires_in)
        };
        let mut body = json!({"access_token": pair.access, "token_type": "Bearer", "expires_in": expires_in});
        if let Some(refresh) = &pair.refresh {
            body["refresh_token"] = json!(refresh);
            body["scope"] = json!(pair.scopes.join(" "));
        }
        body
    }

    fn consent(&mut self, query: &Query) -> Result<Consent<u64>, Refused> {
        let need = |name| query.get(name).ok_or_else(malformed);
        let (client_id, redirect_uri, _) = (need("client_id")?, need("redirect_uri")?, need("state")?);
        let (challenge, scope) = (need("code_challenge")?, need("scope")?);
        let known = self.tokens.clients.contains_key(client_id);
        let plain = query.get("response_type") == Some("code")
            && query.get("code_challenge_method") == Some("S256")
            && scope.split(' ').all(|scope| SCOPES.contains(&scope));
        if !known || !plain {
            return Err(malformed());
        }
        let code = Code {
            client_id: client_id.to_owned(),
            user_id: self.knobs.consent.ok_or_else(malformed)?,
            scopes: scope.split(' ').map(str::to_owned).collect(),
            redirect_uri: redirect_uri.to_owned(),
            challenge: Some(challenge.to_owned()),
        };
        Ok(Consent {
            target: redirect_uri.parse().map_err(|_| malformed())?,
            code: Some(code),
            echo: &[],
        })
    }
}

fn malformed() -> Refused {
    (400, json!({"error": "Invalid request"}))
}

fn failed(status: u16, error: &str, description: &str) -> Refused {
    (status, json!({"error": error, "error_description": description}))
}

async fn introspect(State(kick): State<KickSim>, headers: HeaderMap) -> Response {
    envelope(kick.with_world(|world, now| {
        let text = oauth::bearer(&headers, &["bearer"]).ok_or_else(Refusal::unauthorized)?;
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
            "scope": token.scopes.join(" "),
            "exp": token.expires_at.plus_millis(world.clock.skew()).as_millis().div_euclid(1000),
        }))
    }))
}

async fn revoke(State(kick): State<KickSim>, RawQuery(query): RawQuery, body: String) -> Response {
    let parameters = Query::parse(&query.unwrap_or_default()).and(&body);
    match parameters.get("token") {
        Some(token) => {
            kick.with_world(|world, _| world.tokens.revoke(token));
            "OK".into_response()
        }
        None => oauth::refused(malformed()),
    }
}
