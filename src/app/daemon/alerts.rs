//! Runs what evaluates alerts, and one task for each receiver and each hook, by the configuration in force.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::alerts::delivery::{self, Deliverer};
use crate::alerts::engine::AlertEngine;
use crate::alerts::hooks::HookRunner;
use crate::alerts::rule::{AlertRule, HookRule};
use crate::alerts::step::hook_receiver;
use crate::app::App;
use crate::config::AlertSettings;
use crate::core::source::PlatformName;
use crate::lifecycle::{Stop, Tasks};
use crate::platforms::{Problem, Subject};
use crate::watch::engine::Engine;
use crate::watch::state_file::{StateFile, StateFileError, Stopped};
use crate::web::Expiries;

/// The alerts and hooks of a running daemon.
pub(super) struct Alerts {
    app: Arc<App>,
    state_file: Arc<StateFile>,
    tasks: Tasks,
    /// Notified when messages wait.
    wake: Arc<Notify>,
    /// The rules in force.
    settings: watch::Sender<Arc<AlertSettings>>,
    /// The tasks of receivers and hooks in force.
    running: Mutex<Stop>,
    /// Held by the task of a receiver or hook: the one that follows it after a reload waits until it has recorded what it sent.
    turns: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Alerts {
    /// Starts the tasks.
    pub(super) fn start(app: &Arc<App>, engine: &Engine, expiries: &Expiries, tasks: &Tasks) -> Self {
        let settings = Arc::new(app.settings.alerts.clone());
        let (monitored, expiries) = (engine.monitored.clone(), Arc::clone(expiries));
        let alerts = Self {
            app: Arc::clone(app),
            state_file: Arc::clone(engine.state_file()),
            tasks: tasks.clone(),
            wake: Arc::default(),
            settings: watch::Sender::new(settings),
            running: Mutex::new(tasks.stop().of_part()),
            turns: Mutex::default(),
        };
        let rules = AlertEngine {
            state_file: Arc::clone(&alerts.state_file),
            settings: alerts.settings.subscribe(),
            clock: Arc::clone(&app.clock),
            monitored: Arc::new(move || {
                let all = monitored.all();
                let counts = all.iter().map(|(platform, sources)| (*platform, sources.len()));
                counts.collect::<BTreeMap<PlatformName, usize>>()
            }),
            expiries: Arc::new(move || expiries.lock().clone()),
            wake: Arc::clone(&alerts.wake),
        };
        tasks.spawn("alerts", |stop| rules.run(stop));
        alerts.run_all();
        alerts
    }

    /// Uses other rules, receivers and hooks from now on.
    pub(super) fn replace(&self, settings: &AlertSettings) {
        self.state_file.set_has_alerts(settings.is_used());
        self.settings.send_replace(Arc::new(settings.clone()));
        let stop = self.tasks.stop().of_part();
        std::mem::replace(&mut *self.running.lock(), stop).request();
        self.run_all();
    }

    fn run_all(&self) {
        let settings = Arc::clone(&self.settings.borrow());
        for rule in &settings.alerts {
            let deliverer = self.deliverer(rule);
            self.run(rule.name.clone(), format!("alert-{}", rule.name), |stop| {
                deliverer.run(stop)
            });
        }
        for rule in &settings.hooks {
            let runner = self.runner(rule);
            self.run(hook_receiver(&rule.name), format!("hook-{}", rule.name), |stop| {
                runner.run(stop)
            });
        }
    }

    fn run<F>(&self, receiver: String, task: String, run: impl FnOnce(Stop) -> F + Send + 'static)
    where
        F: Future<Output = Result<(), StateFileError>> + Send + 'static,
    {
        let turn = Arc::clone(self.turns.lock().entry(receiver).or_default());
        let stop = self.running.lock().clone();
        self.tasks.spawn_finite(task, |_| async move {
            let _turn = tokio::select! {
                turn = turn.lock() => turn,
                () = stop.requested() => return Ok(()),
            };
            run(stop.clone()).await
        });
    }

    fn deliverer(&self, rule: &AlertRule) -> Deliverer {
        Deliverer {
            state_file: Arc::clone(&self.state_file),
            http: delivery::client(&rule.receiver, Arc::clone(&self.app.machine_clock)),
            rule: rule.clone(),
            clock: Arc::clone(&self.app.clock),
            chance: self.app.chance.clone(),
            wake: Arc::clone(&self.wake),
        }
    }

    fn runner(&self, rule: &HookRule) -> HookRunner {
        HookRunner {
            state_file: Arc::clone(&self.state_file),
            rule: rule.clone(),
            clock: Arc::clone(&self.app.clock),
            wake: Arc::clone(&self.wake),
        }
    }

    /// Returns a function that returns the receivers that accept nothing until someone acts, as problems for people.
    pub(super) fn problems(&self) -> Arc<dyn Fn() -> Vec<Problem> + Send + Sync> {
        let (file, settings) = (Arc::clone(&self.state_file), self.settings.subscribe());
        Arc::new(move || {
            let settings = Arc::clone(&settings.borrow());
            if settings.alerts.is_empty() {
                return Vec::new();
            }
            let is_in_force = |stopped: &Stopped| {
                let mut alerts = settings.alerts.iter();
                alerts.any(|alert| {
                    alert.name == stopped.receiver
                        && delivery::fingerprint(&alert.receiver) == stopped.address
                })
            };
            // A file that cannot be read is reported by the writer.
            let stopped = file.stopped_receivers().unwrap_or_default().into_iter();
            let stopped = stopped.filter(is_in_force);
            stopped.map(|stopped| problem(&stopped)).collect()
        })
    }
}

fn problem(stopped: &Stopped) -> Problem {
    Problem {
        text: format!(
            "the receiver of the alert {name} does not accept messages ({}); correct its address, then run \
             `bitbrat alert test {name}`",
            stopped.reason,
            name = stopped.receiver
        ),
        about: Subject::Platform,
        error: None,
    }
}
