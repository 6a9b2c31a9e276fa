//! Entry points of the fuzz targets in `fuzz/`: frames of the gateway, in any order.

use std::collections::BTreeMap;

use super::frames::Frame;
use super::machine::{INTENTS_ALL, Input, Machine, Order, Pace};
use super::{counts::Counts, guilds::Guilds, guilds::Image};
use crate::core::json::repair;
use crate::core::observation::{Fact, Observation};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::time::Timestamp;
use crate::platforms::discord::{GuildOptions, StreamFrom};

/// The guilds that are followed.
const GUILDS: [u64; 2] = [9001, 9002];
/// The configured channel of the second guild.
const CHANNEL: u64 = 42;

/// Returns what a session proves whose frames are the lines of `input`. The first byte decides what counts as a stream.
///
/// The stored state of the session, read by another process, yields the same facts.
pub fn observations(input: &[u8], now: Timestamp) -> Vec<Observation> {
    let (first, rest) = input.split_first().unwrap_or((&0, &[]));
    let new = || {
        let of = |id| GuildOptions {
            channels: if id == GUILDS[1] {
                vec![CHANNEL]
            } else {
                Vec::new()
            },
        };
        let stream_from = [
            None,
            Some(StreamFrom::Stage),
            Some(StreamFrom::Event),
            Some(StreamFrom::GoLive),
        ][usize::from(first % 4)];
        Guilds::new(GUILDS.map(|id| (id, of(id))), stream_from)
    };
    let mut guilds = new();
    let mut counts = Counts::new(BTreeMap::new());
    let mut connection = Connection::open();
    let mut facts = Vec::new();
    for frame in rest.split(|byte| *byte == b'\n') {
        let frame = repair(frame);
        let Some(frame) = Frame::read(&frame) else {
            continue;
        };
        connection.receive(&frame);
        if let Some(event) = frame.event() {
            facts.extend(guilds.update(event, frame.data(), now));
            let options = GuildOptions::default();
            counts.message(
                frame.data(),
                guilds.me(),
                |_| Some(&options),
                |guild, channel| guilds.parent_of(guild, channel),
            );
        }
    }
    check_resume(&mut guilds, new(), now);
    facts
        .into_iter()
        .filter_map(|(guild, fact)| observation(guild, fact, now))
        .collect()
}

fn check_resume(guilds: &mut Guilds, mut other: Guilds, now: Timestamp) {
    let stored = serde_json::to_string(&guilds.image()).expect("the state can be written");
    let image: Image = serde_json::from_str(&stored).expect("what was written can be read");
    if other.recall(image) {
        assert_eq!(guilds.republish(now), other.republish(now));
    }
}

fn observation(guild: u64, fact: Fact, now: Timestamp) -> Option<Observation> {
    let key = SourceKey::new(PlatformName::Discord, &guild.to_string()).ok()?;
    Some(Observation::new(&key, now, "discord.gateway", fact))
}

/// A connection whose socket is opened again whenever it is closed.
struct Connection {
    machine: Machine,
    now: u64,
}

impl Connection {
    fn open() -> Self {
        let mut connection = Self {
            machine: Machine::new(INTENTS_ALL, Pace::default()),
            now: 1_000,
        };
        connection.next(Input::Start);
        connection
    }

    fn receive(&mut self, frame: &Frame<'_>) {
        self.next(Input::Permitted("wss://gateway.example".to_owned()));
        self.next(Input::Opened);
        self.next(Input::Received(frame.kind()));
        if let Some(deadline) = self.machine.deadline() {
            assert!(
                deadline >= self.now.saturating_sub(1),
                "a deadline is not in the past"
            );
            // At most a day: the program does not live for 500 million years.
            self.now = deadline.min(self.now + 86_400_000);
            self.next(Input::Tick { caught_up: true });
        }
    }

    fn next(&mut self, input: Input) {
        let orders = self.machine.next(self.now, input, 0.5);
        if orders.iter().any(|order| matches!(order, Order::Hangup(_))) {
            self.machine.next(self.now, Input::Closed(Some(1000)), 0.5);
        }
    }
}
