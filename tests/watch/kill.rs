//! `kill -9` at random points: a real child process with writer, outbox and dispatcher is killed again and again while streams
//! start and end.
//!
//! The child is this same test binary, started again. It receives streams through a file that the test writes, and its bus is a
//! file that it appends to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bitbrat::core::document::SourceDocument;
use bitbrat::core::event::read::{Reading, Side, read};
use bitbrat::core::event::{Event, EventKind};
use bitbrat::core::observation::{Fact, Observation};
use bitbrat::core::source::SourceKey;
use bitbrat::core::stream::StreamStatus;
use bitbrat::core::time::Timestamp;
use bitbrat::lifecycle::Lifecycle;
use bitbrat::watch::dispatcher::{SendError, Sink};

use crate::support::{bare_engine, process};

const DIRECTORY: &str = "BITBRAT_TEST_KILL_DIRECTORY";
const KILLS: u32 = 200;
const SOURCES: u32 = 8;

/// Appends events to a file, durably, and only then acknowledges.
struct FileBus(PathBuf);

#[async_trait]
impl Sink for FileBus {
    fn describe(&self) -> String {
        "file".to_owned()
    }

    async fn send(&self, events: &[Event]) -> Vec<Result<(), SendError>> {
        let mut text = String::new();
        for event in events {
            writeln!(text, "{}", serde_json::to_string(event).unwrap()).unwrap();
        }
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.0)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
        vec![Ok(()); events.len()]
    }
}

/// The child's main function. Ignored as a test of its own: it is only ever started by the test below.
#[tokio::test]
#[ignore = "it is the child process of the test below"]
async fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else {
        return;
    };
    let lifecycle = Lifecycle::new();
    let bus = Arc::new(FileBus(directory.join("bus")));
    bare_engine::start(
        &directory,
        "child",
        &sources(),
        directory.join("platform"),
        bus,
        &lifecycle.tasks(),
    );
    let _ = lifecycle.run(Duration::from_secs(5)).await;
}

fn sources() -> Vec<SourceKey> {
    (1..=SOURCES)
        .map(|id| format!("twitch:{id}").parse().unwrap())
        .collect()
}

/// The platform's events, in a file that only grows; a child that starts reads all of them again.
struct Platform {
    file: std::fs::File,
    live: BTreeMap<SourceKey, String>,
    streams: BTreeMap<SourceKey, Vec<String>>,
    now: Timestamp,
}

impl Platform {
    fn toggle(&mut self, source: &SourceKey) {
        self.now = self.now.plus_secs(1);
        let fact = if let Some(stream) = self.live.remove(source) {
            Fact::StreamPush {
                live: false,
                stream_id: Some(stream),
                started_at: None,
            }
        } else {
            let streams = self.streams.entry(source.clone()).or_default();
            let stream = format!("{}{:04}", source.id(), streams.len() + 1);
            streams.push(stream.clone());
            self.live.insert(source.clone(), stream.clone());
            Fact::StreamPush {
                live: true,
                stream_id: Some(stream),
                started_at: Some(self.now),
            }
        };
        let observation = Observation::new(source, self.now, "twitch.eventsub", fact);
        writeln!(self.file, "{}", serde_json::to_string(&observation).unwrap()).unwrap();
    }
}

fn spawn(directory: &Path) -> Child {
    process::again("watch::kill::child")
        .args(["--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn sent(directory: &Path) -> Vec<Event> {
    let text = std::fs::read_to_string(directory.join("bus")).unwrap_or_default();
    // A kill may have truncated the last line before a restart appended to it; it was not acknowledged then.
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

#[test]
fn engine_killed_200_times_announces_every_stream_once() {
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path();
    let mut chance = fastrand::Rng::with_seed(20_261_122);
    let keys = sources();
    let mut platform = Platform {
        file: std::fs::File::create(directory.join("platform")).unwrap(),
        live: BTreeMap::new(),
        streams: BTreeMap::new(),
        now: Timestamp::from_millis(1_780_000_000_000),
    };
    for _ in 0..KILLS {
        let mut child = spawn(directory);
        for _ in 0..chance.u32(0..4) {
            let source = chance.choice(&keys).unwrap().clone();
            platform.toggle(&source);
            std::thread::sleep(Duration::from_millis(chance.u64(0..12)));
        }
        std::thread::sleep(Duration::from_millis(chance.u64(0..40)));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let mut child = spawn(directory);
    let expected: usize = platform.streams.values().map(Vec::len).sum::<usize>() * 2 - platform.live.len();
    let patience = Instant::now() + Duration::from_secs(120);
    let transitions = loop {
        let ids: BTreeSet<String> = sent(directory).into_iter().map(|event| event.id).collect();
        if ids.len() >= expected || Instant::now() > patience {
            break ids.len();
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    // Anything after all events were published would be a duplicate.
    std::thread::sleep(Duration::from_millis(200));
    child.kill().unwrap();
    child.wait().unwrap();
    let mut complaints = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut complaints)
        .unwrap();
    assert_eq!(transitions, expected, "{complaints}");
    check(&sent(directory), &platform);
}

/// Every start and end has one id, and the documents match the platform.
fn check(events: &[Event], platform: &Platform) {
    let mut documents: BTreeMap<SourceKey, SourceDocument> = BTreeMap::new();
    let mut starts: BTreeMap<SourceKey, BTreeSet<String>> = BTreeMap::new();
    let mut order: BTreeMap<SourceKey, Vec<Timestamp>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for event in events {
        if event.kind == EventKind::StreamOnline {
            starts
                .entry(event.source.clone())
                .or_default()
                .insert(event.id.clone());
        }
        if seen.insert(event.id.clone()) {
            order.entry(event.source.clone()).or_default().push(event.at);
        }
        let Reading::SourceUpdate(evidence_update) =
            read(Side::Ingress, &BTreeMap::new(), event.body.as_bytes(), event.at)
        else {
            panic!("our own event is not understood: {}", event.body);
        };
        let document = documents
            .entry(event.source.clone())
            .or_insert_with(|| SourceDocument::new(event.source.clone()));
        document.join(evidence_update.knowledge);
    }
    for (source, streams) in &platform.streams {
        assert_eq!(
            starts[source].len(),
            streams.len(),
            "{source} starts once a stream"
        );
        assert!(
            order[source].is_sorted(),
            "{source} in order: {:?}",
            order[source]
        );
        let verdict = &documents[source].verdict;
        let live = platform.live.get(source);
        let expected = if live.is_some() {
            StreamStatus::Online
        } else {
            StreamStatus::Offline
        };
        assert_eq!(verdict.stream.value, expected, "{source}");
        let session = verdict.broadcast.as_ref().map(|session| &session.stream_id);
        assert_eq!(session, streams.last(), "{source}");
    }
}
