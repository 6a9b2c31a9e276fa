//! How long it takes to merge one observation into a document and to derive its status. `scripts/bench.sh join` runs this, and
//! reads one JSON object a line.
//!
//! The document has evidence of every kind, as one has after the first round of probes. The floor is a copy of that document:
//! whatever replaces a document has to write at least that much.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;

use bitbrat::clock::{Clock as _, SystemClock};
use bitbrat::core::document::SourceDocument;
use bitbrat::core::evidence::Knowledge;
use bitbrat::core::observation::{
    AuthCheck, AuthResult, Fact, Grants, Identity, LinkState, Observation, Transport,
};
use bitbrat::core::source::SourceKey;
use bitbrat::core::time::Timestamp;

/// Observations in a run.
const ROUNDS: u32 = 20_000;
/// Runs, of which the median counts.
const RUNS: usize = 9;

fn main() {
    let key: SourceKey = "twitch:1000001".parse().expect("a numeric id");
    let start = SystemClock.now().plus_secs(-86_400);
    let document = filled(&key, start);
    let floor = micros(|_| {
        black_box(document.clone());
    });
    for (what, fact) in observations() {
        let mut merged = document.clone();
        let took = micros(|round| {
            let at = start.plus_secs(60 + i64::from(round));
            merged.join(Knowledge::from(&Observation::new(
                &key,
                at,
                "bench.join",
                fact(round),
            )));
            black_box(&merged.verdict);
        });
        let line = serde_json::json!({"what": what, "value": took, "floor": "copy of the document", "floor_value": floor});
        let _ = writeln!(std::io::stdout(), "{line}");
    }
}

/// Returns the median time of one call in microseconds. Rounds are counted over all runs, so that time never goes back.
fn micros(mut work: impl FnMut(u32)) -> f64 {
    let mut round = 0;
    let mut runs: Vec<f64> = Vec::new();
    for _ in 0..RUNS {
        let begun = Instant::now();
        for _ in 0..ROUNDS {
            work(round);
            round += 1;
        }
        runs.push(begun.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS));
    }
    runs.sort_by(f64::total_cmp);
    runs[RUNS / 2]
}

type Maker = fn(u32) -> Fact;

/// The usual observations, by what they are.
fn observations() -> [(&'static str, Maker); 4] {
    [
        ("confirmed connection", |_| Fact::Connection {
            transport: Transport::Api,
            state: LinkState::Up,
        }),
        ("changed viewers", |round| Fact::Viewers {
            count: u64::from(round),
            stream_id: Some("41".to_owned()),
        }),
        ("listed stream", |_| Fact::StreamSeen {
            stream_id: "41".to_owned(),
            started_at: None,
        }),
        ("pushed start or end", |round| Fact::StreamPush {
            live: round.is_multiple_of(2),
            stream_id: Some(format!("4{:08}", round / 2)),
            started_at: None,
        }),
    ]
}

/// A document as it is after the first round of probes.
fn filled(key: &SourceKey, at: Timestamp) -> SourceDocument {
    let fields = [
        ("displayName", "Rat"),
        ("login", "rat"),
        ("title", "A title of usual length"),
    ];
    let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let grants = Grants {
        granted: ["MODERATOR", "scope:user:bot", "scope:user:read:chat"]
            .map(str::to_owned)
            .into(),
        denied: ["BROADCASTER", "VIP"].map(str::to_owned).into(),
        unknown: BTreeMap::new(),
    };
    let facts = [
        Fact::Connection {
            transport: Transport::Api,
            state: LinkState::Up,
        },
        Fact::Connection {
            transport: Transport::EventSub,
            state: LinkState::Up,
        },
        Fact::Exists,
        Fact::Auth {
            identity: Identity::named("twitch/bot"),
            check: Arc::new(AuthCheck::of(AuthResult::Valid)),
        },
        Fact::StreamSeen {
            stream_id: "41".to_owned(),
            started_at: Some(at),
        },
        Fact::Viewers {
            count: 40,
            stream_id: Some("41".to_owned()),
        },
        Fact::Latency { millis: 9 },
        Fact::Profile {
            fields: fields.into(),
        },
        Fact::Permissions {
            method: "twitch.scopes".to_owned(),
            grants: Arc::new(grants),
        },
    ];
    let mut document = SourceDocument::new(key.clone());
    for fact in facts {
        document.join(Knowledge::from(&Observation::new(key, at, "bench.join", fact)));
    }
    document
}
