//! What the program needs of each platform besides the [`Platform`] port: its construction from the settings, its addresses, and
//! what it checks about its push connection.

use std::sync::Arc;

use async_trait::async_trait;
use secrecy::SecretString;
use url::Url;

use super::kit::error_body::{ErrorBody, Reported};
use super::{Platform, PlatformError};
use crate::clock::{Chance, Clock};
use crate::config::Settings;
use crate::core::event::chat::Direction;
use crate::core::forecast::TokenLifetimes;
use crate::core::observation::Identity;
use crate::core::platform::{PlatformName, for_each_platform};
use crate::histogram::Histogram;
use crate::http::Http;
use crate::tokens::{Seed, TokenError, TokenStore};

/// Describes one platform to the program. The implementation is `Descriptor` in `platforms/<name>/descriptor.rs`; its data for
/// `core` is in `rules.rs`, its configuration keys are in `settings.rs`.
#[async_trait]
pub trait PlatformDescriptor: Send + Sync {
    /// Builds the adapter without sending a request.
    async fn build(&self, parts: Parts<'_>) -> Result<Arc<dyn Platform>, BuildError>;

    /// Returns the page on which applications are registered.
    fn application_page(&self) -> &'static str;

    /// Returns the HTTP addresses.
    fn endpoints(&self, settings: &Settings) -> Vec<Endpoint>;

    /// Returns the configured token of the bot.
    fn bot_token(&self, settings: &Settings) -> Option<Seed>;

    /// Returns whether an error answer, whose body is an object, has the platform's own format.
    fn is_own_error(&self, status: u16, body: &ErrorBody) -> bool;

    /// Returns whether an answer with the status of a success reports an error in these members.
    fn reports_error(&self, members: &Reported) -> bool {
        members.has_message || members.status.is_some_and(|status| status >= 400.0)
    }

    /// Returns how the application gets a token of its own, if it is configured to have one.
    fn application(&self, settings: &Settings) -> Option<Application> {
        let _ = settings;
        None
    }

    /// Whether the platform accepts the application's token alone, without any account.
    fn does_without_bot(&self, settings: &Settings) -> bool {
        let _ = settings;
        false
    }

    /// Returns the scopes that a login as `identity` requests.
    fn scopes(&self, settings: &Settings, identity: &Identity) -> Vec<Scope> {
        let _ = (settings, identity);
        Vec::new()
    }

    /// Returns the scopes with which the owner of a channel lets the application act there, without a token that is needed later.
    fn invited(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns how long the platform's tokens last, as far as that is known.
    fn token_lifetimes(&self, settings: &Settings) -> TokenLifetimes {
        let _ = settings;
        TokenLifetimes::default()
    }

    /// Returns the chat that the listener counts where it is posted, so that it must not be counted on the bus as well.
    fn counted_chat(&self, settings: &Settings) -> Option<CountedChat> {
        let _ = settings;
        None
    }
}

macro_rules! descriptors {
    ($($name:ident $module:ident $about:literal;)*) => {
        pub fn descriptor(platform: PlatformName) -> &'static dyn PlatformDescriptor {
            match platform {
                $(PlatformName::$name => &super::$module::descriptor::Descriptor,)*
            }
        }
    };
}
for_each_platform!(descriptors);

/// What adapters are built from.
pub struct Parts<'a> {
    pub settings: &'a Settings,
    /// The store of the tokens, which may be replaced there while the process runs.
    pub tokens: Arc<dyn TokenStore>,
    /// The HTTP client that all platforms share; it counts in `request_times` how long the requests to this one take, and
    /// has what records the traffic.
    pub http: Http,
    /// For a client of the platform's own.
    pub request_times: Arc<Histogram>,
    /// The clock of this machine.
    pub clock: Arc<dyn Clock>,
    /// Source of randomness.
    pub chance: Chance,
    /// Whether a token that was rejected lately is tried once more, because the user has just entered it.
    pub try_refused: bool,
}

/// Why an adapter cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The token store cannot be read.
    #[error(transparent)]
    Tokens(#[from] TokenError),
    /// The settings are not usable.
    #[error(transparent)]
    Platform(#[from] PlatformError),
}

/// An HTTP address of a platform.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// What it is for.
    pub what: &'static str,
    /// The address.
    pub base: Url,
    /// Path of a request that the platform answers without credentials; empty for the address itself.
    pub path: &'static str,
    /// The key that holds the address, if that request has a documented answer. Any other answer is not the platform's then.
    pub documented: Option<&'static str>,
}

/// How an application gets a token of its own, by its client id and secret.
#[derive(Debug, Clone)]
pub struct Application {
    /// The address that issues tokens.
    pub token_url: Url,
    pub client_id: String,
    pub client_secret: SecretString,
    /// The platform's name of the error that id or secret are wrong, if its other errors are about something else.
    pub error: Option<&'static str>,
}

/// A scope that an account should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Its name.
    pub name: String,
    /// What does not work without it.
    pub without: &'static str,
}

impl Scope {
    /// Returns the scopes in `table`, then the configured ones.
    pub fn all(table: &[(&str, &'static str)], configured: &[String]) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        let configured = configured
            .iter()
            .map(|name| (name.as_str(), "the configuration lists it"));
        for (name, without) in table.iter().copied().chain(configured) {
            if all.iter().all(|known| known.name != name) {
                let name = name.to_owned();
                all.push(Self { name, without });
            }
        }
        all
    }
}

/// Chat that a listener counts.
#[derive(Debug, Clone, Copy)]
pub struct CountedChat {
    /// Which chat.
    pub directions: &'static [Direction],
    /// Description for people, with the key that decides it.
    pub about: &'static str,
}
