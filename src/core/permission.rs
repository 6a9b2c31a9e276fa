//! Permission checks: may the bot perform an action at a source? Preconditions come first: its account is authorized, the
//! source exists and the platform responds. Then each action of a platform has a requirement on the held roles, scopes and
//! named permissions. The answer is yes, no or unknown, with what is missing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::core::evidence::Evidence;
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::core::verdict::{self, Holding, holdings};

mod preconditions;

/// The method for a Discord guild as a whole: it reports every permission if no channels are configured, else only those in
/// [`GUILD_LEVEL`].
///
/// A permission is never reported by both methods, so that each permission of an action comes from the level at which Discord
/// decides it: `ban` from the guild, `send-chat` from the channel.
pub const GUILD_METHOD: &str = "discord.guild-permissions";

/// The method for the configured channels of a Discord guild: a channel-level permission is granted if it is held in all of
/// them, and denied if it is missing in one. It never reports a permission in [`GUILD_LEVEL`].
pub const CHANNEL_METHOD: &str = "discord.channel-permissions";

/// Permissions that Discord checks in the guild as a whole, independent of channel overwrites: those that its documentation
/// lists without a channel type, and `MANAGE_ROLES`, which in a channel permits editing overwrites, not roles.
///
/// <https://docs.discord.com/developers/topics/permissions#permissions-bitwise-permission-flags>
pub const GUILD_LEVEL: [&str; 13] = [
    "KICK_MEMBERS",
    "BAN_MEMBERS",
    "ADMINISTRATOR",
    "MANAGE_GUILD",
    "VIEW_AUDIT_LOG",
    "VIEW_GUILD_INSIGHTS",
    "CHANGE_NICKNAME",
    "MANAGE_NICKNAMES",
    "MANAGE_ROLES",
    "MANAGE_GUILD_EXPRESSIONS",
    "MODERATE_MEMBERS",
    "VIEW_CREATOR_MONETIZATION_ANALYTICS",
    "CREATE_GUILD_EXPRESSIONS",
];

/// The pseudo-permission for a ban or timeout, as used in observations.
pub const BANNED: &str = "BANNED";

/// An action of the bot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action {
    /// Name on the command line, for example `send-chat`.
    pub name: &'static str,
    /// Description for people.
    pub about: &'static str,
    /// Required permissions.
    pub need: Need,
}

impl Action {
    /// Describes an action.
    pub const fn new(name: &'static str, about: &'static str, need: Need) -> Self {
        Self { name, about, need }
    }
}

/// The requirement of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// This permission, with the name in the platform's observations: `MODERATOR`, `scope:user:write:chat`, `SEND_MESSAGES`.
    Held(&'static str),
    /// Absence of this permission. While it is unknown, it does not prevent the action.
    Not(&'static str),
    /// All of these.
    All(&'static [Self]),
    /// One of these.
    Any(&'static [Self]),
}

/// Whether an action is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Allowed {
    /// Not allowed: something required is known to be missing.
    No,
    /// Not enough evidence.
    Unknown,
    /// Allowed.
    Yes,
}

/// The answer to a permission check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The decision.
    pub allowed: Allowed,
    /// What is missing or prevents the action, for a no.
    pub missing: Vec<String>,
    /// What is unknown and why, for an unknown: one sentence each.
    pub unknown: Vec<String>,
    /// The precondition that decides, if any: an account, existence, the connection, a ban.
    pub unmet: Option<Unmet>,
    /// When the oldest evidence for the answer was obtained.
    pub as_of: Option<Timestamp>,
    /// Like `as_of`, for the permissions alone; `None` if they were not evaluated.
    pub permissions_at: Option<Timestamp>,
}

/// A precondition that decides before any permission is evaluated. Each has another remedy, so it is kept separate from the
/// text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unmet {
    /// The platform states that the source does not exist, or that the bot is not in it.
    Gone,
    /// The source was never proven to exist.
    NeverSeen,
    /// This account is not authorized.
    Unauthorized(Identity),
    /// The authorization of this account was never checked, or its token has expired since the check.
    Unchecked(Identity),
    /// The platform rejects the connection.
    Refused,
    /// The platform cannot be reached.
    Unreachable,
    /// The bot is banned.
    Banned,
}

/// Input of a permission check.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The platform of the source.
    pub platform: PlatformName,
    /// Evidence about the source.
    pub evidence: &'a Evidence,
    /// The current time: a token that has expired by then proves nothing until it is checked again. `None` leaves expiry to
    /// the reader of the answer.
    pub now: Option<Timestamp>,
}

/// Evaluates whether the bot may perform `action` according to `facts`.
///
/// Authorization, existence and connection come first: permissions that were observed with a token that has since been
/// revoked, or in a channel that no longer exists, allow nothing.
pub fn can(facts: Facts<'_>, action: &Action) -> Answer {
    answer(facts, &action.need)
}

/// Evaluates whether the bot holds `permission` and can use it, according to `facts`.
pub fn holds(facts: Facts<'_>, permission: &str) -> Answer {
    decide(facts, |held| weigh_one(permission, held))
}

fn answer(facts: Facts<'_>, need: &Need) -> Answer {
    decide(facts, |held| weigh(need, held))
}

fn decide(facts: Facts<'_>, weigh: impl FnOnce(&Holdings<'_>) -> Weighed) -> Answer {
    let held = &holdings(facts.evidence);
    let before = preconditions::of(facts, held);
    let refusal = before.iter().find(|one| one.weighed.allowed == Allowed::No);
    if let Some(refusal) = refusal {
        // Nothing else that is missing matters then.
        return Answer {
            allowed: Allowed::No,
            missing: refusal.weighed.missing.clone(),
            unknown: Vec::new(),
            unmet: refusal.unmet.clone(),
            as_of: refusal.weighed.as_of,
            permissions_at: None,
        };
    }
    let permissions = weigh(held);
    if permissions.allowed == Allowed::No {
        return Answer {
            allowed: Allowed::No,
            missing: permissions.missing,
            unknown: Vec::new(),
            unmet: None,
            as_of: permissions.as_of,
            permissions_at: permissions.as_of,
        };
    }
    let permissions_at = permissions.as_of;
    let unmet = before.iter().find(|one| one.weighed.allowed == Allowed::Unknown);
    let unmet = unmet.and_then(|one| one.unmet.clone());
    let parts = before.into_iter().map(|one| one.weighed).chain([permissions]);
    let parts: Vec<Weighed> = parts.collect();
    let allowed = parts
        .iter()
        .map(|part| part.allowed)
        .min()
        .unwrap_or(Allowed::Unknown);
    let unknown = parts.iter().flat_map(|part| part.unknown.clone());
    Answer {
        allowed,
        missing: Vec::new(),
        unknown: if allowed == Allowed::Unknown {
            unknown.collect()
        } else {
            Vec::new()
        },
        unmet,
        as_of: parts.iter().filter_map(|part| part.as_of).min(),
        permissions_at,
    }
}

/// One of the few capabilities by which sources of all platforms are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ability {
    /// Send chat messages.
    Chat,
    /// Moderate messages or people: delete, time out, ban, kick.
    Moderate,
    /// Change the channel's description; on Discord its roles.
    Manage,
}

impl Ability {
    const ALL: [Self; 3] = [Self::Chat, Self::Moderate, Self::Manage];

    /// Returns the label for a narrow column.
    pub fn label(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Moderate => "moderate",
            Self::Manage => "manage",
        }
    }

    /// Returns the platform's actions for this ability.
    fn actions(self, platform: PlatformName) -> &'static [&'static str] {
        let abilities = &platform.rules().abilities;
        match self {
            Self::Chat => abilities.chat,
            Self::Moderate => abilities.moderate,
            Self::Manage => abilities.manage,
        }
    }
}

/// Abilities of a bot at a source. Uses the rules of [`can`] except for token expiry, which depends on the time of reading.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Abilities(Vec<(Ability, Allowed)>);

impl Abilities {
    /// Evaluates every ability.
    pub fn of(platform: PlatformName, evidence: &Evidence) -> Self {
        let facts = Facts {
            platform,
            evidence,
            now: None,
        };
        let held = holdings(evidence);
        // As `decide`, without the reasons: the worst of the preconditions and of what the action needs.
        let before = preconditions::of(facts, &held);
        let before = before.iter().map(|one| one.weighed.allowed).min();
        let weigh = |ability: Ability| {
            let actions = ability.actions(platform).iter();
            let answers = actions.filter_map(|name| action(platform, name));
            let answers = answers.map(|action| weigh(&action.need, &held).allowed);
            let answers = answers.map(|allowed| before.map_or(allowed, |before| before.min(allowed)));
            (ability, answers.max().unwrap_or(Allowed::Unknown))
        };
        Self(Ability::ALL.into_iter().map(weigh).collect())
    }

    /// Returns the abilities that the bot is known to have.
    pub fn yes(&self) -> impl Iterator<Item = Ability> {
        let yes = self.0.iter().filter(|(_, allowed)| *allowed == Allowed::Yes);
        yes.map(|(ability, _)| *ability)
    }

    /// Returns whether any ability is unknown.
    pub fn is_unknown(&self) -> bool {
        self.0.is_empty() || self.0.iter().any(|(_, allowed)| *allowed == Allowed::Unknown)
    }
}

/// Returns what a yes for the action of this name does not cover, one sentence each: limits for which no evidence is stored.
pub fn not_covered(platform: PlatformName, action: &str) -> Vec<&'static str> {
    let rules = platform.rules().not_covered.iter();
    rules
        .filter(|(actions, _)| actions.contains(&action))
        .map(|(_, limit)| *limit)
        .collect()
}

/// Returns what a yes does not cover because there is no evidence about it: a ban, for actions in a chat from which the bot
/// must not be banned.
pub fn not_known(facts: Facts<'_>, action: &Action) -> Option<&'static str> {
    let takes_no_ban = match action.need {
        Need::Not(name) => name == BANNED,
        Need::All(parts) => parts.contains(&Need::Not(BANNED)),
        Need::Held(_) | Need::Any(_) => false,
    };
    let (holding, _) = verdict::holding(facts.evidence, BANNED);
    (takes_no_ban && matches!(holding, Holding::Unknown(_))).then_some("a ban by the channel")
}

/// Returns all actions of a platform.
pub fn actions(platform: PlatformName) -> &'static [Action] {
    platform.rules().actions
}

/// Returns the action of this name, if the platform has it.
pub fn action(platform: PlatformName, name: &str) -> Option<&'static Action> {
    actions(platform).iter().find(|action| action.name == name)
}

/// Returns every scope that an action of the platform requires, without its prefix, sorted.
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

#[derive(Debug, Clone)]
struct Weighed {
    allowed: Allowed,
    missing: Vec<String>,
    unknown: Vec<String>,
    as_of: Option<Timestamp>,
}

type Holdings<'a> = BTreeMap<&'a str, (Holding, Option<Timestamp>)>;

fn weigh(need: &Need, held: &Holdings<'_>) -> Weighed {
    match need {
        Need::Held(name) => weigh_one(name, held),
        Need::Not(name) => match held.get(*name) {
            Some((Holding::Yes, at)) => Weighed {
                allowed: Allowed::No,
                missing: vec![format!("not being {name}")],
                unknown: Vec::new(),
                as_of: *at,
            },
            _ => no_requirement(),
        },
        Need::All(parts) => {
            let parts: Vec<_> = parts.iter().map(|part| weigh(part, held)).collect();
            let allowed = parts
                .iter()
                .map(|part| part.allowed)
                .min()
                .unwrap_or(Allowed::Yes);
            // A no is based on the parts that are no, every other result on all of them.
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
                // A yes is as recent as its newest proof; any other result is as old as its oldest part.
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

fn weigh_one(name: &str, held: &Holdings<'_>) -> Weighed {
    let (holding, as_of) = held
        .get(name)
        .map_or((Holding::Unknown(None), None), |(holding, at)| {
            (holding.clone(), *at)
        });
    let (allowed, missing, unknown) = match holding {
        Holding::Yes => (Allowed::Yes, None, None),
        Holding::No => (Allowed::No, Some(name.to_owned()), None),
        Holding::Unknown(reason) => {
            let reason = reason.unwrap_or_else(|| "not checked yet".to_owned());
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

fn no_requirement() -> Weighed {
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
    use crate::core::code::Code;
    use crate::core::evidence::Knowledge;
    use crate::core::join::{Join as _, Newest};
    use crate::core::observation::{
        AuthCheck, AuthResult, ErrorInfo, Fact, Grants, LinkState, Observation, Transport,
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::EPOCH.plus_secs(second)
    }

    /// Time in seconds, granted, denied, unknown.
    type Method<'a> = (i64, &'a [&'a str], &'a [&'a str], &'a [&'a str]);

    /// Evidence of an authorized bot in an existing and connected channel, with the results of these methods.
    fn evidence(methods: &[Method<'_>]) -> Evidence {
        let mut evidence = in_order(PlatformName::Twitch);
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        for (index, (second, granted, denied, unknown)) in methods.iter().enumerate() {
            let grants = Grants {
                granted: set(granted),
                denied: set(denied),
                unknown: unknown
                    .iter()
                    .map(|name| ((*name).to_owned(), "no answer".to_owned()))
                    .collect(),
            };
            let method = format!("method-{index}");
            evidence
                .permissions
                .insert(method, Newest::new(at(*second), grants.into()));
        }
        evidence
    }

    fn ask(name: &str, evidence: &Evidence) -> Answer {
        ask_on(PlatformName::Twitch, name, evidence)
    }

    fn ask_on(platform: PlatformName, name: &str, evidence: &Evidence) -> Answer {
        can(facts(platform, evidence), action(platform, name).unwrap())
    }

    fn facts(platform: PlatformName, evidence: &Evidence) -> Facts<'_> {
        Facts {
            platform,
            evidence,
            now: Some(at(200)),
        }
    }

    fn in_order(platform: PlatformName) -> Evidence {
        let mut evidence = Evidence::default();
        authorize(
            &mut evidence,
            &format!("{platform}/bot"),
            AuthResult::Valid,
            Some(9_000),
        );
        connect(&mut evidence, 100, LinkState::Up);
        update(&mut evidence, 100, Fact::Exists);
        evidence
    }

    fn update(evidence: &mut Evidence, second: i64, fact: Fact) {
        let key = "twitch:1".parse().unwrap();
        let observation = Observation::new(&key, at(second), "test", fact);
        evidence.join(Knowledge::from(&observation).evidence);
    }

    fn authorize(evidence: &mut Evidence, identity: &str, result: AuthResult, expires: Option<i64>) {
        let check = AuthCheck {
            expires_at: expires.map(at),
            ..AuthCheck::of(result)
        };
        let identity = Identity::named(identity);
        let second = if result == AuthResult::Valid { 100 } else { 150 };
        update(
            evidence,
            second,
            Fact::Auth {
                identity,
                check: check.into(),
            },
        );
    }

    fn connect(evidence: &mut Evidence, second: i64, state: LinkState) {
        let transport = Transport::Api;
        update(evidence, second, Fact::Connection { transport, state });
    }

    /// A bot with every permission that any action of the platform requires.
    fn may_do_all(platform: PlatformName) -> Evidence {
        fn collect(need: &Need, names: &mut Vec<&'static str>) {
            match need {
                Need::Held(name) => names.push(name),
                Need::Not(_) => {}
                Need::All(parts) | Need::Any(parts) => parts.iter().for_each(|part| collect(part, names)),
            }
        }
        let mut names = Vec::new();
        for action in actions(platform) {
            collect(&action.need, &mut names);
        }
        let mut evidence = in_order(platform);
        let grants = Grants {
            granted: names.into_iter().map(str::to_owned).collect(),
            ..Grants::default()
        };
        let method = "all".to_owned();
        update(
            &mut evidence,
            100,
            Fact::Permissions {
                method,
                grants: grants.into(),
            },
        );
        evidence
    }

    /// Evaluates every action of every platform.
    fn all_answers(change: impl Fn(PlatformName, &mut Evidence)) -> Vec<Answer> {
        let platforms = PlatformName::ALL.into_iter();
        let answers = platforms.flat_map(|platform| {
            let mut evidence = may_do_all(platform);
            change(platform, &mut evidence);
            let ask = |action| can(facts(platform, &evidence), action);
            actions(platform).iter().map(ask).collect::<Vec<_>>()
        });
        answers.collect()
    }

    #[test]
    fn every_action_is_allowed_when_nothing_stands_in_the_way() {
        let answers = all_answers(|_, _| ());
        assert!(
            answers.iter().all(|answer| answer.allowed == Allowed::Yes),
            "{answers:?}"
        );
    }

    #[test]
    fn every_ability_stands_for_an_action_of_each_platform() {
        for platform in PlatformName::ALL {
            for ability in Ability::ALL {
                let mut names = ability.actions(platform).iter();
                assert!(
                    names.all(|name| action(platform, name).is_some()),
                    "{platform} {ability:?}"
                );
            }
            let abilities = Abilities::of(platform, &may_do_all(platform));
            assert_eq!((abilities.yes().count(), abilities.is_unknown()), (3, false));
        }
        let unknown = Abilities::of(PlatformName::Twitch, &Evidence::default());
        assert_eq!((unknown.yes().count(), unknown.is_unknown()), (0, true));
    }

    #[test]
    fn revoked_token_never_yields_yes() {
        let answers = all_answers(|platform, evidence| {
            authorize(evidence, &format!("{platform}/bot"), AuthResult::Revoked, None);
        });
        for answer in answers {
            assert_eq!(answer.allowed, Allowed::No);
            assert!(matches!(answer.unmet, Some(Unmet::Unauthorized(_))));
            assert!(answer.missing[0].contains("/bot, which is REVOKED"), "{answer:?}");
            assert_eq!(answer.as_of, Some(at(150)));
        }
    }

    #[test]
    fn reset_token_of_one_guild_never_yields_yes() {
        let mut evidence = may_do_all(PlatformName::Discord);
        authorize(&mut evidence, "discord/bot:55", AuthResult::Revoked, None);
        let answer = ask_on(PlatformName::Discord, "send-chat", &evidence);
        assert_eq!(answer.allowed, Allowed::No);
    }

    #[test]
    fn expired_token_that_was_not_refreshed_never_yields_yes() {
        let known = all_answers(|platform, evidence| {
            authorize(evidence, &format!("{platform}/bot"), AuthResult::Expired, None);
        });
        assert!(known.iter().all(|answer| answer.allowed == Allowed::No));
        let by_its_date = all_answers(|platform, evidence| {
            let bot = Identity::named(format!("{platform}/bot"));
            evidence.auth.remove(&bot);
            authorize(evidence, bot.as_str(), AuthResult::Valid, Some(200));
        });
        for answer in by_its_date {
            assert_eq!(answer.allowed, Allowed::Unknown);
            assert!(matches!(answer.unmet, Some(Unmet::Unchecked(_))));
        }
    }

    #[test]
    fn unchecked_account_never_yields_yes() {
        let answers = all_answers(|_, evidence| evidence.auth.clear());
        assert!(answers.iter().all(|answer| answer.allowed == Allowed::Unknown));
    }

    #[test]
    fn source_that_is_gone_never_yields_yes() {
        let gone = all_answers(|platform, evidence| {
            let error = ErrorInfo::new(Code::NotFound(platform), "no such source");
            update(evidence, 150, Fact::NoSuchSource { error });
        });
        assert!(gone.iter().all(|answer| answer.allowed == Allowed::No));
        assert!(gone.iter().all(|answer| answer.unmet == Some(Unmet::Gone)));
    }

    #[test]
    fn source_that_is_gone_stays_gone_while_the_network_is_down() {
        let answers = all_answers(|_, evidence| {
            let error = ErrorInfo::new(Code::NotFound(PlatformName::Twitch), "no such source");
            update(evidence, 150, Fact::NoSuchSource { error });
            let error = ErrorInfo::new(Code::NetworkTimeout, "no answer");
            connect(evidence, 160, LinkState::Down { error });
        });
        assert!(answers.iter().all(|answer| answer.unmet == Some(Unmet::Gone)));
    }

    #[test]
    fn banned_bot_may_do_nothing() {
        let answers = all_answers(|_, evidence| {
            let grants = Grants {
                granted: ["BANNED".to_owned()].into(),
                ..Grants::default()
            };
            let method = "ban".to_owned();
            update(
                evidence,
                150,
                Fact::Permissions {
                    method,
                    grants: grants.into(),
                },
            );
        });
        assert!(answers.iter().all(|answer| answer.allowed == Allowed::No));
        assert!(answers.iter().all(|answer| answer.unmet == Some(Unmet::Banned)));
    }

    #[test]
    fn unreachable_platform_makes_a_yes_unknown_but_keeps_a_no() {
        let down = |evidence: &mut Evidence| {
            let error = ErrorInfo::new(Code::NetworkTimeout, "no answer");
            connect(evidence, 150, LinkState::Down { error });
        };
        let answers = all_answers(|_, evidence| down(evidence));
        assert!(answers.iter().all(|answer| answer.allowed == Allowed::Unknown));
        let mut lacking = evidence(&[(50, &[], &["scope:chat:edit", "scope:user:write:chat"], &[])]);
        down(&mut lacking);
        assert_eq!(ask("send-chat", &lacking).allowed, Allowed::No);
    }

    #[test]
    fn revoked_broadcaster_makes_the_answer_unknown() {
        let mut evidence = may_do_all(PlatformName::Twitch);
        authorize(&mut evidence, "twitch/broadcaster:9", AuthResult::Revoked, None);
        let answer = ask("ban", &evidence);
        assert_eq!(answer.allowed, Allowed::Unknown);
        assert!(
            answer.unknown[0].contains("twitch/broadcaster:9 is REVOKED"),
            "{answer:?}"
        );
    }

    #[test]
    fn named_permission_is_subject_to_the_same_preconditions() {
        let mut evidence = evidence(&[(50, &["MODERATOR"], &[], &[])]);
        assert_eq!(
            holds(facts(PlatformName::Twitch, &evidence), "MODERATOR").allowed,
            Allowed::Yes
        );
        authorize(&mut evidence, "twitch/bot", AuthResult::Revoked, None);
        assert_eq!(
            holds(facts(PlatformName::Twitch, &evidence), "MODERATOR").allowed,
            Allowed::No
        );
    }

    #[test]
    fn moderator_with_scope_may_time_out_as_of_oldest_evidence() {
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
    fn unavailable_permission_is_unknown_with_reason_never_no() {
        let known = evidence(&[(
            50,
            &["scope:moderator:manage:banned_users"],
            &["BROADCASTER"],
            &["MODERATOR"],
        )]);
        let answer = ask("ban", &known);
        assert_eq!(answer.allowed, Allowed::Unknown);
        assert_eq!(answer.unknown, ["MODERATOR: no answer"]);
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
    fn column_says_what_can_answers_for_each_action_of_an_ability() {
        fn names(need: &Need, into: &mut Vec<&'static str>) {
            match need {
                Need::Held(name) => into.push(name),
                Need::Not(_) => {}
                Need::All(parts) => parts.iter().for_each(|part| names(part, into)),
                Need::Any(parts) => names(&parts[0], into),
            }
        }
        for platform in PlatformName::ALL {
            for (ability, name) in Ability::ALL
                .into_iter()
                .flat_map(|ability| ability.actions(platform).iter().map(move |name| (ability, *name)))
            {
                let action = action(platform, name).unwrap();
                let (mut granted, mut all) = (Vec::new(), Vec::new());
                names(&action.need, &mut granted);
                for other in actions(platform) {
                    names(&other.need, &mut all);
                }
                let mut evidence = in_order(platform);
                let grants = Grants {
                    denied: all
                        .iter()
                        .filter(|name| !granted.contains(name))
                        .map(|name| (*name).to_owned())
                        .collect(),
                    granted: granted.iter().map(|name| (*name).to_owned()).collect(),
                    ..Grants::default()
                };
                let method = "all".to_owned();
                update(
                    &mut evidence,
                    100,
                    Fact::Permissions {
                        method,
                        grants: grants.into(),
                    },
                );
                assert_eq!(
                    ask_on(platform, name, &evidence).allowed,
                    Allowed::Yes,
                    "{platform} {name}"
                );
                let abilities = Abilities::of(platform, &evidence);
                assert!(
                    abilities.yes().any(|yes| yes == ability),
                    "{platform} {name}: {abilities:?}"
                );
            }
        }
    }

    #[test]
    fn rejected_token_is_called_rejected() {
        let mut evidence = may_do_all(PlatformName::Twitch);
        let check = AuthCheck {
            rejected: true,
            ..AuthCheck::of(AuthResult::Expired)
        };
        let identity = Identity::named("twitch/bot");
        update(
            &mut evidence,
            150,
            Fact::Auth {
                identity,
                check: check.into(),
            },
        );
        let answer = ask_on(PlatformName::Twitch, "send-chat", &evidence);
        assert_eq!(answer.allowed, Allowed::No);
        assert!(answer.missing[0].contains("which is REJECTED"), "{answer:?}");
    }

    #[test]
    fn every_action_has_a_name_of_its_own_and_something_to_hold() {
        for platform in PlatformName::ALL {
            let names: std::collections::BTreeSet<_> =
                actions(platform).iter().map(|action| action.name).collect();
            assert_eq!(names.len(), actions(platform).len());
            for action in actions(platform) {
                assert_eq!(
                    can(facts(platform, &Evidence::default()), action).allowed,
                    Allowed::Unknown,
                    "{}",
                    action.name
                );
            }
        }
        assert!(scopes_of(PlatformName::Twitch).contains(&"user:read:chat"));
        assert!(scopes_of(PlatformName::Discord).is_empty());
    }

    #[test]
    fn abilities_are_listed_with_their_labels() {
        let abilities = Abilities::of(PlatformName::Twitch, &may_do_all(PlatformName::Twitch));
        let labels: Vec<_> = abilities.yes().map(Ability::label).collect();
        assert_eq!(labels, ["chat", "moderate", "manage"]);
        assert!(Abilities::default().is_unknown(), "nothing was evaluated");
    }

    #[test]
    fn limits_of_a_yes_belong_to_the_actions_that_have_them() {
        let limits = not_covered(PlatformName::Kick, "send-chat");
        assert_eq!(limits.len(), 1);
        assert!(limits[0].contains("followers-only"), "{limits:?}");
        assert_eq!(not_covered(PlatformName::Kick, "timeout"), [""; 0]);
    }

    #[test]
    fn ban_that_was_never_checked_is_named_where_it_matters() {
        const BAN: Option<&str> = Some("a ban by the channel");
        let unchecked = evidence(&[]);
        let checked = evidence(&[(100, &[], &[BANNED], &[])]);
        let of = |need| Action::new("test", "a test", need);
        for (action, expected) in [
            (of(Need::Not(BANNED)), BAN),
            (of(Need::All(&[Need::Held("A"), Need::Not(BANNED)])), BAN),
            (of(Need::Not("OTHER")), None),
            (of(Need::All(&[Need::Held("A"), Need::Held(BANNED)])), None),
            (of(Need::Any(&[Need::Not(BANNED)])), None),
            (of(Need::Held(BANNED)), None),
        ] {
            let platform = PlatformName::Twitch;
            assert_eq!(
                not_known(facts(platform, &unchecked), &action),
                expected,
                "{action:?}"
            );
            assert_eq!(not_known(facts(platform, &checked), &action), None, "{action:?}");
        }
    }

    #[test]
    fn scopes_of_a_platform_are_sorted_without_prefix_and_once() {
        let scopes = scopes_of(PlatformName::Kick);
        assert!(scopes.contains(&"chat:write"), "{scopes:?}");
        assert!(scopes.is_sorted_by(|one, next| one < next), "{scopes:?}");
        assert!(
            scopes.iter().all(|scope| !scope.starts_with("scope:")),
            "{scopes:?}"
        );
    }

    #[test]
    fn answer_is_as_old_as_the_evidence_that_decides_it() {
        use Allowed::{No, Unknown, Yes};
        const ALL: Need = Need::All(&[Need::Held("A"), Need::Held("B")]);
        const ANY: Need = Need::Any(&[Need::Held("A"), Need::Held("B")]);
        let answered = |a: Allowed, b: Allowed, need: &Need| {
            let one = |allowed, name: &'static [&'static str]| match allowed {
                Yes => (name, &[][..], &[][..]),
                No => (&[][..], name, &[][..]),
                Unknown => (&[][..], &[][..], name),
            };
            let (granted, denied, unknown) = one(a, &["A"]);
            let first = (10, granted, denied, unknown);
            let (granted, denied, unknown) = one(b, &["B"]);
            let evidence = evidence(&[first, (20, granted, denied, unknown)]);
            let answer = answer(facts(PlatformName::Twitch, &evidence), need);
            (answer.allowed, answer.permissions_at, answer.missing.join(", "))
        };
        for (a, b, need, allowed, second, missing) in [
            (Yes, Yes, &ALL, Yes, 10, ""),
            (Yes, No, &ALL, No, 20, "B"),
            (No, No, &ALL, No, 10, "A, B"),
            (Unknown, No, &ALL, No, 20, "B"),
            (Unknown, Yes, &ALL, Unknown, 10, ""),
            (Yes, Yes, &ANY, Yes, 20, ""),
            (Yes, No, &ANY, Yes, 10, ""),
            (No, No, &ANY, No, 10, "A or B"),
            (No, Unknown, &ANY, Unknown, 10, ""),
        ] {
            let expected = (allowed, Some(at(second)), missing.to_owned());
            assert_eq!(answered(a, b, need), expected, "{a:?} {b:?} {need:?}");
        }
    }
}
