//! The daemon: as a process of its own, killed at random, and for a virtual week.

mod daemon;
mod eventsub;
mod kill;
mod platforms;
mod soak;
mod world;
