//! What the bot may do in each channel, by every method that its tokens allow, and never by one that costs a call a
//! channel unless that was asked for.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::auth::Access;
use super::helix::{Call, PAGE, Page, each};
use super::map::{self, HELIX};
use super::options;
use super::probe::Look;
use super::wire::{Anything, Member, OfBroadcaster};
use crate::core::observation::{Fact, Grants, Identity};
use crate::core::permission;
use crate::core::source::{PlatformName, SourceKey};
use crate::platforms::{PlatformError, Recovery};

const MODERATED_SCOPE: &str = "user:read:moderated_channels";
/// Pages of moderated channels that we are ready to read.
const MOST_PAGES: usize = 500;

/// Looks at the bot's permissions.
pub(super) async fn look(look: &Look<'_>, sources: &[&SourceKey]) {
    let bot = options::bot();
    let access = match look.twitch.auth.access(&bot, &look.meter).await {
        Ok(access) => access,
        Err(error) => return look.problem(format!("the bot's permissions are not known: {error}")),
    };
    let Some(bot_user_id) = access.user_id.clone() else {
        return look.problem(
            "the bot's permissions are not known: its token stands for the application and not for a user"
                .to_owned(),
        );
    };
    let by_broadcaster = broadcasters(look, sources).await;
    what_is_known_without_asking(look, sources, &access, &bot_user_id, &by_broadcaster).await;
    let others: Vec<_> = sources
        .iter()
        .copied()
        .filter(|source| source.id() != bot_user_id)
        .collect();
    tokio::join!(
        moderated_channels(look, &others, &access, &bot_user_id),
        broadcasters_lists(look, &by_broadcaster, &bot_user_id),
        one_by_one(look, &others, &access, &bot_user_id),
    );
}

/// The sources whose broadcaster has authorised us, with that identity.
async fn broadcasters<'a>(look: &Look<'_>, sources: &[&'a SourceKey]) -> Vec<(&'a SourceKey, Identity)> {
    let stored: BTreeSet<_> = match look.twitch.auth.identities().await {
        Ok(stored) => stored.into_iter().collect(),
        Err(error) => {
            look.problem(error.to_string());
            return Vec::new();
        }
    };
    sources
        .iter()
        .map(|source| (*source, options::broadcaster(source.id())))
        .filter(|(_, identity)| stored.contains(identity))
        .collect()
}

async fn what_is_known_without_asking(
    look: &Look<'_>,
    sources: &[&SourceKey],
    access: &Access,
    bot_user_id: &str,
    by_broadcaster: &[(&SourceKey, Identity)],
) {
    const NEEDS_BROADCASTER: &str = "only the broadcaster's own token can tell";
    let authorised: BTreeSet<_> = by_broadcaster.iter().map(|(source, _)| *source).collect();
    let scopes = map::scopes(&access.scopes, &permission::scopes_of(PlatformName::Twitch));
    let at = look.now();
    let identity = |source: &SourceKey| {
        let mut silent = Vec::new();
        if !authorised.contains(source) {
            silent.extend([("VIP", NEEDS_BROADCASTER), ("EDITOR", NEEDS_BROADCASTER)]);
            if !look.twitch.options.check_subscriptions {
                silent.push(("SUBSCRIBER", "asking costs a call a channel and is switched off"));
            }
        }
        fact("twitch.identity", map::identity(source, bot_user_id, &silent))
    };
    look.tell_all(sources, at, HELIX, identity).await;
    look.tell_all(sources, at, HELIX, |_| fact("twitch.scopes", scopes.clone()))
        .await;
}

/// One list tells for every channel whether the bot moderates it.
async fn moderated_channels(look: &Look<'_>, sources: &[&SourceKey], access: &Access, bot_user_id: &str) {
    const METHOD: &str = "twitch.moderated-channels";
    if sources.is_empty() {
        return;
    }
    if !access.has_scope(&[MODERATED_SCOPE]) {
        let at = look.now();
        let unknown = map::moderated(false, Some("missing scope user:read:moderated_channels"));
        return look
            .tell_all(sources, at, HELIX, |_| fact(METHOD, unknown.clone()))
            .await;
    }
    match read_moderated(look, &access.identity, bot_user_id).await {
        Ok((listed, incomplete)) => {
            let grants = |source: &SourceKey| map::moderated(listed.contains(source.id()), incomplete);
            look.tell_all(sources, look.now(), HELIX, |source| fact(METHOD, grants(source)))
                .await;
        }
        Err(error) => failed(look, sources, METHOD, &["MODERATOR"], &error),
    }
}

/// Reads the whole list; the second value says why it may be incomplete.
async fn read_moderated(
    look: &Look<'_>,
    bot: &Identity,
    bot_user_id: &str,
) -> Result<(BTreeSet<String>, Option<&'static str>), PlatformError> {
    let mut listed = BTreeSet::new();
    let mut cursor: Option<String> = None;
    for _ in 0..MOST_PAGES {
        let mut call = Call {
            operation: "the list of moderated channels",
            path: "moderation/channels",
            query: vec![("user_id", bot_user_id), ("first", "100")],
        };
        call.query
            .extend(cursor.as_deref().map(|cursor| ("after", cursor)));
        look.meter.expect(1);
        let page = one_call::<OfBroadcaster>(look, bot, &call).await?;
        let (full, before) = (page.rows.len() >= PAGE, listed.len());
        listed.extend(page.rows.into_iter().map(|row| row.broadcaster_id));
        match page.cursor {
            // Twitch has lost cursors before; a full last page looks the same.
            None if full => return Ok((listed, Some("the list may be cut off: its last page is full"))),
            None => return Ok((listed, None)),
            Some(next) if Some(&next) == cursor.as_ref() || listed.len() == before => {
                return Ok((listed, Some("the list does not come to an end")));
            }
            Some(next) => cursor = Some(next),
        }
    }
    Ok((listed, Some("the list is longer than we read")))
}

/// What a broadcaster's own token tells about the bot in that channel.
async fn broadcasters_lists(look: &Look<'_>, by_broadcaster: &[(&SourceKey, Identity)], bot_user_id: &str) {
    let asked = by_broadcaster
        .iter()
        .filter(|(source, _)| source.id() != bot_user_id)
        .map(|(source, identity)| broadcaster_lists(look, source, identity, bot_user_id));
    join_all(asked).await;
}

/// One list that a broadcaster's token opens.
struct MemberList {
    method: &'static str,
    role: &'static str,
    operation: &'static str,
    path: &'static str,
    /// Any of these.
    scopes: &'static [&'static str],
    /// Whether the list can be narrowed to the bot.
    by_user: bool,
}

const MEMBER_LISTS: [MemberList; 4] = [
    MemberList {
        method: "twitch.moderators",
        role: "MODERATOR",
        operation: "the list of moderators",
        path: "moderation/moderators",
        scopes: &["moderation:read", "channel:manage:moderators"],
        by_user: true,
    },
    MemberList {
        method: "twitch.vips",
        role: "VIP",
        operation: "the list of VIPs",
        path: "channels/vips",
        scopes: &["channel:read:vips", "channel:manage:vips"],
        by_user: true,
    },
    MemberList {
        method: "twitch.editors",
        role: "EDITOR",
        operation: "the list of editors",
        path: "channels/editors",
        scopes: &["channel:read:editors"],
        by_user: false,
    },
    MemberList {
        method: "twitch.subscribers",
        role: "SUBSCRIBER",
        operation: "the list of subscribers",
        path: "subscriptions",
        scopes: &["channel:read:subscriptions"],
        by_user: true,
    },
];

async fn broadcaster_lists(look: &Look<'_>, source: &SourceKey, identity: &Identity, bot_user_id: &str) {
    let access = match look.twitch.auth.access(identity, &look.meter).await {
        Ok(access) => access,
        Err(error) => return look.problem(format!("`{identity}` cannot be asked: {error}")),
    };
    for list in &MEMBER_LISTS {
        if !access.has_scope(list.scopes) {
            let reason = format!("the broadcaster has not granted {}", list.scopes.join(" or "));
            let grants = map::one(list.role, Err(&reason));
            tell(look, source, look.now(), list.method, grants);
            continue;
        }
        let mut call = Call {
            operation: list.operation,
            path: list.path,
            query: vec![("broadcaster_id", source.id())],
        };
        if list.by_user {
            call.query.push(("user_id", bot_user_id));
        }
        look.meter.expect(1);
        match one_call::<Member>(look, identity, &call).await {
            Ok(page) => {
                // Some servers do not narrow the list; by id it is right either way.
                let held = page.rows.iter().any(|member| member.user_id == bot_user_id);
                let answer = if !held && page.cursor.is_some() {
                    Err("the list goes on")
                } else {
                    Ok(held)
                };
                tell(look, source, page.at, list.method, map::one(list.role, answer));
            }
            Err(error) => failed(look, &[source], list.method, &[list.role], &error),
        }
    }
}

/// Checks that cost a call a channel, where they were asked for.
async fn one_by_one(look: &Look<'_>, sources: &[&SourceKey], access: &Access, bot_user_id: &str) {
    let options = &look.twitch.options;
    if options.check_subscriptions {
        if access.has_scope(&["user:read:subscriptions"]) {
            look.meter.expect(sources.len());
            look.side_by_side(
                sources
                    .iter()
                    .map(|source| subscription(look, source, &access.identity, bot_user_id)),
            )
            .await;
        } else {
            look.problem("the bot lacks the scope user:read:subscriptions".to_owned());
        }
    }
    if options.check_chatters {
        if access.has_scope(&["moderator:read:chatters"]) {
            look.meter.expect(sources.len());
            look.side_by_side(
                sources
                    .iter()
                    .map(|source| chatters(look, source, &access.identity, bot_user_id)),
            )
            .await;
        } else {
            look.problem("the bot lacks the scope moderator:read:chatters".to_owned());
        }
    }
}

/// Does the bot subscribe to the channel? 404 is Twitch's no.
async fn subscription(look: &Look<'_>, source: &SourceKey, bot: &Identity, bot_user_id: &str) {
    const METHOD: &str = "twitch.subscription";
    let call = Call {
        operation: "the bot's subscription",
        path: "subscriptions/user",
        query: vec![("broadcaster_id", source.id()), ("user_id", bot_user_id)],
    };
    let listed = look
        .twitch
        .helix
        .list::<OfBroadcaster>(&look.twitch.auth, bot, &call, &look.meter)
        .await;
    let answer = match listed {
        Ok(page) => Ok(page.rows.iter().any(|row| row.broadcaster_id == source.id())),
        Err(PlatformError::Rejected {
            status: 400 | 404,
            reason,
            ..
        }) if reason.to_ascii_lowercase().contains("subscribe") => Ok(false),
        Err(error) => Err(error),
    };
    match answer {
        Ok(held) => tell(look, source, look.now(), METHOD, map::one("SUBSCRIBER", Ok(held))),
        Err(error) => failed(look, &[source], METHOD, &["SUBSCRIBER"], &error),
    }
}

/// May the bot list the chatters? Only moderators may.
async fn chatters(look: &Look<'_>, source: &SourceKey, bot: &Identity, bot_user_id: &str) {
    const METHOD: &str = "twitch.chatters";
    let call = Call {
        operation: "the list of chatters",
        path: "chat/chatters",
        query: [
            each("broadcaster_id", [source.id()]),
            each("moderator_id", [bot_user_id]),
            vec![("first", "1")],
        ]
        .concat(),
    };
    let listed = look
        .twitch
        .helix
        .list::<Anything>(&look.twitch.auth, bot, &call, &look.meter)
        .await;
    match listed {
        Ok(_) => tell(look, source, look.now(), METHOD, map::one("MODERATOR", Ok(true))),
        Err(PlatformError::Forbidden { reason, .. }) if !is_about_the_token(&reason) => {
            tell(look, source, look.now(), METHOD, map::one("MODERATOR", Ok(false)));
        }
        Err(error) => failed(look, &[source], METHOD, &["MODERATOR"], &error),
    }
}

/// Whether a refusal is about the token rather than about the bot's role.
fn is_about_the_token(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    reason.contains("scope") || reason.contains("match")
}

async fn one_call<T: serde::de::DeserializeOwned>(
    look: &Look<'_>,
    identity: &Identity,
    call: &Call<'_>,
) -> Result<Page<T>, PlatformError> {
    let permit = look.twitch.permits.acquire().await;
    let outcome = look
        .twitch
        .helix
        .list(&look.twitch.auth, identity, call, &look.meter)
        .await;
    drop(permit);
    look.meter.done();
    outcome
}

fn tell(look: &Look<'_>, source: &SourceKey, at: crate::core::time::Timestamp, method: &str, grants: Grants) {
    look.tell(source, at, HELIX, fact(method, grants));
}

fn fact(method: &str, grants: Grants) -> Fact {
    let method = method.to_owned();
    Fact::Permissions { method, grants }
}

/// A method that failed for now leaves its earlier answer standing. One that can never work says why nothing is known.
fn failed(look: &Look<'_>, sources: &[&SourceKey], method: &str, roles: &[&str], error: &PlatformError) {
    look.problem(error.to_string());
    if error.recovery() != Recovery::GiveUp {
        return;
    }
    let (at, reason) = (look.now(), error.to_string());
    let unknown = roles.iter().map(|role| ((*role).to_owned(), reason.clone()));
    let grants = Grants {
        unknown: unknown.collect(),
        ..Grants::default()
    };
    for source in sources {
        tell(look, source, at, method, grants.clone());
    }
}
