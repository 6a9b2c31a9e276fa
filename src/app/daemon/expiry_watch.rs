//! Warns before an account stops working: seven days, one day and one hour before, once each. What was given is kept in the state
//! directory, so that a restart repeats nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::{debug, warn};

use crate::app::App;
use crate::blocking::blocking;
use crate::core::forecast::ExpiryWarning;
use crate::core::observation::Identity;
use crate::core::time::Timestamp;
use crate::files::{self, Durability, FileAccess};
use crate::lifecycle::{Stop, Tasks};
use crate::tokens::login_command;
use crate::web::Expiries;

const FILE: &str = "account-warnings.json";
/// How often the tokens are read. The shortest warning is an hour ahead.
const INTERVAL: Duration = Duration::from_secs(30);

/// The last warning about each account.
type Given = BTreeMap<String, ExpiryWarning>;

/// Returns when each account stops working, for the metrics. In a process that probes, it is kept up to date, and there are warnings.
pub(super) fn start(app: &Arc<App>, tasks: &Tasks, probes: bool) -> Expiries {
    let expiries = Arc::new(Mutex::default());
    if probes {
        let (app, shared) = (Arc::clone(app), Arc::clone(&expiries));
        tasks.spawn("expiry-watch", |stop| run(app, shared, stop));
    }
    expiries
}

async fn run(app: Arc<App>, expiries: Expiries, stop: Stop) {
    let path = app.settings.state_dir.join(FILE);
    let mut given = {
        let path = path.clone();
        blocking(move || read(&path)).await
    };
    loop {
        // A store that cannot be read is reported by the watch of changed tokens.
        if let Ok(forecasts) = app.platforms.forecasts().await {
            let until = forecasts
                .into_iter()
                .filter_map(|(identity, forecast)| Some((identity, forecast.works_until()?)));
            let until: BTreeMap<Identity, Timestamp> = until.collect();
            let after = warn_of(&given, &until, app.clock.now());
            if after != given {
                given = after;
                let (path, given) = (path.clone(), given.clone());
                if let Err(error) = blocking(move || write(&path, &given)).await {
                    debug!(%error, "The warnings about accounts cannot be stored; a restart repeats them");
                }
            }
            *expiries.lock() = until;
        }
        if !stop.sleep(INTERVAL).await {
            return;
        }
    }
}

/// Logs the warnings that are due, and returns those that were given about accounts that will stop.
fn warn_of(given: &Given, until: &BTreeMap<Identity, Timestamp>, now: Timestamp) -> Given {
    let mut after = Given::new();
    for (identity, works_until) in until {
        let last = given.get(identity.as_str());
        let due = ExpiryWarning::due(*works_until, last, now);
        if let Some(warning) = due {
            let command = login_command(identity.as_str());
            warn!(
                account = %identity, works_until = %works_until, command,
                "Account `{identity}` stops working in less than {}; run `{command}`",
                warning.lead.as_str()
            );
        }
        if let Some(kept) = due.or(last.copied()) {
            after.insert(identity.to_string(), kept);
        }
    }
    after
}

/// A file that cannot be used counts as none: a repeated warning is better than none.
fn read(path: &Path) -> Given {
    let text = files::read_input(path, files::SMALL).ok();
    text.and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default()
}

fn write(path: &Path, given: &Given) -> std::io::Result<()> {
    files::write(path, FileAccess::Owner, Durability::Durable, |file| {
        Ok(serde_json::to_writer(file, given)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_without_an_end_are_forgotten() {
        let now = Timestamp::from_millis(1_780_000_000_000);
        let ends = |names: &[&str]| -> BTreeMap<Identity, Timestamp> {
            let ends = names
                .iter()
                .map(|name| (Identity::named(*name), now.plus_secs(60)));
            ends.collect()
        };
        let first = warn_of(&Given::new(), &ends(&["twitch/bot", "kick/bot"]), now);
        assert_eq!(first.len(), 2);
        let second = warn_of(&first, &ends(&["kick/bot"]), now.plus_secs(1));
        assert_eq!(second.get("kick/bot"), first.get("kick/bot"));
        assert_eq!(second.len(), 1);
    }

    #[test]
    fn damaged_file_counts_as_no_warnings() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        assert!(read(&path).is_empty());
        let now = Timestamp::from_millis(1_780_000_000_000);
        let ends = [(Identity::named("twitch/bot"), now.plus_secs(60))].into();
        let given = warn_of(&Given::new(), &ends, now);
        write(&path, &given).unwrap();
        assert_eq!(read(&path), given);
        std::fs::write(&path, "{\"twitch/bot\": 1").unwrap();
        assert!(read(&path).is_empty());
    }
}
