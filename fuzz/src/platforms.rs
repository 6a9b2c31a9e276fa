//! What platforms send.

use std::collections::BTreeMap;

use bitbrat::core::observation::Observation;
use bitbrat::core::source::SourceKey;
use bitbrat::platforms::{discord, kick, twitch};

use crate::{laws, now, web};

/// A frame of EventSub, or a list of subscriptions.
pub fn eventsub(data: &[u8]) {
    twitch::eventsub::fuzzing::subscriptions(data);
    let frame = String::from_utf8_lossy(data);
    check(twitch::eventsub::fuzzing::observations(
        &frame,
        Some("900100"),
        now(),
    ));
}

/// An answer of Helix or of `id.twitch.tv`.
pub fn helix(data: &[u8]) {
    let answer = web::answer(data);
    check(twitch::fuzzing::observations(answer, &key("twitch:111")));
}

/// An answer of Kick's API or of `id.kick.com`.
pub fn kick_api(data: &[u8]) {
    let answer = web::answer(data);
    check(kick::fuzzing::observations(&answer, &key("kick:7")));
}

/// A webhook.
pub fn kick_webhook(data: &[u8]) {
    let delivery = web::answer(data);
    kick::webhook::fuzzing::headers(&delivery.headers);
    kick::webhook::fuzzing::body(&delivery.body);
}

/// An answer of Discord's REST API.
pub fn discord_rest(data: &[u8]) {
    let answer = web::answer(data);
    check(discord::fuzzing::observations(&answer, &key("discord:9001")));
}

/// The frames of a session of Discord's gateway, one per line.
pub fn discord_gateway(data: &[u8]) {
    check(discord::gateway::fuzzing::observations(data, now()));
}

fn key(text: &str) -> SourceKey {
    text.parse().expect("the key is valid")
}

fn check(found: Vec<Observation>) {
    let mut by_source: BTreeMap<SourceKey, Vec<Observation>> = BTreeMap::new();
    for one in found {
        by_source.entry(one.source.clone()).or_default().push(one);
    }
    for (source, found) in by_source {
        laws::observations(&source, &found);
    }
}
