//! Which sources are monitored: those of the configuration, or in a fleet those of them that this member owns.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Engine, Report};
use crate::core::compact::Compact;
use crate::core::source::{PlatformName, SourceKey};
use crate::platforms::ProbeSet;
use crate::watch::fleet::Owned;
use crate::watch::monitored::MonitoredSource;
use crate::watch::ticks::Timetable;

impl Engine {
    /// Applies changed sources and schedules.
    pub fn reconfigure(&self, sources: Vec<MonitoredSource>, timetable: Timetable) {
        let probes: ProbeSet = timetable.keys().copied().collect();
        let rescheduled = self.timetable.send_if_modified(|now| {
            let differs = *now != timetable;
            if differs {
                *now = timetable;
            }
            differs
        });
        self.configured.lock().clone_from(&sources);
        if let Some(owned) = &self.owned {
            let owned = owned.lock().clone();
            return self.own(&owned);
        }
        if self.monitored.set(sources) && !rescheduled {
            self.pollers.ask(&probes);
        }
    }

    /// Returns the id by which the account of a platform's push connections is assigned to a member.
    pub fn account_of(platform: PlatformName) -> String {
        format!("account:{platform}/bot")
    }

    /// Adds a report beside those of the listeners.
    pub fn add_report(&mut self, name: &str, report: Report) {
        self.listeners.push((name.to_owned(), report));
    }

    /// Returns the configured sources that are owned and not monitored yet.
    pub fn gained(&self, owned: &Owned) -> Vec<MonitoredSource> {
        let monitored = self.monitored.all();
        let monitored: HashSet<&SourceKey> = monitored.values().flatten().map(|source| &source.key).collect();
        let configured = self.configured.lock();
        let gained = configured
            .iter()
            .filter(|source| owned.contains(&source.key.to_string()) && !monitored.contains(&source.key));
        gained.cloned().collect()
    }

    /// Monitors the sources that are owned, and no others. Gained ones are probed at once.
    pub fn own(&self, owned: &Owned) {
        if let Some(now) = &self.owned {
            now.lock().clone_from(owned);
        }
        let gained: Vec<SourceKey> = self.gained(owned).into_iter().map(|source| source.key).collect();
        let configured = self.configured.lock().clone();
        let listened = configured
            .iter()
            .filter(|source| owned.contains(&Self::account_of(source.key.platform())));
        self.listened.set(listened.cloned().collect());
        let mine = configured
            .into_iter()
            .filter(|source| owned.contains(&source.key.to_string()));
        self.monitored.set(mine.collect());
        if owned.members() > 0 {
            for platform in &self.platforms {
                platform.divide_rate_limits(owned.members());
            }
        }
        let probes: ProbeSet = self.timetable.borrow().keys().copied().collect();
        self.pollers.ask_now(&gained, &probes);
    }

    /// Merges what a remote store contains about gained sources, before they are probed: their previous owner has recorded it.
    pub fn restore_gained(&self, stored: Vec<(SourceKey, Compact)>) {
        for (source, stored) in stored {
            self.gained_documents.restore(source, stored);
        }
    }

    /// Waits until everything that was observed so far is committed, as far as the disk accepts it.
    pub async fn processed(&self) {
        let sent = self.inputs_sent.load(Ordering::Relaxed);
        while self.stats.inputs.load(Ordering::Relaxed) < sent {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
