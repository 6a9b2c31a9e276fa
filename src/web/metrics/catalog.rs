//! Every metric: `docs/metrics.md` is generated from this list.

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A count since the start of the process.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// Durations in seconds, counted in buckets.
    Histogram,
    /// A constant 1, whose labels are the information.
    Info,
}

/// A metric, by the conventions of Prometheus: base units, which the name ends with, and `_total` for counters.
#[derive(Debug)]
pub(super) struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    /// The names of its labels, in the order of their values.
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

impl Metric {
    /// Returns the unit, which the name contains; counts have none.
    pub(super) fn unit(&self) -> Option<&'static str> {
        let name = self.name.strip_suffix("_total").unwrap_or(self.name);
        ["seconds", "bytes"]
            .into_iter()
            .find(|unit| name.ends_with(unit) && !name.ends_with("per_second"))
    }
}

macro_rules! metrics {
    ($($id:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) static $id: Metric = Metric {
            name: $name,
            kind: Kind::$kind,
            labels: &[$($label),*],
            help: $help,
        };)*

        /// Every metric, in the order of the documentation.
        #[cfg(test)]
        pub(super) static ALL: &[&Metric] = &[$(&$id),*];
    };
}

metrics! {
    BUILD = Info "bitbrat_build_info" ["version"] "The running version.";
    READY = Gauge "bitbrat_ready" [] "1 if this process is ready, as /readyz reports it, else 0.";
    CLOCK_ERROR = Gauge "bitbrat_clock_error_seconds" [] "Time of the platforms minus the time of this machine by the last responses. Absent before the first response.";
    SOURCES_MONITORED = Gauge "bitbrat_sources_monitored" [] "Configured sources that are monitored.";
    SOURCES = Gauge "bitbrat_sources" ["platform", "status"] "Sources by connection status (connected, disconnected, error). Every status is present.";
    SOURCES_LIVE = Gauge "bitbrat_sources_live" ["platform"] "Sources whose stream is proven to be live.";
    SOURCES_STALE = Gauge "bitbrat_sources_stale" ["platform"] "Sources whose connection status was last confirmed more than three check intervals ago.";
    SOURCES_WITHOUT_SERIES = Gauge "bitbrat_sources_without_series" [] "Sources beyond web.source_metrics, which have no series of their own. Absent if that is 0.";
    SOURCE_CONNECTED = Gauge "bitbrat_source_connected" ["platform", "id"] "1 if the source is connected, else 0. Only with web.source_metrics.";
    SOURCE_LIVE = Gauge "bitbrat_source_live" ["platform", "id"] "1 if the stream is live, 0 if it is offline; absent while unknown. Only with web.source_metrics.";
    SOURCE_VIEWERS = Gauge "bitbrat_source_viewers" ["platform", "id"] "Viewers of a live stream; absent while unknown or hidden. Only with web.source_metrics.";
    ACCOUNTS = Gauge "bitbrat_accounts" ["platform", "state"] "Accounts by the state of their token (valid, expired, revoked, rejected). Every state is present.";
    TOKEN_STATE = Gauge "bitbrat_token_state" ["account", "state"] "1 for the state of an account's token (valid, expired, revoked, rejected), 0 for the others. Of the accounts of single sources, those that are not valid come first, and the number is limited.";
    TOKEN_EXPIRY = Gauge "bitbrat_token_expiry_timestamp_seconds" ["account"] "When the token of an account expires. Absent if it does not; it is refreshed before that where that is possible.";
    TOKEN_CHECKED = Gauge "bitbrat_token_checked_timestamp_seconds" ["account"] "When the token of an account was last checked.";
    ACCOUNT_EXPIRY = Gauge "bitbrat_account_expiry_timestamp_seconds" ["account"] "When an account stops working without another login, refreshes taken into account. Absent if it does not, or if that is not known.";
    CHECK_LAST_SUCCESS = Gauge "bitbrat_check_last_success_timestamp_seconds" ["platform", "check"] "Date of the newest evidence that a check (connection, auth, stream, viewers, permissions) has brought. The connection is 0 before the first, other checks are absent.";
    CHECK_INTERVAL = Gauge "bitbrat_check_interval_seconds" ["check"] "Configured time between two checks.";
    PROBES = Counter "bitbrat_probes_total" ["platform", "poller"] "Probe runs started.";
    PROBE_REQUESTS = Counter "bitbrat_probe_requests_total" ["platform", "poller"] "Requests that probe runs have sent, retries included.";
    PROBE_PROBLEMS = Counter "bitbrat_probe_problems_total" ["platform", "poller"] "Problems of probe runs.";
    TICKS_SKIPPED = Counter "bitbrat_ticks_skipped_total" ["platform", "poller"] "Scheduled runs that were skipped because the previous one had not ended.";
    REQUEST_DURATION = Histogram "bitbrat_request_duration_seconds" ["platform"] "Duration of HTTP requests to a platform, those that fail included.";
    RATE_LIMIT_REMAINING = Gauge "bitbrat_rate_limit_remaining" ["platform", "bucket"] "Requests or points that a rate limit still allows. The fullest buckets are left out where there are many.";
    RATE_LIMIT = Gauge "bitbrat_rate_limit" ["platform", "bucket"] "Requests or points that a rate limit allows in all.";
    LISTENER_HEALTHY = Gauge "bitbrat_listener_healthy" ["listener"] "1 if a listener receives what it should, else 0; 0 also without a connection because the bot's token cannot be used.";
    LISTENER_CONNECTIONS = Gauge "bitbrat_listener_connections" ["listener"] "Established push connections: EventSub sockets, gateway sessions.";
    LISTENER_CONNECTIONS_WANTED = Gauge "bitbrat_listener_connections_wanted" ["listener"] "Push connections that a listener should have.";
    LISTENER_SUBSCRIPTIONS = Gauge "bitbrat_listener_subscriptions" ["listener"] "Subscriptions that the platform has accepted.";
    LISTENER_SUBSCRIPTIONS_WANTED = Gauge "bitbrat_listener_subscriptions_wanted" ["listener"] "Subscriptions that a listener should have.";
    EVENT_DELAY = Histogram "bitbrat_event_delay_seconds" ["platform"] "Time from the platform's date of a pushed start or end of a stream until it was received.";
    TRANSITIONS = Counter "bitbrat_transitions_total" [] "Verdicts that have changed.";
    OBSERVATIONS_WAITING = Gauge "bitbrat_observations_waiting" [] "Observations that are not merged yet: above zero for seconds means that the machine cannot keep up.";
    COMMIT_DURATION = Histogram "bitbrat_commit_duration_seconds" [] "Duration of commits of documents, history and events to the state file, failed ones included.";
    OUTBOX_EVENTS = Gauge "bitbrat_outbox_events" [] "Events that wait to be sent.";
    OUTBOX_OLDEST_AGE = Gauge "bitbrat_outbox_oldest_age_seconds" [] "For how long the oldest change waits to be sent; 0 if none waits. Events without a change are spread over time and do not count.";
    OUTBOX_DEFERRED = Gauge "bitbrat_outbox_deferred_sources" [] "Sources whose changes are published as one event later, because the outbox is full.";
    EVENTS_SENT = Counter "bitbrat_events_sent_total" [] "Events acknowledged by the bus or the remote store; with SQLite and no bus, events committed.";
    EVENTS_FAILED = Counter "bitbrat_events_failed_total" [] "Attempts to send an event that failed.";
    EVENTS_REJECTED = Counter "bitbrat_events_rejected_total" [] "Events that were permanently rejected and set aside.";
    HEARTBEATS_DROPPED = Counter "bitbrat_heartbeats_dropped_total" [] "Heartbeats that were dropped because the outbox was full.";
    STORE_WRITES = Counter "bitbrat_store_writes_total" [] "Documents and history entries written, as Firestore counts them.";
    STORE_READS = Counter "bitbrat_store_reads_total" [] "Documents read.";
    STORE_CONFLICTS = Counter "bitbrat_store_conflicts_total" [] "Writes that were repeated because another process had written the document.";
    STORE_FAILURES = Counter "bitbrat_store_failures_total" [] "Reads and writes that failed.";
    STORE_WAITING = Gauge "bitbrat_store_waiting_sources" [] "Sources with a transition that is not stored yet.";
    STORE_EXPECTED = Gauge "bitbrat_store_expected_writes_per_second" [] "Writes that doctor predicts for the configured sources, on average of a day; absent with SQLite.";
    STORE_UNUSABLE = Gauge "bitbrat_store_unusable_documents" [] "Stored documents that cannot be used, counted at the start and once an hour; `doctor store` lists them. Absent with Firestore.";
    BUS_MESSAGES = Counter "bitbrat_bus_messages_total" ["outcome"] "Messages read from the bus, by what became of them.";
    BUS_FOREIGN = Counter "bitbrat_bus_foreign_messages_total" [] "Stored messages that other programs sent.";
    BUS_REDELIVERED = Counter "bitbrat_bus_redelivered_messages_total" [] "Messages that the bus delivered more than once.";
    CHAT_MESSAGES = Counter "bitbrat_chat_messages_total" [] "Chat messages counted on the bus.";
    CHAT_REPEATED = Counter "bitbrat_chat_repeated_messages_total" [] "Chat messages on the bus that had been counted before.";
    CHAT_UNPLACED = Counter "bitbrat_chat_unplaced_messages_total" [] "Chat messages on the bus of unknown channels.";
    PROCESS_CPU = Counter "process_cpu_seconds_total" [] "CPU time used, of all threads. Not on Windows.";
    PROCESS_MEMORY = Gauge "process_resident_memory_bytes" [] "Resident memory. Only on Linux.";
    PROCESS_OPEN_FDS = Gauge "process_open_fds" [] "Open file descriptors. Not on Windows.";
    PROCESS_MAX_FDS = Gauge "process_max_fds" [] "File descriptors that may be open. Only on Linux.";
    PROCESS_START_TIME = Gauge "process_start_time_seconds" [] "When this process started.";
}
