//! The envelope that the BitBrat platform calls `InternalEventV2`, as far as we use it, with our additional fields.
//!
//! The output is what the platform's persistence service stores without a dead letter: explicit nulls where only a null clears
//! an old value, absent fields elsewhere. Parsing is separate (`read`) and tolerant.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::core::counters::Counters;
use crate::core::document::LastError;
use crate::core::event::EventKind;
use crate::core::source::PlatformName;
use crate::core::transition::Transition;

/// One event of ours on the bus.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// The envelope's version, `"2"`.
    pub v: String,
    /// What kind of event this is.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// Deterministic id of the reported fact (UUID, version 5).
    pub correlation_id: String,
    /// 32 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// How it came in.
    pub ingress: Ingress,
    /// Whom it is about.
    pub identity: Identity,
    /// Where it goes; the destination stays empty, or the router would deliver it to chat.
    pub egress: Egress,
    /// The platform's own event, for stream events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_event: Option<ExternalEvent>,
    /// The fact.
    pub payload: Payload,
    /// How long the platform keeps the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos: Option<Qos>,
    /// Routing state; stage `meta` keeps the event away from the costly services.
    pub routing: Routing,
}

/// How an event came in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ingress {
    /// When we observed the fact.
    pub ingress_at: String,
    /// The sender, `ingress.twitch.eventsub`.
    pub source: String,
    /// The platform's connector name; `system` where it has none.
    pub connector: String,
    /// `#login`, on Twitch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
}

/// Whom an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Identity {
    /// The account on the outside.
    pub external: External,
}

/// An account on the outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct External {
    /// The source's id.
    pub id: String,
    /// Its platform.
    pub platform: PlatformName,
    /// The name that people see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// More about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<ExternalMetadata>,
}

/// More about an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ExternalMetadata {
    /// Its login or slug.
    pub login: String,
}

/// Where an event goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Egress {
    /// Always empty.
    pub destination: String,
    /// As in [`Ingress`].
    pub connector: String,
    /// As in [`Ingress`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
}

/// The event of the platform outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalEvent {
    /// Its id there.
    pub id: String,
    /// Who sent it, `twitch.eventsub`.
    pub source: String,
    /// `stream.online` or `stream.offline`.
    pub kind: String,
    /// The version of its layout there.
    pub version: String,
    /// When it happened.
    pub created_at: String,
    /// The broadcaster.
    pub metadata: Broadcaster,
}

/// The broadcaster of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Broadcaster {
    /// The source's id; never a stream's.
    pub broadcaster_id: String,
    /// Login or slug.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broadcaster_login: Option<String>,
    /// The name that people see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broadcaster_display_name: Option<String>,
    /// When the stream started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
}

/// The fact itself.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Payload {
    /// Of `system.source.status`.
    Status(Box<StatusPayload>),
    /// Of `system.stream.online` and `system.stream.offline`.
    Stream(Box<StreamPayload>),
}

/// The payload of `system.source.status`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusPayload {
    /// `platform:id`.
    pub source: String,
    /// The platform.
    pub platform: PlatformName,
    /// The source's id.
    pub id: String,
    /// The name that people see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// `CONNECTED`, `DISCONNECTED` or `ERROR`.
    pub status: String,
    /// Absent while unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_status: Option<String>,
    /// The error that explains the status, while there is one. Always whole: the platform merges it member by member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
    /// The totals that are known. A total that is not counted here is left out: written as zero it would replace what another
    /// writer of the platform's document has counted.
    #[serde(skip_serializing_if = "Totals::is_empty")]
    pub metrics: Totals,
    /// More about the source.
    pub metadata: StatusMetadata,
    /// Our additive fields.
    #[serde(flatten)]
    pub ours: Ours,
}

/// Totals over all writers; absent while nothing was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Chat messages received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_in: Option<u64>,
    /// Chat messages handed to delivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_out: Option<u64>,
    /// Errors met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<u64>,
    /// New connections after the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconnects: Option<u64>,
}

impl Totals {
    /// Converts counters. Totals only increase, so a zero means that this program has never counted the value.
    pub fn of(counters: &Counters) -> Self {
        let counted = |total: u64| (total > 0).then_some(total);
        Self {
            messages_in: counted(counters.messages_in),
            messages_out: counted(counters.messages_out),
            errors: counted(counters.errors),
            reconnects: counted(counters.reconnects),
        }
    }

    fn is_empty(&self) -> bool {
        [self.messages_in, self.messages_out, self.errors, self.reconnects]
            .iter()
            .all(Option::is_none)
    }
}

/// More about a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusMetadata {
    /// Login or slug.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// When the fact happened.
    pub observed_at: String,
    /// Smoothed round trip in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u64>,
}

/// The payload of a stream event. Nulls are explicit: they are the only way to clear an old value through the
/// platform's merge.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamPayload {
    /// The platform.
    pub platform: PlatformName,
    /// The source's id.
    pub id: String,
    /// The source's id again, under the name that the platform's own events use.
    pub broadcaster_id: String,
    /// Login or slug; only when a stream starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broadcaster_login: Option<String>,
    /// The name that people see; only when a stream starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broadcaster_display_name: Option<String>,
    /// The stream's id.
    pub stream_id: Option<String>,
    /// `live`, or null when it ended.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The stream's title.
    pub title: Option<String>,
    /// Its category.
    pub game_name: Option<String>,
    /// When it started; null when it ended.
    pub started_at: Option<String>,
    /// When it ended; null while it is live, and where no stream was ever seen.
    pub ended_at: Option<String>,
    /// How many watch; 0 when it ended, null while it is not known.
    #[serde(rename = "viewer_count")]
    pub viewer_count: Option<u64>,
    /// Our additive fields.
    #[serde(flatten)]
    pub ours: Ours,
}

/// What we add to a payload: what our own consumer joins. Everyone else may ignore it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ours {
    /// The layout's version, that of the document.
    pub schema_version: u32,
    /// Evidence since the last published event of the source.
    pub evidence: Map<String, Value>,
    /// Whether everything that this event reports is a first observation: how things were found, not a change.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub initial: bool,
    /// Totals by writer, as far as they moved.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub counters: Map<String, Value>,
    /// The transitions in this event; none in a heartbeat.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub transitions: Vec<Transition>,
}

/// Quality of service, as far as we ask for any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Qos {
    /// Seconds that the platform keeps the event.
    pub persistence_ttl_sec: u64,
}

/// Routing state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Routing {
    /// Always `meta`.
    pub stage: String,
    /// Always empty.
    pub slip: Vec<Value>,
    /// Always empty.
    pub history: Vec<Value>,
}

impl Routing {
    /// The only routing state that we send.
    pub fn quiet() -> Self {
        Self {
            stage: "meta".to_owned(),
            slip: Vec::new(),
            history: Vec::new(),
        }
    }
}

/// Returns the JSON schema of the events that we publish.
pub fn schema() -> Value {
    let settings = schemars::generate::SchemaSettings::draft2020_12().for_serialize();
    settings
        .into_generator()
        .into_root_schema_for::<Envelope>()
        .to_value()
}
