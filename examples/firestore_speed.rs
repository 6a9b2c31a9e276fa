//! Measures the Firestore adapter against an emulator: single and batched writes a second, and how long it takes from an
//! observation to a document that another client can read.
//!
//! `eval "$(scripts/services.sh env firestore)"; cargo run --release --example firestore_speed`
#![expect(
    clippy::print_stdout,
    reason = "an example tells its figures on standard output"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "it names its project after the moment at which it runs"
)]

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bitbrat::clock::{Chance, Clock, SystemClock};
use bitbrat::core::document::SourceDocument;
use bitbrat::core::evidence::Knowledge;
use bitbrat::core::observation::{Fact, LinkState, Observation, Transport};
use bitbrat::core::source::SourceKey;
use bitbrat::persist::Persister;
use bitbrat::persist::write_policy::WritePolicy;
use bitbrat::store::firestore::{FirestoreStore, FirestoreTarget};
use bitbrat::store::{SourceStore, Version, Write};

const SINGLE: usize = 500;
const BATCH: usize = 450;
const BATCHES: usize = 10;
const EVENTS: usize = 500;
const SOURCES: usize = 20;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let host = std::env::var("FIRESTORE_EMULATOR_HOST").map_err(|_| "set FIRESTORE_EMULATOR_HOST")?;
    let run = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)?
        .as_nanos();
    let target = FirestoreTarget {
        emulator: Some(host),
        patience: Duration::from_secs(20),
        ..FirestoreTarget::new(&format!("speed-{run}"), "(default)")
    };
    let store = Arc::new(FirestoreStore::new(target.clone()));
    // The emulator is slow until its code is compiled; nobody's first second is of interest.
    singly(&*store, "discord", SINGLE).await?;
    together(&*store, "discord", 3).await?;

    let begun = Instant::now();
    singly(&*store, "kick", SINGLE).await?;
    println!(
        "single writes, one after the other   {:>6.0}/s",
        rate(SINGLE, begun)
    );
    let begun = Instant::now();
    together(&*store, "kick", BATCHES).await?;
    println!(
        "batched writes, {BATCH} in a request      {:>6.0}/s",
        rate(BATCH * BATCHES, begun)
    );

    let (stored, readable) = follow(store, FirestoreStore::new(target)).await?;
    println!(
        "observation to acknowledged write    p50 {:>5.1} ms   p99 {:>5.1} ms",
        stored.0, stored.1
    );
    println!(
        "observation to another's read        p50 {:>5.1} ms   p99 {:>5.1} ms",
        readable.0, readable.1
    );
    Ok(())
}

fn rate(writes: usize, begun: Instant) -> f64 {
    f64::from(u32::try_from(writes).unwrap_or(u32::MAX)) / begun.elapsed().as_secs_f64()
}

fn document(key: &str) -> Outcome<SourceDocument> {
    let key: SourceKey = key.parse()?;
    let up = Fact::Connection {
        transport: Transport::Api,
        state: LinkState::Up,
    };
    let known = Knowledge::from(&Observation::new(&key, SystemClock.now(), "speed", up));
    Ok(SourceDocument::from_knowledge(key, known))
}

async fn singly(store: &dyn SourceStore, platform: &str, count: usize) -> Outcome<()> {
    let mut base: Option<Version> = None;
    let document = document(&format!("{platform}:1"))?;
    for _ in 0..count {
        let mut changed = document.clone();
        let viewers = Fact::Latency { millis: 1 };
        changed.join(Knowledge::from(&Observation::new(
            &document.key,
            SystemClock.now(),
            "speed",
            viewers,
        )));
        base = Some(store.save(&[Write::new(changed, base)]).await.remove(0)?);
    }
    Ok(())
}

async fn together(store: &dyn SourceStore, platform: &str, batches: usize) -> Outcome<()> {
    let mut bases: Vec<Option<Version>> = vec![None; BATCH];
    for _ in 0..batches {
        let write = |(index, base): (usize, &mut Option<Version>)| {
            document(&format!("{platform}:{}", index + 100)).map(|document| Write::new(document, base.take()))
        };
        let writes = bases
            .iter_mut()
            .enumerate()
            .map(write)
            .collect::<Outcome<Vec<_>>>()?;
        for (base, saved) in bases.iter_mut().zip(store.save(&writes).await) {
            *base = Some(saved?);
        }
    }
    Ok(())
}

/// Streams go live and end, one event at a time; each is a transition. Returns the median and the 99th percentile, in
/// milliseconds, until it was acknowledged and until a second client had read it.
async fn follow(store: Arc<FirestoreStore>, reader: FirestoreStore) -> Outcome<((f64, f64), (f64, f64))> {
    let persister = Persister::new(
        store,
        Arc::new(SystemClock),
        WritePolicy::every(Duration::from_mins(5)),
        Chance::random(),
    );
    let mut stored = Vec::new();
    let mut readable = Vec::new();
    for event in 0..EVENTS + SOURCES {
        let key: SourceKey = format!("twitch:{}", event % SOURCES + 1).parse()?;
        let live = (event / SOURCES).is_multiple_of(2);
        let fact = Fact::StreamPush {
            live,
            stream_id: Some(format!("s{}", event / SOURCES / 2)),
            started_at: None,
        };
        let begun = Instant::now();
        persister
            .observe(&[Observation::new(&key, SystemClock.now(), "speed", fact)])
            .await;
        let acknowledged = begun.elapsed();
        let read = reader.load(&key).await?.ok_or("it was stored")?.value;
        if (read.record().stream_status.to_string() == "ONLINE") != live {
            return Err("another state was read than was written".into());
        }
        // The first word of each source is read before it is written; that is not the steady case.
        if event >= SOURCES {
            stored.push(acknowledged);
            readable.push(begun.elapsed());
        }
    }
    Ok((percentiles(stored), percentiles(readable)))
}

fn percentiles(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort_unstable();
    let at = |percent: usize| {
        times
            .get(times.len() * percent / 100)
            .map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    };
    (at(50), at(99))
}
