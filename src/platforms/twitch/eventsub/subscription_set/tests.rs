//! The states of subscriptions, answer by answer.

use crate::core::code::Code;
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

fn desiring(channels: &[&str]) -> SubscriptionSet {
    let mut subscriptions = SubscriptionSet::default();
    subscriptions.desire(channels.iter().map(|channel| on(channel)).collect(), 0);
    subscriptions
}

#[test]
fn one_is_tried_first_and_ten_at_a_time_follow() {
    let channels: Vec<_> = (0..30).map(|id| id.to_string()).collect();
    let channels: Vec<_> = channels.iter().map(String::as_str).collect();
    let mut subscriptions = desiring(&channels);
    assert_eq!(subscriptions.take_due(0), [on("0")]);
    assert_eq!(subscriptions.take_due(0), []);
    assert_eq!(
        subscriptions.created(&on("0"), enabled("a"), 0),
        CreateOutcome::Accepted
    );
    assert_eq!(subscriptions.take_due(0).len(), 10);
    assert_eq!(subscriptions.take_due(0).len(), 0);
}

#[test]
fn a_fresh_session_makes_everything_again_but_what_was_refused() {
    let mut subscriptions = desiring(&["1", "2", "3"]);
    subscriptions.take_due(0);
    subscriptions.created(&on("1"), enabled("a"), 0);
    subscriptions.take_due(0);
    let no = Created::Refused {
        code: Code::Forbidden(PlatformName::Twitch),
        reason: "r".to_owned(),
    };
    subscriptions.created(&on("2"), no, 0);
    subscriptions.start_over(10);
    assert_eq!(subscriptions.take_due(10), [on("1")]);
    // An answer to the old session's creation of 3 is not mistaken for one of the new session.
    assert_eq!(
        subscriptions.created(&on("3"), enabled("old"), 10),
        CreateOutcome::Waiting
    );
    subscriptions.created(&on("1"), enabled("b"), 10);
    assert_eq!(subscriptions.take_due(10), [on("3")]);
    assert_eq!(
        subscriptions.take_due(REFUSED_FOR),
        [on("2")],
        "refusals are tried again some day"
    );
}

#[test]
fn points_in_use_are_waited_for_and_then_given_up() {
    let mut subscriptions = desiring(&["1"]);
    let mut now = 0;
    for wait in CROWDED_FOR {
        assert_eq!(subscriptions.take_due(now), [on("1")]);
        assert_eq!(
            subscriptions.created(&on("1"), Created::CostExceeded, now),
            CreateOutcome::CompareList
        );
        assert_eq!(subscriptions.take_due(now + wait - 1), []);
        now += wait;
    }
    subscriptions.take_due(now);
    let verdict = subscriptions.created(&on("1"), Created::CostExceeded, now);
    assert!(
        matches!(verdict, CreateOutcome::NotAccepted { code, .. } if code == Code::TwitchSubscriptionLimit)
    );
    assert!(subscriptions.all_refused().is_some() && subscriptions.is_complete());
}

fn later(code: Code) -> Created {
    Created::Later {
        after: Duration::from_secs(20),
        code,
        reason: String::new(),
    }
}

#[test]
fn failed_creation_is_retried_with_backoff_before_any_other() {
    let mut subscriptions = desiring(&["1", "2", "3"]);
    let mut now = 0;
    for (tries, wait) in [1_000, 2_000, 4_000, 8_000].into_iter().enumerate() {
        assert_eq!(subscriptions.take_due(now), [on("1")], "{tries}");
        let failed = if tries == 1 {
            Created::Unclear {
                reason: String::new(),
            }
        } else {
            later(Code::Http(502))
        };
        subscriptions.created(&on("1"), failed, now);
        assert_eq!(subscriptions.idle_until(), Some(now + wait));
        assert_eq!(subscriptions.take_due(now + wait - 1), []);
        now += wait;
    }
    assert_eq!(subscriptions.delayed().unwrap().code, Code::Http(502));
    subscriptions.start_over(now);
    assert_eq!(subscriptions.take_due(now), [on("1")]);
    subscriptions.created(&on("1"), enabled("a"), now);
    assert_eq!(subscriptions.take_due(now).len(), 2, "the others follow at once");
    assert_eq!(subscriptions.delayed(), None);
    // Once something is accepted, a failure affects only the failing subscription.
    subscriptions.created(&on("2"), later(Code::Http(502)), now);
    assert_eq!(subscriptions.take_due(now + 19_999), []);
    assert_eq!(subscriptions.take_due(now + 20_000), [on("2")]);
}

#[test]
fn rate_limit_is_waited_for_as_long_as_it_says() {
    let mut subscriptions = desiring(&["1"]);
    subscriptions.take_due(0);
    assert_eq!(
        subscriptions.created(&on("1"), later(Code::RateLimited(PlatformName::Twitch)), 0),
        CreateOutcome::Waiting
    );
    assert_eq!(
        (subscriptions.deadline(), subscriptions.take_due(19_999)),
        (Some(20_000), vec![])
    );
    assert_eq!(subscriptions.take_due(20_000), [on("1")]);
}

#[test]
fn list_reveals_active_lost_and_surplus_subscriptions() {
    let mut subscriptions = desiring(&["1", "2"]);
    subscriptions.take_due(0);
    subscriptions.created(&on("1"), enabled("a"), 0);
    subscriptions.take_due(0);
    subscriptions.created(&on("2"), Created::Exists { id: None }, 0);
    let listed = BTreeMap::from([(on("2"), ("b".to_owned(), 1)), (on("9"), ("c".to_owned(), 1))]);
    let (incoming, lost) = subscriptions.compare(&listed, &["dead".to_owned()], 5);
    assert_eq!((incoming, lost), (vec![on("2")], vec![on("1")]));
    let surplus: Vec<_> = subscriptions.take_surplus().into_iter().collect();
    assert_eq!(surplus, ["c", "dead"]);
    assert_eq!(subscriptions.take_due(5), [on("1")]);
}

#[test]
fn what_is_no_longer_wanted_is_deleted_even_if_it_comes_late() {
    let mut subscriptions = desiring(&["1", "2"]);
    subscriptions.take_due(0);
    subscriptions.created(&on("1"), enabled("a"), 0);
    subscriptions.take_due(0);
    subscriptions.desire(Vec::new(), 0);
    subscriptions.created(&on("2"), enabled("b"), 0);
    let surplus: Vec<_> = subscriptions.take_surplus().into_iter().collect();
    assert_eq!(surplus, ["a", "b"]);
    assert!(subscriptions.is_complete());
}

#[test]
fn channel_with_missed_events_is_subscribed_again() {
    let mut subscriptions = desiring(&["1", "2"]);
    subscriptions.take_due(0);
    subscriptions.created(&on("1"), enabled("a"), 0);
    subscriptions.renew("1", 7);
    assert_eq!(subscriptions.take_surplus().len(), 1);
    assert_eq!(subscriptions.take_due(7)[0], on("1"));
    assert_eq!(subscriptions.coverage("1"), Coverage::Pending);
    assert!(!subscriptions.knows("a"));
}

#[test]
fn subscription_over_cost_limit_retries_once_points_are_freed() {
    let mut subscriptions = desiring(&["1", "2"]);
    subscriptions.take_due(0);
    subscriptions.created(&on("1"), enabled("a"), 0);
    subscriptions.take_due(0);
    subscriptions.created(&on("2"), Created::CostExceeded, 0);
    assert_eq!(subscriptions.take_due(5), []);
    subscriptions.capacity_freed(5);
    assert_eq!(subscriptions.take_due(5), [on("2")]);
}

#[test]
fn refusal_of_the_old_token_does_not_outlast_a_login() {
    let forbidden = || Created::Refused {
        code: Code::Forbidden(PlatformName::Twitch),
        reason: "r".to_owned(),
    };
    let unauthorized = || Created::Unauthorized {
        reason: "invalid access token".to_owned(),
    };
    for answer in [forbidden, unauthorized] {
        let mut subscriptions = desiring(&["1"]);
        subscriptions.take_due(0);
        // The request of the creation had been sent when the token changed.
        subscriptions.retry_refused(5);
        assert_eq!(
            subscriptions.created(&on("1"), answer(), 6),
            CreateOutcome::Waiting
        );
        assert_eq!(subscriptions.take_due(6), [on("1")]);
        // The new token is refused itself.
        assert_ne!(
            subscriptions.created(&on("1"), answer(), 7),
            CreateOutcome::Waiting
        );
        assert_eq!(subscriptions.take_due(8), []);
    }
}

#[test]
fn late_revocation_does_not_concern_a_newer_subscription() {
    let mut subscriptions = desiring(&["1"]);
    subscriptions.take_due(0);
    subscriptions.created(&on("1"), enabled("new"), 0);
    let code = Code::TwitchAuthorizationRevoked;
    assert!(!subscriptions.revoked(&on("1"), "old", code, "r", 60_000, 5));
    assert!(subscriptions.knows("new"));
    assert!(subscriptions.revoked(&on("1"), "new", code, "r", 60_000, 5));
    assert!(!subscriptions.knows("new"));
}
