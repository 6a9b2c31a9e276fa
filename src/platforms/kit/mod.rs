//! What two or more platforms do in the same way. Adapters use these modules and never each other; nothing here depends on one
//! platform's API.
//!
//! | module | use |
//! | --- | --- |
//! | [`answer`] | turns an HTTP answer into a [`PlatformError`](super::PlatformError): one meaning per status on all platforms |
//! | [`dedup`] | remembers ids of deliveries, so that what arrives twice counts once |
//! | [`facts`] | facts about a transport, and errors as facts |
//! | [`greeting`] | checks whether a websocket opens, for `doctor` |
//! | [`lenient`] | reads foreign JSON field by field and row by row |
//! | [`link_health`] | decides whether a failed probe is a failure of the link |
//! | [`meter`] | counts the requests of a probe run, reports its progress and collects its problems |
//! | [`oauth`] | keeps the OAuth tokens of accounts usable; a platform supplies a [`Provider`](oauth::Provider) |
//! | [`smoothed_latency`] | a smoothed round trip |
//! | [`token_check`] | derives the status of an account's token, once per probe run |
//! | [`totals`] | running totals by source |

pub mod answer;
pub mod dedup;
pub mod error_body;
pub mod facts;
pub mod greeting;
pub mod lenient;
pub mod link_health;
pub mod meter;
pub mod oauth;
pub mod smoothed_latency;
pub mod token_check;
pub mod totals;
