//! What the completed calls of a conduit lead to.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use tracing::{debug, info};

use super::super::connection::calls::Completed;
use super::super::kinds::Subscription;
use super::super::machine::{Failure, Input};
use super::super::messages::SubscriptionInfo;
use super::super::rest::{Bill, Created};
use super::super::subscription_set::CreateOutcome;
use super::calls::Finished;
use super::shards::{self, Health, ShardInfo};
use super::{ATTACH_AGAIN, CHECK_AGAIN, CHECK_SHARDS, COMPARE, COMPARE_AGAIN, Conduit, SETUP_AGAIN, rest};
use crate::core::code::Code;
use crate::core::observation::ErrorInfo;
use crate::core::source::PlatformName;
use crate::platforms::PlatformError;

impl Conduit {
    pub(super) fn finished(&mut self, finished: Finished) {
        let now = self.now();
        self.dirty = true;
        match finished {
            Finished::Established(Ok(conduit)) => {
                // It is a parameter of requests, which would make it a secret by its form.
                crate::secrets::register_name(&conduit.id);
                info!(
                    conduit = conduit.id,
                    shards = conduit.shard_count,
                    "Using a conduit"
                );
                self.setup_failures = 0;
                self.conduit = Some(conduit);
                self.due.list = Some(now);
                // The session of a lost conduit continues with the next one.
                self.due.attach = self.session().map(|_| now);
                self.health.lost.clone_from(&self.options.own_shards);
            }
            Finished::Established(Err(failure)) => {
                let index = self.setup_failures.min(SETUP_AGAIN.len() - 1);
                self.setup_failures += 1;
                self.due.setup = Some(now + SETUP_AGAIN[index]);
                self.uncover(failure);
            }
            Finished::Attached {
                conduit,
                session,
                shards,
                updated,
            } if self.is_current(&conduit, &session) => self.attached(&session, &shards, updated),
            Finished::Checked { conduit, listed }
                if self.conduit.as_ref().is_some_and(|own| own.id == conduit) =>
            {
                self.checked(listed);
            }
            // About a conduit or session that is no longer used.
            Finished::Attached { .. } | Finished::Checked { .. } => {}
        }
    }

    fn is_current(&self, conduit: &str, session: &str) -> bool {
        self.conduit.as_ref().is_some_and(|own| own.id == conduit)
            && self.session().is_some_and(|own| own == session)
    }

    fn attached(
        &mut self,
        session: &str,
        wanted: &[usize],
        updated: Result<Option<rest::Updated>, PlatformError>,
    ) {
        let now = self.now();
        let failed: BTreeMap<usize, String> = match updated {
            Ok(None) => return self.lost_conduit(),
            Ok(Some(updated)) => shards::failed(&updated, session, wanted),
            Err(error) => wanted.iter().map(|shard| (*shard, error.to_string())).collect(),
        };
        self.not_attached = failed
            .iter()
            .next()
            .map(|(shard, reason)| format!("shard {shard}: {reason}"));
        if let Some(reason) = &self.not_attached {
            debug!(connection = self.name, reason, "Shards were not assigned");
            let is_up = self.state.is_up();
            self.due.attach = Some(now + if is_up { CHECK_AGAIN } else { ATTACH_AGAIN });
        }
        let succeeded = wanted.iter().any(|shard| !failed.contains_key(shard));
        self.health.lost = failed.into_keys().collect();
        if succeeded {
            self.step(Input::Accepted(session.to_owned()));
            // Only the list shows whether all shards are enabled, those of other processes included.
            self.due.shards = Some(now);
        }
    }

    fn checked(&mut self, listed: Result<Option<Vec<ShardInfo>>, PlatformError>) {
        let now = self.now();
        let listed = match listed {
            Ok(Some(listed)) => listed,
            Ok(None) => return self.lost_conduit(),
            Err(error) => {
                debug!(connection = self.name, error = %error, "The shards cannot be listed");
                self.due.shards = Some(now + CHECK_AGAIN);
                return;
            }
        };
        let Some(conduit) = &self.conduit else { return };
        let (count, session) = (conduit.shard_count, self.session());
        let before = std::mem::replace(
            &mut self.health,
            Health::of(&listed, count, &self.options.own_shards, session.as_deref()),
        );
        let is_healthy = self.health.disabled.is_empty() && self.health.lost.is_empty();
        self.due.shards = Some(now + if is_healthy { CHECK_SHARDS } else { CHECK_AGAIN });
        if session.is_some() && self.state.is_up() && !self.health.lost.is_empty() {
            self.due.attach = self.due.attach.or(Some(now));
        }
        let is_restored = before
            .disabled
            .iter()
            .any(|shard| !self.health.disabled.contains(shard));
        if self.delivers() {
            if !self.is_covering || is_restored {
                self.cover();
            }
        } else if self.is_covering {
            let reason = if self.health.disabled.is_empty() {
                format!("another session receives shards {:?}", self.health.elsewhere)
            } else {
                format!("shards {:?} of {count} receive nothing", self.health.disabled)
            };
            self.uncover(Failure::transient(Code::TwitchConduitShards, reason));
        }
    }

    pub(super) fn completed(&mut self, completed: Completed) {
        match completed {
            Completed::Opened(id, Ok(frames), close) => {
                self.closers.insert(id, close);
                self.frames.push(frames);
                self.step(Input::Opened(id));
            }
            Completed::Opened(socket, Err((failure, permanent)), _) => self.step(Input::NotOpened {
                socket,
                failure,
                permanent,
            }),
            Completed::Created(conduit, subscription, created) => {
                if self.conduit.as_ref().is_some_and(|own| own.id == conduit) {
                    self.created(&subscription, created);
                }
            }
            Completed::Listed { session, listed, .. } => {
                if self.conduit.as_ref().map(|own| &own.id) == session.as_ref() {
                    self.listed(listed);
                }
            }
            Completed::Deleted(Ok(())) => self.subscriptions.capacity_freed(self.clocks.now()),
            Completed::Deleted(Err(error)) => {
                debug!(connection = self.name, error = %error, "A subscription was not deleted");
            }
        }
    }

    fn created(&mut self, subscription: &Subscription, created: Created) {
        self.dirty = true;
        let now = self.now();
        // An adopted subscription comes without its cost. The limit of conduits is another one than that of sockets.
        if let Created::Enabled { cost, bill, .. } = &created
            && bill.total.is_some()
        {
            self.cx.hub.record_cost(subscription, *cost, Bill::default());
        }
        match self.subscriptions.created(subscription, created, now) {
            CreateOutcome::Accepted => self.accepted(subscription),
            CreateOutcome::CompareList => self.due.list = self.due.list.map(|at| at.min(now + ATTACH_AGAIN)),
            CreateOutcome::SessionGone => self.lost_conduit(),
            CreateOutcome::NotAccepted { code, reason } => {
                let at = self.twitch_now();
                self.reports.not_accepted(subscription, code, &reason, at);
            }
            CreateOutcome::Unauthorized(reason) => {
                let code = Code::Unauthorized(PlatformName::Twitch);
                self.last_error = Some(ErrorInfo::new(code, &reason));
            }
            CreateOutcome::Waiting | CreateOutcome::TooManySockets(_) => {}
        }
    }

    /// Compares Twitch's list with ours.
    fn listed(&mut self, listed: Result<(Vec<SubscriptionInfo>, Bill), PlatformError>) {
        let now = self.now();
        let (listed, _) = match listed {
            Ok(listed) => listed,
            Err(error) => {
                debug!(connection = self.name, error = %error, "The subscriptions cannot be listed");
                self.due.list = Some(now + COMPARE_AGAIN);
                return;
            }
        };
        self.is_listed = true;
        let mut found = BTreeMap::new();
        let mut equal = Vec::new();
        for info in listed.iter().filter(|info| info.status == "enabled") {
            let Some(subscription) = Subscription::from_info(info) else {
                continue;
            };
            match found.entry(subscription) {
                Entry::Vacant(entry) => {
                    entry.insert((info.id.clone(), info.cost));
                }
                Entry::Occupied(_) => equal.push(info.id.clone()),
            }
        }
        let (accepted, lost) = self.subscriptions.compare(&found, &equal, now);
        if !lost.is_empty() {
            self.reports.expect(now, self.twitch_now());
        }
        for subscription in accepted {
            self.accepted(&subscription);
        }
        let is_waiting = !self.options.keeps_subscriptions() && !self.subscriptions.is_complete();
        self.due.list = Some(now + if is_waiting { COMPARE_AGAIN } else { COMPARE });
        self.dirty = true;
    }
}
