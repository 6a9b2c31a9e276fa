//! One step of the rules: from the events that arrived and the time to new messages. Pure; the caller stores the result in one
//! transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::cause::{Cause, CauseKey, Conditions, Facts, Known, causes, mark_outages};
use super::condition;
use super::incident::{Incident, MessageKind, Phase, Timing};
use super::message::Message;
use super::mute::Mute;
use super::rule::{AlertRule, HookRule, MaintenanceWindow};
use super::trigger::TriggerKind;
use crate::config::{AlertSettings, SourceSelector};
use crate::core::document::SourceDocument;
use crate::core::event::Event;
use crate::core::facet::Facet;
use crate::core::observation::Identity;
use crate::core::source::{PlatformName, SourceKey};
use crate::core::summary::SourceSummary;
use crate::core::time::Timestamp;
use crate::core::transition::Transition;
use crate::core::verdict::CLOSED_BY_US;
use crate::watch::state_file::{AlertInput, AlertState};

/// A message to be stored for its receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDelivery {
    /// Its id: a message that is derived again is stored once.
    pub id: String,
    /// The alert, or the hook as [`hook_receiver`] names it.
    pub receiver: String,
    /// The incident, whose messages are sent in order.
    pub incident: String,
    /// What it is, in one word.
    pub kind: String,
    /// The message, or the event of a hook, as JSON.
    pub message: String,
}

/// What the rules are applied with.
#[derive(Debug)]
pub struct StepContext<'a> {
    /// The configuration.
    pub settings: &'a AlertSettings,
    /// Number of monitored sources of each platform.
    pub monitored: &'a BTreeMap<PlatformName, usize>,
    /// When accounts stop working.
    pub expiries: &'a BTreeMap<Identity, Timestamp>,
    /// The present moment.
    pub now: Timestamp,
}

/// Returns the name under which the runs of a hook are stored.
pub fn hook_receiver(name: &str) -> String {
    format!("hook:{name}")
}

/// Applies the rules once. Returns the new messages.
pub fn step(state: &mut AlertState, inputs: &[AlertInput], cx: &StepContext<'_>) -> Vec<NewDelivery> {
    let mut deliveries = Vec::new();
    update_conditions(&mut state.conditions, inputs, cx.now);
    for hook in &cx.settings.hooks {
        deliveries.extend(inputs.iter().filter_map(|input| run_of(hook, input)));
    }
    let known = |incident: &&Incident| incident.phase == Phase::Open || incident.announced;
    let open = state.incidents.values().filter(known);
    let reported: BTreeSet<CauseKey> = open
        .map(|incident| (incident.kind, incident.subject.clone()))
        .collect();
    let causes = causes(&Facts {
        conditions: &state.conditions,
        monitored: cx.monitored,
        expiries: cx.expiries,
        reported: &reported,
        now: cx.now,
    });
    mark_outages(&mut state.conditions, &causes, &reported);
    let names: BTreeSet<&str> = cx
        .settings
        .alerts
        .iter()
        .map(|alert| alert.name.as_str())
        .collect();
    state
        .incidents
        .retain(|_, incident| names.contains(incident.alert.as_str()));
    for alert in &cx.settings.alerts {
        deliveries.extend(advance(alert, &causes, state, cx));
    }
    state.incidents.retain(|_, incident| !incident.is_over(cx.now));
    deliveries
}

/// Updates the conditions of the sources that events are about.
fn update_conditions(conditions: &mut Conditions, inputs: &[AlertInput], now: Timestamp) {
    let mut changed: BTreeMap<&SourceKey, (Vec<Transition>, &SourceDocument)> = BTreeMap::new();
    for input in inputs {
        let Some(document) = &input.document else { continue };
        let known = conditions.get_mut(&document.key);
        if let (None, Some(known)) = (&input.event, known.filter(|known| !known.closed_while_up)) {
            condition::refresh(&mut known.conditions, document);
            continue;
        }
        let (changes, newest) = changed
            .entry(&document.key)
            .or_insert_with(|| (Vec::new(), document));
        *newest = document;
        changes.extend(
            input
                .event
                .iter()
                .flat_map(|event| event.transitions.iter().cloned()),
        );
    }
    for (source, (changes, document)) in changed {
        let stored = conditions.remove(source).unwrap_or_default();
        let found = condition::update(
            &stored.conditions,
            stored.closed_while_up,
            &changes,
            document,
            now,
        );
        let is_down = found
            .iter()
            .any(|condition| condition.kind == TriggerKind::SourceDown);
        let is_close = |change: &Transition| {
            change.facet == Facet::Status && !change.initial && change.from.as_deref() == Some("CONNECTED")
        };
        let closed_while_up = document.verdict.status.rule == CLOSED_BY_US
            && !is_down
            && (stored.closed_while_up || changes.iter().any(is_close));
        if found.is_empty() && !closed_while_up {
            continue;
        }
        let known = Known {
            name: document.display_name().unwrap_or_default().to_owned(),
            names: SourceSummary::of(document).names(),
            conditions: found,
            closed_while_up,
        };
        conditions.insert(source.clone(), known);
    }
}

/// Advances all incidents of an alert.
fn advance(
    alert: &AlertRule,
    causes: &BTreeMap<CauseKey, Cause>,
    state: &mut AlertState,
    cx: &StepContext<'_>,
) -> Vec<NewDelivery> {
    let mut present: BTreeMap<String, Cause> = BTreeMap::new();
    let unsettled = unsettled_streams(alert, state);
    for (key, cause) in causes {
        if key.0 == TriggerKind::StreamOffline && unsettled.contains(&key.1) {
            continue;
        }
        if let Some(cause) = relevant(alert, key, cause, &state.conditions) {
            let incident = Incident::new(&alert.name, key);
            let name = incident.key();
            state.incidents.entry(name.clone()).or_insert(incident);
            present.insert(name, cause);
        }
    }
    let mut deliveries = Vec::new();
    let own = state
        .incidents
        .iter_mut()
        .filter(|(_, incident)| incident.alert == alert.name);
    for (key, incident) in own {
        let incident_kind = incident.kind;
        let timing = timing(alert, incident_kind);
        let cause = present.get(key);
        if let Some(cause) = cause.filter(|_| incident.sources.is_empty()) {
            // A mute is compared with the sources of the incident.
            incident.sources.clone_from(&cause.sources);
        }
        let muted = is_muted(
            incident,
            &state.mutes,
            &cx.settings.windows,
            &state.conditions,
            cx.now,
        );
        let is_repeated = |kind: &MessageKind| is_reported_by_its_end(alert, incident_kind, *kind);
        let kinds = incident.advance(cause, timing, muted, cx.now).into_iter();
        for kind in kinds.filter(|kind| !is_repeated(kind)) {
            if incident_kind == TriggerKind::PlatformOutage {
                incident.remaining = still_down(&incident.sources, &state.conditions);
            }
            let message = Message::of(incident, kind, alert.template.as_deref(), cx.now);
            deliveries.push(NewDelivery {
                id: message.id.clone(),
                receiver: alert.name.clone(),
                incident: key.clone(),
                kind: kind.as_str().to_owned(),
                message: json!(message).to_string(),
            });
        }
    }
    deliveries
}

fn timing(alert: &AlertRule, kind: TriggerKind) -> Timing {
    let timing = Timing {
        hold: alert.hold(kind).unwrap_or_default(),
        recover_after: alert.recover_after,
        is_damped: true,
    };
    // It is the end of "is live", which an interruption of that length does not end; and what reports both is damped as one.
    if kind == TriggerKind::StreamOffline && alert.hold(TriggerKind::StreamOnline).is_some() {
        return Timing {
            hold: timing.hold.max(alert.recover_after),
            recover_after: Duration::ZERO,
            is_damped: false,
        };
    }
    timing
}

/// Returns the sources of which an alert has reported that their streams begin and end again and again.
fn unsettled_streams(alert: &AlertRule, state: &AlertState) -> BTreeSet<String> {
    let own = state.incidents.values().filter(|incident| {
        incident.alert == alert.name && incident.kind == TriggerKind::StreamOnline && incident.flapping
    });
    own.map(|incident| incident.subject.clone()).collect()
}

/// Returns those of the sources that are down, for whatever reason.
fn still_down(sources: &BTreeMap<SourceKey, String>, conditions: &Conditions) -> BTreeMap<SourceKey, String> {
    let is_down = |source: &SourceKey| {
        let mut known = conditions
            .get(source)
            .into_iter()
            .flat_map(|known| &known.conditions);
        known.any(|condition| condition.kind == TriggerKind::SourceDown)
    };
    let down = sources.iter().filter(|(source, _)| is_down(source));
    down.map(|(source, name)| (source.clone(), name.clone()))
        .collect()
}

/// Whether the end of a stream is a message of its own, so that "was live" would report it twice.
fn is_reported_by_its_end(alert: &AlertRule, incident: TriggerKind, message: MessageKind) -> bool {
    incident == TriggerKind::StreamOnline
        && message == MessageKind::Close
        && alert.hold(TriggerKind::StreamOffline).is_some()
}

/// Returns the part of a cause that an alert is about.
fn relevant(alert: &AlertRule, key: &CauseKey, cause: &Cause, conditions: &Conditions) -> Option<Cause> {
    alert.hold(key.0)?;
    // The cause is reported, so its effects are not.
    if cause
        .effect_of
        .as_ref()
        .is_some_and(|(kind, _)| alert.hold(*kind).is_some())
    {
        return None;
    }
    if alert.sources.is_empty() {
        return Some(cause.clone());
    }
    let mut own = cause.clone();
    own.sources
        .retain(|source, _| is_selected(&alert.sources, source, conditions));
    (!own.sources.is_empty()).then_some(own)
}

fn is_selected(selectors: &[SourceSelector], source: &SourceKey, conditions: &Conditions) -> bool {
    let id = [source.id().to_owned()];
    let names = conditions.get(source).map_or(&id[..], |known| &known.names[..]);
    selectors
        .iter()
        .any(|selector| selector.selects_named(source, names))
}

fn is_muted(
    incident: &Incident,
    mutes: &[Mute],
    windows: &[MaintenanceWindow],
    conditions: &Conditions,
    now: Timestamp,
) -> bool {
    let by_window = |window: &MaintenanceWindow| {
        let mut sources = incident.sources.keys();
        window.active_until(now).is_some()
            && (window.sources.is_empty()
                || (!incident.sources.is_empty()
                    && sources.all(|source| is_selected(&window.sources, source, conditions))))
    };
    mutes.iter().any(|mute| mute.silences(incident, now)) || windows.iter().any(by_window)
}

/// Returns the run of a hook for an event.
fn run_of(hook: &HookRule, input: &AlertInput) -> Option<NewDelivery> {
    let event = input.event.as_ref()?;
    // An event may report a cause and its effect; causes come first.
    let kinds = event.transitions.iter().filter_map(kind_of);
    let kind = kinds.filter(|kind| hook.on.contains(kind)).min()?;
    let names = match &input.document {
        Some(document) => SourceSummary::of(document).names(),
        None => vec![event.source.id().to_owned()],
    };
    let mut selectors = hook.sources.iter();
    if !hook.sources.is_empty() && !selectors.any(|selector| selector.selects_named(&event.source, &names)) {
        return None;
    }
    let receiver = hook_receiver(&hook.name);
    Some(NewDelivery {
        id: Uuid::new_v5(
            &Uuid::NAMESPACE_OID,
            format!("{receiver}|{}", event.id).as_bytes(),
        )
        .to_string(),
        incident: format!("{receiver}|{}", event.id),
        receiver,
        kind: kind.as_str().to_owned(),
        message: hook_document(event, kind),
    })
}

/// Returns what a hook gets on its standard input: the event as it is published on a bus, and what it was run for.
fn hook_document(event: &Event, kind: TriggerKind) -> String {
    let body: serde_json::Value = serde_json::from_str(&event.body).unwrap_or_default();
    json!({
        "trigger": kind,
        "source": event.source,
        "at": event.at,
        "transitions": event.transitions,
        "event": body,
    })
    .to_string()
}

/// Returns what a change means for a hook. First observations mean nothing, and neither does our own stop.
fn kind_of(change: &Transition) -> Option<TriggerKind> {
    if change.initial {
        return None;
    }
    let to = change.to.as_deref()?;
    match (change.facet, to) {
        (Facet::Auth, "REVOKED") => Some(TriggerKind::AuthRevoked),
        (Facet::Auth, "EXPIRED") => Some(TriggerKind::AuthExpired),
        (Facet::Status, "DISCONNECTED" | "ERROR") => {
            let was_up = change.from.as_deref() == Some("CONNECTED");
            (was_up && change.rule != CLOSED_BY_US).then_some(TriggerKind::SourceDown)
        }
        (Facet::Stream, "ONLINE") => Some(TriggerKind::StreamOnline),
        (Facet::Stream, "OFFLINE") if change.from.as_deref() == Some("ONLINE") => {
            Some(TriggerKind::StreamOffline)
        }
        (Facet::Permissions, to) => {
            let from = change.from.as_deref()?;
            let mut names = from.split(' ').filter(|name| !name.is_empty());
            let is_lost = |name: &str| !to.split(' ').any(|held| held == name);
            names.any(is_lost).then_some(TriggerKind::PermissionLost)
        }
        _ => None,
    }
}
