//! The permissions in the channels of a guild that are configured: what the bot may do in all of them. Pure.

use std::collections::BTreeMap;

use super::permissions::{ChannelKind, GuildRules, Member, NEEDED, Permissions, invite_link};
use super::wire::Channel;
use crate::core::observation::Grants;

/// Result for one configured channel.
#[derive(Debug, Clone, PartialEq)]
pub enum ChannelAccess {
    /// It exists, and the bot has these permissions in it.
    Known {
        /// Its type.
        kind: ChannelKind,
        /// The bot's effective permissions.
        held: Permissions,
    },
    /// The guild has no such channel.
    Gone,
    /// It exists but contains no messages, for the reason given.
    Unsuitable(&'static str),
    /// It could not be determined.
    Unknown(String),
}

impl ChannelAccess {
    fn missing(&self) -> Permissions {
        match self {
            Self::Known { kind, held } => kind.needed().without(*held),
            Self::Gone | Self::Unsuitable(_) | Self::Unknown(_) => Permissions::NONE,
        }
    }
}

/// Returns what `member` may do in `channel`, given the guild's other channels for the parents of threads.
pub fn access(rules: &GuildRules, member: &Member, channel: &Channel, others: &[Channel]) -> ChannelAccess {
    let Some(kind) = channel.kind() else {
        return ChannelAccess::Unknown("Discord did not send the type of the channel".to_owned());
    };
    match kind {
        ChannelKind::Category => {
            return ChannelAccess::Unsuitable(
                "it is a category, which holds no messages; name its channels instead",
            );
        }
        ChannelKind::Directory => {
            return ChannelAccess::Unsuitable(
                "it is a directory, which holds no messages; name a text channel instead",
            );
        }
        _ => {}
    }
    let holder = if matches!(kind, ChannelKind::Thread | ChannelKind::LockedThread) {
        let parent = others.iter().find(|other| Some(other.id) == channel.parent_id);
        match parent {
            Some(parent) => parent,
            None => return ChannelAccess::Unknown("the thread's channel is not listed".to_owned()),
        }
    } else {
        channel
    };
    ChannelAccess::Known {
        kind,
        held: rules.in_channel(member, kind, &holder.overwrites()),
    }
}

/// Combined result of all configured channels.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The channel-level permissions: granted where held in every channel, denied where missing in one. `None` when a channel
    /// could not be evaluated, because it may lack what the others have.
    pub grants: Option<Grants>,
    /// The channel with the most missing permissions: `channel:<id>`.
    pub scope: Option<String>,
    /// Summary of every channel in one line, for users.
    pub overview: String,
    /// Missing permissions by channel, each a sentence.
    pub lacking: Vec<String>,
    /// Channels that do not exist.
    pub gone: Vec<u64>,
    /// Channels that contain no messages, and why.
    pub unsuitable: Vec<(u64, &'static str)>,
}

/// Combines the configured channels of a guild. `base` are the bot's guild-level permissions.
pub fn report(channels: &BTreeMap<u64, ChannelAccess>, base: Permissions) -> Report {
    let words = |id: &u64, access: &ChannelAccess| match access {
        ChannelAccess::Known { .. } if access.missing() == Permissions::NONE => format!("{id}: ok"),
        ChannelAccess::Known { .. } => format!("{id}: missing {}", access.missing().names().join(" ")),
        ChannelAccess::Gone => format!("{id}: does not exist"),
        ChannelAccess::Unsuitable(reason) => format!("{id}: {reason}"),
        ChannelAccess::Unknown(reason) => format!("{id}: unknown ({reason})"),
    };
    let overview: Vec<_> = channels.iter().map(|(id, access)| words(id, access)).collect();
    let lacking = channels
        .iter()
        .filter(|(_, access)| access.missing() != Permissions::NONE)
        .map(|(id, access)| {
            let missing = access.missing();
            let by_channel = base.contains(missing);
            let locked = matches!(
                access,
                ChannelAccess::Known {
                    kind: ChannelKind::LockedThread,
                    ..
                }
            );
            let why = if locked {
                " (the thread is locked: only members with MANAGE_THREADS can write in it)"
            } else if by_channel {
                " (denied by the channel itself)"
            } else {
                ""
            };
            format!(
                "the bot lacks {} in channel {id}{why}",
                missing.names().join(", ")
            )
        })
        .collect();
    let gone: Vec<_> = channels
        .iter()
        .filter(|(_, access)| **access == ChannelAccess::Gone)
        .map(|(id, _)| *id)
        .collect();
    let unsuitable: Vec<_> = channels
        .iter()
        .filter_map(|(id, access)| match access {
            ChannelAccess::Unsuitable(reason) => Some((*id, *reason)),
            _ => None,
        })
        .collect();
    let in_all = channels
        .values()
        .filter_map(|access| match access {
            ChannelAccess::Known { held, .. } => Some(*held),
            _ => None,
        })
        .reduce(|all, held| all & held);
    let all_judged = !channels
        .values()
        .any(|access| matches!(access, ChannelAccess::Unknown(_)));
    let worst = channels
        .iter()
        .filter_map(|(id, access)| match access {
            ChannelAccess::Known { held, .. } => Some((id, access, *held)),
            _ => None,
        })
        // Most missing of what is needed, then fewest held at all; the lowest id when all is equal.
        .min_by_key(|(id, access, held)| {
            let missing = access.missing().bits().count_ones();
            (std::cmp::Reverse(missing), held.bits().count_ones(), **id)
        });
    let (grants, scope) = match worst.zip(in_all) {
        _ if !all_judged => (None, None),
        Some(((id, ..), held)) => (Some(held.channel_grants()), Some(format!("channel:{id}"))),
        None => (Some(nowhere(&overview)), None),
    };
    Report {
        grants,
        scope,
        overview: overview.join("; "),
        lacking,
        gone,
        unsuitable,
    }
}

/// The result when none of the configured channels exists or contains messages: all channel-level permissions are unknown.
fn nowhere(overview: &[String]) -> Grants {
    let reason = format!("channel {}", overview.join("; "));
    Grants {
        unknown: Permissions::ALL
            .without(Permissions::guild_level())
            .names()
            .into_iter()
            .map(|name| (name, reason.clone()))
            .collect(),
        ..Grants::default()
    }
}

/// Returns a sentence that describes which permissions the bot lacks in the guild and how to grant them, if it lacks any.
pub fn advice(
    application_id: Option<&str>,
    guild_id: &str,
    base: Permissions,
    wanted: Permissions,
) -> Option<String> {
    let missing = wanted.without(base);
    if missing == Permissions::NONE {
        return None;
    }
    let names = missing.names().join(", ");
    Some(match application_id {
        Some(application) => format!(
            "the bot lacks {names}; give it with {}",
            invite_link(application, Some(guild_id), NEEDED | wanted)
        ),
        None => format!("the bot lacks {names}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn known(held: Permissions) -> ChannelAccess {
        ChannelAccess::Known {
            kind: ChannelKind::Text,
            held,
        }
    }

    fn of(channels: &[(u64, ChannelAccess)]) -> Report {
        report(&channels.iter().cloned().collect(), NEEDED)
    }

    #[test]
    fn a_permission_counts_where_every_channel_grants_it() {
        let mute = NEEDED.without(Permissions::SEND_MESSAGES);
        let evaluated = of(&[(1, known(Permissions::ALL)), (2, known(mute)), (3, known(NEEDED))]);
        assert_eq!(evaluated.scope.as_deref(), Some("channel:2"));
        let grants = evaluated.grants.unwrap();
        assert!(grants.denied.contains("SEND_MESSAGES") && grants.granted.contains("VIEW_CHANNEL"));
        assert_eq!(evaluated.overview, "1: ok; 2: missing SEND_MESSAGES; 3: ok");
        assert_eq!(
            evaluated.lacking,
            ["the bot lacks SEND_MESSAGES in channel 2 (denied by the channel itself)"]
        );
    }

    #[test]
    fn a_hidden_channel_is_the_worst_and_grants_nothing() {
        let evaluated = of(&[(1, known(NEEDED)), (2, known(Permissions::NONE))]);
        assert_eq!(evaluated.scope.as_deref(), Some("channel:2"));
        assert!(evaluated.grants.unwrap().granted.is_empty());
    }

    #[test]
    fn one_channel_that_could_not_be_judged_leaves_the_answer_open() {
        let evaluated = of(&[(1, known(NEEDED)), (2, ChannelAccess::Unknown("http.502".into()))]);
        assert_eq!((evaluated.grants, evaluated.scope), (None, None));
    }

    #[test]
    fn missing_channels_are_reported_and_excluded() {
        let evaluated = of(&[(1, ChannelAccess::Gone), (2, known(NEEDED))]);
        assert_eq!(
            (evaluated.scope.as_deref(), evaluated.gone.as_slice()),
            (Some("channel:2"), &[1][..])
        );
        let none_left = of(&[(1, ChannelAccess::Gone)]).grants.unwrap();
        assert!(none_left.granted.is_empty() && none_left.denied.is_empty());
        assert!(none_left.unknown.contains_key("VIEW_CHANNEL"));
    }

    #[test]
    fn a_thread_goes_by_its_parents_exceptions() {
        let channel = |value| serde_json::from_value::<Channel>(value).unwrap();
        let parent = channel(json!({"id": "5", "type": 0, "permission_overwrites": [
            {"id": "9001", "type": 0, "allow": "0", "deny": "1024"}]}));
        let thread = channel(json!({"id": "6", "type": 11, "parent_id": "5"}));
        let rules = GuildRules {
            id: 9001,
            owner_id: 1,
            roles: [(9001, NEEDED)].into(),
        };
        let me = Member::default();
        assert!(
            matches!(access(&rules, &me, &thread, &[parent]), ChannelAccess::Known { held, .. } if held == Permissions::NONE)
        );
        assert!(matches!(
            access(&rules, &me, &thread, &[]),
            ChannelAccess::Unknown(_)
        ));
    }

    #[test]
    fn advice_carries_a_link_with_the_right_bits() {
        let evaluated = advice(Some("4001"), "9001", Permissions::VIEW_CHANNEL, NEEDED).unwrap();
        assert!(
            evaluated.contains("READ_MESSAGE_HISTORY") && evaluated.contains("permissions=68608"),
            "{evaluated}"
        );
        assert_eq!(advice(Some("4001"), "9001", Permissions::ALL, NEEDED), None);
    }
}
