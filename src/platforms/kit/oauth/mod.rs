//! OAuth tokens of accounts: keeping them usable, and finding out whether they are. A [`TokenManager`] does what all platforms do
//! alike; a [`Provider`] is one platform's OAuth: how it exchanges grants and validates tokens, and what its answers mean. The
//! status that follows is in [`token_check`](super::token_check).
//!
//! Tokens are changed under the account's lock only, which one task of one process holds at a time, and with compare-and-set. A refresh
//! is recorded before it is sent, and a new pair is stored before it is used.

mod accounts;
mod adoption;
pub mod callback;
mod check;
pub mod device;
mod incident;
mod manager;
pub mod pkce;
mod provider;
mod renewal;
#[cfg(test)]
mod tests;

pub use accounts::{Accounts, Undescribed, fate_of, left_alone};
pub use manager::TokenManager;
pub use provider::{
    Access, Client, CodeRequest, Credentials, Described, DeviceCode, Grant, GrantError, Granted, Owner,
    Provider, Validation,
};
