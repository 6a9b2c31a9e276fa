//! The actions that `sources can ID help` lists for a platform.

use crate::cli::output::Listed;
use crate::cli::output::view::{Cell, Column, Tone, View};
use crate::view::actions::ActionItem;

impl Listed for ActionItem {
    const KIND: &'static str = ActionItem::KIND;
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
