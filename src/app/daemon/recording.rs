//! Starts the recording of the traffic with platforms.

use crate::app::App;
use crate::core::observation::Identity;
use crate::core::platform::PlatformName;
use crate::failure::Failure;
use crate::lifecycle::Tasks;
use crate::platforms::descriptor::descriptor;
use crate::traffic::Recording;
use crate::traffic::format::PlatformHeader;
use crate::watch::engine::Engine;

/// Starts writing a recording, which begins with what is monitored and with which accounts.
pub(super) async fn start(
    app: &App,
    engine: &Engine,
    recording: Recording,
    tasks: &Tasks,
) -> Result<(), Failure> {
    let accounts = app.tokens().identities().await?;
    let header = |platform: PlatformName| {
        let sources = engine.monitored.of(platform);
        let prefix = format!("{platform}/");
        let accounts = accounts.iter().map(Identity::as_str);
        PlatformHeader {
            platform,
            sources: sources.iter().map(ToString::to_string).collect(),
            accounts: accounts
                .filter(|identity| identity.starts_with(&prefix))
                .map(str::to_owned)
                .collect(),
            application: descriptor(platform).application(&app.settings).is_some(),
        }
    };
    let headers = PlatformName::ALL.into_iter().map(header);
    let monitored = headers.filter(|header| !header.sources.is_empty());
    recording.start(monitored.collect(), tasks);
    Ok(())
}
