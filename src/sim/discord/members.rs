//! Members of guilds over the gateway: responses to a client that requests them (op 8).

use serde_json::{Value, json};

use super::handle::DiscordSim;
use super::intents::MEMBERS;
use super::shapes;
use super::world::{Guild, World};
use crate::core::time::Timestamp;

/// Maximum members that one request with a prefix or with ids may ask for.
const MOST: usize = 100;

impl DiscordSim {
    /// Answers a request for members with `GUILD_MEMBERS_CHUNK`, or with `RATE_LIMITED` when it comes too soon.
    ///
    /// The complete list needs the intent for members. What a client without it receives is not documented: here nothing.
    pub(super) fn list_members(&self, session: &str, request: &Value) {
        self.with_world(|world, now| {
            if let Some((event, data)) = world.members(session, request, now) {
                world.sessions.send(session, event, &data);
            }
        });
    }
}

impl World {
    fn members(&mut self, session: &str, request: &Value, now: Timestamp) -> Option<(&'static str, Value)> {
        let bot = self.sessions.bot(session)?;
        let id: u64 = id_of(&request["guild_id"])?;
        self.guilds
            .get(&id)
            .filter(|guild| guild.bots.contains_key(&bot))?;
        let query = request["query"].as_str();
        let limit = request["limit"].as_u64().unwrap_or(0);
        let ids: Option<Vec<u64>> = match &request["user_ids"] {
            Value::Null => None,
            Value::Array(ids) => Some(ids.iter().take(MOST).filter_map(id_of).collect()),
            one => Some(id_of(one).into_iter().collect()),
        };
        let everyone = ids.is_none() && query == Some("") && limit == 0;
        if everyone {
            if self.sessions.intents(session) & MEMBERS == 0 {
                return None;
            }
            if let Err(wait) = self.sessions.ask_for_members(bot, id, now) {
                return Some(("RATE_LIMITED", rate_limited(id, request, wait)));
            }
        }
        let all = self.everyone_in(&self.guilds[&id]);
        let most = match usize::try_from(limit) {
            _ if everyone => usize::MAX,
            Ok(limit @ 1..=MOST) => limit,
            _ => MOST,
        };
        let asked = |user: u64, member: &Value| match (&ids, query) {
            (Some(ids), _) => ids.contains(&user),
            (None, Some(prefix)) => {
                let name = member["user"]["username"].as_str().unwrap_or_default();
                name.to_lowercase().starts_with(&prefix.to_lowercase())
            }
            (None, None) => false,
        };
        let found: Vec<_> = all
            .iter()
            .filter(|(user, member)| asked(*user, member))
            .take(most)
            .collect();
        let mut chunk = json!({"guild_id": id.to_string(), "chunk_index": 0, "chunk_count": 1,
            "members": found.iter().map(|(_, member)| member).collect::<Vec<_>>()});
        let missing = ids
            .iter()
            .flatten()
            .filter(|id| !all.iter().any(|(user, _)| user == *id));
        let missing: Vec<_> = missing.map(u64::to_string).collect();
        if !missing.is_empty() {
            chunk["not_found"] = json!(missing);
        }
        if request["presences"] == true {
            chunk["presences"] = json!([]);
        }
        if let Some(nonce) = request["nonce"].as_str() {
            chunk["nonce"] = nonce.into();
        }
        Some(("GUILD_MEMBERS_CHUNK", chunk))
    }

    /// Returns the members of a guild who have a name: its bots and its owner. The others only count as a number.
    fn everyone_in(&self, guild: &Guild) -> Vec<(u64, Value)> {
        let bots = guild
            .bots
            .iter()
            .filter_map(|(id, member)| Some((*id, shapes::member(*id, self.bots.get(id)?, member))));
        let mut all: Vec<_> = bots.collect();
        if !guild.bots.contains_key(&guild.owner) {
            all.push((guild.owner, shapes::plain_member(guild.owner)));
        }
        all
    }
}

#[expect(clippy::cast_precision_loss, reason = "waits are short")]
fn rate_limited(guild: u64, request: &Value, wait_ms: i64) -> Value {
    let mut meta = json!({"guild_id": guild.to_string()});
    if let Some(nonce) = request["nonce"].as_str() {
        meta["nonce"] = nonce.into();
    }
    json!({"opcode": 8, "retry_after": wait_ms as f64 / 1_000.0, "meta": meta})
}

/// Parses an id, which is a string but often sent as a number or as the only item of a list.
fn id_of(value: &Value) -> Option<u64> {
    match value {
        Value::Array(items) => items.first().and_then(id_of),
        Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    }
}
