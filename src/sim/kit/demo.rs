//! A demo world as a client of it sees it: what has to be configured.

use crate::core::time::Timestamp;

/// A key of the configuration and its value.
pub type Setting = (&'static str, String);

/// The demo world of one platform.
pub trait DemoPlatform {
    fn sources(&self) -> Vec<String>;

    /// Returns the channels that matter, as pairs of source and channel.
    fn channels(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Returns a client's settings, without tokens.
    fn application(&self) -> Vec<Setting>;

    /// Returns the settings with the bot's tokens.
    fn tokens(&self) -> Vec<Setting>;

    /// Returns every login, those whose tokens are invalid included.
    fn logins(&self) -> Vec<DemoLogin>;
}

/// A login of a demo world. Its secrets are valid only in the simulation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoLogin {
    /// The account, as the token store names it.
    pub account: String,
    pub user_id: String,
    /// The access token, or a bot's only token.
    pub access: String,
    /// The refresh token, where there is one.
    pub refresh: Option<String>,
    pub scopes: Vec<String>,
    /// The application that it was granted to, if tokens depend on it.
    pub client_id: Option<String>,
    /// When it was obtained and its lifetime in seconds then, if clients store that.
    pub issued: Option<(Timestamp, i64)>,
}
