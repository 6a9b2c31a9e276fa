//! `id.twitch.tv/oauth2`: validate, token, device, revoke, authorize.

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::answer::{Query, Refusal};
use super::devices::{Code, DEVICE_SECS, DeviceState};
use super::handle::TwitchSim;
use super::tokens::{RefreshFailure, TokenPair, TokenSpec};
use super::world::World;
use crate::clock::Clock;

type Outcome = Result<Value, Refusal>;

/// Returns the routes below `/oauth2`, the same below `/auth`, which Twitch's own command line tool uses, and the page where
/// a user confirms a device code.
pub(super) fn routes(twitch: TwitchSim) -> Router {
    let mut router = Router::new();
    for base in ["/oauth2", "/auth"] {
        router = router
            .route(&format!("{base}/validate"), get(validate))
            .route(&format!("{base}/token"), post(token))
            .route(&format!("{base}/device"), post(device))
            .route(&format!("{base}/revoke"), post(revoke));
    }
    router
        .route("/oauth2/authorize", get(authorize))
        .route("/auth/authorize", get(authorize).post(mock_user_token))
        .route("/activate", get(activate))
        .with_state(twitch)
}

/// Issues a user token without a browser, as Twitch's own mock server does (`grant_type=user_token`).
async fn mock_user_token(
    State(twitch): State<TwitchSim>,
    RawQuery(query): RawQuery,
    body: String,
) -> Response {
    let form = parameters(query.as_deref(), &body);
    respond(twitch.with_world(|world, _| {
        let client = client_id(world, &form)?;
        check_secret(world, client, &form)?;
        if form.get("grant_type") != Some("user_token") {
            return Err(Refusal::new(400, "invalid grant type"));
        }
        let user = form.get("user_id").filter(|user| world.user(user).is_some());
        let user = user
            .ok_or_else(|| Refusal::new(400, "invalid user id"))?
            .to_owned();
        let scopes = scope_list(form.get("scope"));
        Ok(issue_user_token(&twitch, world, client, user, scopes))
    }))
}

fn respond(outcome: Outcome) -> Response {
    match outcome {
        Ok(body) => Json(body).into_response(),
        Err(refusal) => refusal.into_oauth(),
    }
}

async fn validate(State(twitch): State<TwitchSim>, headers: HeaderMap) -> Response {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let text = given.and_then(|value| {
        let (scheme, text) = value.split_once(' ')?;
        ["oauth", "bearer"]
            .iter()
            .any(|known| scheme.eq_ignore_ascii_case(known))
            .then_some(text.trim())
    });
    respond(twitch.with_world(|world, now| {
        let text = text.ok_or_else(|| Refusal::new(401, "missing authorization token"))?;
        let token = world
            .tokens
            .check(text, now)
            .ok_or_else(|| Refusal::new(401, "invalid access token"))?;
        // Old tokens that never expire are reported as 0.
        let expires_in = token.expires_at.map_or(0, |end| end.millis_since(now) / 1000);
        let Some(user_id) = &token.user_id else {
            return Ok(json!({"client_id": token.client_id, "scopes": null, "expires_in": expires_in}));
        };
        let login = world
            .user(user_id)
            .map(|user| user.login.clone())
            .unwrap_or_default();
        Ok(json!({
            "client_id": token.client_id, "login": login, "scopes": token.scopes, "user_id": user_id,
            "expires_in": expires_in,
        }))
    }))
}

/// Parses parameters from the body and, as Twitch allows too, from the query.
fn parameters(query: Option<&str>, body: &str) -> Query {
    Query::parse(body).and(query.unwrap_or_default())
}

async fn token(State(twitch): State<TwitchSim>, RawQuery(query): RawQuery, body: String) -> Response {
    let form = parameters(query.as_deref(), &body);
    respond(twitch.with_world(|world, _| match form.get("grant_type") {
        Some("refresh_token") => refresh(&twitch, world, &form),
        Some("client_credentials") => client_credentials(&twitch, world, &form),
        Some("authorization_code") => authorization_code(&twitch, world, &form),
        Some("urn:ietf:params:oauth:grant-type:device_code") => device_grant(&twitch, world, &form),
        Some(_) => Err(Refusal::new(400, "invalid grant type")),
        None => Err(Refusal::new(400, "missing grant type")),
    }))
}

/// Returns the id of the application in the request, if it is registered.
fn client_id<'a>(world: &World, form: &'a Query) -> Result<&'a str, Refusal> {
    let id = form
        .get("client_id")
        .ok_or_else(|| Refusal::new(400, "missing client id"))?;
    if world.tokens.clients.contains_key(id) {
        Ok(id)
    } else {
        Err(Refusal::new(400, "invalid client"))
    }
}

/// Requires the secret of a confidential client, and none of a public one.
fn check_secret(world: &World, client_id: &str, form: &Query) -> Result<(), Refusal> {
    let known = world
        .tokens
        .clients
        .get(client_id)
        .and_then(|client| client.secret.as_deref());
    match (known, form.get("client_secret")) {
        (Some(_), None) => Err(Refusal::new(400, "missing client secret")),
        (known, given) if known == given => Ok(()),
        _ => Err(Refusal::new(403, "invalid client secret")),
    }
}

fn token_json(pair: &TokenPair) -> Value {
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

fn refresh(twitch: &TwitchSim, world: &mut World, form: &Query) -> Outcome {
    let client = client_id(world, form)?;
    check_secret(world, client, form)?;
    let text = form
        .get("refresh_token")
        .ok_or_else(|| Refusal::new(400, "missing refresh token"))?;
    let (now, chance) = (twitch.clock().now(), twitch.host().chance());
    world
        .tokens
        .refresh(client, text, now, chance)
        .map(|pair| token_json(&pair))
        .map_err(|failure| {
            if let RefreshFailure::SpentTwice { user_id } = failure {
                world.disconnect(client, &user_id);
            }
            Refusal::new(400, "Invalid refresh token")
        })
}

fn client_credentials(twitch: &TwitchSim, world: &mut World, form: &Query) -> Outcome {
    let client = client_id(world, form)?;
    if form.get("client_secret").is_none() {
        return Err(Refusal::new(400, "missing client secret"));
    }
    check_secret(world, client, form)?;
    let spec = TokenSpec {
        client_id: client.to_owned(),
        ..TokenSpec::default()
    };
    Ok(token_json(&world.tokens.issue(
        spec,
        twitch.clock().now(),
        twitch.host().chance(),
    )))
}

fn authorization_code(twitch: &TwitchSim, world: &mut World, form: &Query) -> Outcome {
    let client = client_id(world, form)?;
    check_secret(world, client, form)?;
    let text = form
        .get("code")
        .ok_or_else(|| Refusal::new(400, "missing authorization code"))?;
    let code = world
        .devices
        .take_code(text)
        .filter(|code| code.client_id == client);
    let code = code.ok_or_else(|| Refusal::new(400, "Invalid authorization code"))?;
    if form.get("redirect_uri") != Some(code.redirect_uri.as_str()) {
        return Err(Refusal::new(
            400,
            "Parameter redirect_uri does not match registered URI",
        ));
    }
    Ok(issue_user_token(twitch, world, client, code.user_id, code.scopes))
}

fn device_grant(twitch: &TwitchSim, world: &mut World, form: &Query) -> Outcome {
    let client = client_id(world, form)?;
    let text = form
        .get("device_code")
        .ok_or_else(|| Refusal::new(400, "missing device_code"))?;
    let granted = world.devices.exchange(client, text, twitch.clock().now());
    let (user_id, scopes) = granted.map_err(|message| Refusal::new(400, message))?;
    Ok(issue_user_token(twitch, world, client, user_id, scopes))
}

fn issue_user_token(
    twitch: &TwitchSim,
    world: &mut World,
    client: &str,
    user_id: String,
    scopes: Vec<String>,
) -> Value {
    let spec = TokenSpec {
        client_id: client.to_owned(),
        user_id: Some(user_id),
        scopes,
        ..TokenSpec::default()
    };
    token_json(
        &world
            .tokens
            .issue(spec, twitch.clock().now(), twitch.host().chance()),
    )
}

fn scope_list(text: Option<&str>) -> Vec<String> {
    text.unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

async fn device(State(twitch): State<TwitchSim>, RawQuery(query): RawQuery, body: String) -> Response {
    let form = parameters(query.as_deref(), &body);
    respond(twitch.with_world(|world, now| {
        let client = client_id(world, &form)?;
        let scopes = scope_list(form.get("scopes"));
        let (device_code, user_code) = world.devices.start(client, scopes, now, twitch.host().chance());
        let page = format!("{}/activate?public=true&device-code={user_code}", twitch.http());
        Ok(json!({
            "device_code": device_code, "expires_in": DEVICE_SECS, "interval": 5, "user_code": user_code,
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
        (!code.is_empty() && world.devices.decide(code, &DeviceState::Granted(user)) > 0).then_some(())
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

async fn authorize(State(twitch): State<TwitchSim>, RawQuery(query): RawQuery) -> Response {
    let query = Query::parse(query.as_deref().unwrap_or_default());
    let redirect = twitch.with_world(|world, _| {
        let client = client_id(world, &query)?;
        let target = query
            .get("redirect_uri")
            .and_then(|text| url::Url::parse(text).ok());
        let mut target = target.ok_or_else(|| Refusal::new(400, "Missing or invalid redirect_uri"))?;
        if query.get("response_type") != Some("code") {
            return Err(Refusal::new(
                501,
                "not simulated: a response_type other than code",
            ));
        }
        let scope = query.get("scope").unwrap_or_default();
        let code = world.knobs.consent.clone().map(|user_id| Code {
            client_id: client.to_owned(),
            user_id,
            scopes: scope_list(Some(scope)),
            redirect_uri: query.get("redirect_uri").unwrap_or_default().to_owned(),
        });
        let mut pairs = target.query_pairs_mut();
        if let Some(code) = code {
            let text = world.devices.issue_code(code, twitch.host().chance());
            pairs.append_pair("code", &text).append_pair("scope", scope);
        } else {
            pairs.append_pair("error", "access_denied");
            pairs.append_pair("error_description", "The user denied you access");
        }
        if let Some(state) = query.get("state") {
            pairs.append_pair("state", state);
        }
        drop(pairs);
        Ok(target)
    });
    match redirect {
        Ok(target) => Redirect::to(target.as_str()).into_response(),
        Err(refusal) => refusal.into_oauth(),
    }
}

async fn revoke(State(twitch): State<TwitchSim>, RawQuery(query): RawQuery, body: String) -> Response {
    let form = parameters(query.as_deref(), &body);
    let outcome = twitch.with_world(|world, now| {
        let client = form
            .get("client_id")
            .ok_or_else(|| Refusal::new(400, "missing client id"))?;
        if !world.tokens.clients.contains_key(client) {
            return Err(Refusal::new(404, "client does not exist"));
        }
        let text = form
            .get("token")
            .ok_or_else(|| Refusal::new(400, "missing oauth token"))?;
        if world.tokens.revoke(client, text, now) {
            Ok(())
        } else {
            Err(Refusal::new(400, "Invalid token"))
        }
    });
    match outcome {
        Ok(()) => StatusCode::OK.into_response(),
        Err(refusal) => refusal.into_oauth(),
    }
}
