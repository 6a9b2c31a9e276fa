//! A source with all of its evidence, and the check that was made for a question about it.

use crate::core::code::Code;
use crate::core::document::SourceDocument;
use crate::core::facet::Facet;
use crate::core::freshness::Intervals;
use crate::core::observation::{ErrorInfo, Fact, LinkState, Observation};
use crate::core::summary::SourceSummary;
use crate::core::time::Timestamp;
use crate::failure::ExitCode;
use crate::platforms::Problem;
use crate::view::answer::{Answer, AnswerItem};
use crate::view::source_row::SourceRow;

#[derive(Debug)]
pub struct Found {
    pub row: SourceRow,
    pub document: SourceDocument,
    /// The result of the check that was made for this command, if any.
    pub check: Option<Check>,
}

impl Found {
    /// Judges `document` at `now`.
    pub fn new(document: SourceDocument, intervals: &Intervals, now: Timestamp) -> Self {
        Self {
            row: SourceRow::new(SourceSummary::of(&document), intervals, now),
            document,
            check: None,
        }
    }

    /// Builds the answer to a question about it, without details.
    pub fn answer(&self, question: impl Into<String>, answer: Answer, because: String) -> AnswerItem {
        AnswerItem {
            key: self.document.key.to_string(),
            display_name: self.document.display_name().map(str::to_owned),
            question: question.into(),
            answer,
            because,
            rule: None,
            age_ms: None,
            missing: Vec::new(),
            not_covered: Vec::new(),
            fix: None,
        }
    }
}

/// A check of one source that was made for a question.
#[derive(Debug, Clone)]
pub struct Check {
    /// When it began.
    pub started: Timestamp,
    pub observations: Vec<Observation>,
    pub problems: Vec<Problem>,
}

/// A question that a check did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unanswered {
    pub reason: String,
    /// The exit code of the command unless older evidence is accepted.
    pub exit: ExitCode,
}

impl Check {
    /// Returns why the check found out nothing about the stream, if so. A response that the source does not exist is an answer.
    pub fn stream_unanswered(&self) -> Option<Unanswered> {
        let is_about_stream = |fact: &Fact| {
            matches!(
                fact,
                Fact::StreamSeen { .. } | Fact::StreamAbsent | Fact::StreamPush { .. }
            )
        };
        let answered = self.observations.iter().any(|seen| is_about_stream(&seen.fact));
        if answered {
            return None;
        }
        self.unanswered(&[Facet::Stream])
    }

    /// Whether connection or stream were asked for without an answer.
    pub fn has_no_answer(&self) -> bool {
        has_no_answer(&self.observations)
    }

    /// Returns why the check did not find out something that permissions depend on, if so.
    pub fn permissions_unanswered(&self) -> Option<Unanswered> {
        self.unanswered(&[Facet::Status, Facet::Auth, Facet::Permissions])
    }

    /// Returns why the check did not find out something about the source, if so. Problems of the platform, which may be about
    /// other sources, count only where nothing was observed.
    pub fn any_unanswered(&self) -> Option<Unanswered> {
        let all = [Facet::Status, Facet::Stream, Facet::Auth, Facet::Permissions];
        let failed = self.unanswered(&all)?;
        let is_problem = self.observed_failure(&all).is_none();
        (!is_problem || self.observations.is_empty()).then_some(failed)
    }

    /// Whether the platform rejected the bot's token, or was not asked because it had rejected it before.
    pub fn is_unauthorized(&self) -> bool {
        let mut errors = self.observations.iter().filter_map(|seen| link_error(&seen.fact));
        let is_unauthorized = |error: &ErrorInfo| matches!(error.code.known(), Some(Code::Unauthorized(_)));
        errors.next().is_some_and(is_unauthorized) && errors.all(is_unauthorized)
    }

    fn unanswered(&self, facets: &[Facet]) -> Option<Unanswered> {
        let is_gone = |seen: &Observation| matches!(*seen.fact, Fact::NoSuchSource { .. });
        if self.observations.iter().any(is_gone) {
            return None;
        }
        self.observed_failure(facets).or_else(|| {
            let problem = self.problems.first()?;
            Some(Unanswered {
                reason: problem.text.clone(),
                exit: ExitCode::NoEvidence,
            })
        })
    }

    fn observed_failure(&self, facets: &[Facet]) -> Option<Unanswered> {
        let of = |error: &ErrorInfo, exit| Unanswered {
            reason: format!("{} ({})", error.message, error.code),
            exit,
        };
        let facts = || self.observations.iter().map(|seen| &*seen.fact);
        if let Some(error) = facts().find_map(link_error) {
            return Some(of(error, ExitCode::Down));
        }
        let without_answer = facts().find_map(|fact| match fact {
            Fact::Unanswered { facet, error } if facets.contains(facet) => Some(error),
            _ => None,
        });
        without_answer.map(|error| of(error, ExitCode::NoEvidence))
    }
}

fn link_error(fact: &Fact) -> Option<&ErrorInfo> {
    match fact {
        Fact::Connection {
            state: LinkState::Down { error } | LinkState::Refused { error },
            ..
        } => Some(error),
        _ => None,
    }
}

/// Whether a check of a source's connection or stream got no answer.
pub fn has_no_answer<'a>(observations: impl IntoIterator<Item = &'a Observation>) -> bool {
    observations.into_iter().any(|seen| {
        matches!(
            *seen.fact,
            Fact::Unanswered {
                facet: Facet::Status | Facet::Stream,
                ..
            }
        )
    })
}
