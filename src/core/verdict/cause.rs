//! The error that explains a status: never a newer or older one with another subject.

use crate::core::code::Code;
use crate::core::evidence::{Evidence, LinkNow};
use crate::core::join::Newest;
use crate::core::observation::{AuthResult, ErrorInfo};
use crate::core::source::PlatformName;
use crate::core::verdict::{GRANT_REVOKED, Status, TOKEN_REJECTED, Verdict};

/// Returns the error that causes the status ERROR or DISCONNECTED. `None` if no error is the cause: the source is connected,
/// there is no evidence yet, or we closed the connection ourselves.
pub fn cause(evidence: &Evidence, verdict: &Verdict) -> Option<Newest<ErrorInfo>> {
    match (verdict.status.value, verdict.status.rule) {
        (Status::Error, GRANT_REVOKED | TOKEN_REJECTED) => of_authorization(evidence),
        (Status::Error, "status.no-such-source") => evidence.existence.missing.clone(),
        (Status::Error, _) => of_links(evidence, true),
        (Status::Disconnected, "status.transport-down") => of_links(evidence, false),
        (Status::Disconnected | Status::Connected, _) => None,
    }
}

/// The newest failure of a currently failing transport.
fn of_links(evidence: &Evidence, refused: bool) -> Option<Newest<ErrorInfo>> {
    let links = evidence.connection.values();
    let failing = links.filter_map(|link| match (link.now(), &link.failure) {
        (LinkNow::LinkFailure(now), Some(dated)) if now.refused == refused => {
            Some(Newest::new(dated.at, now.error.clone()))
        }
        _ => None,
    });
    failing.max()
}

/// A platform may reject the token over a transport too, with its own message; otherwise the account check provides the error.
fn of_authorization(evidence: &Evidence) -> Option<Newest<ErrorInfo>> {
    let dead = evidence
        .auth
        .iter()
        .filter(|(_, check)| check.value.result == AuthResult::Revoked || check.value.rejected)
        .max_by_key(|(identity, check)| (check.value.result, check.at, *identity));
    let about_token = |error: &Newest<ErrorInfo>| error.value.code.known().is_some_and(Code::is_of_token);
    let (identity, check) = dead?;
    let platform: PlatformName = identity.as_str().split('/').next()?.parse().ok()?;
    let reason = check
        .value
        .reason
        .as_ref()
        .map_or_else(String::new, |reason| format!(": {reason}"));
    let (code, message) = if check.value.rejected {
        (
            Code::TokenRejected(platform),
            format!("the token of {identity} was rejected{reason}; log in again"),
        )
    } else {
        (
            Code::TokenRevoked(platform),
            format!("the authorization of {identity} was revoked{reason}; log in again"),
        )
    };
    let stated = Newest::new(check.at, ErrorInfo::new(code, message));
    of_links(evidence, true).filter(about_token).or(Some(stated))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::document::SourceDocument;
    use crate::core::evidence::Knowledge;
    use crate::core::observation::{AuthCheck, Fact, Identity, LinkState, Observation, Transport};
    use crate::core::source::SourceKey;
    use crate::core::time::Timestamp;

    fn document(facts: impl IntoIterator<Item = Fact>) -> SourceDocument {
        let key: SourceKey = "twitch:777009".parse().unwrap();
        let start = Timestamp::from_millis(1_780_000_000_000);
        let observations: Vec<_> = (0..)
            .zip(facts)
            .map(|(second, fact)| Observation::new(&key, start.plus_secs(second), "test", fact))
            .collect();
        SourceDocument::from_knowledge(key, Knowledge::of(&observations))
    }

    fn cause_of(facts: impl IntoIterator<Item = Fact>) -> Option<Code> {
        let document = document(facts);
        let cause = cause(&document.knowledge.evidence, &document.verdict);
        cause.and_then(|error| error.value.code.known())
    }

    fn api(state: LinkState) -> Fact {
        Fact::Connection {
            transport: Transport::Api,
            state,
        }
    }

    fn eventsub(state: LinkState) -> Fact {
        Fact::Connection {
            transport: Transport::EventSub,
            state,
        }
    }

    fn down(code: Code) -> LinkState {
        LinkState::Down {
            error: ErrorInfo::new(code, ""),
        }
    }

    fn refused(code: Code) -> LinkState {
        LinkState::Refused {
            error: ErrorInfo::new(code, ""),
        }
    }

    fn problem(code: Code) -> Fact {
        Fact::Problem {
            error: ErrorInfo::new(code, ""),
        }
    }

    fn revoked() -> Fact {
        let check = AuthCheck {
            reason: Some("the refresh token was refused".to_owned()),
            ..AuthCheck::of(AuthResult::Revoked)
        };
        Fact::Auth {
            identity: Identity::named("twitch/broadcaster:777009"),
            check: check.into(),
        }
    }

    #[test]
    fn the_error_is_the_one_that_explains_the_status() {
        for (facts, code) in [
            (vec![api(LinkState::Up), problem(Code::KickContradiction)], None),
            (
                vec![api(down(Code::Http(503))), problem(Code::KickContradiction)],
                Some(Code::Http(503)),
            ),
            (
                vec![
                    api(LinkState::Up),
                    eventsub(down(Code::NetworkReset)),
                    api(LinkState::Up),
                ],
                Some(Code::NetworkReset),
            ),
            // The rejection needs attention, even if another failure is newer.
            (
                vec![
                    eventsub(refused(Code::Forbidden(PlatformName::Twitch))),
                    api(down(Code::NetworkTimeout)),
                ],
                Some(Code::Forbidden(PlatformName::Twitch)),
            ),
            (
                vec![
                    problem(Code::KickContradiction),
                    api(LinkState::Up),
                    api(LinkState::Closed),
                ],
                None,
            ),
            (vec![problem(Code::KickContradiction)], None),
        ] {
            assert_eq!(cause_of(facts.clone()), code, "{facts:?}");
        }
    }

    #[test]
    fn a_revoked_account_is_an_error_with_a_reason() {
        let document = document([api(LinkState::Up), revoked(), problem(Code::KickContradiction)]);
        let error = document.record().last_error.unwrap();
        assert_eq!(error.code, Code::TokenRevoked(PlatformName::Twitch));
        assert!(
            error.message.contains("twitch/broadcaster:777009"),
            "{}",
            error.message
        );
        assert!(
            error.message.contains("the refresh token was refused"),
            "{}",
            error.message
        );
        let in_own_words = cause_of([revoked(), api(refused(Code::Unauthorized(PlatformName::Discord)))]);
        assert_eq!(in_own_words, Some(Code::Unauthorized(PlatformName::Discord)));
    }

    #[test]
    fn rejected_token_is_an_error_that_says_so() {
        let Fact::Auth { identity, check } = revoked() else {
            unreachable!()
        };
        let check = AuthCheck {
            result: AuthResult::Expired,
            rejected: true,
            ..AuthCheck::clone(&check)
        };
        let document = document([
            api(LinkState::Up),
            Fact::Auth {
                identity,
                check: check.into(),
            },
        ]);
        assert_eq!(document.verdict.status.value, Status::Error);
        let error = document.record().last_error.unwrap();
        assert_eq!(error.code, Code::TokenRejected(PlatformName::Twitch));
        assert!(error.message.contains("was rejected"), "{}", error.message);
    }

    proptest::proptest! {
        #[test]
        fn every_error_and_every_failed_connection_has_its_cause(known in crate::core::laws::knowledge()) {
            let document = SourceDocument::from_knowledge(crate::core::laws::key(), known);
            let status = &document.verdict.status;
            let cause = cause(&document.knowledge.evidence, &document.verdict);
            let explained = status.value == Status::Error || status.rule == "status.transport-down";
            proptest::prop_assert_eq!(cause.is_some(), explained, "{:?}", status);
        }
    }
}
