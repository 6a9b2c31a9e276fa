//! Data available to any token: users, streams, channels.

use serde_json::{Value, json};

use super::answer::{Refusal, malformed, page};
use super::call::{Call, CallResult, found, listed};
use super::stream::Stream;
use super::world::User;

/// Get Users: by id, by login, or the token's own. Unknown ones are left out.
pub(super) fn users(call: &mut Call<'_>) -> CallResult {
    let ids = call.query.ids("id", 100)?;
    let logins = call.query.list("login", 100)?;
    if ids.len() + logins.len() > 100 {
        return Err(malformed("id", "at most 100 ids and logins in all"));
    }
    if logins.iter().any(|login| {
        !login
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    }) {
        return Err(Refusal::new(400, "Invalid login names, emails or IDs in request"));
    }
    let own = if ids.is_empty() && logins.is_empty() {
        call.caller.user_id.as_deref()
    } else {
        None
    };
    if ids.is_empty() && logins.is_empty() && own.is_none() {
        return Err(Refusal::new(400, "Must provide an ID, Login or OAuth Token"));
    }
    let world = &*call.world;
    let by_id = own.into_iter().chain(ids).filter_map(|id| world.user(id));
    let mut all: Vec<_> = by_id
        .chain(logins.into_iter().filter_map(|login| world.user_by_login(login)))
        .collect();
    all.dedup_by(|a, b| a.id == b.id);
    let with_email = |user: &User| {
        call.caller.has("user:read:email") && call.caller.user_id.as_deref() == Some(user.id.as_str())
    };
    let data = all.into_iter().map(|user| {
        let kind = if world.knobs.unknown_values {
            "time_traveller"
        } else {
            ""
        };
        let tier = if world.knobs.unknown_values {
            "hologram"
        } else {
            &user.broadcaster_type
        };
        let mut shown = json!({
            "id": user.id, "login": user.login, "display_name": user.name, "type": kind,
            "broadcaster_type": tier, "description": "",
            "profile_image_url": format!("https://static.invalid/{}/profile.png", user.id),
            "offline_image_url": "", "view_count": 0, "created_at": second(user.created_at),
        });
        if with_email(user) {
            shown["email"] = json!(format!("{}@mail.invalid", user.login));
        }
        shown
    });
    Ok(found(&data.collect::<Vec<_>>()))
}

/// Helix writes whole seconds where no more precision is needed.
pub(super) fn second(at: crate::core::time::Timestamp) -> String {
    let text = at.to_string();
    text.split_once('.')
        .map_or(text.clone(), |(whole, _)| format!("{whole}Z"))
}

/// Get Streams: only those that polls currently show.
pub(super) fn streams(call: &mut Call<'_>) -> CallResult {
    let (query, now) = (call.query, call.now);
    let ids = query.ids("user_id", 100)?;
    let logins = query.list("user_login", 100)?;
    let games = query.list("game_id", 100)?;
    let languages = query.list("language", 100)?;
    if !matches!(query.get("type"), None | Some("all" | "live")) {
        return Err(malformed("type", "the value must be all or live"));
    }
    // Parsed before any channel counts this request as a poll.
    query.first(20, 100)?;
    let mut wanted: Vec<String> = ids.into_iter().map(str::to_owned).collect();
    wanted.extend(
        logins
            .iter()
            .filter_map(|login| Some(call.world.user_by_login(login)?.id.clone())),
    );
    if wanted.is_empty() && logins.is_empty() {
        wanted = call.world.live_channels(now);
    }
    wanted.sort();
    wanted.dedup();
    let mut live: Vec<(String, Stream)> = wanted
        .into_iter()
        .filter_map(|id| call.world.streams_of(&id)?.polled(now).map(|stream| (id, stream)))
        .collect();
    live.sort_by(|(a_id, a), (b_id, b)| b.viewers.cmp(&a.viewers).then_with(|| a_id.cmp(b_id)));
    let null_tags = call.world.knobs.null_tags;
    let shown: Vec<Value> = live
        .into_iter()
        .filter_map(|(id, stream)| Some((call.world.user(&id)?, stream)))
        .filter(|(user, _)| games.is_empty() || games.contains(&user.game_id.as_str()))
        .filter(|(user, _)| languages.is_empty() || languages.contains(&user.language.as_str()))
        .map(|(user, stream)| stream_json(user, &stream, null_tags))
        .collect();
    let (data, pagination) = page(shown, query, 20, 100)?;
    Ok(listed(&data, &pagination))
}

fn stream_json(user: &User, stream: &Stream, null_tags: bool) -> Value {
    json!({
        "id": stream.id, "user_id": user.id, "user_login": user.login, "user_name": user.name,
        "game_id": user.game_id, "game_name": user.game_name, "type": stream.kind, "title": user.title,
        "tags": if null_tags { Value::Null } else { json!(user.tags) },
        "viewer_count": stream.viewers, "started_at": second(stream.started_at), "language": user.language,
        "thumbnail_url": format!("https://static.invalid/{}-{{width}}x{{height}}.jpg", user.login),
        "tag_ids": [], "is_mature": false,
    })
}

/// Get Channel Information: title and category, live or not. Unknown and repeated ids are left out.
pub(super) fn channels(call: &mut Call<'_>) -> CallResult {
    let mut ids = call.query.ids("broadcaster_id", 100)?;
    if ids.is_empty() {
        return Err(Refusal::new(400, "Missing required parameter \"broadcaster_id\""));
    }
    let mut seen = std::collections::HashSet::new();
    ids.retain(|id| seen.insert(*id));
    let data = ids.into_iter().filter_map(|id| call.world.user(id)).map(|user| {
        json!({
            "broadcaster_id": user.id, "broadcaster_login": user.login, "broadcaster_name": user.name,
            "broadcaster_language": user.language, "game_id": user.game_id, "game_name": user.game_name,
            "title": user.title, "delay": 0, "tags": user.tags, "content_classification_labels": [],
            "is_branded_content": false,
        })
    });
    Ok(found(&data.collect::<Vec<_>>()))
}
