//! Random guilds, members and channels in Discord's JSON, evaluated by `can` and by a second implementation of the documented
//! algorithm that works on sets of names and shares no code with the first.
//!
//! <https://docs.discord.com/developers/topics/permissions>

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{BOT, GUILD, key};
use crate::core::evidence::Knowledge;
use crate::core::observation::{AuthCheck, AuthResult, Fact, Observation};
use crate::core::permission::{Allowed, Facts, actions, can};
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::platforms::discord::permissions::Member;
use crate::platforms::discord::{channels, facts, wire};

type Names = BTreeSet<&'static str>;

/// Bit and name, as the documentation lists them; those that an action or an implicit rule needs, and a few more.
const BITS: [(u32, &str); 26] = [
    (1, "KICK_MEMBERS"),
    (2, "BAN_MEMBERS"),
    (3, "ADMINISTRATOR"),
    (4, "MANAGE_CHANNELS"),
    (5, "MANAGE_GUILD"),
    (6, "ADD_REACTIONS"),
    (7, "VIEW_AUDIT_LOG"),
    (10, "VIEW_CHANNEL"),
    (11, "SEND_MESSAGES"),
    (12, "SEND_TTS_MESSAGES"),
    (13, "MANAGE_MESSAGES"),
    (14, "EMBED_LINKS"),
    (15, "ATTACH_FILES"),
    (16, "READ_MESSAGE_HISTORY"),
    (17, "MENTION_EVERYONE"),
    (20, "CONNECT"),
    (21, "SPEAK"),
    (27, "MANAGE_NICKNAMES"),
    (28, "MANAGE_ROLES"),
    (29, "MANAGE_WEBHOOKS"),
    (34, "MANAGE_THREADS"),
    (35, "CREATE_PUBLIC_THREADS"),
    (38, "SEND_MESSAGES_IN_THREADS"),
    (40, "MODERATE_MEMBERS"),
    (46, "SEND_VOICE_MESSAGES"),
    (51, "PIN_MESSAGES"),
];

fn every_name() -> Names {
    BITS.iter().map(|(_, name)| *name).collect()
}

fn as_text(names: &Names) -> String {
    let bits = BITS.iter().filter(|(_, name)| names.contains(name));
    bits.map(|(bit, _)| 1_u64 << bit).sum::<u64>().to_string()
}

#[derive(Debug, Clone, Default)]
struct Exception {
    allow: Names,
    deny: Names,
}

#[derive(Debug)]
struct Place {
    kind: u64,
    locked: bool,
    /// For a thread: those of its parent.
    everyone: Option<Exception>,
    roles: BTreeMap<u64, Exception>,
    member: Option<Exception>,
}

#[derive(Debug)]
struct World {
    owner: bool,
    timed_out: bool,
    everyone: Names,
    roles: BTreeMap<u64, Names>,
    held: BTreeSet<u64>,
    places: BTreeMap<u64, Place>,
}

impl World {
    fn random(rng: &mut fastrand::Rng) -> Self {
        let roles: BTreeMap<_, _> = (0..rng.u64(..4)).map(|n| (9_100 + n, names(rng, 3))).collect();
        let held = roles.keys().copied().filter(|_| rng.bool()).collect();
        let mut places = BTreeMap::new();
        for n in 0..rng.u64(1..4) {
            places.insert(9_200 + 10 * n, Place::random(rng, &roles));
        }
        Self {
            owner: rng.u8(..15) == 0,
            timed_out: rng.u8(..8) == 0,
            everyone: names(rng, 2),
            places,
            held,
            roles,
        }
    }

    /// The bot's permissions in the guild, timeouts included.
    fn in_guild(&self) -> Names {
        let base = self.base();
        if self.timed_out && !base.contains("ADMINISTRATOR") {
            return base.intersection(&while_timed_out()).copied().collect();
        }
        base
    }

    fn base(&self) -> Names {
        let mut all = self.everyone.clone();
        for role in &self.held {
            all.extend(&self.roles[role]);
        }
        if self.owner || all.contains("ADMINISTRATOR") {
            return every_name();
        }
        all
    }

    fn in_place(&self, place: &Place) -> Names {
        let mut held = self.base();
        if held.contains("ADMINISTRATOR") {
            return held;
        }
        let mut apply = |exception: &Exception| {
            held.retain(|name| !exception.deny.contains(name));
            held.extend(&exception.allow);
        };
        if let Some(exception) = &place.everyone {
            apply(exception);
        }
        let mut of_roles = Exception::default();
        for (_, exception) in place.roles.iter().filter(|(role, _)| self.held.contains(role)) {
            of_roles.allow.extend(&exception.allow);
            of_roles.deny.extend(&exception.deny);
        }
        apply(&of_roles);
        if let Some(exception) = &place.member {
            apply(exception);
        }
        if self.timed_out {
            held.retain(|name| while_timed_out().contains(name));
        }
        if !held.contains("VIEW_CHANNEL") {
            return Names::new();
        }
        match place.kind {
            2 | 13 if !held.contains("CONNECT") => return ["VIEW_CHANNEL"].into(),
            11 => {
                held.remove("SEND_MESSAGES");
                if place.locked && !held.contains("MANAGE_THREADS") {
                    held.remove("SEND_MESSAGES_IN_THREADS");
                }
                if held.contains("SEND_MESSAGES_IN_THREADS") {
                    // Corresponds to SEND_MESSAGES elsewhere.
                    held.insert("SEND_MESSAGES");
                }
            }
            _ => {}
        }
        if [0, 5, 11, 15].contains(&place.kind) && !held.contains("SEND_MESSAGES") {
            for name in [
                "MENTION_EVERYONE",
                "SEND_TTS_MESSAGES",
                "ATTACH_FILES",
                "EMBED_LINKS",
            ] {
                held.remove(name);
            }
        }
        held
    }

    /// Whether the bot may do this, in every configured channel where it matters.
    fn may(&self, action: &str) -> bool {
        let (in_guild, needs): (bool, &[&str]) = match action {
            "read-chat" => (false, &["VIEW_CHANNEL"]),
            "read-history" => (false, &["VIEW_CHANNEL", "READ_MESSAGE_HISTORY"]),
            "send-chat" => (false, &["VIEW_CHANNEL", "SEND_MESSAGES"]),
            "send-in-threads" => (false, &["VIEW_CHANNEL", "SEND_MESSAGES_IN_THREADS"]),
            "embed-links" => (false, &["VIEW_CHANNEL", "SEND_MESSAGES", "EMBED_LINKS"]),
            "react" => (false, &["ADD_REACTIONS"]),
            "delete-message" => (false, &["MANAGE_MESSAGES"]),
            "connect-voice" => (false, &["CONNECT"]),
            "announce" => (false, &["MENTION_EVERYONE"]),
            "timeout" => (true, &["MODERATE_MEMBERS"]),
            "kick" => (true, &["KICK_MEMBERS"]),
            "ban" => (true, &["BAN_MEMBERS"]),
            "manage-roles" => (true, &["MANAGE_ROLES"]),
            other => panic!("say on which level Discord checks `{other}`"),
        };
        let holds = |held: &Names| needs.iter().all(|name| held.contains(name));
        if in_guild {
            holds(&self.in_guild())
        } else {
            self.places.values().all(|place| holds(&self.in_place(place)))
        }
    }

    fn guild_json(&self) -> Value {
        let role = |id: &u64, names: &Names| json!({"id": id.to_string(), "permissions": as_text(names)});
        let mut roles: Vec<_> = self.roles.iter().map(|(id, names)| role(id, names)).collect();
        roles.push(role(&GUILD, &self.everyone));
        let owner = if self.owner { BOT } else { 77 };
        json!({"id": GUILD.to_string(), "owner_id": owner.to_string(), "roles": roles})
    }

    fn member_json(&self) -> Value {
        let until = self.timed_out.then_some("2027-01-01T00:00:00.000000+00:00");
        let roles: Vec<_> = self.held.iter().map(u64::to_string).collect();
        json!({"user": {"id": BOT.to_string()}, "roles": roles, "communication_disabled_until": until})
    }

    fn channels_json(&self) -> Vec<Value> {
        self.places
            .iter()
            .flat_map(|(id, place)| place.json(*id))
            .collect()
    }

    /// The result of `can` for every action, by the facts that the adapter derives from the world.
    fn answers(&self) -> BTreeMap<&'static str, Allowed> {
        let at: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
        let guild: wire::FullGuild = serde_json::from_value(self.guild_json()).unwrap();
        let member: wire::GuildMember = serde_json::from_value(self.member_json()).unwrap();
        let listed = self.channels_json().into_iter().map(serde_json::from_value);
        let listed: Vec<wire::Channel> = listed.map(Result::unwrap).collect();
        let (rules, subject) = (guild.rules(), member.subject(BOT, at));
        let access = self.places.keys().map(|id| {
            let channel = listed.iter().find(|channel| channel.id.0 == *id).unwrap();
            (*id, channels::access(&rules, &subject, channel, &listed))
        });
        let base = rules.in_guild(&subject);
        let reported = facts::of_channels(base, channels::report(&access.collect(), base));
        // Permissions count only for a bot that is authorized, in a guild that exists.
        let authorized = Fact::Auth {
            identity: crate::platforms::discord::bot(),
            check: AuthCheck {
                result: AuthResult::Valid,
                expires_at: None,
                scopes: BTreeSet::new(),
                rejected: false,
                client_rejected: false,
                reason: None,
            }
            .into(),
        };
        let observations: Vec<_> = reported
            .into_iter()
            .chain([authorized, Fact::Exists])
            .map(|fact| Observation::new(&key(GUILD), at, facts::BY_API, fact))
            .collect();
        let evidence = Knowledge::of(&observations).evidence;
        let known = Facts {
            platform: PlatformName::Discord,
            evidence: &evidence,
            now: Some(at),
        };
        let answer = |action| can(known, action).allowed;
        let all = actions(PlatformName::Discord).iter();
        all.map(|action| (action.name, answer(action))).collect()
    }
}

impl Place {
    fn random(rng: &mut fastrand::Rng, roles: &BTreeMap<u64, Names>) -> Self {
        let kind = [0, 0, 2, 5, 11, 11, 13, 15][rng.usize(..8)];
        let maybe = |rng: &mut fastrand::Rng| {
            rng.bool().then(|| Exception {
                allow: names(rng, 3),
                deny: names(rng, 4),
            })
        };
        let of_roles = roles.keys().filter_map(|role| Some((*role, maybe(rng)?)));
        Self {
            roles: of_roles.collect(),
            everyone: maybe(rng),
            member: maybe(rng),
            kind,
            locked: rng.bool(),
        }
    }

    /// The channel; a thread with the channel that holds its overwrites.
    fn json(&self, id: u64) -> Vec<Value> {
        let overwrite = |id: u64, kind: u64, exception: &Exception| {
            json!({"id": id.to_string(), "type": kind, "allow": as_text(&exception.allow),
                "deny": as_text(&exception.deny)})
        };
        let mut overwrites: Vec<_> = self
            .roles
            .iter()
            .map(|(role, exception)| overwrite(*role, 0, exception))
            .collect();
        overwrites.extend(self.member.as_ref().map(|own| overwrite(BOT, 1, own)));
        overwrites.extend(self.everyone.as_ref().map(|all| overwrite(GUILD, 0, all)));
        if self.kind != 11 {
            return vec![
                json!({"id": id.to_string(), "type": self.kind, "permission_overwrites": overwrites}),
            ];
        }
        let parent = (id + 1).to_string();
        vec![
            json!({"id": parent, "type": 0, "permission_overwrites": overwrites}),
            json!({"id": id.to_string(), "type": 11, "parent_id": parent,
                "thread_metadata": {"archived": self.locked, "locked": self.locked, "auto_archive_duration": 60}}),
        ]
    }
}

fn while_timed_out() -> Names {
    ["VIEW_CHANNEL", "READ_MESSAGE_HISTORY"].into()
}

/// A set in which every name has one chance in `rarity`, and an administrator is rare.
fn names(rng: &mut fastrand::Rng, rarity: u8) -> Names {
    let mut names: Names = every_name()
        .into_iter()
        .filter(|_| rng.u8(..rarity) == 0)
        .collect();
    if rng.u8(..10) > 0 {
        names.remove("ADMINISTRATOR");
    }
    // Most channels are visible; otherwise every world would yield a denial.
    if rng.u8(..3) > 0 && rarity < 4 {
        names.insert("VIEW_CHANNEL");
    }
    names
}

#[test]
fn can_agrees_with_discords_algorithm_in_random_worlds() {
    let mut rng = fastrand::Rng::with_seed(0x5157_0a15);
    let (mut yes, mut no) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..3_000 {
        let world = World::random(&mut rng);
        for (action, allowed) in world.answers() {
            let expected = if world.may(action) {
                Allowed::Yes
            } else {
                Allowed::No
            };
            assert_eq!(allowed, expected, "{action} in world {round}: {world:#?}");
            if expected == Allowed::Yes && !world.owner {
                yes.insert(action);
            } else {
                no.insert(action);
            }
        }
    }
    let all = actions(PlatformName::Discord).len();
    assert_eq!((yes.len(), no.len()), (all, all), "every answer was met");
}

/// A world of one role that holds `held`, and one channel of `kind` with `exception` for everyone.
fn one_channel(kind: u64, held: &[&'static str], exception: Exception) -> World {
    World {
        owner: false,
        timed_out: false,
        everyone: held.iter().copied().collect(),
        roles: BTreeMap::new(),
        held: BTreeSet::new(),
        places: [(
            9_200,
            Place {
                kind,
                locked: false,
                everyone: Some(exception),
                roles: BTreeMap::new(),
                member: None,
            },
        )]
        .into(),
    }
}

fn denying(name: &'static str) -> Exception {
    Exception {
        deny: [name].into(),
        ..Exception::default()
    }
}

#[test]
fn an_invisible_channel_does_not_take_the_right_to_ban() {
    let held = ["BAN_MEMBERS", "KICK_MEMBERS", "VIEW_CHANNEL", "SEND_MESSAGES"];
    let answers = one_channel(0, &held, denying("VIEW_CHANNEL")).answers();
    assert_eq!((answers["ban"], answers["kick"]), (Allowed::Yes, Allowed::Yes));
    assert_eq!(
        (answers["send-chat"], answers["timeout"]),
        (Allowed::No, Allowed::No)
    );
}

#[test]
fn voice_channel_without_connect_allows_only_viewing() {
    for kind in [2, 13] {
        let world = one_channel(
            kind,
            &["VIEW_CHANNEL", "SEND_MESSAGES", "MANAGE_MESSAGES"],
            Exception::default(),
        );
        let answers = world.answers();
        for action in ["send-chat", "delete-message", "connect-voice"] {
            assert_eq!(answers[action], Allowed::No, "{action} in {kind}");
        }
    }
}

#[test]
fn a_locked_thread_is_a_no_without_manage_threads() {
    let held = ["VIEW_CHANNEL", "SEND_MESSAGES", "SEND_MESSAGES_IN_THREADS"];
    let mut world = one_channel(11, &held, Exception::default());
    assert_eq!(world.answers()["send-chat"], Allowed::Yes);
    world.places.get_mut(&9_200).unwrap().locked = true;
    for action in ["send-chat", "send-in-threads"] {
        assert_eq!(world.answers()[action], Allowed::No, "{action}");
    }
    world.everyone.insert("MANAGE_THREADS");
    assert_eq!(world.answers()["send-chat"], Allowed::Yes);
}

#[test]
fn a_thread_goes_by_its_own_permission_to_send() {
    let world = one_channel(11, &["VIEW_CHANNEL", "SEND_MESSAGES"], Exception::default());
    assert_eq!(world.answers()["send-chat"], Allowed::No);
}

/// The adapter's report on a guild that grants the view to everyone and on one channel in it.
fn report_of(channel: Value) -> channels::Report {
    let guild = one_channel(0, &["VIEW_CHANNEL", "SEND_MESSAGES"], Exception::default()).guild_json();
    let rules = serde_json::from_value::<wire::FullGuild>(guild).unwrap().rules();
    let channel: wire::Channel = serde_json::from_value(channel).unwrap();
    let bot = Member {
        id: BOT,
        ..Member::default()
    };
    let access = channels::access(&rules, &bot, &channel, &[]);
    channels::report(&[(9_200, access)].into(), rules.in_guild(&bot))
}

#[test]
fn a_category_or_directory_is_refused_with_the_reason() {
    for (kind, word) in [(4, "category"), (14, "directory")] {
        let report = report_of(json!({"id": "9200", "type": kind}));
        let (id, reason) = report.unsuitable[0];
        assert!(id == 9_200 && reason.contains(word), "{reason}");
        let grants = report.grants.unwrap();
        assert!(grants.granted.is_empty() && grants.denied.is_empty());
        assert!(grants.unknown["SEND_MESSAGES"].contains(word));
    }
}

#[test]
fn a_channel_without_its_type_is_not_taken_for_a_text_channel() {
    for channel in [
        json!({"id": "9200"}),
        json!({"id": "9200", "type": null}),
        json!({"id": "9200", "type": {}}),
    ] {
        assert_eq!(report_of(channel).grants, None);
    }
    for channel in [json!({"id": "9200", "type": 0}), json!({"id": 9200, "type": "0"})] {
        assert!(
            report_of(channel)
                .grants
                .unwrap()
                .granted
                .contains("SEND_MESSAGES")
        );
    }
}
