//! The configuration in force: reads it again on SIGHUP, and repeats the lookup of names that could not be resolved.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::app::App;
use crate::config::Configuration;
use crate::failure::{ExitCode, Failure};
use crate::lifecycle::announce_status;
use crate::watch::engine::Engine;

/// How often the lookup of unresolved names is repeated.
const ASK_AGAIN: Duration = Duration::from_mins(5);

/// The configuration in force: a SIGHUP replaces it.
pub(super) type Current = Arc<RwLock<Arc<App>>>;

/// Returns the application by the configuration in force.
pub(super) fn current(app: &Current) -> Arc<App> {
    Arc::clone(&app.read())
}

/// Reads the configuration again.
pub type Reload = Box<dyn Fn() -> Configuration + Send + Sync>;

/// Reads the configuration again on request, and repeats the lookup of unresolved names.
pub(super) async fn follow(
    in_force: &Current,
    engine: &Engine,
    mut reloads: watch::Receiver<u64>,
    reload: Reload,
) {
    // The first application owns the adapters: they count what is left of each rate limit, so a reload does not create new ones.
    let first = current(in_force);
    loop {
        let app = current(in_force);
        let asked = tokio::select! {
            changed = reloads.changed() => match changed {
                Ok(()) => true,
                Err(_) => std::future::pending().await,
            },
            () = tokio::time::sleep(ASK_AGAIN), if !app.sources.all().unresolved.is_empty() => false,
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
        // A token that the changed configuration contains is new and is detected like any other.
        if asked && let Err(failure) = app.platforms.seed_tokens().await {
            warn!("The tokens of the changed configuration cannot be stored: {failure}");
        }
        let platforms = match first.platforms.needed().await {
            Ok(platforms) => platforms,
            Err(failure) => {
                warn!("Cannot read the sources: {failure}");
                continue;
            }
        };
        match app.sources.monitored(&platforms).await {
            Ok(sources) => {
                first.platforms.reconfigure(&app.settings);
                engine.reconfigure(sources, app.settings.schedule.probes.clone());
                *in_force.write() = app;
                announce_status(&super::watching(engine.monitored.count()));
                if asked {
                    info!(
                        sources = engine.monitored.count(),
                        "The configuration was read again; what is not about sources or schedules counts at the next start"
                    );
                }
            }
            Err(failure) => warn!("Cannot resolve names: {failure}"),
        }
    }
}

fn next(current: &App, configuration: Configuration) -> Result<App, Failure> {
    let mut settings = configuration.checked()?;
    if settings.sources.is_empty() {
        return Err(Failure::new(
            ExitCode::Configuration,
            "no source is configured any more",
        ));
    }
    // The name cache stays where it was; moving the directory takes a restart.
    settings.state_dir.clone_from(&current.settings.state_dir);
    App::new(settings, Arc::clone(&current.machine_clock), None)
}
