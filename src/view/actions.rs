//! The actions of the bot on a platform.

use schemars::JsonSchema;
use serde::Serialize;

use crate::core::permission;
use crate::core::source::PlatformName;

/// One action as JSON shows it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActionItem {
    /// The platform.
    pub platform: PlatformName,
    /// The name that `sources can` accepts.
    pub action: &'static str,
    /// What it is.
    pub about: &'static str,
    /// What a yes does not cover, a sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_covered: Vec<&'static str>,
}

impl ActionItem {
    /// The kind of a list of them.
    pub const KIND: &'static str = "ActionList";
}

/// Returns the actions of a platform.
pub fn actions(platform: PlatformName) -> Vec<ActionItem> {
    let item = |action: &permission::Action| ActionItem {
        platform,
        action: action.name,
        about: action.about,
        not_covered: permission::not_covered(platform, action.name),
    };
    permission::actions(platform).iter().map(item).collect()
}
