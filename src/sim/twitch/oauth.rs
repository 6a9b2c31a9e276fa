//! `id.twitch.tv/oauth2`: validate, token, device, revoke, authorize.

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::handle::TwitchSim;
use super::world::World;
use crate::sim::kit::oauth::{
    self, Code, Consent, DEVICE_SECS, Denied, DeviceState, OAuth, Refused, TokenPair, TokenSpec, Tokens,
};
use crate::sim::kit::query::Query;

/// Returns the routes below `/oauth2`, the same below `/auth`, which Twitch's own command line tool uses, and the page where
/// a user confirms a device code.
pub(super) fn routes(twitch: TwitchSim) -> Router {
    let mut router = Router::new();
    for base in ["/oauth2", "/auth"] {
        router = router
            .route(&format!("{base}/validate"), get(validate))
            .route(&format!("{base}/token"), post(oauth::token::<World>))
            .route(&format!("{base}/device"), post(device))
            .route(&format!("{base}/revoke"), post(revoke));
    }
    let authorize = get(oauth::authorize::<World>);
    router
        .route("/oauth2/authorize", authorize.clone())
        .route("/auth/authorize", authorize.post(mock_user_token))
        .route("/activate", get(activate))
        .with_state(twitch)
}

impl OAuth for World {
    type User = String;
    const DEVICE_CODES: bool = true;
    const QUERY_PARAMETERS: bool = true;
    const GRANT_TYPE_FIRST: bool = true;

    fn tokens(&mut self) -> &mut Tokens<String> {
        &mut self.tokens
    }

    fn deny(&self, denied: &Denied) -> Refused {
        match denied {
            Denied::Missing("code") => refusal(400, "missing authorization code"),
            Denied::Missing("device_code") => refusal(400, "missing device_code"),
            Denied::Missing(parameter) => refusal(400, &format!("missing {}", parameter.replace('_', " "))),
            Denied::GrantType => refusal(400, "invalid grant type"),
            Denied::Client => refusal(400, "invalid client"),
            Denied::Secret => refusal(403, "invalid client secret"),
            Denied::RefreshToken => refusal(400, "Invalid refresh token"),
            Denied::Code => refusal(400, "Invalid authorization code"),
            Denied::RedirectUri => refusal(400, "Parameter redirect_uri does not match registered URI"),
            Denied::Device(message) => refusal(400, message),
        }
    }

    fn granted(&self, pair: &TokenPair) -> Value {
        let mut body =
            json!({"access_token": pair.access, "expires_in": pair.expires_in, "token_type": "bearer"});
        if let Some(refresh) = &pair.refresh {
            body["refresh_token"] = json!(refresh);
        }
        if !pair.scopes.is_empty() {
            body["scope"] = json!(pair.scopes);
        }
        body
    }

    fn consent(&mut self, query: &Query) -> Result<Consent<String>, Refused> {
        let client = oauth::client(&self.tokens, query).map_err(|denied| self.deny(&denied))?;
        let redirect_uri = query.get("redirect_uri").unwrap_or_default();
        let target = redirect_uri
            .parse()
            .map_err(|_| refusal(400, "Missing or invalid redirect_uri"))?;
        if query.get("response_type") != Some("code") {
            return Err(refusal(501, "not simulated: a response_type other than code"));
        }
        let code = self.knobs.consent.clone().map(|user_id| Code {
            client_id: client.to_owned(),
            user_id,
            scopes: scope_list(query.get("scope")),
            redirect_uri: redirect_uri.to_owned(),
            challenge: None,
        });
        Ok(Consent {
            target,
            code,
            echo: &["scope"],
        })
    }

    fn spent_twice(&mut self, client_id: &str, user_id: &String) {
        self.disconnect(client_id, user_id);
    }
}

fn refusal(status: u16, message: &str) -> Refused {
    (status, json!({"status": status, "message": message}))
}

fn respond(outcome: Result<Value, Refused>) -> Response {
    outcome.map_or_else(oauth::refused, |body| axum::Json(body).into_response())
}

/// Parses parameters from the body and, as Twitch allows too, from the query.
fn parameters(query: Option<&str>, body: &str) -> Query {
    Query::parse(body).and(query.unwrap_or_default())
}

fn scope_list(text: Option<&str>) -> Vec<String> {
    let scopes = text.unwrap_or_default().split_whitespace();
    scopes.map(str::to_owned).collect()
}

/// Issues a user token without a browser, as Twitch's own mock server does (`grant_type=user_token`).
async fn mock_user_token(
    State(twitch): State<TwitchSim>,
    RawQuery(query): RawQuery,
    body: String,
) -> Response {
    let form = parameters(query.as_deref(), &body);
    respond(twitch.with_world(|world, now| {
        let tokens = &world.tokens;
        let client = oauth::client(tokens, &form).map_err(|denied| world.deny(&denied))?;
        oauth::client_secret(tokens, client, &form).map_err(|denied| world.deny(&denied))?;
        if form.get("grant_type") != Some("user_token") {
            return Err(world.deny(&Denied::GrantType));
        }
        let user = form.get("user_id").filter(|user| world.user(user).is_some());
        let spec = TokenSpec {
            client_id: client.to_owned(),
            user_id: Some(user.ok_or_else(|| refusal(400, "invalid user id"))?.to_owned()),
            scopes: scope_list(form.get("scope")),
            ..TokenSpec::default()
        };
        let pair = world.tokens.issue(spec, now, twitch.host().chance());
        Ok(world.granted(&pair))
    }))
}

async fn validate(State(twitch): State<TwitchSim>, headers: HeaderMap) -> Response {
    respond(twitch.with_world(|world, now| {
        let text = oauth::bearer(&headers, &["oauth", "bearer"]);
        let text = text.ok_or_else(|| refusal(401, "missing authorization token"))?;
        let token = world.tokens.check(text, now);
        let token = token.ok_or_else(|| refusal(401, "invalid access token"))?;
        let expires_in = token.expires_at.millis_since(now) / 1000;
        let Some(user_id) = &token.user_id else {
            return Ok(json!({"client_id": token.client_id, "scopes": null, "expires_in": expires_in}));
        };
        let user = world.user(user_id);
        Ok(json!({
            "client_id": token.client_id, "login": user.map_or("", |user| user.login.as_str()), "scopes": token.scopes,
            "user_id": user_id, "expires_in": expires_in,
        }))
    }))
}

async fn device(State(twitch): State<TwitchSim>, RawQuery(query): RawQuery, body: String) -> Response {
    let form = parameters(query.as_deref(), &body);
    respond(twitch.with_world(|world, now| {
        let client = oauth::client(&world.tokens, &form).map_err(|denied| world.deny(&denied))?;
        let scopes = scope_list(form.get("scopes"));
        let interval = world.knobs.device_interval.unwrap_or(5);
        let secs = world.knobs.device_secs.unwrap_or(DEVICE_SECS);
        let devices = &mut world.tokens.devices;
        let (device_code, user_code) =
            devices.start(client, scopes, now.plus_secs(secs), twitch.host().chance());
        let page = format!("{}/activate?public=true&device-code={user_code}", twitch.http());
        Ok(json!({
            "device_code": device_code, "expires_in": secs, "interval": interval, "user_code": user_code,
            "verification_uri": page,
        }))
    }))
}

/// The page behind `verification_uri`: here the user of the `consent` knob agrees at once.
async fn activate(State(twitch): State<TwitchSim>, RawQuery(query): RawQuery) -> Response {
    let query = Query::parse(query.as_deref().unwrap_or_default());
    let code = query.get("device-code").unwrap_or_default();
    let granted = twitch.with_world(|world, _| {
        let user = world.knobs.consent.clone()?;
        let devices = &mut world.tokens.devices;
        (!code.is_empty() && devices.decide(code, &DeviceState::Granted(user)) > 0).then_some(())
    });
    match granted {
        Some(()) => Html("<p>Connected. You can go back to the terminal.</p>").into_response(),
        None => (
            StatusCode::BAD_REQUEST,
            Html("<p>No such code, or no user to authorize it.</p>"),
        )
            .into_response(),
    }
}

async fn revoke(State(twitch): State<TwitchSim>, RawQuery(query): RawQuery, body: String) -> Response {
    let form = parameters(query.as_deref(), &body);
    let outcome = twitch.with_world(|world, now| {
        let client = form.get("client_id");
        let client = client.ok_or_else(|| refusal(400, "missing client id"))?;
        if !world.tokens.clients.contains_key(client) {
            return Err(refusal(404, "client does not exist"));
        }
        let text = form.get("token");
        let text = text.ok_or_else(|| refusal(400, "missing oauth token"))?;
        if world.tokens.revoke_access(client, text, now) {
            Ok(())
        } else {
            Err(refusal(400, "Invalid token"))
        }
    });
    outcome.map_or_else(oauth::refused, |()| StatusCode::OK.into_response())
}
