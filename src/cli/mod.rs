//! Everything a person sees: arguments, commands, reports and how they are printed.

pub mod health;
pub mod output;
pub mod reports;
