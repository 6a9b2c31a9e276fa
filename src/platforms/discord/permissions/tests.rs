//! The documented test vectors, and an oracle that works bit by bit and shares no code with the implementation.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const GUILD: u64 = 9001;
const R: u64 = 9100;
const A: u64 = 9101;
const B: u64 = 9102;
const BOT: u64 = 4001;

/// @everyone: add reactions, view, send, connect, speak; role R: view, send, manage messages, read history.
fn guild() -> GuildRules {
    GuildRules {
        id: GUILD,
        owner_id: 77,
        roles: BTreeMap::from([
            (GUILD, Permissions(3_148_864)),
            (R, Permissions(76_800)),
            (A, Permissions(0)),
            (B, Permissions(0)),
        ]),
    }
}

fn member(roles: &[u64]) -> Member {
    Member {
        id: BOT,
        roles: roles.iter().copied().collect(),
        timed_out: false,
    }
}

fn overwrite(target: Target, allow: u64, deny: u64) -> Overwrite {
    Overwrite {
        target,
        allow: Permissions(allow),
        deny: Permissions(deny),
    }
}

#[test]
fn the_documented_vectors_hold() {
    let everyone_no_send = overwrite(Target::Role(GUILD), 0, 2048);
    let me_send = overwrite(Target::Member(BOT), 2048, 0);
    let a_hides = overwrite(Target::Role(A), 0, 1024);
    let b_shows = overwrite(Target::Role(B), 1024, 0);
    let hidden_from_me = overwrite(Target::Member(BOT), 0, 1024);
    let with_r = member(&[R]);
    for (case, who, overwrites, raw, effective) in [
        ("base", &with_r, vec![], 3_222_592, 3_222_592),
        (
            "everyone may not send",
            &with_r,
            vec![everyone_no_send],
            3_220_544,
            3_220_544,
        ),
        (
            "but the bot may",
            &with_r,
            vec![everyone_no_send, me_send],
            3_222_592,
            3_222_592,
        ),
        (
            "one role hides, another shows",
            &member(&[R, A, B]),
            vec![b_shows, a_hides],
            3_222_592,
            3_222_592,
        ),
        ("hidden from the bot", &with_r, vec![hidden_from_me], 3_221_568, 0),
    ] {
        let rules = guild();
        assert_eq!(rules.overwritten(who, &overwrites).bits(), raw, "{case}");
        let seen = rules.in_channel(who, ChannelKind::Text, &overwrites).bits();
        assert_eq!(seen, effective, "{case}");
    }
}

#[test]
fn administrator_and_owner_bypass_channel_denials() {
    let deny_all = [
        overwrite(Target::Role(GUILD), 0, u64::MAX),
        overwrite(Target::Member(BOT), 0, u64::MAX),
    ];
    let mut with_admin = guild();
    with_admin.roles.insert(A, Permissions::ADMINISTRATOR);
    let mut owned = guild();
    owned.owner_id = BOT;
    for (rules, who) in [(&with_admin, member(&[A])), (&owned, member(&[]))] {
        for timed_out in [false, true] {
            let who = Member {
                timed_out,
                ..who.clone()
            };
            assert_eq!(rules.base(&who).bits(), 8_866_461_766_385_663);
            assert_eq!(rules.in_guild(&who), Permissions::ALL);
            for kind in [ChannelKind::Text, ChannelKind::Voice, ChannelKind::Thread] {
                assert_eq!(rules.in_channel(&who, kind, &deny_all), Permissions::ALL);
            }
        }
    }
}

#[test]
fn a_timeout_leaves_seeing_and_reading_back() {
    let who = Member {
        timed_out: true,
        ..member(&[R])
    };
    assert_eq!(guild().in_guild(&who).bits(), 66_560);
    assert_eq!(guild().in_channel(&who, ChannelKind::Text, &[]).bits(), 66_560);
}

#[test]
fn implicit_denials_follow_the_kind_of_channel() {
    let rules = GuildRules {
        roles: BTreeMap::from([(GUILD, Permissions::ALL.without(Permissions::ADMINISTRATOR))]),
        ..guild()
    };
    let seen = |kind, denied: Permissions| {
        rules.in_channel(
            &member(&[]),
            kind,
            &[overwrite(Target::Role(GUILD), 0, denied.bits())],
        )
    };
    let mute_text = seen(ChannelKind::Text, Permissions::SEND_MESSAGES);
    assert_eq!(mute_text.without(Permissions::NEEDS_SENDING), mute_text);
    assert!(mute_text.contains(Permissions::READ_MESSAGE_HISTORY));
    let thread = seen(ChannelKind::Thread, Permissions::SEND_MESSAGES);
    assert!(
        thread.contains(Permissions::NEEDS_SENDING),
        "threads go by their own bit"
    );
    let mute_thread = seen(ChannelKind::Thread, Permissions::SEND_MESSAGES_IN_THREADS);
    assert_eq!(mute_thread.without(Permissions::NEEDS_SENDING), mute_thread);
    for kind in [ChannelKind::Voice, ChannelKind::Stage] {
        let outside = seen(kind, Permissions::CONNECT);
        assert_eq!(outside, Permissions::OUTSIDE_VOICE);
    }
}

#[test]
fn all_is_every_named_bit_and_47_is_not_one() {
    let named = NAMES.iter().filter_map(|name| Permissions::named(name));
    let named = named.fold(Permissions::NONE, |all, bit| all | bit);
    assert_eq!((NAMES.len(), named), (53, Permissions::ALL));
    assert_eq!(Permissions::ALL.bits() >> 47 & 1, 0);
}

#[test]
fn unknown_bits_are_kept_and_named_by_number() {
    let strange = Permissions::parse(&(1 << 47 | 1_u64 << 63 | 1 << 10).to_string()).unwrap();
    assert_eq!(strange.names(), ["VIEW_CHANNEL", "BIT_47", "BIT_63"]);
    for name in strange.names() {
        assert!(strange.contains(Permissions::named(&name).unwrap()), "{name}");
    }
    assert!(strange.grants().granted.contains("BIT_63"));
}

#[test]
fn names_are_read_in_any_case_and_nonsense_is_not_a_name() {
    assert_eq!(
        Permissions::named("send_messages"),
        Some(Permissions::SEND_MESSAGES)
    );
    for nonsense in ["", "BIT_64", "BIT_", "bit", "MODERATOR", "BÏT_3"] {
        assert_eq!(Permissions::named(nonsense), None, "{nonsense}");
    }
}

#[test]
fn permissions_parse_from_decimal_strings_losslessly() {
    for (text, bits) in [
        ("0", Some(0)),
        ("8866461766385663", Some(8_866_461_766_385_663)),
        ("18446744073709551615", Some(u64::MAX)),
        // 2^64 + 1024: the documentation sets no upper bound.
        ("18446744073709552640", Some(1024)),
        ("340282366920938463463374607431768211456", None),
        ("10000000000000000000000000000000000000008", None),
        ("", None),
        ("-1", None),
        ("+8", None),
        ("1e3", None),
        ("0x10", None),
    ] {
        assert_eq!(Permissions::parse(text).map(Permissions::bits), bits, "{text}");
    }
    let read = |json: &str| {
        serde_json::from_str::<Permissions>(json)
            .ok()
            .map(Permissions::bits)
    };
    assert_eq!(read("\"9007199254740993\""), Some(9_007_199_254_740_993));
    assert_eq!(read("2048"), Some(2048));
    assert_eq!(read("1.5"), None);
}

#[test]
fn missing_permissions_are_named_and_in_invite_link() {
    let held = Permissions(3_148_864);
    let missing = ChannelKind::Text.needed().without(held);
    assert_eq!(missing.names(), ["READ_MESSAGE_HISTORY"]);
    let link = invite_link("4001", Some("9001"), NEEDED | missing);
    assert_eq!(
        link,
        "https://discord.com/oauth2/authorize?client_id=4001&scope=bot&permissions=68608&guild_id=9001\
         &disable_guild_select=true"
    );
    let grants = held.grants();
    assert!(grants.granted.contains("SEND_MESSAGES") && grants.denied.contains("READ_MESSAGE_HISTORY"));
    assert_eq!(grants.granted.intersection(&grants.denied).count(), 0);
}

/// Data of the oracle: plain tables, evaluated one bit at a time.
struct Oracle {
    owner: bool,
    everyone: u64,
    held_roles: Vec<u64>,
    timed_out: bool,
    kind: u64,
    locked: bool,
    everyone_overwrite: (u64, u64),
    role_overwrites: Vec<(u64, u64)>,
    own_overwrite: (u64, u64),
}

impl Oracle {
    fn bit(mask: u64, bit: u32) -> bool {
        mask & (1 << bit) != 0
    }

    fn is_administrator(&self) -> bool {
        self.owner || Self::bit(self.everyone, 3) || self.held_roles.iter().any(|role| Self::bit(*role, 3))
    }

    /// Before the implicit rules, for one bit: the last level that sets it decides.
    fn explicit(&self, bit: u32) -> bool {
        if self.is_administrator() {
            return bit <= 52 && bit != 47;
        }
        let mut levels = vec![(
            Self::bit(self.everyone, bit) || self.held_roles.iter().any(|role| Self::bit(*role, bit)),
            true,
        )];
        for group in [
            vec![self.everyone_overwrite],
            self.role_overwrites.clone(),
            vec![self.own_overwrite],
        ] {
            let allowed = group.iter().any(|(allow, _)| Self::bit(*allow, bit));
            let denied = group.iter().any(|(_, deny)| Self::bit(*deny, bit));
            levels.push((allowed, allowed || denied));
        }
        levels
            .iter()
            .rev()
            .find(|(_, speaks)| *speaks)
            .is_some_and(|(answer, _)| *answer)
    }

    fn after_timeout(&self, bit: u32) -> bool {
        let masked = self.timed_out && !self.is_administrator() && bit != 10 && bit != 16;
        !masked && self.explicit(bit)
    }

    fn effective(&self, bit: u32) -> bool {
        let thread = (10..=12).contains(&self.kind);
        if !self.after_timeout(10) || !(self.after_timeout(bit) || thread && bit == 11) {
            return false;
        }
        // Threads do not inherit bit 11 and use bit 38, which a locked one requires bit 34 for.
        let in_thread = self.after_timeout(38) && (!self.locked || self.after_timeout(34));
        let silenced = [12, 14, 15, 17].contains(&bit);
        match self.kind {
            0 | 5 | 15 | 16 => !silenced || self.after_timeout(11),
            10..=12 => in_thread || !(silenced || [11, 38].contains(&bit)),
            2 | 13 => self.after_timeout(20) || bit == 10,
            _ => true,
        }
    }

    fn all(&self, answer: impl Fn(&Self, u32) -> bool) -> u64 {
        (0..64).filter(|bit| answer(self, *bit)).map(|bit| 1 << bit).sum()
    }
}

/// Bits with a density between a few and most, and rarely the administrator bit.
fn random_bits(rng: &mut fastrand::Rng) -> u64 {
    let dense = rng.bool();
    let (a, b) = (rng.u64(..), rng.u64(..));
    let bits = if dense { a | b } else { a & b };
    if rng.u8(..40) == 0 { bits | 8 } else { bits & !8 }
}

#[test]
fn ten_thousand_random_guilds_agree_with_an_oracle() {
    let mut rng = fastrand::Rng::with_seed(0x6269_7462_7261_7431);
    let mut nontrivial = 0;
    for round in 0..10_000 {
        let everyone = random_bits(&mut rng);
        let mut roles = BTreeMap::from([(GUILD, Permissions(everyone))]);
        let mut overwrites = Vec::new();
        let (mut held, mut held_roles, mut role_overwrites) = (BTreeSet::new(), Vec::new(), Vec::new());
        for role in 0..rng.u64(..8) {
            let id = 9100 + role;
            let bits = random_bits(&mut rng);
            roles.insert(id, Permissions(bits));
            let mine = rng.bool();
            if mine {
                held.insert(id);
                held_roles.push(bits);
            }
            if rng.bool() {
                let (allow, deny) = (random_bits(&mut rng), random_bits(&mut rng));
                overwrites.push(overwrite(Target::Role(id), allow, deny));
                if mine {
                    role_overwrites.push((allow, deny));
                }
            }
        }
        // A role that the guild no longer lists, and overwrites for another member with the id of one of our roles.
        held.insert(8_999);
        overwrites.push(overwrite(Target::Member(9_100), rng.u64(..), rng.u64(..)));
        let mut maybe = |target, overwrites: &mut Vec<Overwrite>| {
            if !rng.bool() {
                return (0, 0);
            }
            let (allow, deny) = (random_bits(&mut rng), random_bits(&mut rng));
            overwrites.push(overwrite(target, allow, deny));
            (allow, deny)
        };
        let everyone_overwrite = maybe(Target::Role(GUILD), &mut overwrites);
        let own_overwrite = maybe(Target::Member(BOT), &mut overwrites);
        rng.shuffle(&mut overwrites);
        let owner = rng.u8(..20) == 0;
        let oracle = Oracle {
            owner,
            everyone,
            held_roles,
            timed_out: rng.u8(..5) == 0,
            kind: rng.u64(..18),
            locked: rng.bool(),
            everyone_overwrite,
            role_overwrites,
            own_overwrite,
        };
        let law = GuildRules {
            id: GUILD,
            owner_id: if owner { BOT } else { 77 },
            roles,
        };
        let who = Member {
            id: BOT,
            roles: held,
            timed_out: oracle.timed_out,
        };
        assert_eq!(
            law.overwritten(&who, &overwrites).bits(),
            oracle.all(Oracle::explicit),
            "round {round}"
        );
        let kind = match ChannelKind::of(oracle.kind) {
            ChannelKind::Thread if oracle.locked => ChannelKind::LockedThread,
            kind => kind,
        };
        let seen = law.in_channel(&who, kind, &overwrites).bits();
        assert_eq!(seen, oracle.all(Oracle::effective), "round {round}");
        nontrivial += u32::from(seen != 0 && seen != Permissions::ALL.bits());
    }
    assert!(nontrivial > 3_000, "only {nontrivial} rounds tested anything");
}
