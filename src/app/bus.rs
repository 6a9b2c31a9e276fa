//! The bus in this program: the configured one.

use std::sync::Arc;

use super::App;
use crate::bus::EventBus;
use crate::bus::nats::{NatsBus, NatsOptions};
use crate::bus::pubsub::{PubsubBus, PubsubOptions};
use crate::config::BusTarget;
use crate::failure::{ExitCode, Failure};

impl App {
    /// Opens the configured bus; `None` when events stay within the process.
    pub async fn bus(&self) -> Result<Option<Arc<dyn EventBus>>, Failure> {
        let prefix = self.settings.bus.prefix.clone();
        let bus: Result<Arc<dyn EventBus>, _> = match &self.settings.bus.target {
            BusTarget::Local => return Ok(None),
            BusTarget::Nats(servers) => {
                let servers: Vec<&str> = servers.iter().map(url::Url::as_str).collect();
                let options = NatsOptions {
                    ack_wait: self.settings.bus.ack_wait,
                    ..NatsOptions::new(servers.join(","), prefix)
                };
                NatsBus::connect(&options).await.map(|bus| Arc::new(bus) as _)
            }
            BusTarget::Pubsub { project } => {
                let google = &self.settings.google;
                let key = match &google.credentials_file {
                    Some(path) if google.pubsub_emulator.is_none() => {
                        let key = std::fs::read_to_string(path).map_err(|error| {
                            let what = format!("cannot read the key file {}", path.display());
                            Failure::new(ExitCode::Configuration, what).because(&error)
                        })?;
                        Some(key.into())
                    }
                    _ => None,
                };
                let options = PubsubOptions {
                    project: project.clone(),
                    prefix,
                    emulator: google.pubsub_emulator.clone(),
                    key,
                };
                PubsubBus::connect(&options).await.map(|bus| Arc::new(bus) as _)
            }
        };
        bus.map(Some).map_err(|error| {
            let failure = Failure::new(ExitCode::Failed, "cannot use the bus").because(&error);
            match error.hint() {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        })
    }
}
