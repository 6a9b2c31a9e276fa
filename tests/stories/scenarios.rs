//! The scenarios.

use std::collections::{BTreeMap, BTreeSet};

use bitbrat::core::counters::Counters;
use bitbrat::core::observation::{
    AuthCheck, AuthResult, ErrorInfo, Fact, Grants, Identity, LinkState, Observation, Transport,
};
use bitbrat::core::source::SourceKey;
use bitbrat::core::time::Timestamp;

use crate::stories::publishing::Scenario;

/// Collects what happens to a source, by the second.
struct Life {
    key: SourceKey,
    observations: Vec<Observation>,
}

impl Life {
    fn of(key: &str) -> Self {
        Self {
            key: key.parse().unwrap(),
            observations: Vec::new(),
        }
    }

    fn at(&mut self, seconds: i64, fact: Fact) -> &mut Self {
        let at = second(seconds);
        self.observations
            .push(Observation::new(&self.key, at, "story", fact));
        self
    }

    fn link(&mut self, seconds: i64, transport: Transport, state: LinkState) -> &mut Self {
        self.at(seconds, Fact::Connection { transport, state })
    }

    fn push(&mut self, seconds: i64, stream: &str, live: bool) -> &mut Self {
        let fact = Fact::StreamPush {
            live,
            stream_id: Some(stream.into()),
            started_at: live.then(|| second(seconds)),
        };
        self.at(seconds, fact)
    }

    fn poll(&mut self, seconds: i64, stream: Option<&str>, viewers: u64) -> &mut Self {
        let Some(stream) = stream else {
            return self.at(seconds, Fact::StreamAbsent);
        };
        let seen = Fact::StreamSeen {
            stream_id: stream.into(),
            started_at: None,
        };
        let count = Fact::Viewers {
            count: viewers,
            stream_id: Some(stream.into()),
        };
        self.at(seconds, seen).at(seconds, count)
    }

    fn token(&mut self, seconds: i64, result: AuthResult) -> &mut Self {
        let check = AuthCheck {
            expires_at: Some(second(seconds + 14_400)),
            scopes: BTreeSet::from(["chat:read".into(), "channel:bot".into()]),
            ..AuthCheck::of(result)
        };
        let (identity, check) = (Identity::named("twitch/bot"), check.into());
        self.at(seconds, Fact::Auth { identity, check })
    }

    fn scenario(&mut self, history: &[&'static str]) -> Scenario {
        Scenario {
            observations: std::mem::take(&mut self.observations),
            history: history.to_vec(),
        }
    }
}

fn second(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_780_000_000_000).plus_secs(seconds)
}

fn failure(code: &str) -> ErrorInfo {
    ErrorInfo::foreign(code, "it was not to be")
}

pub fn a_stream_goes_live_drops_for_forty_seconds_resumes_and_ends() -> Scenario {
    let named = BTreeMap::from([
        ("displayName".into(), "Ratte".into()),
        ("title".into(), "Käse, roh".into()),
    ]);
    Life::of("twitch:900200")
        .link(0, Transport::Api, LinkState::Up)
        .at(0, Fact::Profile { fields: named })
        .poll(1, None, 0)
        .push(60, "409", true)
        .poll(90, None, 0)
        .poll(150, Some("409"), 31)
        .push(600, "409", false)
        .push(640, "409", true)
        .poll(660, Some("409"), 28)
        .at(700, Fact::Latency { millis: 41 })
        .push(4000, "409", false)
        .poll(4020, Some("409"), 27)
        .scenario(&[
            "status ->CONNECTED",
            "stream ->OFFLINE",
            "stream OFFLINE>ONLINE",
            "stream ONLINE>OFFLINE",
            "stream OFFLINE>ONLINE",
            "stream ONLINE>OFFLINE",
        ])
}

pub fn a_token_expires_is_refreshed_and_revoked() -> Scenario {
    Life::of("twitch:900200")
        .token(0, AuthResult::Valid)
        .link(1, Transport::EventSub, LinkState::Up)
        .token(14_400, AuthResult::Expired)
        .token(14_402, AuthResult::Valid)
        .token(20_000, AuthResult::Valid)
        .token(30_000, AuthResult::Revoked)
        .scenario(&[
            "auth ->VALID",
            "status ->CONNECTED",
            "auth VALID>EXPIRED",
            "auth EXPIRED>VALID",
            "auth VALID>REVOKED",
            "status CONNECTED>ERROR",
        ])
}

pub fn a_connection_is_lost_heals_and_is_refused() -> Scenario {
    let total = |messages_in, errors| Fact::Counters {
        writer: "bitbrat-1".into(),
        totals: Counters {
            messages_in,
            errors,
            ..Counters::default()
        },
    };
    let down = LinkState::Down {
        error: failure("network.timeout"),
    };
    let refused = LinkState::Refused {
        error: failure("kick.forbidden"),
    };
    Life::of("kick:5")
        .link(0, Transport::Webhook, LinkState::Up)
        .at(5, total(10, 0))
        .link(30, Transport::Webhook, down)
        .at(31, total(12, 1))
        .link(45, Transport::Webhook, LinkState::Up)
        .link(90, Transport::Webhook, refused)
        .at(95, total(12, 2))
        .scenario(&[
            "status ->CONNECTED",
            "status CONNECTED>DISCONNECTED",
            "status DISCONNECTED>CONNECTED",
            "status CONNECTED>ERROR",
        ])
}

pub fn a_second_stream_follows_the_first_without_a_pause() -> Scenario {
    Life::of("kick:6")
        .push(0, "a", true)
        .poll(60, Some("a"), 3)
        .push(3600, "b", true)
        .poll(3660, Some("b"), 4)
        .push(7200, "b", false)
        .scenario(&[
            "stream UNKNOWN>ONLINE",
            "stream ONLINE>ONLINE",
            "stream ONLINE>OFFLINE",
        ])
}

pub fn a_discord_guild_is_attended_without_streams() -> Scenario {
    let grants = |granted: &[&str]| Fact::Permissions {
        method: "discord.roles".into(),
        grants: Grants {
            granted: granted.iter().map(|action| (*action).to_owned()).collect(),
            denied: BTreeSet::from(["ban".into()]),
            unknown: BTreeMap::from([("kick".into(), "the answer was cut off".into())]),
        }
        .into(),
    };
    Life::of("discord:7")
        .link(0, Transport::Gateway, LinkState::Up)
        .at(1, grants(&["read", "write"]))
        .at(600, grants(&["read", "write"]))
        .at(1200, grants(&["read"]))
        .link(1300, Transport::Gateway, LinkState::Closed)
        .scenario(&[
            "status ->CONNECTED",
            "permissions ->read write",
            "permissions read write>read",
            "status CONNECTED>DISCONNECTED",
        ])
}
