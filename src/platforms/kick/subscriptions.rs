//! Event subscriptions: compares the wanted ones with those that Kick lists, and creates or deletes the difference.
//!
//! Subscriptions belong to the application, so two deployments of one application see each other's. Only those of our own
//! sources are ever changed.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::{Value, json};

use super::KickPlatform;
use super::answer::{read, unreadable};
use super::api::LIST_AT_ONCE;
use super::client::Call;
use super::facts::{self, BY_API};
use super::webhook::{CHAT, METADATA, STATUS};
use super::wire::{Envelope, Subscribed as Item, Subscription, items};
use crate::core::code::Code;
use crate::core::observation::{Observation, Transport};
use crate::core::source::{PlatformName, SourceKey, by_number};
use crate::core::time::Timestamp;
use crate::platforms::kit::lenient::{self, Rows};
use crate::platforms::kit::meter::Meter;
use crate::platforms::{PlatformError, ProbeSink};
use crate::secrets;

const PATH: &str = "/public/v1/events/subscriptions";
/// The events to subscribe to, the most important first.
const EVENTS: [&str; 3] = [STATUS, METADATA, CHAT];
/// Maximum ids in one request to delete; 330 have been refused, 50 work.
const DELETED_AT_ONCE: usize = 50;

/// Planned changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Plan {
    /// Missing events by channel.
    create: BTreeMap<u64, Vec<&'static str>>,
    /// Ids of surplus subscriptions.
    delete: Vec<String>,
}

/// Compares the wanted channels with the list. Of several equal subscriptions the oldest is kept; those of channels to `renew`
/// are created again.
fn plan(listed: &[Subscription], wanted: &BTreeSet<u64>, renew: &BTreeSet<u64>) -> Plan {
    let mut plan = Plan::default();
    for channel in wanted {
        for event in EVENTS {
            let mut ids: Vec<_> = listed
                .iter()
                .filter(|known| known.broadcaster_user_id == *channel && known.event == event)
                .map(|known| known.id.clone())
                .collect();
            ids.sort_unstable();
            let keep = usize::from(!renew.contains(channel)).min(ids.len());
            if keep == 0 {
                plan.create.entry(*channel).or_default().push(event);
            }
            plan.delete.extend(ids.drain(keep..));
        }
    }
    plan
}

/// Returns how many requests of a minute may change subscriptions while `channels` are polled once a minute: what polls leave,
/// minus a reserve for names and tokens; at least a third, or many channels would never be subscribed.
fn share(per_minute: u32, channels: usize) -> usize {
    let size = usize::try_from(per_minute).unwrap_or(usize::MAX);
    let polls = channels.div_ceil(LIST_AT_ONCE);
    let reserve = 2 + size / 5;
    size.saturating_sub(polls + reserve).max(size / 3).max(1)
}

/// Result of reconciling.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reconciled {
    /// Subscriptions that were created.
    pub created: usize,
    /// Subscriptions that were deleted.
    pub deleted: usize,
    /// Channels left for the next run, because this one has used its share of requests.
    pub left: usize,
    /// Problems to show to users.
    pub problems: Vec<String>,
}

impl KickPlatform {
    /// Returns how many requests may change subscriptions in a run that follows another one after a minute.
    pub fn share_for_changes(&self, channels: usize) -> usize {
        share(self.options.requests_per_minute, channels)
    }

    /// Changes Kick's list of subscriptions to match `wanted`, with at most `most_calls` requests that change it.
    /// Those of `renew` are deleted and created again. Reports for each channel whether webhooks can be expected.
    ///
    /// To be called at the start and every 15 minutes: switching webhooks off in Kick's settings deletes all subscriptions,
    /// and so does a day of failed deliveries.
    pub async fn reconcile_webhooks(
        &self,
        wanted: &[SourceKey],
        renew: &[SourceKey],
        most_calls: usize,
        sink: &dyn ProbeSink,
    ) -> Result<Reconciled, PlatformError> {
        let keys = by_number(PlatformName::Kick, wanted);
        let renew = renew.iter().filter_map(|key| key.id().parse().ok()).collect();
        let meter = Meter::default();
        let (mut listed, mut at) = self.list_subscriptions(&meter).await?;
        let plan = plan(&listed, &keys.keys().copied().collect(), &renew);
        let mut done = Reconciled::default();
        let mut calls = most_calls;
        for ids in plan.delete.chunks(DELETED_AT_ONCE) {
            if calls == 0 {
                break;
            }
            calls -= 1;
            self.delete_subscriptions(ids, &meter).await?;
            done.deleted += ids.len();
        }
        let mut refused: BTreeMap<u64, String> = BTreeMap::new();
        let mut existed = false;
        let mut untried: BTreeSet<u64> = plan.create.keys().copied().collect();
        for (channel, events) in &plan.create {
            if calls == 0 {
                break;
            }
            calls -= 1;
            untried.remove(channel);
            match self.subscribe(*channel, events, &meter).await {
                Ok(errors) => {
                    done.created += events.len() - errors.len();
                    if !errors.is_empty() {
                        refused.insert(*channel, errors.join("; "));
                    }
                }
                // It already existed, although the list left it out: the next list shows it.
                Err(PlatformError::Rejected { status: 409, .. }) => existed = true,
                // About this channel or event, not about the application.
                Err(PlatformError::Rejected {
                    status: 400, reason, ..
                }) => {
                    refused.insert(*channel, reason);
                }
                Err(error) => return Err(error),
            }
        }
        if existed || done.created + done.deleted > 0 {
            // A response of 200 does not guarantee it; the list is the proof.
            (listed, at) = self.list_subscriptions(&meter).await?;
        }
        done.left = untried.len();
        for (channel, key) in keys.iter().filter(|(channel, _)| !untried.contains(channel)) {
            emit(key, *channel, &listed, refused.get(channel), at, sink);
        }
        done.problems = refused
            .into_iter()
            .map(|(channel, reason)| format!("kick:{channel}: {reason}"))
            .collect();
        Ok(done)
    }

    /// Returns how many of the subscriptions that `wanted` needs are listed, and how many are needed. Changes nothing.
    pub async fn webhooks_listed(&self, wanted: &[SourceKey]) -> Result<(usize, usize), PlatformError> {
        let channels = by_number(PlatformName::Kick, wanted).into_keys().collect();
        let (listed, _) = self.list_subscriptions(&Meter::default()).await?;
        let missing: usize = plan(&listed, &channels, &BTreeSet::new())
            .create
            .values()
            .map(Vec::len)
            .sum();
        let all = channels.len() * EVENTS.len();
        Ok((all - missing, all))
    }

    async fn list_subscriptions(
        &self,
        meter: &Meter<'_>,
    ) -> Result<(Vec<Subscription>, Timestamp), PlatformError> {
        let call = Call::get(PATH, &[], "the list of event subscriptions");
        let operation = call.operation;
        let answer = self.api.as_app(call, meter).await?;
        let parsed: Envelope<Rows<Subscription>> = read(&answer, operation)?;
        let rows = parsed.data;
        // A row that cannot be parsed may be one of our subscriptions; creating it again would make a second one.
        if !rows.unread.is_empty() {
            let reason = format!("{} of its rows cannot be read", rows.unread.len());
            return Err(unreadable(operation, reason));
        }
        Ok((rows.read, answer.received_at))
    }

    async fn delete_subscriptions(&self, ids: &[String], meter: &Meter<'_>) -> Result<(), PlatformError> {
        let query: Vec<_> = ids.iter().map(|id| ("id", id.clone())).collect();
        let call = Call {
            method: Method::DELETE,
            ..Call::get(PATH, &query, "the deletion of event subscriptions")
        };
        self.api.as_app(call, meter).await.map(|_| ())
    }

    /// Creates subscriptions; returns the errors of single events. Success of the whole is no evidence about them.
    async fn subscribe(
        &self,
        channel: u64,
        events: &[&str],
        meter: &Meter<'_>,
    ) -> Result<Vec<String>, PlatformError> {
        let events: Vec<_> = events
            .iter()
            .map(|name| json!({"name": name, "version": 1}))
            .collect();
        let wish = json!({"broadcaster_user_id": channel, "method": "webhook", "events": events});
        let call = Call {
            method: Method::POST,
            json: Some(&wish),
            // Sending it twice has created two subscriptions.
            repeatable: false,
            ..Call::get(PATH, &[], "an event subscription")
        };
        let answer = self.api.as_app(call, meter).await?;
        // A response without a body, or with another structure, is accepted as well: the list is the proof.
        let parsed = answer.object::<Envelope<Value>>().ok();
        let parsed = parsed.and_then(items).unwrap_or_default();
        let parsed = parsed
            .into_iter()
            .filter_map(|item| lenient::row::<Item>(item).ok());
        let mut errors = Vec::new();
        for item in parsed {
            if item.error.is_empty() {
                continue;
            }
            // The response is a success, which is not masked as a whole.
            errors.push(secrets::quote(&format!("{}: {}", item.name, item.error)));
        }
        Ok(errors)
    }
}

/// Reports whether webhooks of a channel can be expected. The start and end of streams are required; other missing events are
/// no reason to report the source as disconnected.
fn emit(
    key: &SourceKey,
    channel: u64,
    listed: &[Subscription],
    refused: Option<&String>,
    at: Timestamp,
    sink: &dyn ProbeSink,
) {
    let missing: Vec<_> = EVENTS
        .into_iter()
        .filter(|event| {
            let of = |known: &Subscription| known.broadcaster_user_id == channel && known.event == *event;
            !listed.iter().any(of)
        })
        .collect();
    let why = refused.map(|reason| format!(" ({reason})")).unwrap_or_default();
    let words = format!("Kick lists no subscription to {}{why}", missing.join(", "));
    let fact = if missing.is_empty() {
        facts::up(Transport::Webhook)
    } else if missing.contains(&STATUS) {
        facts::down(Transport::Webhook, Code::KickSubscriptionMissing, &words)
    } else {
        facts::problem(Code::KickSubscriptionMissing, &words)
    };
    sink.observe(Observation::new(key, at, BY_API, fact));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(items: &[(&str, u64, &str)]) -> Vec<Subscription> {
        let subscription = |(id, channel, event): &(&str, u64, &str)| Subscription {
            id: (*id).to_owned(),
            broadcaster_user_id: *channel,
            event: (*event).to_owned(),
        };
        items.iter().map(subscription).collect()
    }

    #[test]
    fn missing_subscriptions_are_created_and_surplus_deleted() {
        let listed = listed(&[
            ("3", 7, STATUS),
            ("1", 7, STATUS),
            ("2", 7, STATUS),
            ("4", 7, METADATA),
            ("5", 9, STATUS),
            ("6", 7, "kicks.gifted"),
        ]);
        let planned = plan(&listed, &[7, 8].into(), &BTreeSet::new());
        let create = BTreeMap::from([(7, vec![CHAT]), (8, EVENTS.to_vec())]);
        assert_eq!(planned.create, create);
        assert_eq!(planned.delete, ["2", "3"]);
        assert_eq!(plan(&listed, &BTreeSet::new(), &BTreeSet::new()), Plan::default());
    }

    #[test]
    fn changes_take_what_polls_leave_and_at_least_a_third() {
        for (per_minute, channels, expected) in [
            (20, 10, 13),
            (20, 500, 9),
            (20, 2_000, 6),
            (100, 2_000, 58),
            (1, 1, 1),
        ] {
            assert_eq!(
                share(per_minute, channels),
                expected,
                "{channels} channels at {per_minute}"
            );
        }
    }

    #[test]
    fn channel_with_missed_events_gets_new_subscriptions() {
        let listed = listed(&[("1", 7, STATUS), ("2", 7, METADATA), ("3", 7, CHAT)]);
        let planned = plan(&listed, &[7].into(), &[7].into());
        assert_eq!(planned.delete, ["1", "2", "3"]);
        assert_eq!(planned.create[&7], EVENTS);
    }
}
