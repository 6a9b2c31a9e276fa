//! What listens to platforms while the daemon runs, and what it is given for that.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::attended::Attended;
use super::intake::Intake;
use super::lanes::Lanes;
use crate::core::observation::Observation;
use crate::lifecycle::{Stop, Tasks};

/// Observations of a listener that may wait for us before it stops reading.
const HEARD: usize = 4096;

/// What a listener needs of the daemon.
#[derive(Clone)]
pub struct Ears {
    /// Takes what was heard.
    pub intake: Intake,
    /// What to listen to, and its changes.
    pub attended: Attended,
    /// Looks at once where a listener had a gap.
    pub lanes: Arc<Lanes>,
    pub(super) tasks: Tasks,
}

impl Ears {
    /// Returns a channel into the intake for listeners that wait when their reader is slow.
    pub fn channel(&self, name: &str) -> mpsc::Sender<Observation> {
        use crate::platforms::ProbeSink as _;
        let (sender, mut receiver) = mpsc::channel(HEARD);
        let intake = self.intake.clone();
        self.tasks.spawn_brief(format!("{name}-ear"), |_| async move {
            while let Some(observation) = receiver.recv().await {
                intake.observe(observation);
            }
        });
        sender
    }
}

/// Something that listens to a platform.
pub struct Listening {
    /// Its name, for logs and pages: `twitch-eventsub`.
    pub name: String,
    /// Runs it until the stop.
    pub run: Box<dyn FnOnce(Ears, Stop) -> BoxFuture<'static, ()> + Send>,
    /// Says how it is.
    pub report: Report,
}

/// Says how a listener is.
pub type Report = Arc<dyn Fn() -> ListenerReport + Send + Sync>;

/// How a listener is.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerReport {
    /// Whether it hears what it should.
    pub healthy: bool,
    /// One sentence.
    pub summary: String,
    /// Everything worth knowing, for the debug page. Never a secret.
    pub detail: serde_json::Value,
}
