//! Entry points of the fuzz targets in `fuzz/`: answers of Discord's REST API.

use serde::de::DeserializeOwned;

use super::answer;
use super::facts;
use super::permissions::{ChannelKind, Permissions};
use super::wire::{
    Application, Channel, FullGuild, GatewayBot, GuildMember, ListedGuild, Me, Rows, ScheduledEvent,
    StageInstance, VoiceState,
};
use crate::core::observation::Observation;
use crate::core::source::{PlatformName, SourceKey};
use crate::http::Answer;
use crate::platforms::kit::answer::reported_error;

/// Returns what an answer proves about the guild `source`, whichever request it answers.
pub fn observations(answer: &Answer, source: &SourceKey) -> Vec<Observation> {
    let at = answer.received_at;
    let _ = answer::bucket_state(&answer.headers);
    let found = match answer::judge(answer.status, &answer.headers, &answer.body, at) {
        Err(error) => facts::of_failed_probe(&error, at),
        Ok(()) if reported_error(PlatformName::Discord, answer).is_some() => Vec::new(),
        Ok(()) => {
            single(answer);
            let facts = listed(answer, source);
            facts.into_iter().map(|fact| (answer.sent_at, fact)).collect()
        }
    };
    let observation = |(at, fact)| Observation::new(source, at, facts::BY_API, fact);
    found.into_iter().map(observation).collect()
}

fn listed(answer: &Answer, source: &SourceKey) -> Vec<crate::core::observation::Fact> {
    let _ = (
        rows::<ScheduledEvent>(answer),
        rows::<StageInstance>(answer),
        rows::<VoiceState>(answer),
    );
    let guilds = rows::<ListedGuild>(answer);
    let guild = guilds.iter().find(|guild| guild.id.to_string() == source.id());
    let Some(guild) = guild else { return Vec::new() };
    let mut found = vec![facts::profile(guild, "probe")];
    found.extend(guild.held().into_iter().flat_map(facts::of_guild));
    found
}

fn single(answer: &Answer) {
    let _ = (
        answer.json::<Me>(),
        answer.json::<Application>(),
        answer.json::<GatewayBot>(),
    );
    let (Ok(guild), Ok(member)) = (answer.json::<FullGuild>(), answer.json::<GuildMember>()) else {
        return;
    };
    if !guild.covers(&member) {
        return;
    }
    let rules = guild.rules();
    let member = member.subject(guild.owner_id.0 ^ 1, answer.received_at);
    let held = rules.in_guild(&member);
    assert_eq!(
        held,
        rules.base(&member) & held,
        "nothing is held beyond the roles"
    );
    if let Ok(channel) = answer.json::<Channel>() {
        let kind = channel.kind().unwrap_or(ChannelKind::of(0));
        let held = rules.in_channel(&member, kind, &channel.overwrites());
        assert!(held == Permissions::NONE || held.contains(Permissions::VIEW_CHANNEL));
    }
}

fn rows<T: DeserializeOwned>(answer: &Answer) -> Vec<T> {
    answer.json::<Rows<T>>().map(|rows| rows.read).unwrap_or_default()
}
