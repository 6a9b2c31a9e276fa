//! The daemon: as a process of its own, under a service manager, under faults, killed at random, and for a virtual week.

mod accounts;
mod alerts;
mod clocks;
mod daemon;
mod eventsub;
mod faults;
mod flap;
mod kill;
mod outage;
mod platforms;
mod record;
mod service;
mod soak;
mod truth;
mod world;
