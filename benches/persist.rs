//! How fast the persister role is: messages a second from NATS to the Firestore emulator, its processor time and its peak
//! memory. `scripts/bench.sh persist` runs it.
//!
//! 2,000 messages over 20 sources, each a transition and so a document change with its history entry. The persister is a
//! process of its own, so that what publishes and watches is not measured. Measured twice: with one write for each message, which
//! is what other programs' figures mean, and as shipped, where waiting messages of one source become one write.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitbrat::bus::nats::{NatsBus, NatsOptions};
use bitbrat::bus::{EventBus, Outgoing};
use bitbrat::clock::{Chance, Clock, SystemClock};
use bitbrat::core::document::SourceDocument;
use bitbrat::core::event::EventBuilder;
use bitbrat::core::evidence::Knowledge;
use bitbrat::core::observation::{Fact, Observation};
use bitbrat::core::source::SourceKey;
use bitbrat::core::transition::transitions;
use bitbrat::lifecycle::Lifecycle;
use bitbrat::persist::Persister;
use bitbrat::persist::consumer::{Consumer, Counts, subscription};
use bitbrat::persist::write_policy::WritePolicy;
use bitbrat::store::SourceStore;
use bitbrat::store::firestore::{FirestoreStore, FirestoreTarget};

const MESSAGES: u32 = 2_000;
const SOURCES: u32 = 20;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be built");
    if std::env::var_os("BENCH_PREFIX").is_some() {
        runtime.block_on(persist());
    } else {
        for coalesce in [false, true] {
            runtime.block_on(measure(coalesce));
        }
    }
}

fn needed(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run `scripts/bench.sh persist`"))
}

fn store(project: &str) -> FirestoreStore {
    let mut target = FirestoreTarget::new(project, "(default)");
    target.emulator = Some(needed("FIRESTORE_EMULATOR_HOST"));
    FirestoreStore::new(target)
}

async fn bus(prefix: &str) -> Arc<dyn EventBus> {
    let options = NatsOptions::new(needed("BITBRAT_TEST_NATS_URL"), prefix);
    Arc::new(NatsBus::connect(&options).await.expect("NATS can be used"))
}

/// The process that is measured. It ends when its input does.
async fn persist() {
    let prefix = needed("BENCH_PREFIX");
    let lifecycle = Lifecycle::new();
    let tasks = lifecycle.tasks();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = Arc::new(store(&needed("BENCH_PROJECT")));
    let persister = Arc::new(Persister::new(
        store,
        clock.clone(),
        WritePolicy::every(std::time::Duration::from_mins(5)),
        Chance::seeded(1),
    ));
    let consumer = Consumer {
        bus: bus(&prefix).await,
        persister: persister.clone(),
        clock,
        chance: Chance::seeded(2),
        counts: Arc::new(Counts::default()),
        coalesce: std::env::var_os("BENCH_COALESCE").is_some(),
        on_update: None,
    };
    tasks.spawn("persist", |stop| consumer.run(stop));
    let ending = tasks.clone();
    tasks.spawn_finite("input", |_| async move {
        let _ = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await;
        ending.request_stop();
    });
    let _ = lifecycle.run(Duration::from_secs(10)).await;
    let stats = persister.stats();
    let _ = writeln!(std::io::stdout(), "{} {}", stats.writes, stats.conflicts);
}

async fn measure(coalesce: bool) {
    let unique = &uuid::Uuid::new_v4().simple().to_string()[..12];
    let (prefix, project) = (format!("bench{unique}."), format!("bench-{unique}"));
    let client = async_nats::connect(needed("BITBRAT_TEST_NATS_URL"))
        .await
        .expect("NATS answers");
    let config = async_nats::jetstream::stream::Config {
        name: format!("BENCH{unique}"),
        subjects: vec![format!("{prefix}>")],
        ..Default::default()
    };
    let jetstream = async_nats::jetstream::new(client);
    let stream = jetstream
        .create_stream(config)
        .await
        .expect("a stream can be made");
    let bus = bus(&prefix).await;
    let to = subscription(SystemClock.now());
    drop(bus.subscribe(&to).await.expect("a subscription can be made"));

    let (messages, expected) = history();
    let bytes: usize = messages.iter().map(|message| message.data.len()).sum();
    let (warm, timed) = messages.split_at(SOURCES as usize);
    let mut child = start(&prefix, &project, coalesce);
    send(&*bus, warm).await;
    drained(&*bus).await;
    let cpu = processor_time(child.id());
    let began = Instant::now();
    send(&*bus, timed).await;
    drained(&*bus).await;
    let took = began.elapsed();
    let cpu = processor_time(child.id()).saturating_sub(cpu);
    let peak = peak_memory(child.id());
    let store = store(&project);
    for (key, document) in &expected {
        let stored = store
            .load(key)
            .await
            .expect("the store answers")
            .expect("it is stored")
            .value;
        assert_eq!(
            stored.verdict, document.verdict,
            "{key} is not stored as it was told"
        );
    }
    drop(child.stdin.take());
    let mut reported = String::new();
    let _ = child
        .stdout
        .take()
        .map(|mut out| out.read_to_string(&mut reported));
    let _ = child.wait();
    let _ = jetstream.delete_stream(&stream.cached_info().config.name).await;
    let writes = reported.split_whitespace().next().unwrap_or("?").to_owned();
    let rate = f64::from(MESSAGES) / took.as_secs_f64();
    let _ = writeln!(
        std::io::stdout(),
        "persist ({}): {rate:.0} messages/s ({MESSAGES} messages of {} bytes over {SOURCES} sources in {:.2} s), {:.2} s CPU \
         ({:.2} ms each), {:.1} MiB peak, {writes} documents and history entries written",
        if coalesce {
            "as shipped"
        } else {
            "one write per message"
        },
        bytes / messages.len(),
        took.as_secs_f64(),
        cpu.as_secs_f64(),
        cpu.as_secs_f64() * 1000.0 / f64::from(MESSAGES),
        f64::from(peak) / 1024.0,
    );
}

/// Streams that start and end, each told of as an ingester would.
fn history() -> (Vec<Outgoing>, BTreeMap<SourceKey, SourceDocument>) {
    let mut documents: BTreeMap<SourceKey, SourceDocument> = BTreeMap::new();
    let mut messages = Vec::new();
    let start = SystemClock.now().plus_secs(-86_400);
    for round in 0..=MESSAGES / SOURCES {
        for n in 0..SOURCES {
            let key: SourceKey = format!("twitch:{}", 900_000 + n).parse().expect("a numeric id");
            let document = documents
                .entry(key.clone())
                .or_insert_with(|| SourceDocument::new(key.clone()));
            let before = document.clone();
            let live = round % 2 == 0;
            let at = start.plus_secs(i64::from(round * 60 + n));
            let stream_id = Some(format!("4{:09}", round / 2 * SOURCES + n));
            let fact = Fact::StreamPush {
                live,
                stream_id,
                started_at: live.then_some(at),
            };
            document.join(Knowledge::from(&Observation::new(
                &key,
                at,
                "twitch.eventsub",
                fact,
            )));
            let reported = EventBuilder {
                before: &before,
                after: document,
                by: "twitch.eventsub",
                observed_at: at,
            };
            let changes = transitions(&before.verdict, &document.verdict);
            messages.extend(reported.events(&changes).into_iter().map(Outgoing::from));
        }
    }
    assert_eq!(
        messages.len(),
        (MESSAGES + SOURCES) as usize,
        "every message is a transition"
    );
    (messages, documents)
}

async fn send(bus: &dyn EventBus, messages: &[Outgoing]) {
    for chunk in messages.chunks(256) {
        let results = bus.publish_many(chunk.to_vec()).await;
        assert!(results.iter().all(Result::is_ok), "the bus takes everything");
    }
}

/// Waits until everything is delivered and acknowledged, which happens after it is stored.
async fn drained(bus: &dyn EventBus) {
    let to = subscription(SystemClock.now());
    loop {
        let report = bus.inspect(&to).await.expect("the bus answers");
        if report.waiting == Some(0) && report.unsettled == Some(0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn start(prefix: &str, project: &str, coalesce: bool) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command
        .env("BENCH_PREFIX", prefix)
        .env("BENCH_PROJECT", project)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    if coalesce {
        command.env("BENCH_COALESCE", "1");
    }
    command.spawn().expect("this program can be run again")
}

/// User and system time, from Linux's process table in ticks of 10 ms.
fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<_> = after_name.split_whitespace().collect();
    let ticks = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<u64>().ok())
            .unwrap_or(0)
    };
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

/// Peak resident memory in KiB.
fn peak_memory(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}
