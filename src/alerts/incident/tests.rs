//! What is sent about one cause over time.

use proptest::prelude::*;

use super::*;

const TIMING: Timing = Timing {
    hold: Duration::ZERO,
    recover_after: Duration::from_secs(60),
    is_damped: true,
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_millis(1_780_000_000_000).plus_secs(second)
}

fn cause(since: i64) -> Cause {
    Cause {
        class: String::new(),
        detail: String::new(),
        stream: None,
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
fn flapping_cause_that_stays_is_reported_again() {
    use MessageKind::{Close, Flapping, Open};
    let flips = (0..4).map(|flip| flip * 60..flip * 60 + 50);
    let mut spans: Vec<_> = flips.collect();
    spans[3].end = 4000;
    let expected = [(30, Open), (180, Flapping), (180 + 1800, Open), (4060, Close)];
    assert_eq!(run(TIMING, &seconds(5000, &spans)), expected);
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
        let (mut open, mut flapping) = (false, false);
        for (_, kind) in &sent {
            match kind {
                // A cause that was reported as flapping and stays is reported again.
                MessageKind::Open => prop_assert!(!std::mem::replace(&mut open, true) || flapping),
                MessageKind::Close => prop_assert!(std::mem::replace(&mut open, false)),
                MessageKind::Flapping => prop_assert!(!flapping),
                MessageKind::Test => prop_assert!(false),
            }
            flapping = *kind == MessageKind::Flapping;
            open |= flapping;
        }
        prop_assert!(!open);
    }
}
