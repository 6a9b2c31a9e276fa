//! Result of a check of an account, as the meter of a probe collects it.

use std::collections::BTreeSet;

use crate::core::time::Timestamp;
use crate::platforms::kit::token_check::TokenStatus;
use crate::tokens::StoredToken;

/// Result of a check of an identity.
#[derive(Debug, Clone)]
pub(super) struct Checked {
    pub(super) at: Timestamp,
    pub(super) status: TokenStatus,
    /// The token as currently stored.
    pub(super) token: StoredToken,
    pub(super) user_id: Option<u64>,
    /// When the grant was last refreshed; `None` for the application, which needs no grant.
    pub(super) renewed_at: Option<Timestamp>,
    /// Scopes that it had at the previous check but no longer has.
    pub(super) lost_scopes: BTreeSet<String>,
    /// Whether the application itself is refused.
    pub(super) app_refused: bool,
}
