//! What bitbrat knows and how it decides. Pure: no async, no I/O, no logging, no clock.
//!
//! An [`observation::Observation`] becomes [`evidence::Evidence`]; evidence is joined; [`verdict::Verdict`] is derived
//! from it; [`document::SourceDocument`] carries all three to whoever reads them.

pub mod counters;
pub mod document;
pub mod event;
pub mod evidence;
pub mod facet;
pub mod freshness;
pub mod join;
#[cfg(test)]
mod laws;
pub mod observation;
pub mod permission;
pub mod resting;
pub mod schedule;
pub mod source;
pub mod stream;
pub mod summary;
pub mod time;
pub mod transition;
pub mod verdict;
