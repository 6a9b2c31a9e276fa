//! Starts what evaluates alerts, and one task for each receiver and each hook.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::alerts::delivery::{self, Deliverer};
use crate::alerts::engine::AlertEngine;
use crate::alerts::hooks::HookRunner;
use crate::app::App;
use crate::core::source::PlatformName;
use crate::lifecycle::Tasks;
use crate::platforms::{Problem, Subject};
use crate::watch::engine::Engine;
use crate::watch::state_file::Stopped;
use crate::web::Expiries;

/// Starts the tasks. A changed configuration of alerts is used after a restart.
pub(super) fn start(app: &App, engine: &Engine, expiries: &Expiries, tasks: &Tasks) {
    let settings = &app.settings.alerts;
    if !settings.is_used() {
        return;
    }
    let wake = Arc::new(Notify::new());
    let (monitored, expiries) = (engine.monitored.clone(), Arc::clone(expiries));
    let rules = AlertEngine {
        state_file: Arc::clone(engine.state_file()),
        settings: Arc::new(settings.clone()),
        clock: Arc::clone(&app.clock),
        monitored: Arc::new(move || {
            let all = monitored.all();
            let counts = all.iter().map(|(platform, sources)| (*platform, sources.len()));
            counts.collect::<BTreeMap<PlatformName, usize>>()
        }),
        expiries: Arc::new(move || expiries.lock().clone()),
        wake: Arc::clone(&wake),
    };
    tasks.spawn("alerts", |stop| rules.run(stop));
    for rule in &settings.alerts {
        let deliverer = Deliverer {
            state_file: Arc::clone(engine.state_file()),
            http: delivery::client(&rule.receiver, Arc::clone(&app.machine_clock)),
            rule: rule.clone(),
            clock: Arc::clone(&app.clock),
            chance: app.chance.clone(),
            wake: Arc::clone(&wake),
        };
        tasks.spawn(format!("alert-{}", rule.name), |stop| deliverer.run(stop));
    }
    for rule in &settings.hooks {
        let runner = HookRunner {
            state_file: Arc::clone(engine.state_file()),
            rule: rule.clone(),
            clock: Arc::clone(&app.clock),
            wake: Arc::clone(&wake),
        };
        tasks.spawn(format!("hook-{}", rule.name), |stop| runner.run(stop));
    }
}

/// Returns a function that returns the receivers that accept nothing until someone acts, as problems for people.
pub(super) fn problems(app: &App, engine: Option<&Engine>) -> Arc<dyn Fn() -> Vec<Problem> + Send + Sync> {
    let addresses = app.settings.alerts.alerts.iter();
    let addresses: BTreeMap<String, String> = addresses
        .map(|alert| (alert.name.clone(), delivery::fingerprint(&alert.receiver)))
        .collect();
    let Some(file) = engine
        .map(|engine| Arc::clone(engine.state_file()))
        .filter(|_| !addresses.is_empty())
    else {
        return Arc::new(Vec::new);
    };
    Arc::new(move || {
        // A file that cannot be read is reported by the writer.
        let stopped = file.stopped_receivers().unwrap_or_default();
        let stopped = stopped
            .into_iter()
            .filter(|stopped| addresses.get(&stopped.receiver) == Some(&stopped.address));
        let problem = |stopped: Stopped| Problem {
            text: format!(
                "the receiver of the alert {name} does not accept messages ({}); correct its address, then run \
                 `bitbrat alert test {name}`",
                stopped.reason,
                name = stopped.receiver
            ),
            about: Subject::Platform,
            error: None,
        };
        stopped.map(problem).collect()
    })
}
