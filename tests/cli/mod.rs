//! The program as a whole: arguments, output, exit codes.

mod accounts;
mod bad_input;
mod chromium;
mod completions;
mod demo;
mod doctor;
mod environment;
mod events;
mod filters;
mod formats;
mod init;
mod invite;
pub mod login;
mod mcp;
mod names;
mod one_shots;
mod operator;
mod past;
mod preflight;
mod refresh_crashes;
mod schemas;
mod sim;
mod special_files;
mod terminal;
mod top;
