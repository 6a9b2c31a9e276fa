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
/// The time in which appearances are counted, and for which a flapping cause must be over before its end is reported.
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
    /// When the cause appeared, as far as it counts for flapping.
    pub appearances: Vec<Timestamp>,
    /// The affected sources since it opened, with their display names.
    pub sources: BTreeMap<SourceKey, String>,
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
            appearances: Vec::new(),
            sources: BTreeMap::new(),
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
        match (self.present, cause) {
            (false, Some(cause)) => self.appear(cause, timing, now),
            (true, None) => self.disappear(timing, now),
            _ => {}
        }
        if let Some(cause) = cause {
            self.describe(cause);
        }
        self.reach_deadlines(now);
        self.messages(muted)
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
            Phase::Open => self.due = None,
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
                // What ended as a moment, such as the end of a stream, has no recovery to wait for.
                let wait = if self.kind.has_recovery() {
                    timing.recover_after.max(stable)
                } else {
                    Duration::ZERO
                };
                self.due = Some(now.plus(wait));
            }
        }
    }

    fn describe(&mut self, cause: &Cause) {
        self.class.clone_from(&cause.class);
        self.detail.clone_from(&cause.detail);
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
            Phase::Open => {
                self.phase = Phase::Idle;
                self.closed_at = Some(now);
                self.flapping = false;
            }
        }
    }

    fn messages(&mut self, muted: bool) -> Vec<MessageKind> {
        let mut messages = Vec::new();
        if muted {
            return messages;
        }
        match self.phase {
            Phase::Open if !self.announced => {
                self.announced = true;
                messages.push(MessageKind::Open);
            }
            Phase::Idle | Phase::Pending if self.announced => {
                self.announced = false;
                if self.kind.has_recovery() {
                    messages.push(MessageKind::Close);
                }
            }
            Phase::Idle | Phase::Pending | Phase::Open => {}
        }
        if self.phase == Phase::Open && !self.flapping && self.appearances.len() >= FLAPS {
            self.flapping = true;
            messages.push(MessageKind::Flapping);
        }
        messages
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIMING: Timing = Timing {
        hold: Duration::ZERO,
        recover_after: Duration::from_secs(60),
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(1_780_000_000_000).plus_secs(second)
    }

    fn cause(since: i64) -> Cause {
        Cause {
            class: String::new(),
            detail: String::new(),
            since: at(since),
            sources: [("twitch:1".parse().unwrap(), String::new())].into(),
            effect_of: None,
        }
    }

    fn down() -> Incident {
        Incident::new("ops", &(TriggerKind::SourceDown, "twitch:1".to_owned()))
    }

    /// Advances to each second with a cause or none, and returns the messages with their seconds. The state is written and read
    /// between all steps, as with a restart.
    fn run(timing: Timing, steps: &[(i64, bool)]) -> Vec<(i64, MessageKind)> {
        let mut incident = down();
        let mut since = 0;
        let mut sent = Vec::new();
        for (second, present) in steps {
            if *present && !incident.present {
                since = *second;
            }
            let cause = present.then(|| cause(since));
            let messages = incident.advance(cause.as_ref(), timing, false, at(*second));
            sent.extend(messages.into_iter().map(|kind| (*second, kind)));
            let stored = serde_json::to_string(&incident).unwrap();
            incident = serde_json::from_str(&stored).unwrap();
        }
        sent
    }

    /// Every second up to `end`; there is a cause in the given spans.
    fn seconds(end: i64, spans: &[std::ops::Range<i64>]) -> Vec<(i64, bool)> {
        (0..end)
            .map(|second| (second, spans.iter().any(|span| span.contains(&second))))
            .collect()
    }

    #[test]
    fn cause_that_lasts_is_opened_and_closed_once() {
        use MessageKind::{Close, Open};
        let hold = Timing {
            hold: Duration::from_secs(120),
            ..TIMING
        };
        let one = |span: std::ops::Range<i64>| Vec::from([span]);
        for (timing, spans, expected) in [
            (TIMING, one(10..100), vec![(40, Open), (160, Close)]),
            // Over within the wait for others: nothing was sent.
            (TIMING, one(10..39), vec![]),
            (hold, one(10..129), vec![]),
            (hold, one(10..131), vec![(130, Open), (191, Close)]),
            // A gap below `recover_after` is none.
            (TIMING, vec![10..100, 150..300], vec![(40, Open), (360, Close)]),
        ] {
            assert_eq!(run(timing, &seconds(1000, &spans)), expected, "{spans:?}");
        }
    }

    #[test]
    fn what_lasted_while_no_daemon_ran_is_opened_after_the_group_wait() {
        let hold = Timing {
            hold: Duration::from_secs(120),
            ..TIMING
        };
        let mut incident = down();
        assert!(
            incident
                .advance(Some(&cause(-600)), hold, false, at(0))
                .is_empty()
        );
        assert!(
            incident
                .advance(Some(&cause(-600)), hold, false, at(29))
                .is_empty()
        );
        let sent = incident.advance(Some(&cause(-600)), hold, false, at(30));
        assert_eq!(sent, [MessageKind::Open]);
    }

    #[test]
    fn twenty_flips_in_ten_minutes_are_three_messages() {
        use MessageKind::{Close, Flapping, Open};
        for period in [30, 20, 60] {
            let spans: Vec<_> = (0..20)
                .map(|flip| flip * period..flip * period + period - 10)
                .collect();
            let sent = run(TIMING, &seconds(4000, &spans));
            let kinds: Vec<_> = sent.iter().map(|(_, kind)| *kind).collect();
            assert!(kinds.len() <= 3, "{period}: {sent:?}");
            if period == 60 {
                assert_eq!(kinds, [Open, Flapping, Close]);
            }
        }
    }

    #[test]
    fn end_of_a_mute_sends_only_what_differs() {
        let mut incident = down();
        let (present, open) = (cause(0), MessageKind::Open);
        let mut step =
            |present: Option<&Cause>, muted, second| incident.advance(present, TIMING, muted, at(second));
        step(Some(&present), true, 0);
        assert!(step(Some(&present), true, 60).is_empty());
        assert_eq!(step(Some(&present), false, 90), [open]);
        assert!(step(Some(&present), true, 100).is_empty());
        assert!(step(Some(&present), false, 110).is_empty());
        assert!(step(None, true, 120).is_empty());
        assert!(step(None, true, 300).is_empty());
        assert_eq!(step(None, false, 310), [MessageKind::Close]);
    }

    #[test]
    fn message_ids_follow_from_the_opening() {
        let mut incident = down();
        incident.opened_at = Some(at(1));
        let id = incident.message_id(MessageKind::Open);
        assert_eq!(id, incident.clone().message_id(MessageKind::Open));
        assert_ne!(id, incident.message_id(MessageKind::Close));
        incident.opened_at = Some(at(2));
        assert_ne!(id, incident.message_id(MessageKind::Open));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn opens_and_closes_alternate_and_end_in_the_truth(
            spans in proptest::collection::vec((1_i64..200, 1_i64..200), 0..12),
            hold in 0_u64..100,
        ) {
            let mut second = 0;
            let mut present = Vec::new();
            for (gap, length) in &spans {
                present.push(second + gap..second + gap + length);
                second += gap + length;
            }
            let timing = Timing { hold: Duration::from_secs(hold), ..TIMING };
            let sent = run(timing, &seconds(second + 2500, &present));
            let mut open = false;
            for (_, kind) in &sent {
                match kind {
                    MessageKind::Open => prop_assert!(!std::mem::replace(&mut open, true)),
                    MessageKind::Close => prop_assert!(std::mem::replace(&mut open, false)),
                    MessageKind::Flapping | MessageKind::Test => prop_assert!(open),
                }
            }
            prop_assert!(!open);
        }
    }
}
