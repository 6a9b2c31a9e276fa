//! The actions that `sources can ID help` lists for a platform.

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::output::Listed;
use crate::cli::output::view::{Cell, Column, Tone, View};
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

pub fn actions(platform: PlatformName) -> Vec<ActionItem> {
    let item = |action: &permission::Action| ActionItem {
        platform,
        action: action.name,
        about: action.about,
        not_covered: permission::not_covered(platform, action.name),
    };
    permission::actions(platform).iter().map(item).collect()
}

impl Listed for ActionItem {
    const KIND: &'static str = "ActionList";
    const CSV: &'static [&'static str] = &["platform", "action", "about", "notCovered"];

    fn name(&self) -> String {
        self.action.to_owned()
    }

    fn view(items: &[Self]) -> View {
        let rows = items
            .iter()
            .map(|item| vec![Cell::new(item.action).tone(Tone::Strong), Cell::new(item.about)]);
        View::table(
            vec![Column::kept("ACTION"), Column::kept("WHAT").elastic(20)],
            rows,
        )
    }
}
