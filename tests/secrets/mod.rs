//! Leaks when others repeat our secrets, and behavior when others hold our descriptors.

mod configuration;
mod descriptors;
mod echo;
mod headers;
