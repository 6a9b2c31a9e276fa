//! When to look: cron expressions turned into ticks by `tokio-cron-scheduler`, which is used for nothing else.
//!
//! A tick only asks a lane to look; the lane owns the work. The scheduler polls twice a second, runs jobs over each other
//! and waits for none of them at its end, which is harmless for jobs that finish at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tracing::{info, warn};

use super::lanes::Lanes;
use crate::clock::Chance;
use crate::core::schedule::Cron;
use crate::lifecycle::Stop;
use crate::platforms::{Probe, ProbeSet};

/// The order in which probes are asked for at the start: what the others depend on comes first.
const FIRST: [Probe; 5] = [
    Probe::Auth,
    Probe::Connection,
    Probe::Stream,
    Probe::Viewers,
    Probe::Permissions,
];

/// Turns schedules into ticks until the stop. Every probe is asked for once at the start; after a jump of the clock the
/// scheduler is started anew, because it sleeps until a moment that may now be far away.
pub async fn run(
    schedules: BTreeMap<Probe, Cron>,
    lanes: Arc<Lanes>,
    mut jumps: watch::Receiver<u64>,
    chance: Chance,
    stop: Stop,
) -> Result<(), JobSchedulerError> {
    let first: ProbeSet = FIRST
        .into_iter()
        .filter(|probe| schedules.contains_key(probe))
        .collect();
    lanes.ask(&first);
    loop {
        let mut source = start(&schedules, &lanes, &chance).await?;
        let jumped = tokio::select! {
            () = stop.requested() => false,
            changed = jumps.changed() => changed.is_ok(),
        };
        // It waits for nothing, and ticks that it still hands out hurt nobody.
        if let Err(error) = source.shutdown().await {
            warn!(error = %error, "The tick source did not end cleanly");
        }
        if !jumped {
            stop.requested().await;
            return Ok(());
        }
        info!("The clock jumped; schedules start anew, and everything is looked at");
        lanes.ask(&first);
    }
}

async fn start(
    schedules: &BTreeMap<Probe, Cron>,
    lanes: &Arc<Lanes>,
    chance: &Chance,
) -> Result<JobScheduler, JobSchedulerError> {
    let source = JobScheduler::new().await?;
    for (probe, cron) in schedules {
        let (lanes, probe) = (Arc::clone(lanes), *probe);
        let job = Job::new_async(cron.as_str(), move |_, _| {
            lanes.ask(&ProbeSet::from([probe]));
            Box::pin(async {})
        })?;
        source.add(job).await?;
    }
    // Many daemons that start together must not look together.
    tokio::time::sleep(Duration::from_millis(200).mul_f64(chance.fraction())).await;
    source.start().await?;
    Ok(source)
}
