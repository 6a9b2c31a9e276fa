//! Entry points of the fuzz targets in `fuzz/`: answers of Kick's API and of `id.kick.com`.

use serde_json::Value;

use super::answer::{Endpoint, asked};
use super::facts;
use super::signature::PublicKey;
use super::wire::{
    Channel, Envelope, Enveloped, Introspected, Livestream, PublicKeyText, Subscribed, Subscription, User,
    items, subject_of,
};
use crate::core::observation::{Fact, Observation};
use crate::core::source::SourceKey;
use crate::http::Answer;
use crate::platforms::kit::lenient;
use crate::platforms::kit::oauth::Granted;

/// Returns what an answer proves about `source`, whichever request it answers.
pub fn observations(answer: &Answer, source: &SourceKey) -> Vec<Observation> {
    for endpoint in [Endpoint::Introspection, Endpoint::Token] {
        if let Ok(answer) = endpoint.judge(asked("a request"), Ok(answer.clone())) {
            let _ = answer.object::<Granted>().is_ok();
            if let Ok(envelope) = answer.object::<Envelope<Value>>() {
                let _ = Introspected::of(envelope).map(|token| token.ends_at());
            }
        }
    }
    let Ok(answer) = Endpoint::Api.judge(asked("a request"), Ok(answer.clone())) else {
        return Vec::new();
    };
    if let Ok(key) = answer.object::<Enveloped<PublicKeyText>>() {
        let _ = PublicKey::from_pem(&key.open().public_key);
    }
    let Some(rows) = answer.object().ok().and_then(items) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for row in rows {
        let _ = subject_of(&row);
        let is_ours = |id: u64| id.to_string() == source.id();
        let _ = lenient::row::<Subscription>(row.clone());
        let _ = lenient::row::<Subscribed>(row.clone());
        if let Ok(stream) = lenient::row::<Livestream>(row.clone())
            && is_ours(stream.broadcaster)
        {
            found.extend(live(&stream));
        }
        let user = lenient::row::<User>(row.clone()).ok();
        if let Ok(channel) = lenient::row::<Channel>(row)
            && is_ours(channel.broadcaster_user_id)
        {
            let name = user.as_ref().map(|user| user.name.as_str());
            found.extend(facts::channel_profile(&channel, name, false));
        }
    }
    let observation = |fact| Observation::new(source, answer.sent_at, facts::BY_API, fact);
    found.into_iter().map(observation).collect()
}

fn live(stream: &Livestream) -> Vec<Fact> {
    let seen = facts::stream_id(stream).map(|stream_id| Fact::StreamSeen {
        stream_id,
        started_at: facts::started_at(&stream.started_at),
    });
    facts::live_profile(stream).into_iter().chain(seen).collect()
}
