//! The health of a source, which determines exit codes and the advice to people.

use schemars::JsonSchema;
use serde::Serialize;

use crate::core::code::Code;
use crate::core::freshness::{Field, Freshness};
use crate::core::summary::SourceSummary;
use crate::core::verdict::{AuthStatus, Status};

/// The health of a source, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Connected and authorized, by fresh evidence.
    Ok,
    /// Not enough evidence, or it is too old.
    Unknown,
    /// Down or degraded.
    Down,
    /// Authorization expired, revoked or missing.
    Auth,
}

/// All problems of a source that count for the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one finding of its own; any may occur with any other"
)]
pub struct Findings {
    /// An authorization expired, was revoked or is missing.
    pub auth: bool,
    /// The platform answered with a rejection.
    pub refused: bool,
    /// Proven to be disconnected.
    pub disconnected: bool,
    /// Nothing was ever proven about the connection or the authorization.
    pub unknown: bool,
    /// What was proven about them is too old to rely on.
    pub stale: bool,
}

impl Findings {
    /// Judges `summary`.
    pub fn of(summary: &SourceSummary, freshness: &Freshness) -> Self {
        let SourceSummary { status, proven, .. } = summary;
        let failure = summary.failure.as_ref();
        let missing = failure.is_some_and(|error| error.code.known().is_some_and(Code::lacks_credential));
        let auth = summary.auth_status;
        Self {
            auth: missing || auth.is_some_and(|auth| auth != AuthStatus::Valid),
            refused: *status == Status::Error,
            disconnected: *proven && *status == Status::Disconnected,
            unknown: !*proven || auth.is_none(),
            stale: freshness.is_stale(Field::Status) || freshness.is_stale(Field::AuthStatus),
        }
    }

    pub fn worst(self) -> Health {
        if self.auth {
            Health::Auth
        } else if self.refused || self.disconnected {
            Health::Down
        } else if self.unknown || self.stale {
            Health::Unknown
        } else {
            Health::Ok
        }
    }

    /// Returns whether a problem remains until a person acts.
    pub fn needs_person(self) -> bool {
        self.auth || self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::freshness::Intervals;
    use crate::core::observation::{AuthCheck, AuthResult, ErrorInfo, Fact, Identity, LinkState, Transport};
    use crate::core::source::PlatformName;
    use crate::view::tests::{Story, now};

    fn link(state: LinkState) -> Fact {
        Fact::Connection {
            transport: Transport::Api,
            state,
        }
    }

    fn auth(result: AuthResult) -> Fact {
        Fact::Auth {
            identity: Identity::named("twitch/bot"),
            check: AuthCheck::of(result).into(),
        }
    }

    fn worst(facts: Vec<Fact>, seconds_later: i64) -> Health {
        let story = Story::of("twitch:900200");
        let story = facts.into_iter().fold(story, |story, fact| story.fact(0, fact));
        let summary = SourceSummary::of(&story.found().document);
        let freshness = Freshness::of(&summary, &Intervals::default(), now().plus_secs(seconds_later));
        Findings::of(&summary, &freshness).worst()
    }

    #[test]
    fn health_requires_fresh_connection_and_authorization() {
        let error = |code| ErrorInfo::new(code, "why");
        let up = || link(LinkState::Up);
        let valid = || auth(AuthResult::Valid);
        for (facts, later, expected) in [
            (vec![up(), valid()], 0, Health::Ok),
            (vec![up(), valid()], 91, Health::Unknown),
            (vec![], 0, Health::Unknown),
            (vec![up()], 0, Health::Unknown),
            (vec![valid()], 0, Health::Unknown),
            (
                vec![
                    link(LinkState::Down {
                        error: error(Code::NetworkTimeout),
                    }),
                    valid(),
                ],
                0,
                Health::Down,
            ),
            (
                vec![
                    up(),
                    Fact::NoSuchSource {
                        error: error(Code::NotFound(PlatformName::Twitch)),
                    },
                    valid(),
                ],
                0,
                Health::Down,
            ),
            (
                vec![link(LinkState::Down {
                    error: error(Code::NetworkTimeout),
                })],
                0,
                Health::Down,
            ),
            (vec![up(), auth(AuthResult::Expired)], 0, Health::Auth),
            (vec![up(), auth(AuthResult::Revoked)], 0, Health::Auth),
            (
                vec![link(LinkState::Refused {
                    error: error(Code::NotConfigured(PlatformName::Twitch)),
                })],
                0,
                Health::Auth,
            ),
        ] {
            assert_eq!(worst(facts.clone(), later), expected, "{facts:?} {later} s later");
        }
    }
}
