//! May the bot do this here? Each action of a platform has a requirement on what is held (roles, scopes, named
//! permissions); evidence answers it with yes, no or unknown, and says what is missing.

use std::collections::BTreeMap;

use crate::core::evidence::Evidence;
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::core::verdict::{Holding, holdings};

mod actions;

/// Something that a bot may want to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action {
    /// Name on the command line: `send-chat`.
    pub name: &'static str,
    /// What it is, for people.
    pub about: &'static str,
    /// What it takes.
    pub need: Need,
}

/// What an action takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// This permission, as platforms' observations name it: `MODERATOR`, `scope:user:write:chat`, `SEND_MESSAGES`.
    Held(&'static str),
    /// Not this one. While nothing is known about it, it stands in nobody's way.
    Not(&'static str),
    /// All of these.
    All(&'static [Self]),
    /// One of these.
    Any(&'static [Self]),
}

/// Whether an action is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Allowed {
    /// It is not: something that it takes is known to be missing.
    No,
    /// Not enough evidence.
    Unknown,
    /// It is.
    Yes,
}

/// The answer to "may the bot do this here?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The answer.
    pub allowed: Allowed,
    /// What is missing or stands in the way, for a no.
    pub missing: Vec<String>,
    /// What is not known and why, for an unknown: one sentence each.
    pub unknown: Vec<String>,
    /// The age of the answer: when the oldest evidence that it rests on was obtained.
    pub as_of: Option<Timestamp>,
}

/// Answers whether the bot may do `action`, going by `evidence`.
pub fn can(evidence: &Evidence, action: &Action) -> Answer {
    let weighed = weigh(&action.need, &holdings(evidence));
    Answer {
        allowed: weighed.allowed,
        missing: if weighed.allowed == Allowed::No {
            weighed.missing
        } else {
            Vec::new()
        },
        unknown: if weighed.allowed == Allowed::Unknown {
            weighed.unknown
        } else {
            Vec::new()
        },
        as_of: weighed.as_of,
    }
}

/// Returns the actions of a platform, by name.
pub fn actions(platform: PlatformName) -> &'static [Action] {
    match platform {
        PlatformName::Twitch => actions::TWITCH,
        PlatformName::Kick => actions::KICK,
        PlatformName::Discord => actions::DISCORD,
    }
}

/// Returns the action of this name.
pub fn action(platform: PlatformName, name: &str) -> Option<&'static Action> {
    actions(platform).iter().find(|action| action.name == name)
}

/// Returns every scope that any action of the platform asks for, without its prefix, sorted.
pub fn scopes_of(platform: PlatformName) -> Vec<&'static str> {
    let mut scopes = Vec::new();
    for action in actions(platform) {
        collect_scopes(&action.need, &mut scopes);
    }
    scopes.sort_unstable();
    scopes.dedup();
    scopes
}

fn collect_scopes(need: &Need, scopes: &mut Vec<&'static str>) {
    match need {
        Need::Held(name) | Need::Not(name) => scopes.extend(name.strip_prefix("scope:")),
        Need::All(parts) | Need::Any(parts) => parts.iter().for_each(|part| collect_scopes(part, scopes)),
    }
}

struct Weighed {
    allowed: Allowed,
    missing: Vec<String>,
    unknown: Vec<String>,
    as_of: Option<Timestamp>,
}

type Holdings = BTreeMap<String, (Holding, Option<Timestamp>)>;

fn weigh(need: &Need, held: &Holdings) -> Weighed {
    match need {
        Need::Held(name) => weigh_one(name, held),
        Need::Not(name) => match held.get(*name) {
            Some((Holding::Yes, at)) => Weighed {
                allowed: Allowed::No,
                missing: vec![format!("not being {name}")],
                unknown: Vec::new(),
                as_of: *at,
            },
            _ => nothing_asked(),
        },
        Need::All(parts) => {
            let parts: Vec<_> = parts.iter().map(|part| weigh(part, held)).collect();
            let allowed = parts
                .iter()
                .map(|part| part.allowed)
                .min()
                .unwrap_or(Allowed::Yes);
            // A no rests on the parts that say no, everything else on all of them.
            let decisive = |part: &&Weighed| allowed != Allowed::No || part.allowed == Allowed::No;
            Weighed {
                allowed,
                as_of: parts.iter().filter(decisive).filter_map(|part| part.as_of).min(),
                missing: parts.iter().flat_map(|part| part.missing.clone()).collect(),
                unknown: parts.into_iter().flat_map(|part| part.unknown).collect(),
            }
        }
        Need::Any(parts) => {
            let parts: Vec<_> = parts.iter().map(|part| weigh(part, held)).collect();
            let allowed = parts.iter().map(|part| part.allowed).max().unwrap_or(Allowed::No);
            let decisive = |part: &&Weighed| allowed != Allowed::Yes || part.allowed == Allowed::Yes;
            let missing: Vec<_> = parts.iter().map(|part| part.missing.join(" and ")).collect();
            let as_of = parts.iter().filter(decisive).filter_map(|part| part.as_of);
            Weighed {
                // A yes is as fresh as its freshest proof; anything less as old as its oldest part.
                as_of: if allowed == Allowed::Yes {
                    as_of.max()
                } else {
                    as_of.min()
                },
                allowed,
                missing: if allowed == Allowed::No {
                    vec![missing.join(" or ")]
                } else {
                    Vec::new()
                },
                unknown: parts.into_iter().flat_map(|part| part.unknown).collect(),
            }
        }
    }
}

fn weigh_one(name: &str, held: &Holdings) -> Weighed {
    let (holding, as_of) = held
        .get(name)
        .map_or((Holding::Unknown(None), None), |(holding, at)| {
            (holding.clone(), *at)
        });
    let (allowed, missing, unknown) = match holding {
        Holding::Yes => (Allowed::Yes, None, None),
        Holding::No => (Allowed::No, Some(name.to_owned()), None),
        Holding::Unknown(reason) => {
            let reason = reason.unwrap_or_else(|| "never looked at".to_owned());
            (Allowed::Unknown, None, Some(format!("{name}: {reason}")))
        }
    };
    Weighed {
        allowed,
        missing: missing.into_iter().collect(),
        unknown: unknown.into_iter().collect(),
        as_of,
    }
}

fn nothing_asked() -> Weighed {
    Weighed {
        allowed: Allowed::Yes,
        missing: Vec::new(),
        unknown: Vec::new(),
        as_of: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::join::Newest;
    use crate::core::observation::Grants;

    fn at(second: i64) -> Timestamp {
        Timestamp::EPOCH.plus_secs(second)
    }

    /// Second, granted, denied, unknown.
    type Method<'a> = (i64, &'a [&'a str], &'a [&'a str], &'a [&'a str]);

    fn evidence(methods: &[Method<'_>]) -> Evidence {
        let mut evidence = Evidence::default();
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        for (index, (second, granted, denied, unknown)) in methods.iter().enumerate() {
            let grants = Grants {
                granted: set(granted),
                denied: set(denied),
                unknown: unknown
                    .iter()
                    .map(|name| ((*name).to_owned(), "nobody tells".to_owned()))
                    .collect(),
            };
            let method = format!("method-{index}");
            evidence
                .permissions
                .insert(method, Newest::new(at(*second), grants));
        }
        evidence
    }

    fn ask(name: &str, evidence: &Evidence) -> Answer {
        can(evidence, action(PlatformName::Twitch, name).unwrap())
    }

    #[test]
    fn a_moderator_with_the_scope_may_time_out_and_the_answer_is_as_old_as_its_oldest_part() {
        let known = evidence(&[
            (50, &["scope:moderator:manage:banned_users"], &[], &[]),
            (20, &["MODERATOR"], &["BROADCASTER"], &[]),
        ]);
        let answer = ask("timeout", &known);
        assert_eq!((answer.allowed, answer.as_of), (Allowed::Yes, Some(at(20))));
        assert_eq!((answer.missing.len(), answer.unknown.len()), (0, 0));
    }

    #[test]
    fn a_no_names_what_is_missing() {
        let known = evidence(&[
            (50, &[], &["scope:moderator:manage:banned_users"], &[]),
            (20, &[], &["MODERATOR", "BROADCASTER"], &[]),
        ]);
        let answer = ask("timeout", &known);
        assert_eq!(answer.allowed, Allowed::No);
        assert_eq!(
            answer.missing,
            ["scope:moderator:manage:banned_users", "MODERATOR or BROADCASTER"]
        );
    }

    #[test]
    fn what_nobody_tells_is_unknown_with_the_reason_and_never_a_no() {
        let known = evidence(&[(
            50,
            &["scope:moderator:manage:banned_users"],
            &["BROADCASTER"],
            &["MODERATOR"],
        )]);
        let answer = ask("ban", &known);
        assert_eq!(answer.allowed, Allowed::Unknown);
        assert_eq!(answer.unknown, ["MODERATOR: nobody tells"]);
        let nothing = ask("ban", &Evidence::default());
        assert_eq!((nothing.allowed, nothing.as_of), (Allowed::Unknown, None));
    }

    #[test]
    fn a_missing_scope_is_a_no_whatever_the_role() {
        let known = evidence(&[(50, &[], &["scope:moderator:manage:banned_users"], &["MODERATOR"])]);
        let answer = ask("ban", &known);
        assert_eq!(answer.allowed, Allowed::No);
        assert_eq!(answer.missing, ["scope:moderator:manage:banned_users"]);
    }

    #[test]
    fn either_of_two_scopes_is_enough_and_a_ban_stands_in_the_way() {
        let chat = ["scope:chat:edit"];
        let open = evidence(&[(50, &chat, &["scope:user:write:chat"], &[])]);
        assert_eq!(ask("send-chat", &open).allowed, Allowed::Yes);
        let banned = evidence(&[(50, &chat, &[], &[]), (60, &["BANNED"], &[], &[])]);
        let answer = ask("send-chat", &banned);
        assert_eq!((answer.allowed, answer.as_of), (Allowed::No, Some(at(60))));
        assert_eq!(answer.missing, ["not being BANNED"]);
    }

    #[test]
    fn every_action_has_a_name_of_its_own_and_something_to_hold() {
        for platform in PlatformName::ALL {
            let names: std::collections::BTreeSet<_> =
                actions(platform).iter().map(|action| action.name).collect();
            assert_eq!(names.len(), actions(platform).len());
            for action in actions(platform) {
                assert_eq!(
                    can(&Evidence::default(), action).allowed,
                    Allowed::Unknown,
                    "{}",
                    action.name
                );
            }
        }
        assert!(scopes_of(PlatformName::Twitch).contains(&"user:read:chat"));
        assert!(scopes_of(PlatformName::Discord).is_empty());
    }
}
