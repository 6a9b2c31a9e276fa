//! Sources for tests, made of observations.

use std::collections::BTreeSet;

use crate::core::code::Code;
use crate::core::counters::Counters;
use crate::core::document::SourceDocument;
use crate::core::evidence::Knowledge;
use crate::core::freshness::Intervals;
use crate::core::observation::{
    AuthCheck, AuthResult, ErrorInfo, Fact, Grants, Identity, LinkState, Observation, Transport,
};
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::core::transition::transitions;
use crate::platforms::Problem;
use crate::store::HistoryEntry;
use crate::view::found::{Check, Found};
use crate::view::source_row::SourceRow;

pub(crate) fn now() -> Timestamp {
    "2026-05-01T18:00:00Z".parse().unwrap()
}

/// The history of one source, as facts from the seconds before now.
pub(crate) struct Story {
    pub(crate) key: &'static str,
    facts: Vec<(i64, Fact)>,
}

impl Story {
    pub(crate) fn of(key: &'static str) -> Self {
        Self {
            key,
            facts: Vec::new(),
        }
    }

    pub(crate) fn fact(mut self, seconds_ago: i64, fact: Fact) -> Self {
        self.facts.push((seconds_ago, fact));
        self
    }

    pub(crate) fn link(self, seconds_ago: i64, transport: Transport, state: LinkState) -> Self {
        self.fact(seconds_ago, Fact::Connection { transport, state })
    }

    pub(crate) fn up(self, seconds_ago: i64) -> Self {
        self.link(seconds_ago, Transport::Api, LinkState::Up)
    }

    pub(crate) fn named(self, name: &str, title: &str) -> Self {
        let fields = [("displayName", name), ("title", title)];
        let fields = fields.into_iter().filter(|(_, value)| !value.is_empty());
        self.fact(
            60,
            Fact::Profile {
                fields: fields
                    .map(|(field, value)| (field.into(), value.into()))
                    .collect(),
            },
        )
    }

    pub(crate) fn auth(
        self,
        seconds_ago: i64,
        identity: &str,
        result: AuthResult,
        reason: Option<&str>,
    ) -> Self {
        self.fact(
            seconds_ago,
            Fact::Auth {
                identity: Identity::named(identity),
                check: AuthCheck {
                    expires_at: Some(now().plus_secs(3 * 3600)),
                    scopes: BTreeSet::from(["chat:read".into(), "user:read:moderated_channels".into()]),
                    reason: reason.map(str::to_owned),
                    ..AuthCheck::of(result)
                }
                .into(),
            },
        )
    }

    pub(crate) fn live(self, seconds_ago: i64, id: &str, started_ago: i64, viewers: u64) -> Self {
        self.fact(
            seconds_ago,
            Fact::StreamSeen {
                stream_id: id.into(),
                started_at: Some(now().plus_secs(-started_ago)),
            },
        )
        .fact(
            seconds_ago,
            Fact::Viewers {
                count: viewers,
                stream_id: Some(id.into()),
            },
        )
    }

    pub(crate) fn may(self, granted: &[&str], denied: &[&str], unknown: &[(&str, &str)]) -> Self {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        self.fact(
            200,
            Fact::Permissions {
                method: "twitch.moderated-channels".into(),
                grants: Grants {
                    granted: set(granted),
                    denied: set(denied),
                    unknown: unknown
                        .iter()
                        .map(|(name, why)| ((*name).into(), (*why).into()))
                        .collect(),
                }
                .into(),
            },
        )
    }

    pub(crate) fn observations(&self) -> Vec<Observation> {
        let key = self.key.parse().unwrap();
        self.facts
            .iter()
            .map(|(ago, fact)| Observation::new(&key, now().plus_secs(-ago), "twitch.helix", fact.clone()))
            .collect()
    }

    pub(crate) fn document(&self) -> SourceDocument {
        SourceDocument::from_knowledge(self.key.parse().unwrap(), Knowledge::of(&self.observations()))
    }

    pub(crate) fn found(&self) -> Found {
        Found::new(self.document(), &Intervals::default(), now())
    }

    pub(crate) fn row(&self) -> SourceRow {
        self.found().row
    }

    /// The transitions as a store would have stored them.
    pub(crate) fn history(&self) -> Vec<HistoryEntry> {
        let key = self.key.parse().unwrap();
        let mut document = SourceDocument::new(key);
        let mut entries = Vec::new();
        for observation in self.observations() {
            let before = document.verdict.clone();
            document.join(Knowledge::from(&observation));
            let changes = transitions(&before, &document.verdict);
            entries.extend(
                changes
                    .into_iter()
                    .map(|change| HistoryEntry::new(&document.key, observation.at.plus_secs(1), change)),
            );
        }
        entries.reverse();
        entries
    }
}

/// Adds a check that observed `facts` now.
pub(crate) fn checked(mut found: Found, facts: Vec<Fact>, problems: &[&str]) -> Found {
    let key = &found.document.key;
    let seen = facts
        .into_iter()
        .map(|fact| Observation::new(key, now(), "test", fact));
    found.check = Some(Check {
        started: now(),
        observations: seen.collect(),
        problems: problems.iter().map(|text| Problem::of_platform(*text)).collect(),
    });
    found
}

pub(crate) fn ratcaster() -> Story {
    Story::of("twitch:900200")
        .auth(900, "twitch/bot", AuthResult::Valid, None)
        .fact(
            4340,
            Fact::StreamPush {
                live: true,
                stream_id: Some("40900001".into()),
                started_at: Some(now().plus_secs(-4340)),
            },
        )
        .up(12)
        .link(3, Transport::EventSub, LinkState::Up)
        .live(12, "40900001", 4340, 12_345)
        .may(
            &["MODERATOR", "scope:moderator:read:chatters"],
            &["EDITOR"],
            &[("VIP", "needs the broadcaster's authorization (channel:read:vips)")],
        )
        .named(
            "RatCaster",
            "sorting cheese until it is done, then some more cheese",
        )
        .fact(5, Fact::Latency { millis: 84 })
        .fact(
            40,
            Fact::Counters {
                writer: "watch-1".into(),
                totals: Counters {
                    messages_in: 4210,
                    messages_out: 37,
                    errors: 1,
                    reconnects: 2,
                    at: Some(now().plus_secs(-40)),
                },
            },
        )
}

pub(crate) fn revoked() -> Story {
    Story::of("twitch:900207")
        .up(20)
        .auth(
            30,
            "twitch/broadcaster:900207",
            AuthResult::Revoked,
            Some("the user disconnected the app"),
        )
        .fact(20, Fact::StreamAbsent)
        .named("LapsedLynx", "")
}

pub(crate) fn gone() -> Story {
    Story::of("twitch:900209")
        .auth(30, "twitch/bot", AuthResult::Valid, None)
        .fact(
            15,
            Fact::NoSuchSource {
                error: ErrorInfo::new(
                    Code::NotFound(PlatformName::Twitch),
                    "twitch knows no channel with this id",
                ),
            },
        )
}

pub(crate) fn old_knowledge() -> Story {
    Story::of("kick:55501")
        .up(1900)
        .auth(1900, "kick/bot", AuthResult::Valid, None)
        .live(1900, "s1", 9000, 88)
        .named("ChiliClara", "slow cooking")
}

pub(crate) fn guild() -> Story {
    Story::of("discord:987654321098765432")
        .link(
            9,
            Transport::Gateway,
            LinkState::Down {
                error: ErrorInfo::new(Code::NetworkTimeout, "no answer within 10 s"),
            },
        )
        .auth(9, "discord/bot", AuthResult::Valid, None)
        .named("The Rat Pack\u{1b}[31m", "")
}
