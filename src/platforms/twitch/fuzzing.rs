//! Entry points of the fuzz targets in `fuzz/`: answers of Helix and of `id.twitch.tv`.

use serde::de::DeserializeOwned;

use super::map;
use super::wire::{Ban, List, Member, OfBroadcaster, StartedDevice, Stream, User, Validated};
use crate::core::observation::Observation;
use crate::core::source::{PlatformName, SourceKey};
use crate::http::Answer;
use crate::platforms::kit::answer::Asked;
use crate::platforms::kit::oauth::Granted;

/// Returns what an answer proves about `source`, whichever request it answers.
pub fn observations(answer: Answer, source: &SourceKey) -> Vec<Observation> {
    let at = answer.sent_at;
    let asked = Asked::new(PlatformName::Twitch, "a request");
    let Ok(answer) = asked.judge(Ok(answer)) else {
        return Vec::new();
    };
    let _ = (
        answer.object::<Validated>(),
        answer.object::<StartedDevice>().is_ok(),
        answer.object::<Granted>().is_ok(),
        rows::<Ban>(&answer),
        rows::<Member>(&answer),
    );
    let mut found = Vec::new();
    if let Some((users, complete)) = rows::<User>(&answer) {
        let user = users.iter().find(|user| user.id == source.id());
        if user.is_some() || complete {
            found.extend(map::user(source, user, at));
        }
    }
    if let Some((streams, complete)) = rows::<Stream>(&answer) {
        let stream = streams.iter().find(|stream| stream.user_id == source.id());
        found.extend(map::stream(source, stream, complete, true, at));
    }
    if let Some((channels, complete)) = rows::<OfBroadcaster>(&answer) {
        let is_listed = channels
            .iter()
            .any(|channel| channel.broadcaster_id == source.id());
        let _ = map::moderated(is_listed, (!complete).then_some("a row cannot be read"));
    }
    found
}

/// The rows that can be read, and whether these are all.
fn rows<T: DeserializeOwned>(answer: &Answer) -> Option<(Vec<T>, bool)> {
    let list: List<T> = answer.object().ok()?;
    let is_last = list.cursor().is_none();
    Some((list.data.read, list.data.unread.is_empty() && is_last))
}
