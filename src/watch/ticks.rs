//! The schedules of probes, turned into ticks by `tokio-cron-scheduler`, which is used for nothing else.
//!
//! A tick only requests a probe from a poller, which does the work. The scheduler polls twice a second, runs jobs concurrently
//! and does not wait for them when it stops, which is harmless for jobs that finish at once.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tracing::{info, warn};

use super::pollers::Pollers;
use crate::core::schedule::Schedule;
use crate::lifecycle::Stop;
use crate::platforms::Probe;

/// When each probe runs.
pub type Timetable = BTreeMap<Probe, Schedule>;

/// Turns schedules into ticks until the stop. Every probe is requested once at the start. After a clock jump or a change of the
/// timetable the tick source is restarted: it waits for a time that may now be far in the future.
pub async fn run(
    mut timetable: watch::Receiver<Timetable>,
    mut jumps: watch::Receiver<u64>,
    pollers: Arc<Pollers>,
    stop: Stop,
) -> Result<(), JobSchedulerError> {
    loop {
        let now = timetable.borrow_and_update().clone();
        pollers.ask(&now.keys().copied().collect());
        let mut source = start(&now, &pollers).await?;
        let again = tokio::select! {
            () = stop.requested() => false,
            Ok(()) = jumps.changed() => true,
            Ok(()) = timetable.changed() => true,
        };
        // It waits for nothing, and further ticks are harmless.
        if let Err(error) = source.shutdown().await {
            warn!(error = %error, "The tick source did not end cleanly");
        }
        if !again {
            return Ok(());
        }
        info!("Schedules restart; probing every source");
    }
}

async fn start(timetable: &Timetable, pollers: &Arc<Pollers>) -> Result<JobScheduler, JobSchedulerError> {
    let source = JobScheduler::new().await?;
    for (probe, schedule) in timetable {
        let (pollers, probe) = (Arc::clone(pollers), *probe);
        let tick = move |_, _| -> Pin<Box<dyn Future<Output = ()> + Send>> {
            pollers.tick(probe);
            Box::pin(async {})
        };
        let job = match schedule {
            Schedule::Cron(cron) => Job::new_async(cron.as_str(), tick)?,
            Schedule::Every(interval) => Job::new_repeated_async(*interval, tick)?,
        };
        source.add(job).await?;
    }
    source.start().await?;
    Ok(source)
}
