//! Whether a source is live.

use std::time::Duration;

use crate::core::freshness::Field;
use crate::core::stream::StreamStatus;
use crate::core::time::Timestamp;
use crate::core::verdict::explain;
use crate::view::answer::{Answer, AnswerItem};
use crate::view::cells;
use crate::view::found::{Check, Found, Unanswered};
use crate::view::source_row::SourceRow;

/// Answers, and returns the failure of a check that the answer would otherwise conceal.
pub fn judge(found: &Found, max_age: Option<Duration>) -> (AnswerItem, Option<Unanswered>) {
    let stream = &found.document.verdict.stream;
    let stale = found.row.freshness.is_stale(Field::StreamStatus);
    let age = found.row.freshness.stream_age_ms;
    let check = found.check.as_ref();
    let failed = check.and_then(Check::stream_unanswered);
    // An explicit age accepts stored evidence up to that age.
    let failed = failed.filter(|_| max_age.is_none() || stale || stream.value == StreamStatus::Unknown);
    let answer = match stream.value {
        _ if stale || failed.is_some() => Answer::Unknown,
        StreamStatus::Online => Answer::Yes,
        StreamStatus::Offline => Answer::No,
        StreamStatus::Unknown => Answer::Unknown,
    };
    let because = match (&failed, age) {
        (Some(failed), Some(age)) if stream.value != StreamStatus::Unknown => format!(
            "the check failed: {}; it was {} {}",
            failed.reason,
            stream.value,
            cells::ago(age)
        ),
        (Some(failed), _) => format!("the check failed: {}", failed.reason),
        (None, _) if stale => format!("it was {}, but that is too old to rely on", stream.value),
        (None, _) => explain(stream.rule).to_owned(),
    };
    let item = AnswerItem {
        rule: Some(stream.rule.to_owned()),
        age_ms: age,
        ..found.answer("live", answer, because)
    };
    (item, failed)
}

/// Answers for a time in the past, from `row`, which is what was known then.
pub fn judge_past(row: &SourceRow, at: Timestamp) -> AnswerItem {
    let summary = &row.summary;
    let status = summary.stream_status;
    let answer = match status {
        _ if row.freshness.is_stale(Field::StreamStatus) => Answer::Unknown,
        StreamStatus::Online => Answer::Yes,
        StreamStatus::Offline => Answer::No,
        StreamStatus::Unknown => Answer::Unknown,
    };
    let moment = cells::moment(at);
    let because = match (answer, status) {
        (_, StreamStatus::Unknown) => format!("as of {moment}, nothing was proven about the stream"),
        (Answer::Unknown, _) => format!("as of {moment}, it was {status} when it was last proven"),
        _ => format!("as of {moment}, it was {status}"),
    };
    AnswerItem {
        key: summary.key.to_string(),
        display_name: summary.display_name.as_deref().map(str::to_owned),
        question: "live".to_owned(),
        answer,
        because,
        rule: None,
        age_ms: row.freshness.stream_age_ms,
        missing: Vec::new(),
        not_covered: Vec::new(),
        fix: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::code::Code;
    use crate::core::facet::Facet;
    use crate::core::observation::{ErrorInfo, Fact, LinkState, Transport};
    use crate::core::source::PlatformName;
    use crate::view::tests::{checked, gone, ratcaster, revoked};

    fn error() -> ErrorInfo {
        ErrorInfo::new(Code::NetworkTimeout, "no answer within 10 s")
    }

    #[test]
    fn failed_probe_never_answers_from_the_cache() {
        let down = || Fact::Connection {
            transport: Transport::Api,
            state: LinkState::Down { error: error() },
        };
        let without_answer = || Fact::Unanswered {
            facet: Facet::Stream,
            error: error(),
        };
        for (facts, problems, exit) in [
            (vec![down()], &[][..], 3),
            (vec![without_answer()], &[][..], 8),
            (vec![], &["the rate limit is used up"][..], 8),
        ] {
            let found = checked(ratcaster().found(), facts, problems);
            let (item, failed) = judge(&found, None);
            assert_eq!(item.answer, Answer::Unknown);
            assert!(item.because.contains("it was ONLINE 12s ago"), "{}", item.because);
            assert_eq!(failed.unwrap().exit.number(), exit);
            // The cached value is accepted within the given age.
            let (item, failed) = judge(&found, Some(Duration::from_secs(60)));
            assert_eq!((item.answer, failed), (Answer::Yes, None));
        }
    }

    #[test]
    fn probe_that_answers_about_the_stream_counts_despite_problems() {
        let found = checked(
            revoked().found(),
            vec![Fact::StreamAbsent],
            &["a token was revoked"],
        );
        assert_eq!(judge(&found, None).0.answer, Answer::No);
    }

    #[test]
    fn probe_that_finds_no_such_source_is_an_answer() {
        let refused = Fact::NoSuchSource {
            error: ErrorInfo::new(Code::NotFound(PlatformName::Twitch), "no such channel"),
        };
        let (item, failed) = judge(&checked(gone().found(), vec![refused], &[]), None);
        assert_eq!((item.answer, failed), (Answer::Unknown, None));
    }
}
