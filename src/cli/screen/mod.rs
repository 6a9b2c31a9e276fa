//! The full-screen view of `bitbrat top`: its state and keys ([`model`]), how it is drawn ([`draw`]), and the terminal ([`terminal`]).
//!
//! What is shown of a source comes from the same reports as `sources status`, `describe` and `history`.

pub mod draw;
mod keys;
pub mod model;
mod spans;
pub mod terminal;
#[cfg(test)]
mod tests;
