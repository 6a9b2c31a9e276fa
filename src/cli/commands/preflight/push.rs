//! Which of the configured sources will be pushed, and which only polled.

use std::collections::BTreeMap;

use crate::app;
use crate::cli::context::Context;
use crate::cli::output::humane;
use crate::cli::reports::doctor::{Check, Outcome};
use crate::core::source::PlatformName;

pub(super) const NAME: &str = "push plan";

/// Compares the plan of EventSub with what is configured. Other platforms push every source over one connection, which is another check.
pub(super) async fn plan(cx: &Context, platform: PlatformName) -> Vec<Check> {
    if platform != PlatformName::Twitch || !cx.app.settings.platforms.twitch.eventsub {
        return Vec::new();
    }
    let area = platform.as_str();
    let (channels, plan) = match app::eventsub_plan(&cx.app).await {
        Ok(found) => found,
        Err(failure) => return vec![Check::of_failure(area, NAME, Outcome::Fail, &failure)],
    };
    if channels.is_empty() {
        return Vec::new();
    }
    let pushed = channels
        .iter()
        .filter(|channel| plan.is_pushed(&channel.source))
        .count();
    let total = humane::count(channels.len() as u64, "channel");
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for polled in &plan.polled {
        *reasons.entry(&*polled.reason).or_default() += 1;
    }
    let points = format!(
        "{} of {} points ({})",
        plan.cost, plan.cost_limit, plan.transport_reason
    );
    let check = match reasons.into_iter().max_by_key(|(_, count)| *count) {
        None => Check::new(
            area,
            NAME,
            Outcome::Ok,
            format!("{pushed} of {total} are pushed, for {points}"),
        ),
        Some((reason, count)) => {
            let detail = format!(
                "{pushed} of {total} are pushed, for {points}; the others are polled ({count}: {reason})"
            );
            Check::new(area, NAME, Outcome::Warn, detail).next("bitbrat watch --plan")
        }
    };
    vec![check]
}
