//! The bot's permissions in each channel, by every method that its tokens allow. Methods that cost one call per channel with the
//! bot's token are not used.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};

use super::helix::{Call, PAGE, Page};
use super::lists;
use super::map::{self, HELIX};
use super::options;
use super::probe::ProbeRun;
use super::wire::{Ban, Member, OfBroadcaster};
use crate::core::facet::Facet;
use crate::core::observation::{Fact, Grants, Identity};
use crate::core::permission;
use crate::core::source::{PlatformName, SourceKey};
use crate::platforms::kit::oauth::Access;
use crate::platforms::kit::token_check::TokenStatus;
use crate::platforms::{PlatformError, Problem, Recovery};

const MODERATED_SCOPE: &str = "user:read:moderated_channels";
/// Maximum number of pages that are read of the moderated channels.
const MOST_PAGES: usize = 500;

impl ProbeRun<'_> {
    /// Probes the bot's permissions.
    pub(super) async fn permissions(&self, sources: &[&SourceKey]) {
        let run = self;
        let bot = options::bot();
        let access = match run.twitch.auth.access(&bot, &run.meter).await {
            Ok(access) => access,
            Err(error) => {
                let text = format!("the bot's permissions are not known: {error}");
                return run.problem(Problem::of_account(&bot, text).caused_by(error.error_info()));
            }
        };
        let Some(bot_user_id) = access.user_id.clone() else {
            let text = "the bot's permissions are not known: its token stands for the application and not for a user";
            return run.problem(Problem::of_account(&bot, text));
        };
        let by_broadcaster = broadcasters(run, sources).await;
        let others: Vec<_> = sources
            .iter()
            .copied()
            .filter(|source| source.id() != bot_user_id)
            .collect();
        tokio::join!(
            moderated_channels(run, &others, &access, &bot_user_id),
            broadcasters_lists(run, &by_broadcaster, &bot_user_id),
        );
        // Scopes and the user id belong to the token. They are evidence of now only if Twitch accepts it now.
        if is_accepted(run, &bot).await {
            permissions_by_id(run, sources, &access, &bot_user_id, &by_broadcaster).await;
        }
    }
}

/// Returns whether Twitch accepts the bot's token: another request of this run has shown it, or a check does.
async fn is_accepted(run: &ProbeRun<'_>, bot: &Identity) -> bool {
    if run.twitch.auth.was_accepted_since(bot, run.started_at) {
        return true;
    }
    match run.twitch.auth.check(bot, &run.meter).await {
        Ok(check) => check.status == TokenStatus::Valid,
        Err(error) => {
            run.failure(&error);
            false
        }
    }
}

/// The sources whose broadcaster has authorized the application, with that identity.
async fn broadcasters<'a>(run: &ProbeRun<'_>, sources: &[&'a SourceKey]) -> Vec<(&'a SourceKey, Identity)> {
    let stored: BTreeSet<_> = match run.twitch.auth.identities().await {
        Ok(stored) => stored.into_iter().collect(),
        Err(error) => {
            run.failure(&error);
            return Vec::new();
        }
    };
    sources
        .iter()
        .map(|source| (*source, options::broadcaster(source.id())))
        .filter(|(_, identity)| stored.contains(identity))
        .collect()
}

async fn permissions_by_id(
    run: &ProbeRun<'_>,
    sources: &[&SourceKey],
    access: &Access,
    bot_user_id: &str,
    by_broadcaster: &[(&SourceKey, Identity)],
) {
    const NEEDS_BROADCASTER: &str = "only the broadcaster's own token can read this";
    let authorized: BTreeSet<_> = by_broadcaster.iter().map(|(source, _)| *source).collect();
    let relevant = permission::scopes_of(PlatformName::Twitch);
    let scopes = Arc::new(if access.scopes_known {
        map::scopes(&access.scopes, &relevant)
    } else {
        map::unknown_scopes(&relevant)
    });
    let at = run.now();
    let identity = |source: &SourceKey| {
        let mut silent = Vec::new();
        if !authorized.contains(source) {
            silent.extend([
                ("VIP", NEEDS_BROADCASTER),
                ("EDITOR", NEEDS_BROADCASTER),
                ("SUBSCRIBER", "asking costs a call a channel and is switched off"),
            ]);
        }
        fact("twitch.identity", map::identity(source, bot_user_id, &silent))
    };
    run.emit_all(sources, at, HELIX, identity).await;
    run.emit_all(sources, at, HELIX, |_| fact("twitch.scopes", Arc::clone(&scopes)))
        .await;
}

/// One list shows for every channel whether the bot moderates it.
async fn moderated_channels(run: &ProbeRun<'_>, sources: &[&SourceKey], access: &Access, bot_user_id: &str) {
    const METHOD: &str = "twitch.moderated-channels";
    if sources.is_empty() {
        return;
    }
    if !access.has_scope(&[MODERATED_SCOPE]) {
        let at = run.now();
        let unknown = Arc::new(map::moderated(
            false,
            Some("missing scope user:read:moderated_channels"),
        ));
        return run
            .emit_all(sources, at, HELIX, |_| fact(METHOD, Arc::clone(&unknown)))
            .await;
    }
    match read_moderated(run, &access.identity, bot_user_id).await {
        Ok((listed, incomplete)) => {
            let grants = |source: &SourceKey| {
                let is_listed = listed.contains(source.id());
                let reason = incomplete.filter(|_| !is_listed);
                fact(&method(METHOD, reason), map::moderated(is_listed, reason))
            };
            run.emit_all(sources, run.now(), HELIX, grants).await;
        }
        Err(error) => failed(run, sources, METHOD, &["MODERATOR"], &error),
    }
}

/// Reads the whole list; the second value is why it may be incomplete.
async fn read_moderated(
    run: &ProbeRun<'_>,
    bot: &Identity,
    bot_user_id: &str,
) -> Result<(BTreeSet<String>, Option<&'static str>), PlatformError> {
    let mut listed = BTreeSet::new();
    let mut cursor: Option<String> = None;
    let mut odd = false;
    for _ in 0..MOST_PAGES {
        let mut call = Call {
            operation: "the list of moderated channels",
            path: "moderation/channels",
            query: vec![("user_id", bot_user_id), ("first", "100")],
        };
        call.query
            .extend(cursor.as_deref().map(|cursor| ("after", cursor)));
        run.meter.expect(1);
        let page = one_call::<OfBroadcaster>(run, bot, &call).await?;
        let (full, before) = (page.rows.len() + page.unread.len() >= PAGE, listed.len());
        odd |= !page.unread.is_empty();
        listed.extend(page.rows.into_iter().map(|row| row.broadcaster_id));
        match page.cursor {
            // Twitch has omitted cursors before; a full last page looks the same.
            None if full => return Ok((listed, Some("the list may be cut off: its last page is full"))),
            None if odd => return Ok((listed, Some("a row of the list cannot be read"))),
            None => return Ok((listed, None)),
            Some(next) if Some(&next) == cursor.as_ref() || listed.len() == before => {
                return Ok((listed, Some("the list does not come to an end")));
            }
            Some(next) => cursor = Some(next),
        }
    }
    Ok((listed, Some("the list is longer than we read")))
}

/// What a broadcaster's own token reveals about the bot in that channel.
async fn broadcasters_lists(
    run: &ProbeRun<'_>,
    by_broadcaster: &[(&SourceKey, Identity)],
    bot_user_id: &str,
) {
    stream::iter(by_broadcaster)
        .for_each_concurrent(run.sink.calls_at_once(), |(source, identity)| async move {
            if source.id() != bot_user_id {
                broadcaster_lists(run, source, identity, bot_user_id).await;
            }
        })
        .await;
}

/// A list that requires a broadcaster's token.
struct MemberList {
    method: &'static str,
    role: &'static str,
    operation: &'static str,
    path: &'static str,
    /// Any of these is sufficient.
    scopes: &'static [&'static str],
    /// Whether the list can be filtered by the bot's id.
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

async fn broadcaster_lists(run: &ProbeRun<'_>, source: &SourceKey, identity: &Identity, bot_user_id: &str) {
    let access = match run.twitch.auth.access(identity, &run.meter).await {
        Ok(access) => access,
        Err(error) => {
            let text = format!("`{identity}` cannot be asked: {error}");
            return run.problem(Problem::of_account(identity, text).caused_by(error.error_info()));
        }
    };
    ban(run, source, &access, bot_user_id).await;
    for list in &MEMBER_LISTS {
        if !access.has_scope(list.scopes) {
            let reason = format!("the broadcaster has not granted {}", list.scopes.join(" or "));
            let grants = map::one(list.role, Err(&reason));
            emit(run, source, run.now(), list.method, grants);
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
        run.meter.expect(1);
        match one_call::<Member>(run, identity, &call).await {
            Ok(page) => {
                // Some servers ignore the filter; comparing the id is correct either way.
                let held = page.rows.iter().any(|member| member.user_id == bot_user_id);
                let answer = if !held && page.cursor.is_some() {
                    Err("the list goes on")
                } else if !held && !page.unread.is_empty() {
                    Err("a row of the list cannot be read")
                } else {
                    Ok(held)
                };
                let name = method(list.method, answer.err());
                emit(run, source, page.at, &name, map::one(list.role, answer));
            }
            Err(error) => failed(run, &[source], list.method, &[list.role], &error),
        }
    }
}

/// Checks whether the bot is banned from the channel or in a timeout. Without the scope this method gives no answer; pushed bans
/// and refused subscriptions may still give one.
async fn ban(run: &ProbeRun<'_>, source: &SourceKey, access: &Access, bot_user_id: &str) {
    const METHOD: &str = "twitch.banned-users";
    if !access.has_scope(&["moderation:read", "moderator:manage:banned_users"]) {
        return;
    }
    let call = Call {
        operation: "the list of banned users",
        path: "moderation/banned",
        query: vec![("broadcaster_id", source.id()), ("user_id", bot_user_id)],
    };
    run.meter.expect(1);
    match one_call::<Ban>(run, &access.identity, &call).await {
        Ok(page) => {
            let mut bans = page.rows.iter().filter(|ban| ban.user_id == bot_user_id);
            let banned = bans.any(|ban| ban.expires_at.is_none_or(|end| page.at < end));
            let open = page.cursor.is_some() || !page.unread.is_empty();
            let answer = match (banned, open) {
                (true, _) => Ok(true),
                (false, false) => Ok(false),
                (false, true) => Err("the list of banned users cannot be read to its end"),
            };
            let name = method(METHOD, answer.err());
            emit(run, source, page.at, &name, map::one(permission::BANNED, answer));
        }
        Err(error) => failed(run, &[source], METHOD, &[permission::BANNED], &error),
    }
}

async fn one_call<T: serde::de::DeserializeOwned>(
    run: &ProbeRun<'_>,
    identity: &Identity,
    call: &Call<'_>,
) -> Result<Page<T>, PlatformError> {
    let permit = run.permits.acquire().await;
    let outcome = lists::list(run.twitch, identity, call, &run.meter).await;
    if outcome.is_ok() {
        run.answered();
    }
    drop(permit);
    run.meter.done();
    outcome
}

fn emit(
    run: &ProbeRun<'_>,
    source: &SourceKey,
    at: crate::core::time::Timestamp,
    method: &str,
    grants: impl Into<Arc<Grants>>,
) {
    run.emit(source, at, HELIX, fact(method, grants));
}

fn fact(method: &str, grants: impl Into<Arc<Grants>>) -> Fact {
    let (method, grants) = (method.to_owned(), grants.into());
    Fact::Permissions { method, grants }
}

/// Returns the name under which a method reports. What a list that may be incomplete leaves open is stored under a separate name, so
/// that it leaves the method's earlier answer in place, which becomes stale.
fn method(name: &str, left_open: Option<&str>) -> String {
    match left_open {
        Some(_) => format!("{name}.unanswered"),
        None => name.to_owned(),
    }
}

/// A request that failed leaves the method's earlier answer in place, which becomes stale. If the failure is not transient, its
/// reason is stored under a separate name: it explains why nothing is known, and overrides no answer.
fn failed(run: &ProbeRun<'_>, sources: &[&SourceKey], method: &str, roles: &[&str], error: &PlatformError) {
    run.failure(error);
    let (at, reason) = (run.now(), error.to_string());
    for source in sources {
        let unanswered = Fact::Unanswered {
            facet: Facet::Permissions,
            error: error.error_info(),
        };
        run.emit(source, at, HELIX, unanswered);
    }
    let lasting = error.recovery() == Recovery::GiveUp || matches!(error, PlatformError::Unreadable { .. });
    if !lasting {
        return;
    }
    let method = self::method(method, Some(&reason));
    let unknown = roles.iter().map(|role| ((*role).to_owned(), reason.clone()));
    let grants = Arc::new(Grants {
        unknown: unknown.collect(),
        ..Grants::default()
    });
    for source in sources {
        emit(run, source, at, &method, Arc::clone(&grants));
    }
}
