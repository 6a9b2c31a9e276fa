//! Status of the gateway connection, for users and pages.

use parking_lot::Mutex;
use serde::Serialize;

use super::machine::Phase;
use crate::core::number::count;
use crate::core::observation::ErrorInfo;
use crate::core::time::Timestamp;

/// Status of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// `IDLE`, `ASKING`, `WAITING`, `CONNECTING`, `ENTERING`, `CONNECTED` or `STUCK`; empty before the start.
    pub state: &'static str,
    /// Time of the last state change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Guilds to monitor.
    pub guilds: usize,
    /// Guilds that the bot is in and that are available.
    pub available: usize,
    /// Milliseconds from a heartbeat to its acknowledgement, smoothed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u64>,
    /// When a heartbeat was last acknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_heartbeat: Option<Timestamp>,
    /// Sessions begun by this process.
    pub identifies: u64,
    /// Sessions resumed by this process.
    pub resumes: u64,
    /// Frames and events that could not be parsed.
    pub unread: u64,
    /// Why the connection was last down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<ErrorInfo>,
}

impl Status {
    /// Returns whether a session was established and no error has occurred since; true when there is nothing to monitor.
    pub fn is_healthy(&self) -> bool {
        self.guilds == 0 || self.state == "CONNECTED"
    }

    /// Summarizes the status in a sentence.
    pub fn summary(&self) -> String {
        if self.guilds == 0 {
            return "no guild is configured".to_owned();
        }
        if self.state == "CONNECTED" {
            let (available, guilds) = (self.available, self.guilds);
            let guilds = count(guilds as u64, "guild");
            return format!("connected, {available} of {guilds} available");
        }
        let state = if self.state.is_empty() { "IDLE" } else { self.state };
        match &self.last_error {
            Some(error) => format!("{} ({}: {})", state.to_lowercase(), error.code, error.message),
            None => format!("{}, not welcomed yet", state.to_lowercase()),
        }
    }
}

impl Phase {
    fn name(&self) -> &'static str {
        match self {
            Self::Idle => "IDLE",
            Self::Asking => "ASKING",
            Self::Waiting { .. } => "WAITING",
            Self::Connecting => "CONNECTING",
            Self::Greeting { .. } | Self::Entering { .. } => "ENTERING",
            Self::Live { .. } => "CONNECTED",
            Self::Refused => "STUCK",
        }
    }
}

/// Board where a listener publishes its status.
#[derive(Debug, Default)]
pub struct Board(Mutex<Status>);

impl Board {
    pub fn read(&self) -> Status {
        self.0.lock().clone()
    }

    /// Reports that this many guilds cannot be monitored, and why.
    pub fn cannot(&self, guilds: usize, error: ErrorInfo) {
        self.write(|status| {
            *status = Status {
                guilds,
                last_error: Some(error),
                ..Status::default()
            };
        });
    }

    pub(super) fn write(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.0.lock());
    }

    pub(super) fn phase(&self, phase: &Phase, now: Timestamp) {
        self.write(|status| {
            if status.state != phase.name() {
                status.state = phase.name();
                status.since = Some(now);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::code::Code;

    #[test]
    fn health_follows_discords_welcome() {
        let board = Board::default();
        assert!(board.read().is_healthy(), "nothing is to be heard");
        board.write(|status| status.guilds = 3);
        for (phase, healthy, words) in [
            (Phase::Asking, false, "asking, not welcomed yet"),
            (
                Phase::Live { since: 0 },
                true,
                "connected, 0 of 3 guilds available",
            ),
            (Phase::Refused, false, "stuck, not welcomed yet"),
        ] {
            board.phase(&phase, Timestamp::EPOCH);
            let status = board.read();
            assert_eq!((status.is_healthy(), status.summary().as_str()), (healthy, words));
        }
        let error = ErrorInfo::new(Code::DiscordNotSent, "spent");
        board.write(|status| status.last_error = Some(error));
        assert_eq!(board.read().summary(), "stuck (discord.not_sent: spent)");
    }
}
