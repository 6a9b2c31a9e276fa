//! The daemon: as a process of its own, under a service manager, in trouble, killed at random, and for a virtual week.

mod daemon;
mod eventsub;
mod faults;
mod flap;
mod kill;
mod outage;
mod platforms;
mod service;
mod soak;
mod truth;
mod world;
