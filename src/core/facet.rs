//! Facets: the separately decided questions about a source.

use serde::{Deserialize, Serialize};

/// A verdict whose changes are transitions.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum Facet {
    /// Connected?
    Status,
    /// Live?
    Stream,
    /// Authorization.
    Auth,
    /// What the bot may do.
    Permissions,
}

impl Facet {
    /// Returns the name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Stream => "stream",
            Self::Auth => "auth",
            Self::Permissions => "permissions",
        }
    }
}
