//! The rules by which `id.twitch.tv` issues tokens.

use crate::clock::Chance;
use crate::sim::kit::oauth::{self, RefreshRule, Renewal, Text, TokenRules};
use crate::sim::kit::random_text::{ALPHANUMERIC, random};

/// Description of a token to issue.
pub type TokenSpec = oauth::TokenSpec<String>;
/// All applications, tokens and grants.
pub(super) type Tokens = oauth::Tokens<String>;

/// Lifetimes are similar to Twitch's. A public client's refresh token works once.
pub(super) const RULES: TokenRules = TokenRules {
    user_secs: 14_400,
    app_secs: 5_000_000,
    code_secs: None,
    confidential: RefreshRule {
        secs: None,
        renewal: Renewal::Stable,
    },
    public: RefreshRule {
        secs: Some(30 * 86_400),
        renewal: Renewal::OneTime,
    },
    sorted_scopes: false,
    text,
};

fn text(kind: Text, chance: &Chance) -> String {
    let length = if kind == Text::Refresh { 50 } else { 30 };
    random(ALPHANUMERIC, length, chance)
}
