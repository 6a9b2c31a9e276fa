//! What becomes of subscriptions, answer by answer.

use std::time::Duration;

use super::super::kinds::Kind;
use super::super::rest::Bill;
use super::*;

fn on(channel: &str) -> Subscription {
    Subscription::new(Kind::Online, channel)
}

fn enabled(id: &str) -> Created {
    Created::Enabled {
        id: id.to_owned(),
        cost: 1,
        bill: Bill::default(),
    }
}

fn desiring(channels: &[&str]) -> Roster {
    let mut roster = Roster::default();
    roster.desire(channels.iter().map(|channel| on(channel)).collect(), 0);
    roster
}

#[test]
fn one_is_tried_first_and_ten_at_a_time_follow() {
    let channels: Vec<_> = (0..30).map(|id| id.to_string()).collect();
    let channels: Vec<_> = channels.iter().map(String::as_str).collect();
    let mut roster = desiring(&channels);
    assert_eq!(roster.take_due(0), [on("0")]);
    assert_eq!(roster.take_due(0), []);
    assert_eq!(roster.created(&on("0"), enabled("a"), 0), Verdict::Heard);
    assert_eq!(roster.take_due(0).len(), 10);
    assert_eq!(roster.take_due(0).len(), 0);
}

#[test]
fn a_fresh_session_makes_everything_again_but_what_was_refused() {
    let mut roster = desiring(&["1", "2", "3"]);
    roster.take_due(0);
    roster.created(&on("1"), enabled("a"), 0);
    roster.take_due(0);
    let no = Created::Refused {
        code: "c".to_owned(),
        reason: "r".to_owned(),
    };
    roster.created(&on("2"), no, 0);
    roster.start_over(10);
    assert_eq!(roster.take_due(10), [on("1")]);
    // An answer to the old session's creation of 3 is not mistaken for one of the new.
    assert_eq!(roster.created(&on("3"), enabled("old"), 10), Verdict::Waiting);
    roster.created(&on("1"), enabled("b"), 10);
    assert_eq!(roster.take_due(10), [on("3")]);
    assert_eq!(
        roster.take_due(REFUSED_FOR),
        [on("2")],
        "refusals are tried again some day"
    );
}

#[test]
fn points_in_use_are_waited_for_and_then_given_up() {
    let mut roster = desiring(&["1"]);
    let mut now = 0;
    for wait in CROWDED_FOR {
        assert_eq!(roster.take_due(now), [on("1")]);
        assert_eq!(
            roster.created(&on("1"), Created::CostExceeded, now),
            Verdict::Look
        );
        assert_eq!(roster.take_due(now + wait - 1), []);
        now += wait;
    }
    roster.take_due(now);
    let verdict = roster.created(&on("1"), Created::CostExceeded, now);
    assert!(matches!(verdict, Verdict::NotHeard { code, .. } if code == "twitch.eventsub.cost"));
    assert!(roster.all_refused().is_some() && roster.is_settled());
}

#[test]
fn what_fails_for_now_is_tried_later() {
    let mut roster = desiring(&["1"]);
    roster.take_due(0);
    let later = Created::Later {
        after: Duration::from_secs(5),
        reason: String::new(),
    };
    assert_eq!(roster.created(&on("1"), later, 0), Verdict::Waiting);
    assert_eq!((roster.deadline(), roster.take_due(4_999)), (Some(5_000), vec![]));
    assert_eq!(roster.take_due(5_000), [on("1")]);
}

#[test]
fn the_list_tells_what_is_heard_lost_and_too_much() {
    let mut roster = desiring(&["1", "2"]);
    roster.take_due(0);
    roster.created(&on("1"), enabled("a"), 0);
    roster.take_due(0);
    roster.created(&on("2"), Created::Exists, 0);
    let listed = BTreeMap::from([(on("2"), ("b".to_owned(), 1)), (on("9"), ("c".to_owned(), 1))]);
    let (heard, lost) = roster.compare(&listed, &["dead".to_owned()], 5);
    assert_eq!((heard, lost), (vec![on("2")], vec![on("1")]));
    let surplus: Vec<_> = roster.take_surplus().into_iter().collect();
    assert_eq!(surplus, ["c", "dead"]);
    assert_eq!(roster.take_due(5), [on("1")]);
}

#[test]
fn what_is_no_longer_wanted_is_deleted_even_if_it_comes_late() {
    let mut roster = desiring(&["1", "2"]);
    roster.take_due(0);
    roster.created(&on("1"), enabled("a"), 0);
    roster.take_due(0);
    roster.desire(Vec::new(), 0);
    roster.created(&on("2"), enabled("b"), 0);
    let surplus: Vec<_> = roster.take_surplus().into_iter().collect();
    assert_eq!(surplus, ["a", "b"]);
    assert!(roster.is_settled());
}

#[test]
fn a_silent_channel_is_subscribed_to_anew() {
    let mut roster = desiring(&["1", "2"]);
    roster.take_due(0);
    roster.created(&on("1"), enabled("a"), 0);
    roster.renew("1", 7);
    assert_eq!(roster.take_surplus().len(), 1);
    assert_eq!(roster.take_due(7)[0], on("1"));
    assert_eq!(roster.hearing("1"), Hearing::Pending);
    assert!(!roster.knows("a"));
}

#[test]
fn what_waits_for_points_is_tried_again_once_some_were_given_back() {
    let mut roster = desiring(&["1", "2"]);
    roster.take_due(0);
    roster.created(&on("1"), enabled("a"), 0);
    roster.take_due(0);
    roster.created(&on("2"), Created::CostExceeded, 0);
    assert_eq!(roster.take_due(5), []);
    roster.room_was_made(5);
    assert_eq!(roster.take_due(5), [on("2")]);
}
