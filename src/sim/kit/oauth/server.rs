//! The endpoints that platforms have in common: the token endpoint with its grants, and the page for consent.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde_json::Value;
use url::Url;

use super::spec::{Code, TokenPair, TokenSpec};
use super::tokens::{RefreshFailure, Tokens};
use crate::clock::Chance;
use crate::core::time::Timestamp;
use crate::sim::kit::handle::{PlatformSim, Simulated};
use crate::sim::kit::query::Query;

/// Status and body of a refusal.
pub type Refused = (u16, Value);

/// Why the token endpoint refuses a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// This parameter is missing.
    Missing(&'static str),
    /// The platform has no such grant type.
    GrantType,
    /// There is no such application.
    Client,
    /// It is not the application's secret.
    Secret,
    /// The refresh token is unknown, expired, revoked or spent.
    RefreshToken,
    /// The authorization code is unknown, expired, spent, of another application, or not proven.
    Code,
    /// The redirect URI is not that of the authorization code.
    RedirectUri,
    /// The device code cannot be exchanged (yet), with the platform's message.
    Device(String),
}

/// A user's answer on the page for consent.
pub struct Consent<U> {
    /// Where the browser is sent to.
    pub target: Url,
    /// The consent, or `None` when the user declines.
    pub code: Option<Code<U>>,
    /// The parameters that are sent along after the code.
    pub echo: &'static [&'static str],
}

/// A platform with an OAuth server.
pub trait OAuth: Simulated {
    /// A user's id.
    type User: Clone + Ord;
    /// Whether there are device codes.
    const DEVICE_CODES: bool;
    /// Whether parameters of the token endpoint may be in the query, too.
    const QUERY_PARAMETERS: bool;
    /// Whether the grant type is checked before the application.
    const GRANT_TYPE_FIRST: bool;

    /// Returns all tokens.
    fn tokens(&mut self) -> &mut Tokens<Self::User>;

    /// Returns the refusal of a request to the token endpoint.
    fn deny(&self, denied: &Denied) -> Refused;

    /// Returns the response with new tokens.
    fn granted(&self, pair: &TokenPair) -> Value;

    /// Returns what the user of the knob `consent` answers to a request for consent.
    fn consent(&mut self, query: &Query) -> Result<Consent<Self::User>, Refused>;

    /// Removes the connection of a user whose one-time refresh token was used a second time.
    fn spent_twice(&mut self, client_id: &str, user_id: &Self::User) {
        self.tokens().disconnect(Some(client_id), Some(user_id));
    }
}

impl<W: OAuth> PlatformSim<W> {
    /// Issues a token as described, as if it had been granted.
    pub fn issue_token(&self, spec: TokenSpec<W::User>) -> TokenPair {
        self.with_world(|world, now| world.tokens().issue(spec, now, self.host().chance()))
    }

    /// Makes an access token expire now; returns whether it existed.
    pub fn expire_token(&self, access: &str) -> bool {
        self.with_world(|world, now| world.tokens().expire(access, now))
    }
}

/// Answers with a refusal.
pub fn refused((status, body): Refused) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, Json(body)).into_response()
}

/// Returns the token of an `Authorization` header with one of `schemes`.
pub fn bearer<'a>(headers: &'a HeaderMap, schemes: &[&str]) -> Option<&'a str> {
    let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, text) = given.split_once(' ')?;
    let known = schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known));
    known.then_some(text.trim())
}

/// The token endpoint.
pub async fn token<W: OAuth>(
    State(sim): State<PlatformSim<W>>,
    RawQuery(query): RawQuery,
    body: String,
) -> Response {
    let mut form = Query::parse(&body);
    if W::QUERY_PARAMETERS {
        form = form.and(query.as_deref().unwrap_or_default());
    }
    let outcome = sim.with_world(|world, now| {
        exchange(world, &form, now, sim.host().chance()).map_err(|denied| world.deny(&denied))
    });
    match outcome {
        Ok(body) => Json(body).into_response(),
        Err(refusal) => refused(refusal),
    }
}

/// The page for consent, on which the user of the knob `consent` answers at once.
pub async fn authorize<W: OAuth>(State(sim): State<PlatformSim<W>>, RawQuery(query): RawQuery) -> Response {
    let query = Query::parse(query.as_deref().unwrap_or_default());
    let target = sim.with_world(|world, now| {
        let Consent {
            mut target,
            code,
            echo,
        } = world.consent(&query)?;
        let mut pairs = target.query_pairs_mut();
        if let Some(code) = code {
            let code = world.tokens().issue_code(code, now, sim.host().chance());
            pairs.append_pair("code", &code);
            for name in echo {
                pairs.append_pair(name, query.get(name).unwrap_or_default());
            }
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
    match target {
        Ok(target) => Redirect::to(target.as_str()).into_response(),
        Err(refusal) => refused(refusal),
    }
}

enum Grant {
    RefreshToken,
    ClientCredentials,
    AuthorizationCode,
    DeviceCode,
}

fn grant<W: OAuth>(form: &Query) -> Result<Grant, Denied> {
    match required(form, "grant_type")? {
        "refresh_token" => Ok(Grant::RefreshToken),
        "client_credentials" => Ok(Grant::ClientCredentials),
        "authorization_code" => Ok(Grant::AuthorizationCode),
        "urn:ietf:params:oauth:grant-type:device_code" if W::DEVICE_CODES => Ok(Grant::DeviceCode),
        _ => Err(Denied::GrantType),
    }
}

fn required<'a>(form: &'a Query, name: &'static str) -> Result<&'a str, Denied> {
    form.get(name).ok_or(Denied::Missing(name))
}

/// Returns the id of the application in the request, if it is registered.
pub fn client<'a, U>(tokens: &Tokens<U>, form: &'a Query) -> Result<&'a str, Denied> {
    let id = required(form, "client_id")?;
    if tokens.accepts_any_client || tokens.clients.contains_key(id) {
        Ok(id)
    } else {
        Err(Denied::Client)
    }
}

/// Requires the secret of a confidential client, and none of a public one.
pub fn client_secret<U>(tokens: &Tokens<U>, client_id: &str, form: &Query) -> Result<(), Denied> {
    let client = tokens.clients.get(client_id);
    match (
        client.and_then(|client| client.secret.as_deref()),
        form.get("client_secret"),
    ) {
        _ if tokens.accepts_any_client => Ok(()),
        (Some(_), None) => Err(Denied::Missing("client_secret")),
        (known, given) if known == given => Ok(()),
        _ => Err(Denied::Secret),
    }
}

fn exchange<W: OAuth>(world: &mut W, form: &Query, now: Timestamp, chance: &Chance) -> Result<Value, Denied> {
    let mut asked = grant::<W>(form);
    if W::GRANT_TYPE_FIRST {
        asked = Ok(asked?);
    }
    let tokens = world.tokens();
    let client = client(tokens, form)?;
    if !matches!(asked, Ok(Grant::DeviceCode)) {
        client_secret(tokens, client, form)?;
    }
    let mut spec = TokenSpec {
        client_id: client.to_owned(),
        ..TokenSpec::default()
    };
    match asked? {
        Grant::RefreshToken => {
            let text = required(form, "refresh_token")?;
            let pair = tokens.refresh(client, text, now, chance).map_err(|failure| {
                if let RefreshFailure::SpentTwice { user_id } = failure {
                    world.spent_twice(client, &user_id);
                }
                Denied::RefreshToken
            })?;
            return Ok(world.granted(&pair));
        }
        Grant::ClientCredentials => {
            required(form, "client_secret")?;
        }
        Grant::AuthorizationCode => {
            let code = tokens.take_code(required(form, "code")?, now);
            let verifier = form.get("code_verifier").unwrap_or_default();
            let code = code.filter(|code| code.client_id == client && code.is_proven_by(verifier));
            let code = code.ok_or(Denied::Code)?;
            if form.get("redirect_uri") != Some(code.redirect_uri.as_str()) {
                return Err(Denied::RedirectUri);
            }
            (spec.user_id, spec.scopes) = (Some(code.user_id), code.scopes);
        }
        Grant::DeviceCode => {
            let code = required(form, "device_code")?;
            let granted = tokens.devices.exchange(client, code, now);
            let (user_id, scopes) = granted.map_err(Denied::Device)?;
            (spec.user_id, spec.scopes) = (Some(user_id), scopes);
        }
    }
    let pair = tokens.issue(spec, now, chance);
    Ok(world.granted(&pair))
}
