//! Facts about a transport, and errors as facts.

use crate::core::code::Code;
use crate::core::facet::Facet;
use crate::core::observation::{ErrorInfo, Fact, LinkState, Transport};

/// Returns the observed state of a transport.
pub fn link(transport: Transport, state: LinkState) -> Fact {
    Fact::Connection { transport, state }
}

/// Reports that a transport works for a source that is known to exist.
pub fn up(transport: Transport) -> Fact {
    link(transport, LinkState::Up)
}

/// Reports that the platform refuses access, which needs attention.
pub fn refused(transport: Transport, code: Code, message: &str) -> Fact {
    let error = ErrorInfo::new(code, message);
    link(transport, LinkState::Refused { error })
}

/// Reports that a transport failed in a way that recovers by itself.
pub fn down(transport: Transport, code: Code, message: &str) -> Fact {
    let error = ErrorInfo::new(code, message);
    link(transport, LinkState::Down { error })
}

/// Reports that a facet could not be checked over a link that works.
pub fn unanswered(facet: Facet, code: Code, message: &str) -> Fact {
    let error = ErrorInfo::new(code, message);
    Fact::Unanswered { facet, error }
}

/// Reports an error that does not change any verdict.
pub fn problem(code: Code, message: &str) -> Fact {
    Fact::Problem {
        error: ErrorInfo::new(code, message),
    }
}
