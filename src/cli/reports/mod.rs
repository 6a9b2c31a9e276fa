//! What the commands report, as data.

pub mod cells;
pub mod history;
pub mod predicate;
pub mod source;
pub mod sources;

#[cfg(test)]
mod tests;
