//! The view model: what is shown of a source, computed in one place for commands, the API and pages.
//!
//! It depends on `core` and the ports, and on no way of showing it: `cli` draws it in terminals, `web` in HTML and JSON.

pub mod actions;
pub mod answer;
pub mod attention;
pub mod can;
pub mod cell;
pub mod cells;
pub mod detail;
pub mod envelope;
pub mod found;
pub mod health;
pub mod history;
pub mod humane;
pub mod is_live;
pub mod item;
pub mod listening;
pub mod order;
pub mod past;
pub mod reading;
pub mod since;
pub mod source_row;
pub mod sources;
#[cfg(test)]
pub(crate) mod tests;
