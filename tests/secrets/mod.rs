//! Leaks when others repeat our secrets, and behavior when others hold our descriptors.

mod accounts;
mod configuration;
mod descriptors;
mod echo;
mod headers;
mod support;
