//! The OAuth server of a simulated platform: one implementation, with rules for each platform.

mod devices;
mod server;
mod spec;
mod tokens;

pub use devices::{DEVICE_SECS, DeviceState};
pub use server::{Consent, Denied, OAuth, Refused, authorize, bearer, client, client_secret, refused, token};
pub use spec::{Code, RefreshRule, Renewal, Text, TokenPair, TokenRules, TokenSpec};
pub use tokens::{Token, Tokens};
