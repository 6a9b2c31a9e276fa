//! The permissions of a guild whose channels are named in the configuration: those of the channel where the bot may do
//! least of what it needs. Pure.

use std::collections::BTreeMap;

use super::permissions::{ChannelKind, GuildRules, Member, NEEDED, Permissions, invite_link};
use super::wire::Channel;
use crate::core::observation::Grants;

/// What is known about one configured channel.
#[derive(Debug, Clone, PartialEq)]
pub enum Access {
    /// It exists, and this is what the bot may do in it.
    Known {
        /// What it is.
        kind: ChannelKind,
        /// What the bot may really do.
        held: Permissions,
    },
    /// There is no such channel in the guild.
    Gone,
    /// It could not be found out.
    Unknown(String),
}

impl Access {
    fn missing(&self) -> Permissions {
        match self {
            Self::Known { kind, held } => kind.needed().without(*held),
            Self::Gone | Self::Unknown(_) => Permissions::NONE,
        }
    }
}

/// Returns what `member` may do in `channel`, given the guild's other channels for the parents of threads.
pub fn access(rules: &GuildRules, member: &Member, channel: &Channel, others: &[Channel]) -> Access {
    let kind = channel.kind();
    let holder = if kind == ChannelKind::Thread {
        let parent = others.iter().find(|other| Some(other.id) == channel.parent_id);
        match parent {
            Some(parent) => parent,
            None => return Access::Unknown("the thread's channel is not listed".to_owned()),
        }
    } else {
        channel
    };
    Access::Known {
        kind,
        held: rules.in_channel(member, kind, &holder.overwrites()),
    }
}

/// What all configured channels together amount to.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The permissions of the source; `None` when a channel could not be judged, because the worst may be that one.
    pub grants: Option<Grants>,
    /// Where they hold: `channel:<id>`.
    pub scope: Option<String>,
    /// Every channel in one line, for people.
    pub overview: String,
    /// What lacks where, each a sentence.
    pub lacking: Vec<String>,
    /// Channels that do not exist.
    pub gone: Vec<u64>,
}

/// Sums up the configured channels of a guild. `base` is what the bot may do in the guild as a whole.
pub fn report(channels: &BTreeMap<u64, Access>, base: Permissions) -> Report {
    let words = |id: &u64, access: &Access| match access {
        Access::Known { .. } if access.missing() == Permissions::NONE => format!("{id}: ok"),
        Access::Known { .. } => format!("{id}: missing {}", access.missing().names().join(" ")),
        Access::Gone => format!("{id}: does not exist"),
        Access::Unknown(reason) => format!("{id}: unknown ({reason})"),
    };
    let overview: Vec<_> = channels.iter().map(|(id, access)| words(id, access)).collect();
    let lacking = channels
        .iter()
        .filter(|(_, access)| access.missing() != Permissions::NONE)
        .map(|(id, access)| {
            let missing = access.missing();
            let by_channel = base.contains(missing);
            let why = if by_channel {
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
        .filter(|(_, access)| **access == Access::Gone)
        .map(|(id, _)| *id)
        .collect();
    let all_judged = !channels
        .values()
        .any(|access| matches!(access, Access::Unknown(_)));
    let worst = channels
        .iter()
        .filter_map(|(id, access)| match access {
            Access::Known { held, .. } => Some((id, access, *held)),
            _ => None,
        })
        // Most of what is needed missing, then least held at all; the lowest id when all is equal.
        .min_by_key(|(id, access, held)| {
            let missing = access.missing().bits().count_ones();
            (std::cmp::Reverse(missing), held.bits().count_ones(), **id)
        });
    let (grants, scope) = match worst {
        _ if !all_judged => (None, None),
        Some((id, _, held)) => (Some(held.grants()), Some(format!("channel:{id}"))),
        None => (Some(nowhere(&gone)), None),
    };
    Report {
        grants,
        scope,
        overview: overview.join("; "),
        lacking,
        gone,
    }
}

/// The answer when not one configured channel exists: nothing is known about anything needed.
fn nowhere(gone: &[u64]) -> Grants {
    let ids: Vec<_> = gone.iter().map(ToString::to_string).collect();
    let reason = format!("channel {} does not exist", ids.join(", "));
    Grants {
        unknown: NEEDED
            .names()
            .into_iter()
            .map(|name| (name, reason.clone()))
            .collect(),
        ..Grants::default()
    }
}

/// Returns the sentence that tells what the bot lacks in the guild as a whole and how it gets it, if it lacks anything.
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
            invite_link(application, guild_id, NEEDED | wanted)
        ),
        None => format!("the bot lacks {names}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn known(held: Permissions) -> Access {
        Access::Known {
            kind: ChannelKind::Text,
            held,
        }
    }

    fn of(channels: &[(u64, Access)]) -> Report {
        report(&channels.iter().cloned().collect(), NEEDED)
    }

    #[test]
    fn the_worst_channel_speaks_for_the_guild() {
        let mute = NEEDED.without(Permissions::SEND_MESSAGES);
        let told = of(&[(1, known(Permissions::ALL)), (2, known(mute)), (3, known(NEEDED))]);
        assert_eq!(told.scope.as_deref(), Some("channel:2"));
        assert!(told.grants.unwrap().denied.contains("SEND_MESSAGES"));
        assert_eq!(told.overview, "1: ok; 2: missing SEND_MESSAGES; 3: ok");
        assert_eq!(
            told.lacking,
            ["the bot lacks SEND_MESSAGES in channel 2 (denied by the channel itself)"]
        );
    }

    #[test]
    fn a_hidden_channel_is_the_worst_and_grants_nothing() {
        let told = of(&[(1, known(NEEDED)), (2, known(Permissions::NONE))]);
        assert_eq!(told.scope.as_deref(), Some("channel:2"));
        assert!(told.grants.unwrap().granted.is_empty());
    }

    #[test]
    fn one_channel_that_could_not_be_judged_leaves_the_answer_open() {
        let told = of(&[(1, known(NEEDED)), (2, Access::Unknown("http.502".into()))]);
        assert_eq!((told.grants, told.scope), (None, None));
    }

    #[test]
    fn channels_that_are_gone_are_told_and_do_not_count() {
        let told = of(&[(1, Access::Gone), (2, known(NEEDED))]);
        assert_eq!(
            (told.scope.as_deref(), told.gone.as_slice()),
            (Some("channel:2"), &[1][..])
        );
        let none_left = of(&[(1, Access::Gone)]).grants.unwrap();
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
            matches!(access(&rules, &me, &thread, &[parent]), Access::Known { held, .. } if held == Permissions::NONE)
        );
        assert!(matches!(access(&rules, &me, &thread, &[]), Access::Unknown(_)));
    }

    #[test]
    fn advice_carries_a_link_with_the_right_bits() {
        let told = advice(Some("4001"), "9001", Permissions::VIEW_CHANNEL, NEEDED).unwrap();
        assert!(
            told.contains("READ_MESSAGE_HISTORY") && told.contains("permissions=68608"),
            "{told}"
        );
        assert_eq!(advice(Some("4001"), "9001", Permissions::ALL, NEEDED), None);
    }
}
