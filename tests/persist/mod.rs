//! Stories of the persister role: from messages on a real bus to stored documents.

mod stories;
mod world;
