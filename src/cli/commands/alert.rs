//! `alert`: lists, tests and mutes alerts.

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use uuid::Uuid;

use crate::alerts::delivery;
use crate::alerts::incident::{Incident, Phase};
use crate::alerts::message::Message;
use crate::alerts::mute::{Mute, pattern_problem};
use crate::alerts::receivers::{Reply, request};
use crate::blocking::blocking;
use crate::cli::context::Context;
use crate::cli::output::Listing;
use crate::cli::reports::alerts::{AlertItem, AlertItemKind, AlertTestItem};
use crate::config::parse_duration;
use crate::failure::{ExitCode, Failure};
use crate::secrets;
use crate::watch::state_file::{DeliveryState, StateFile, StoredDelivery};

/// How many of the newest messages are listed.
const DELIVERIES: u32 = 20;
/// The longest mute.
const LONGEST_MUTE: Duration = Duration::from_secs(30 * 24 * 3600);

/// What to do with alerts.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  bitbrat alert list
  bitbrat alert test ops
  bitbrat alert mute 'twitch:*' --for 2h --reason 'moving the server'")]
pub enum AlertCommand {
    List(ListArgs),
    Test(TestArgs),
    Mute(MuteArgs),
    Unmute(UnmuteArgs),
}

/// List receivers, incidents, mutes and messages
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat alert list
  bitbrat alert list -o json")]
pub struct ListArgs {}

/// Send a test message to a receiver
///
/// The message is marked as a test and changes no incident. A receiver that had stopped is used again once it accepts it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat alert test           every receiver
  bitbrat alert test ops")]
pub struct TestArgs {
    /// The alert; all when none is given
    name: Option<String>,
}

/// Mute alerts that match a pattern, for a time
///
/// A pattern is a glob. It is compared with the name of the alert, the kind of cause (source.down), its account, source or
/// platform, and the affected sources. When a mute ends, only what is different then is sent.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat alert mute '*' --for 30m --reason 'update'
  bitbrat alert mute twitch/bot --for 2h")]
pub struct MuteArgs {
    /// What to mute
    pattern: String,
    /// For how long, such as 30m or 2h; 30 days at most
    #[arg(long = "for", value_name = "DURATION")]
    duration: String,
    /// Why, for others who list it
    #[arg(long, default_value = "")]
    reason: String,
}

/// End a mute
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat alert unmute 'twitch:*'
  bitbrat alert unmute 3")]
pub struct UnmuteArgs {
    /// The pattern or the number of the mute
    pattern: String,
}

pub async fn run(cx: &Context, command: &AlertCommand) -> Result<ExitCode, Failure> {
    match command {
        AlertCommand::List(_) => list(cx).await,
        AlertCommand::Test(args) => test(cx, args).await,
        AlertCommand::Mute(args) => mute(cx, args).await,
        AlertCommand::Unmute(args) => unmute(cx, args).await,
    }
}

async fn list(cx: &Context) -> Result<ExitCode, Failure> {
    let now = cx.app.clock.now();
    let settings = &cx.app.settings.alerts;
    let mut items = Vec::new();
    let stored = match cx.app.alert_file().await? {
        Some(file) => Some(blocking(move || stored(&file)).await?),
        None => None,
    };
    let (state, stopped, deliveries) = stored.unwrap_or_default();
    for alert in &settings.alerts {
        let address = delivery::fingerprint(&alert.receiver);
        let found = stopped
            .iter()
            .find(|stopped| stopped.receiver == alert.name && stopped.address == address);
        let state = if found.is_some() { "stopped" } else { "ok" };
        let mut item = AlertItem::new(AlertItemKind::Receiver, &alert.name, state);
        item.detail = Some(alert.receiver.kind.as_str().to_owned());
        item.since = found.map(|stopped| stopped.at);
        item.reason = found.map(|stopped| stopped.reason.clone());
        items.push(item);
    }
    for hook in &settings.hooks {
        items.push(AlertItem::new(AlertItemKind::Hook, &hook.name, "ok"));
    }
    for window in &settings.windows {
        let until = window.active_until(now);
        let state = if until.is_some() { "active" } else { "inactive" };
        let mut item = AlertItem::new(AlertItemKind::Maintenance, &window.name, state);
        item.until = until;
        let zone = window.zone.iana_name().unwrap_or("UTC");
        let time = |time: jiff::civil::Time| time.strftime("%H:%M").to_string();
        item.detail = Some(format!("{} to {} {zone}", time(window.start), time(window.end)));
        items.push(item);
    }
    for mute in state.mutes.iter().filter(|mute| mute.until > now) {
        let mut item = AlertItem::new(AlertItemKind::Mute, mute.id.to_string(), "active");
        item.detail = Some(mute.pattern.clone());
        (item.since, item.until) = (Some(mute.created_at), Some(mute.until));
        item.reason = Some(mute.reason.clone()).filter(|reason| !reason.is_empty());
        items.push(item);
    }
    items.extend(
        state
            .incidents
            .iter()
            .filter_map(|(key, incident)| incident_item(key, incident)),
    );
    items.extend(deliveries.iter().map(delivery_item));
    if items.is_empty() {
        cx.note(&[crate::cli::output::Note::hint(
            crate::cli::output::view::Tone::Dim,
            "no alert is configured; add one with [[alert]] to bitbrat.toml (docs/alerts.md)",
            None,
        )])?;
    }
    cx.output.print(&Listing::new(now, items))?;
    Ok(ExitCode::Healthy)
}

type Stored = (
    crate::watch::state_file::AlertState,
    Vec<crate::watch::state_file::Stopped>,
    Vec<StoredDelivery>,
);

fn stored(file: &StateFile) -> Result<Stored, Failure> {
    Ok((
        file.alert_state()?,
        file.stopped_receivers()?,
        file.recent_deliveries(DELIVERIES)?,
    ))
}

fn incident_item(key: &str, incident: &Incident) -> Option<AlertItem> {
    let state = match incident.phase {
        Phase::Idle => return None,
        Phase::Pending => "pending",
        Phase::Open if incident.present => "open",
        Phase::Open => "recovering",
    };
    let mut item = AlertItem::new(AlertItemKind::Incident, key, state);
    item.trigger = Some(incident.kind);
    item.affected = Some(incident.affected);
    (item.since, item.until) = (Some(incident.since), incident.due);
    item.reason = Some(secrets::masked(incident.detail.clone())).filter(|reason| !reason.is_empty());
    Some(item)
}

fn delivery_item(delivery: &StoredDelivery) -> AlertItem {
    let state = match delivery.state {
        DeliveryState::Waiting => "waiting",
        DeliveryState::Sent => "sent",
        DeliveryState::Dropped => "dropped",
    };
    let mut item = AlertItem::new(AlertItemKind::Delivery, &delivery.id, state);
    item.detail = Some(format!("{} to {}", delivery.kind, delivery.receiver));
    item.since = Some(delivery.created_at);
    item.until = (delivery.state == DeliveryState::Waiting).then_some(delivery.due);
    item.attempts = Some(delivery.attempts);
    item.reason.clone_from(&delivery.reason);
    item
}

async fn test(cx: &Context, args: &TestArgs) -> Result<ExitCode, Failure> {
    let alerts = &cx.app.settings.alerts.alerts;
    let chosen: Vec<_> = alerts
        .iter()
        .filter(|alert| args.name.as_ref().is_none_or(|name| *name == alert.name))
        .collect();
    if chosen.is_empty() {
        let names: Vec<_> = alerts.iter().map(|alert| alert.name.as_str()).collect();
        let hint = match names.is_empty() {
            true => "add one with [[alert]] to bitbrat.toml (docs/alerts.md)".to_owned(),
            false => format!("use one of {}", names.join(", ")),
        };
        return Err(Failure::new(ExitCode::Usage, "there is no such alert").hint(hint));
    }
    let mut items = Vec::new();
    for alert in chosen {
        let now = cx.app.clock.now();
        let http = delivery::client(&alert.receiver, Arc::clone(&cx.app.machine_clock));
        let message = Message::test(&alert.name, Uuid::new_v4().to_string(), now);
        let built = request(&alert.receiver, &message, None, false, now);
        let reply = cx
            .progress
            .during(delivery::send(&http, &alert.receiver, built, false))
            .await;
        let reason = match reply {
            Reply::Accepted { .. } => None,
            Reply::Later { reason, .. } | Reply::Rejected { reason } | Reply::Stopped { reason } => {
                Some(reason)
            }
            Reply::Gone => Some("not found".to_owned()),
        };
        if reason.is_none()
            && let Some(file) = cx.app.alert_file().await?
        {
            let name = alert.name.clone();
            blocking(move || file.resume_receiver(&name)).await?;
        }
        items.push(AlertTestItem {
            name: alert.name.clone(),
            accepted: reason.is_none(),
            reason,
        });
    }
    let exit = match items.iter().all(|item| item.accepted) {
        true => ExitCode::Healthy,
        false => ExitCode::Failed,
    };
    cx.output.print(&Listing::new(cx.app.clock.now(), items))?;
    Ok(exit)
}

async fn mute(cx: &Context, args: &MuteArgs) -> Result<ExitCode, Failure> {
    let usage = |what: String| Failure::new(ExitCode::Usage, what);
    if let Some(problem) = pattern_problem(&args.pattern) {
        return Err(usage(problem));
    }
    let duration = parse_duration(&args.duration).map_err(|reason| usage(format!("--for: {reason}")))?;
    if duration.is_zero() || duration > LONGEST_MUTE {
        return Err(usage("--for: a mute lasts up to 30 days (720h)".to_owned()));
    }
    let now = cx.app.clock.now();
    let mute = Mute {
        id: 0,
        pattern: args.pattern.clone(),
        until: now.plus(duration),
        reason: secrets::masked(args.reason.clone()),
        created_at: now,
    };
    let file = file(cx).await?;
    blocking(move || file.mute(&mute)).await?;
    list(cx).await
}

async fn unmute(cx: &Context, args: &UnmuteArgs) -> Result<ExitCode, Failure> {
    let (file, pattern) = (file(cx).await?, args.pattern.clone());
    if blocking(move || file.unmute(&pattern)).await? == 0 {
        return Err(Failure::new(ExitCode::Usage, "there is no such mute")
            .hint("run `bitbrat alert list` to see the mutes"));
    }
    list(cx).await
}

/// Returns the file of the daemon, where mutes are kept.
async fn file(cx: &Context) -> Result<Arc<StateFile>, Failure> {
    cx.app.alert_file().await?.ok_or_else(|| {
        Failure::new(
            ExitCode::Failed,
            "there is nothing to mute: no daemon has run yet",
        )
        .hint("start `bitbrat watch` first")
    })
}
