//! The program as a whole: what is typed, what is printed, how it exits.

mod bad_input;
mod demo;
mod events;
mod formats;
mod one_shots;
mod operator;
mod schemas;
