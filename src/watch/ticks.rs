//! When to look: cron expressions turned into ticks by `tokio-cron-scheduler`, which is used for nothing else.
//!
//! A tick only asks a lane to look; the lane owns the work. The scheduler polls twice a second, runs jobs over each other
//! and waits for none of them at its end, which is harmless for jobs that finish at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tracing::{info, warn};

use super::lanes::Lanes;
use crate::core::schedule::Cron;
use crate::lifecycle::Stop;
use crate::platforms::Probe;

/// When each probe runs.
pub type Timetable = BTreeMap<Probe, Cron>;

/// Turns schedules into ticks until the stop. Every probe is asked for once at the start. After a jump of the clock or a
/// change of the timetable the tick source is started anew: it sleeps until a moment that may now be far away.
pub async fn run(
    mut timetable: watch::Receiver<Timetable>,
    mut jumps: watch::Receiver<u64>,
    lanes: Arc<Lanes>,
    stop: Stop,
) -> Result<(), JobSchedulerError> {
    loop {
        let now = timetable.borrow_and_update().clone();
        lanes.ask(&now.keys().copied().collect());
        let mut source = start(&now, &lanes).await?;
        let again = tokio::select! {
            () = stop.requested() => false,
            Ok(()) = jumps.changed() => true,
            Ok(()) = timetable.changed() => true,
        };
        // It waits for nothing, and ticks that it still hands out hurt nobody.
        if let Err(error) = source.shutdown().await {
            warn!(error = %error, "The tick source did not end cleanly");
        }
        if !again {
            return Ok(());
        }
        info!("Schedules start anew, and everything is looked at");
    }
}

async fn start(timetable: &Timetable, lanes: &Arc<Lanes>) -> Result<JobScheduler, JobSchedulerError> {
    let source = JobScheduler::new().await?;
    for (probe, cron) in timetable {
        let (lanes, probe) = (Arc::clone(lanes), *probe);
        let job = Job::new_async(cron.as_str(), move |_, _| {
            lanes.tick(probe);
            Box::pin(async {})
        })?;
        source.add(job).await?;
    }
    source.start().await?;
    Ok(source)
}
