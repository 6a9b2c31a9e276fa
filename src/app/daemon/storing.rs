//! The role `persist`: stores events from the bus, and counts the chat on it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Reason;
use crate::app::{App, listeners};
use crate::bus::EventBus;
use crate::failure::{ExitCode, Failure};
use crate::lifecycle::Tasks;
use crate::persist::chat::{self, Channels, ChatCounter, Tally};
use crate::persist::consumer::{Consumer, Counts};
use crate::persist::overview;
use crate::store::SourceStore;

/// Starts what stores events from the bus, and what counts the chat on it.
pub(super) fn start(
    app: &Arc<App>,
    bus: &Arc<dyn EventBus>,
    store: &Arc<dyn SourceStore>,
    tasks: &Tasks,
) -> Result<(overview::ViewOf, Reason), Failure> {
    let persister = Arc::new(app.persister(Arc::clone(store)));
    let counts = Arc::new(Counts::default());
    let channels = Arc::new(Channels::default());
    let updating = Arc::clone(&channels);
    let consumer = Consumer {
        bus: Arc::clone(bus),
        persister: Arc::clone(&persister),
        clock: app.evidence_clock(),
        chance: app.chance.clone(),
        counts: Arc::clone(&counts),
        coalesce: true,
        on_update: Some(Arc::new(move |source, knowledge| {
            updating.update(source, knowledge);
        })),
    };
    let cannot = |error: &(dyn std::error::Error + 'static)| {
        Failure::new(ExitCode::Failed, "cannot open the tally of chat messages").because(error)
    };
    let directory = &app.settings.state_dir;
    crate::files::make_private_dir(directory).map_err(|error| cannot(&error))?;
    let tally = Arc::new(Tally::open(&directory.join("chat.db")).map_err(|error| cannot(&error))?);
    let chat = ChatCounter {
        bus: Arc::clone(bus),
        persister: Arc::clone(&persister),
        store: Arc::clone(store),
        tally: Arc::clone(&tally),
        writer: chat_writer(app),
        channels,
        clock: Arc::clone(&app.machine_clock),
        chance: app.chance.clone(),
        counts: Arc::new(chat::Counts::default()),
        elsewhere: listeners::chat_counted(app),
    };
    let own = overview::ViewOf {
        counts: Arc::clone(&counts),
        persister,
        chat: Arc::clone(&chat.counts),
        tally,
        clock: Arc::clone(&app.machine_clock),
    };
    tasks.spawn("persister", |stop| consumer.run(stop));
    tasks.spawn("chat-counter", |stop| chat.run(stop));
    let bus = Arc::clone(bus);
    let reason: Reason = Arc::new(move || {
        let healthy = counts.healthy.load(Ordering::Relaxed);
        let unread = || format!("events of {} are not read, or not stored", bus.location());
        bus.interruption().or_else(|| (!healthy).then(unread))
    });
    Ok((own, reason))
}

/// The name under which this process counts the chat on the bus: unique, and the same after every restart.
fn chat_writer(app: &App) -> String {
    let instance = app.settings.watch.instance.clone();
    let name = instance.unwrap_or_else(|| {
        // The directory stays the same, and no other process counts in it.
        let directory = app.settings.state_dir.display().to_string();
        let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
        uuid::Uuid::new_v5(
            &uuid::Uuid::NAMESPACE_URL,
            format!("{} {directory}", host.trim()).as_bytes(),
        )
        .simple()
        .to_string()
    });
    format!("{name}-chat")
}
