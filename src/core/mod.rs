//! Domain model: evidence, verdicts and documents. Pure: no async, no I/O, no logging, no clock.
//!
//! An [`observation::Observation`] becomes [`evidence::Evidence`]; evidence is joined; [`verdict::Verdict`] is derived from
//! it; [`document::SourceDocument`] contains all three for readers.

pub mod code;
pub mod compact;
pub mod counters;
pub mod document;
pub mod event;
pub mod evidence;
pub mod facet;
pub mod finding;
pub mod forecast;
pub mod freshness;
pub mod future;
pub mod join;
pub mod json;
#[cfg(test)]
pub(crate) mod laws;
pub mod number;
pub mod observation;
pub mod permission;
pub mod platform;
pub mod schedule;
pub mod source;
pub mod stream;
pub mod summary;
pub mod time;
pub mod transition;
pub mod verdict;
