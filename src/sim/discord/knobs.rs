//! The switches for deviating behavior of the simulated Discord.

use serde::Deserialize;

/// Behavior of Discord where several variants are possible.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Knobs {
    /// Requests per bucket and window.
    pub bucket: u32,
    /// Milliseconds until a bucket is reset.
    pub bucket_window_ms: i64,
    /// Whether responses have no `X-RateLimit-*` headers.
    pub no_rate_headers: bool,
    /// Requests a second over all routes.
    pub global_per_second: usize,
    /// Refused requests in ten minutes after which Cloudflare bans the IP address for an hour.
    pub invalid_limit: usize,
    /// Whether a guild without the bot is answered with 404 (10004) instead of 403 (50001); Discord does either.
    pub outsider_404: bool,
    /// Whether the list of a guild's channels leaves out those that the bot cannot see.
    pub list_without_hidden: bool,
    /// Whether every object has undocumented fields.
    pub unknown_fields: bool,
    /// The heartbeat interval sent in Hello.
    pub heartbeat_interval_ms: u64,
    /// Whether heartbeats are not acknowledged.
    pub no_ack: bool,
    /// Real milliseconds by which acknowledgements are delayed.
    pub ack_delay_ms: u64,
    /// Whether Hello is never sent to a new connection.
    pub no_hello: bool,
    /// Identifies per day, after which all sessions end and the token is reset.
    pub identify_total: usize,
    /// Identifies allowed in one window.
    pub max_concurrency: usize,
    /// The window of `max_concurrency`.
    pub identify_window_ms: i64,
    /// Remaining session starts that `/gateway/bot` reports, regardless of the actual number.
    pub reported_remaining: Option<u64>,
    /// Milliseconds for which a session can be resumed.
    pub resume_window_ms: i64,
    /// Messages a connection may send in a minute.
    pub sends_per_minute: usize,
    /// Whether the RESUMED of an earlier resume is replayed among the missed events. The documentation does not say.
    pub replays_resumed: bool,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            bucket: 30,
            bucket_window_ms: 1_000,
            no_rate_headers: false,
            global_per_second: 50,
            invalid_limit: 10_000,
            outsider_404: true,
            list_without_hidden: false,
            unknown_fields: false,
            heartbeat_interval_ms: 41_250,
            no_ack: false,
            ack_delay_ms: 0,
            no_hello: false,
            identify_total: 1_000,
            max_concurrency: 1,
            identify_window_ms: 5_000,
            reported_remaining: None,
            resume_window_ms: 180_000,
            sends_per_minute: 120,
            replays_resumed: false,
        }
    }
}
