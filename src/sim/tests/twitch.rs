//! A client's view of the simulated Twitch, shared by the tests of its parts.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::{answer, client, command};
use crate::sim::kit::oauth::TokenPair;
use crate::sim::twitch::TokenSpec;
use crate::sim::{Sim, SimOptions, TwitchSim};

/// The bot's user id.
pub(super) const BOT: &str = "900100";
/// A channel of another user.
pub(super) const RAT: &str = "900200";

/// A Twitch with one confidential (`app`, secret `hush`) and one public application (`pub`), a bot and a channel.
pub(super) struct Rig {
    pub(super) sim: Sim,
    pub(super) http: reqwest::Client,
}

impl Rig {
    pub(super) async fn start() -> Self {
        let sim = Sim::start(SimOptions::default()).await.unwrap();
        sim.twitch.add_client("app", Some("hush"));
        sim.twitch.add_client("pub", None);
        sim.twitch.add_channel(BOT, "bitbrat_bot");
        sim.twitch.add_channel(RAT, "ratcaster");
        Self { sim, http: client() }
    }

    pub(super) fn twitch(&self) -> &TwitchSim {
        &self.sim.twitch
    }

    /// Issues a token of `app` for `user` with `scopes`.
    pub(super) fn token(&self, user: &str, scopes: &[&str]) -> String {
        self.pair("app", user, scopes).access
    }

    pub(super) fn pair(&self, client: &str, user: &str, scopes: &[&str]) -> TokenPair {
        self.twitch().issue_token(TokenSpec {
            client_id: client.to_owned(),
            user_id: Some(user.to_owned()),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            ..TokenSpec::default()
        })
    }

    pub(super) fn app_token(&self) -> String {
        let spec = TokenSpec {
            client_id: "app".to_owned(),
            ..TokenSpec::default()
        };
        self.twitch().issue_token(spec).access
    }

    fn request(&self, method: Method, token: &str, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.twitch().urls().helix);
        self.http
            .request(method, url)
            .bearer_auth(token)
            .header("Client-Id", "app")
    }

    /// Gets `path` of Helix as `app` with `token`.
    pub(super) async fn get(&self, token: &str, path: &str) -> (u16, Value) {
        answer(self.request(Method::GET, token, path)).await
    }

    /// Posts JSON to `path` of Helix as `app` with `token`.
    pub(super) async fn post(&self, token: &str, path: &str, body: &Value) -> (u16, Value) {
        answer(self.request(Method::POST, token, path).json(body)).await
    }

    /// Patches `path` of Helix with JSON as `app` with `token`.
    pub(super) async fn patch(&self, token: &str, path: &str, body: &Value) -> (u16, Value) {
        answer(self.request(Method::PATCH, token, path).json(body)).await
    }

    /// Deletes `path` of Helix as `app` with `token`.
    pub(super) async fn delete(&self, token: &str, path: &str) -> (u16, Value) {
        answer(self.request(Method::DELETE, token, path)).await
    }

    /// Posts a form to `path` of `id.twitch.tv/oauth2`.
    pub(super) async fn oauth(&self, path: &str, form: &[(&str, &str)]) -> (u16, Value) {
        answer(
            self.http
                .post(format!("{}{path}", self.twitch().urls().auth))
                .form(form),
        )
        .await
    }

    pub(super) async fn validate(&self, authorization: &str) -> (u16, Value) {
        let url = format!("{}/validate", self.twitch().urls().auth);
        answer(self.http.get(url).header("Authorization", authorization)).await
    }

    /// Sends a command over HTTP.
    pub(super) async fn command(&self, name: &str, fields: &Value) -> (u16, Value) {
        command(self.twitch(), name, fields).await
    }
}

/// Returns the error body of Helix.
pub(super) fn helix_error(status: u16, error: &str, message: &str) -> (u16, Value) {
    (
        status,
        json!({"error": error, "status": status, "message": message}),
    )
}

/// Returns the error body of `id.twitch.tv`.
pub(super) fn oauth_error(status: u16, message: &str) -> (u16, Value) {
    (status, json!({"status": status, "message": message}))
}
