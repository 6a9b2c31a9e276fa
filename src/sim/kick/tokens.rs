//! The rules by which `id.kick.com` issues tokens.

use super::texts;
use crate::sim::kit::oauth::{self, RefreshRule, Renewal, TokenRules};

/// Description of a token to issue.
pub type KickTokenSpec = oauth::TokenSpec<u64>;
/// Data of an access token.
pub(super) type Token = oauth::Token<u64>;
/// All applications and tokens.
pub(super) type Tokens = oauth::Tokens<u64>;

/// Kick has made them reusable in November 2025. The lifetime after the last use is reported by operators, not documented.
const REFRESH: RefreshRule = RefreshRule {
    secs: Some(30 * 86_400),
    renewal: Renewal::Reusable,
};

pub(super) const RULES: TokenRules = TokenRules {
    user_secs: 7_200,
    app_secs: 5_184_000,
    code_secs: Some(600),
    confidential: REFRESH,
    public: REFRESH,
    sorted_scopes: true,
    text: |_, chance| texts::token(chance),
};
