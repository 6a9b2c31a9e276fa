//! Incidents: one cause as one alert reports it, from the moment in which it appears to the message that it is over.
//!
//! A function of the previous state, the causes and the time. Deadlines are dates in the state, so a restart neither resets nor
//! skips them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::cause::{Cause, CauseKey};
use super::trigger::TriggerKind;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;

/// How many appearances within [`FLAP_WINDOW`] make a cause a flapping one, which is reported once.
const FLAPS: usize = 4;
/// The time in which appearances are counted, and for which a flapping cause must stay or be over before it is reported again.
const FLAP_WINDOW: Duration = Duration::from_secs(30 * 60);
/// How many affected sources an incident lists.
const LISTED: usize = 1000;

/// The state of an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// There is no cause, or its end was reported. Kept for a while, to notice flapping.
    Idle,
    /// There is a cause, but not for long enough.
    Pending,
    /// It is reported.
    Open,
}

/// A message about an incident.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum MessageKind {
    /// It began.
    Open,
    /// It begins and ends again and again.
    Flapping,
    /// It is over.
    Close,
    /// A test, which belongs to no incident.
    Test,
}

impl MessageKind {
    /// Returns the word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Flapping => "flapping",
            Self::Close => "close",
            Self::Test => "test",
        }
    }
}

/// How long things have to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long the cause must last.
    pub hold: Duration,
    /// How long it must be over.
    pub recover_after: Duration,
    /// Whether it may be reported as flapping.
    pub is_damped: bool,
}

/// One cause as one alert reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Incident {
    /// The alert.
    pub alert: String,
    /// The kind of cause.
    pub kind: TriggerKind,
    /// What it is about.
    pub subject: String,
    /// The stream, of a cause that is one: its source and id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// The error code, or the account status.
    pub class: String,
    /// The cause in words.
    pub detail: String,
    /// The state.
    pub phase: Phase,
    /// Whether there is a cause now.
    pub present: bool,
    /// Since when there is a cause.
    pub since: Timestamp,
    /// When it opens or closes, if nothing changes.
    pub due: Option<Timestamp>,
    /// When it opened.
    pub opened_at: Option<Timestamp>,
    /// When it closed.
    pub closed_at: Option<Timestamp>,
    /// Whether the receiver was sent that it is open, and nothing after that.
    pub announced: bool,
    /// Whether it was reported as flapping.
    pub flapping: bool,
    /// Whether it has been there for so long since it was reported as flapping that this is to be sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub settled: bool,
    /// When the cause appeared, as far as it counts for flapping.
    pub appearances: Vec<Timestamp>,
    /// The affected sources since it opened, with their display names.
    pub sources: BTreeMap<SourceKey, String>,
    /// Those of them that are still not connected although the outage of their platform is over.
    #[serde(skip)]
    pub remaining: BTreeMap<SourceKey, String>,
    /// Number of affected sources.
    pub affected: usize,
}

impl Incident {
    /// An incident of a cause that was not there before.
    pub fn new(alert: &str, (kind, subject): &CauseKey) -> Self {
        Self {
            alert: alert.to_owned(),
            kind: *kind,
            subject: subject.clone(),
            stream: None,
            class: String::new(),
            detail: String::new(),
            phase: Phase::Idle,
            present: false,
            since: Timestamp::EPOCH,
            due: None,
            opened_at: None,
            closed_at: None,
            announced: false,
            flapping: false,
            settled: false,
            appearances: Vec::new(),
            sources: BTreeMap::new(),
            remaining: BTreeMap::new(),
            affected: 0,
        }
    }

    /// Returns the unique key: the alert and the cause.
    pub fn key(&self) -> String {
        format!("{}|{}|{}", self.alert, self.kind, self.subject)
    }

    /// Returns the id of a message: the same whenever it is derived again.
    pub fn message_id(&self, kind: MessageKind) -> String {
        let opened = self.opened_at.unwrap_or(Timestamp::EPOCH).as_millis();
        let name = format!("{}|{opened}|{}", self.key(), kind.as_str());
        Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).to_string()
    }

    /// Applies the present cause, or that there is none. Returns the messages to send now; while `muted`, none, and those that are
    /// still true follow afterwards.
    pub fn advance(
        &mut self,
        cause: Option<&Cause>,
        timing: Timing,
        muted: bool,
        now: Timestamp,
    ) -> Vec<MessageKind> {
        let is_another = cause.is_some_and(|cause| self.stream.is_some() && self.stream != cause.stream);
        if is_another && self.is_worth_another(timing, now) {
            self.close(now);
            self.present = false;
            let messages = self.messages(timing, muted, now);
            // The next step opens the other stream, so that its messages have ids of their own.
            self.due = Some(now);
            return messages;
        }
        match (self.present, cause) {
            (false, Some(cause)) => self.appear(cause, timing, now),
            (true, Some(cause)) if is_another => self.appear(cause, timing, now),
            (true, None) => self.disappear(timing, now),
            _ => {}
        }
        if let Some(cause) = cause {
            self.describe(cause);
        }
        self.reach_deadlines(now);
        self.messages(timing, muted, now)
    }

    /// Whether a stream that follows another one is reported by itself, and not as a part of what was reported a moment ago.
    fn is_worth_another(&self, timing: Timing, now: Timestamp) -> bool {
        let is_old = |opened: Timestamp| now.since(opened) >= timing.recover_after;
        self.phase == Phase::Open && !self.flapping && self.opened_at.is_some_and(is_old)
    }

    fn appear(&mut self, cause: &Cause, timing: Timing, now: Timestamp) {
        self.present = true;
        self.appearances.push(now);
        self.forget(now);
        match self.phase {
            Phase::Idle | Phase::Pending => {
                self.phase = Phase::Pending;
                self.since = cause.since.min(now);
                self.sources.clear();
                let held = self.since.plus(timing.hold);
                self.due = Some(held.max(now.plus(self.kind.group_wait())));
            }
            Phase::Open => self.due = self.flapping.then(|| now.plus(FLAP_WINDOW)),
        }
    }

    fn disappear(&mut self, timing: Timing, now: Timestamp) {
        self.present = false;
        match self.phase {
            Phase::Idle | Phase::Pending => {
                self.phase = Phase::Idle;
                self.due = None;
            }
            Phase::Open => {
                let stable = if self.flapping {
                    FLAP_WINDOW
                } else {
                    Duration::ZERO
                };
                self.due = Some(now.plus(timing.recover_after.max(stable)));
            }
        }
    }

    fn describe(&mut self, cause: &Cause) {
        self.class.clone_from(&cause.class);
        self.detail.clone_from(&cause.detail);
        self.stream.clone_from(&cause.stream);
        // Sources that have recovered were affected, too.
        let room = LISTED.saturating_sub(self.sources.len());
        let new = cause
            .sources
            .iter()
            .filter(|(source, _)| !self.sources.contains_key(source));
        let new: Vec<_> = new
            .take(room)
            .map(|(source, name)| (source.clone(), name.clone()))
            .collect();
        self.sources.extend(new);
        self.affected = self.sources.len().max(cause.sources.len());
    }

    fn reach_deadlines(&mut self, now: Timestamp) {
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        self.due = None;
        match self.phase {
            Phase::Idle => {}
            Phase::Pending => {
                self.phase = Phase::Open;
                self.opened_at = Some(now);
                self.closed_at = None;
            }
            Phase::Open if self.present => self.settle(now),
            Phase::Open => self.close(now),
        }
    }

    /// A flapping cause has stayed for a whole window: it is there again, and what follows is counted anew.
    fn settle(&mut self, now: Timestamp) {
        self.flapping = false;
        self.settled = true;
        self.opened_at = Some(now);
        self.since = self.appearances.last().copied().unwrap_or(self.since);
        self.appearances.clear();
    }

    fn close(&mut self, now: Timestamp) {
        self.phase = Phase::Idle;
        self.closed_at = Some(now);
        self.flapping = false;
        self.settled = false;
    }

    fn messages(&mut self, timing: Timing, muted: bool, now: Timestamp) -> Vec<MessageKind> {
        if muted {
            return Vec::new();
        }
        let flaps = timing.is_damped && !self.flapping && self.appearances.len() >= FLAPS;
        match self.phase {
            Phase::Open if flaps => {
                (self.announced, self.flapping, self.settled) = (true, true, false);
                self.due = Some(now.plus(FLAP_WINDOW));
                vec![MessageKind::Flapping]
            }
            Phase::Open if !self.announced || self.settled => {
                (self.announced, self.settled) = (true, false);
                vec![MessageKind::Open]
            }
            Phase::Idle | Phase::Pending if self.announced => {
                self.announced = false;
                let has_recovery = self.kind.has_recovery();
                has_recovery.then_some(MessageKind::Close).into_iter().collect()
            }
            Phase::Idle | Phase::Pending | Phase::Open => Vec::new(),
        }
    }

    fn forget(&mut self, now: Timestamp) {
        self.appearances.retain(|at| at.is_recent(FLAP_WINDOW, now));
    }

    /// Whether nothing about it needs to be stored any more.
    pub fn is_over(&mut self, now: Timestamp) -> bool {
        self.forget(now);
        self.phase == Phase::Idle && !self.announced && self.appearances.is_empty()
    }
}

#[cfg(test)]
mod tests;
