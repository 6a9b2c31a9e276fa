//! The configuration in force: read again on SIGHUP, with names asked for again that had no answer.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

use crate::app::App;
use crate::config::Configuration;
use crate::failure::{ExitCode, Failure};
use crate::watch::engine::Engine;

/// How often names that could not be resolved are asked for again.
const ASK_AGAIN: Duration = Duration::from_mins(5);

/// The configuration in force: a SIGHUP replaces it.
pub(super) type Current = Arc<RwLock<Arc<App>>>;

/// Returns the program as the configuration in force has it.
pub(super) fn current(app: &Current) -> Arc<App> {
    Arc::clone(&app.read().unwrap_or_else(PoisonError::into_inner))
}

/// Reads the configuration again when asked to, and asks again for names that had no answer.
pub(super) async fn follow(
    in_force: &Current,
    engine: &Engine,
    mut reloads: watch::Receiver<u64>,
    reload: Box<dyn Fn() -> Configuration + Send + Sync>,
) {
    // It owns the adapters: they know what is left of each budget, so a reload does not make new ones.
    let first = current(in_force);
    loop {
        let app = current(in_force);
        let asked = tokio::select! {
            changed = reloads.changed() => match changed {
                Ok(()) => true,
                Err(_) => std::future::pending().await,
            },
            () = tokio::time::sleep(ASK_AGAIN), if !app.sources().unresolved.is_empty() => false,
        };
        let app = if asked {
            match next(&app, reload()) {
                Ok(next) => Arc::new(next),
                Err(failure) => {
                    warn!("The changed configuration is refused and the old one stays: {failure}");
                    continue;
                }
            }
        } else {
            app
        };
        let platforms = match first.platforms().await {
            Ok(platforms) => platforms,
            Err(failure) => {
                warn!("Sources cannot be looked up: {failure}");
                continue;
            }
        };
        match app.attendees(&platforms).await {
            Ok(sources) => {
                first.adopt(&app);
                engine.reconfigure(sources, app.settings.schedule.cron.clone());
                *in_force.write().unwrap_or_else(PoisonError::into_inner) = app;
                if asked {
                    info!(
                        sources = engine.attended.count(),
                        "The configuration was read again; what is not about sources or schedules counts at the next start"
                    );
                }
            }
            Err(failure) => warn!("Names cannot be looked up: {failure}"),
        }
    }
}

fn next(current: &App, configuration: Configuration) -> Result<App, Failure> {
    let settings = configuration.checked()?;
    if settings.sources.is_empty() {
        return Err(Failure::new(
            ExitCode::Configuration,
            "no source is configured any more",
        ));
    }
    let mut next = App::new(settings, Arc::clone(&current.clock), None)?;
    // Names are kept where they were; moving the directory takes a restart.
    next.settings.state_dir.clone_from(&current.settings.state_dir);
    Ok(next)
}
