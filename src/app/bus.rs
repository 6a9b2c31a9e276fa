//! Opens the configured bus.

use std::sync::Arc;

use crate::bus::EventBus;
use crate::bus::nats::{self, NatsBus, NatsOptions};
use crate::bus::pubsub::{PubsubBus, PubsubOptions};
use crate::config::{BusTarget, NatsLogin, Settings};
use crate::failure::{ExitCode, Failure};
use crate::files;

/// Opens the configured bus; `None` when events stay within the process.
pub(super) async fn open(settings: &Settings) -> Result<Option<Arc<dyn EventBus>>, Failure> {
    let prefix = settings.bus.prefix.clone();
    let bus: Result<Arc<dyn EventBus>, _> = match &settings.bus.target {
        BusTarget::Local => return Ok(None),
        BusTarget::Nats(servers) => {
            let servers: Vec<&str> = servers.iter().map(url::Url::as_str).collect();
            let options = NatsOptions {
                ack_wait: settings.bus.ack_wait,
                login: login(&settings.bus.nats).await?,
                ..NatsOptions::new(servers.join(","), prefix)
            };
            // The future is large, and only the bus stays.
            Box::pin(NatsBus::connect(&options))
                .await
                .map(|bus| Arc::new(bus) as _)
        }
        BusTarget::Pubsub { project } => {
            let google = &settings.google;
            if google.pubsub_emulator.is_none() {
                super::needs_certificates("cannot use the bus")?;
            }
            let key = match &google.credentials_file {
                Some(path) if google.pubsub_emulator.is_none() => {
                    let key = files::read_input_text(path, files::SMALL).map_err(|error| {
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
            Box::pin(PubsubBus::connect(&options))
                .await
                .map(|bus| Arc::new(bus) as _)
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

/// Reads the credentials for NATS.
pub(super) async fn login(settings: &NatsLogin) -> Result<nats::NatsLogin, Failure> {
    let settings = settings.clone();
    let nkey_seed = match (settings.nkey_seed, settings.nkey_file) {
        (None, Some(path)) => {
            let seed = nats::nkey_file(&path).await.map_err(|reason| {
                let what = format!("cannot use the bus: {reason}");
                Failure::new(ExitCode::Configuration, what).hint("correct bus.nats_nkey_file (NATS_NKEY)")
            })?;
            Some(seed)
        }
        (seed, _) => seed,
    };
    Ok(nats::NatsLogin {
        user: settings.user.zip(settings.password),
        token: settings.token,
        creds_file: settings.creds_file,
        nkey_seed,
        ca_file: settings.ca_file,
        client_cert: settings.cert_file.zip(settings.key_file),
    })
}
