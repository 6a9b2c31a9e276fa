//! Writes a recording to its file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use reqwest::header::HeaderMap;
use serde::Serialize;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::format::{
    Answer, Close, Entry, Exchange, FORMAT, Frame, Header, Line, Open, Outcome, PlatformHeader, VERSION,
    Webhook,
};
use super::redact::{self, Redactor};
use super::{Event, Observed, Recorder, Sent};
use crate::blocking::blocking;
use crate::clock::Clock;
use crate::core::platform::PlatformName;
use crate::core::time::Timestamp;
use crate::lifecycle::{Stop, Tasks};
use crate::{files, os, secrets};

/// Size at which a recording ends, in bytes: what `sim --replay` reads.
pub const LIMIT: u64 = files::LARGE;
/// Room for the line that says why a recording ended.
const LAST_LINE: u64 = 256;
/// Events that are written at once.
const BATCH: usize = 256;
/// Headers that are kept, besides those of rate limits.
const HEADERS: [&str; 3] = ["content-type", "retry-after", "age"];

/// A recording whose file exists, and to which nothing is written yet. The file is deleted when it is dropped before its start.
pub struct Recording {
    recorder: Recorder,
    started_at: Timestamp,
    receiver: mpsc::Receiver<Observed>,
    file: NewFile,
    limit: u64,
}

/// A file that is deleted unless it is kept.
struct NewFile {
    path: PathBuf,
    file: Option<File>,
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.file.is_some() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Recording {
    /// Creates the file, which only its owner can read. An existing regular file is replaced if `overwrite` is set, and an error
    /// otherwise.
    pub fn create(path: &Path, overwrite: bool, clock: &dyn Clock) -> io::Result<Self> {
        if overwrite && path.symlink_metadata().is_ok() {
            files::reject_special_file(path)?;
            std::fs::remove_file(path)?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        let file = os::private_file(&mut options).open(path)?;
        let (recorder, receiver) = Recorder::new();
        Ok(Self {
            recorder,
            started_at: clock.now(),
            receiver,
            file: NewFile {
                path: path.to_owned(),
                file: Some(file),
            },
            limit: LIMIT,
        })
    }

    /// Returns what the traffic is recorded with.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Starts writing, in a task of its own. What was observed before is written first.
    pub fn start(mut self, platforms: Vec<PlatformHeader>, tasks: &Tasks) {
        let sources = platforms.iter().flat_map(|platform| &platform.sources);
        let ids = sources.filter_map(|key| key.split_once(':').map(|(_, id)| id.to_owned()));
        let redactor = Redactor::new(ids.collect());
        let header = Header {
            format: FORMAT.to_owned(),
            version: VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            platforms,
        };
        let Some(file) = self.file.file.take() else { return };
        let writer = Writer {
            file,
            path: self.file.path.clone(),
            written: 0,
            limit: self.limit,
            redactor,
            recorder: self.recorder,
        };
        let receiver = self.receiver;
        tasks.spawn_finite("recording", |stop| writer.run(header, receiver, stop));
    }
}

struct Writer {
    file: File,
    path: PathBuf,
    /// Size of the complete lines in the file.
    written: u64,
    limit: u64,
    redactor: Redactor,
    recorder: Recorder,
}

/// Why a recording ended.
enum End {
    Full,
    Failed(io::Error),
}

impl Writer {
    async fn run(mut self, header: Header, mut receiver: mpsc::Receiver<Observed>, stop: Stop) {
        let path = self.path.display().to_string();
        info!(
            path,
            "Recording the traffic with platforms, without secrets; names and titles of channels are in it"
        );
        let (returned, mut ended) = blocking(move || {
            let ended = self.append(&[header]);
            (self, ended)
        })
        .await;
        self = returned;
        while ended.is_ok() {
            let mut batch = Vec::with_capacity(BATCH);
            tokio::select! {
                count = receiver.recv_many(&mut batch, BATCH) => if count == 0 { break },
                () = stop.requested() => {
                    // The listeners close their connections now; what they did until here is in the queue.
                    receiver.close();
                    if receiver.recv_many(&mut batch, BATCH).await == 0 {
                        break;
                    }
                }
            }
            (self, ended) = blocking(move || {
                let ended = self.write(batch);
                (self, ended)
            })
            .await;
        }
        // From now on nothing is copied any more.
        drop(receiver);
        blocking(move || self.finish(ended)).await;
    }

    fn write(&mut self, batch: Vec<Observed>) -> Result<(), End> {
        let mut lines = Vec::with_capacity(batch.len() + 1);
        let size: usize = batch.iter().map(|observed| observed.size).sum();
        self.recorder.0.waiting.fetch_sub(size, Ordering::Relaxed);
        for Observed {
            at, platform, event, ..
        } in batch
        {
            lines.push(self.line(at, platform, event));
        }
        let lost = self.recorder.0.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            lines.push(self.own_line(Entry::Lost(lost)));
        }
        self.append(&lines)
    }

    /// Appends as many whole lines as there is room for.
    fn append(&mut self, lines: &[impl Serialize]) -> Result<(), End> {
        let mut text = Vec::new();
        let mut is_full = false;
        for line in lines {
            let before = text.len();
            serde_json::to_writer(&mut text, line).map_err(|error| End::Failed(error.into()))?;
            text.push(b'\n');
            is_full = self.written + text.len() as u64 + LAST_LINE > self.limit;
            if is_full {
                text.truncate(before);
                break;
            }
        }
        self.file.write_all(&text).map_err(End::Failed)?;
        self.written += text.len() as u64;
        if is_full { Err(End::Full) } else { Ok(()) }
    }

    fn finish(mut self, ended: Result<(), End>) {
        let path = self.path.display().to_string();
        let reason = match ended {
            Ok(()) => "stopped".to_owned(),
            Err(End::Full) => {
                let size = self.limit / (1024 * 1024);
                warn!(
                    path,
                    "The recording has reached {size} MiB and ends here; monitoring continues"
                );
                format!("the limit of {size} MiB was reached")
            }
            Err(End::Failed(error)) => {
                // A part of a line would make the rest unreadable.
                let _ = self.file.set_len(self.written);
                warn!(
                    path,
                    "The recording cannot be written and ends here; monitoring continues: {error}"
                );
                return;
            }
        };
        let mut text = serde_json::to_vec(&self.own_line(Entry::End(reason))).unwrap_or_default();
        text.push(b'\n');
        let last = self.file.write_all(&text).and_then(|()| self.file.sync_all());
        if let Err(error) = last {
            let _ = self.file.set_len(self.written);
            warn!(path, "The last line of the recording cannot be written: {error}");
        }
    }

    fn own_line(&self, entry: Entry) -> Line {
        Line {
            at: millis(self.recorder.elapsed()),
            platform: None,
            entry,
        }
    }

    fn line(&mut self, at: Duration, platform: PlatformName, event: Event) -> Line {
        let entry = match event {
            Event::Exchange(sent, outcome) => Entry::Request(self.exchange(sent, outcome)),
            Event::Open { socket, path, failed } => Entry::Open(Open {
                socket,
                path: secrets::masked(path),
                failed,
            }),
            Event::Frame {
                socket,
                from,
                content,
            } => Entry::Frame(Frame {
                socket,
                from,
                body: self.redactor.frame(&content),
            }),
            Event::Close { socket, from, code } => Entry::Close(Close { socket, from, code }),
            Event::Webhook {
                kind,
                id,
                status,
                body,
            } => Entry::Webhook(Webhook {
                kind: secrets::masked(kind),
                id: secrets::masked(id),
                status,
                body: self.redactor.body(&body, false),
            }),
        };
        Line {
            at: millis(at),
            platform: Some(platform),
            entry,
        }
    }

    fn exchange(
        &mut self,
        sent: Box<Sent>,
        outcome: Result<(u16, HeaderMap, bytes::Bytes), std::borrow::Cow<'static, str>>,
    ) -> Exchange {
        let path = sent.url.path();
        let query = redact::query(sent.url.query());
        let is_oauth = redact::is_oauth(path, sent.is_form);
        let body = if sent.is_form {
            Some(self.redactor.form(&sent.body))
        } else {
            self.redactor.body(&sent.body, is_oauth)
        };
        let outcome = match outcome {
            Ok((status, headers, body)) => {
                if (200..300).contains(&status) {
                    self.redactor.learn_owner(path, &query, &body);
                }
                Outcome::Answer(Answer {
                    status,
                    headers: headers.iter().filter_map(kept_header).collect(),
                    body: self.redactor.body(&body, is_oauth),
                })
            }
            Err(code) => Outcome::Failed(code.into_owned()),
        };
        Exchange {
            method: sent.method,
            path: secrets::masked(path.to_owned()),
            query,
            token: sent.token.map(|token| self.redactor.token(&token)),
            sent: body,
            took: millis(sent.took),
            outcome,
        }
    }
}

/// Returns a header if it is about content or rate limits.
fn kept_header(
    (name, value): (&reqwest::header::HeaderName, &reqwest::header::HeaderValue),
) -> Option<(String, String)> {
    let name = name.as_str();
    let is_kept = HEADERS.contains(&name) || name.contains("ratelimit");
    let value = value.to_str().ok().filter(|_| is_kept)?;
    Some((name.to_owned(), secrets::mask_foreign(value).into_owned()))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::clock::SystemClock;
    use crate::lifecycle::Lifecycle;
    use crate::traffic::Tap;

    /// Records numbered sockets until the recording ends by itself.
    async fn fill(tap: &Tap) {
        for number in 0..1_000_000 {
            if tap.is_over() {
                return;
            }
            tap.opened(&format!("/{number}"), None);
            tokio::task::yield_now().await;
        }
        panic!("the recording never ends");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn recording_ends_at_its_limit_with_a_last_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r.jsonl");
        let mut recording = Recording::create(&path, false, &SystemClock).unwrap();
        recording.limit = 20_000;
        let tap = recording.recorder().tap(PlatformName::Twitch);
        let lifecycle = Lifecycle::new();
        recording.start(Vec::new(), &lifecycle.tasks());
        fill(&tap).await;
        // The task ends after its last line.
        while !lifecycle.tasks().running().is_empty() && !is_ended(&path) {
            tokio::task::yield_now().await;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.len() <= 20_000 && is_ended(&path), "{} bytes", text.len());
        for line in text.lines().skip(1) {
            let _: Line = serde_json::from_str(line).unwrap();
        }
    }

    fn is_ended(path: &Path) -> bool {
        let text = std::fs::read_to_string(path).unwrap();
        let last = text.lines().last().unwrap_or_default();
        last.contains("was reached") && text.ends_with('\n')
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn full_disk_ends_the_recording_alone() {
        let (recorder, receiver) = Recorder::new();
        let tap = recorder.tap(PlatformName::Kick);
        let writer = Writer {
            file: OpenOptions::new().write(true).open("/dev/full").unwrap(),
            path: PathBuf::from("/dev/full"),
            written: 0,
            limit: LIMIT,
            redactor: Redactor::new(HashSet::default()),
            recorder,
        };
        let header = Header {
            format: FORMAT.to_owned(),
            version: VERSION,
            program: String::new(),
            started_at: Timestamp::EPOCH,
            platforms: Vec::new(),
        };
        writer.run(header, receiver, Stop::never()).await;
        assert!(tap.is_over());
        tap.opened("/ws", None);
    }

    #[tokio::test]
    async fn events_beyond_the_queue_are_counted_and_never_waited_for() {
        let (recorder, mut receiver) = Recorder::new();
        let tap = recorder.tap(PlatformName::Kick);
        tap.webhook("chat.message.sent", "id", &vec![b' '; 33 * 1024 * 1024], 200);
        for _ in 0..5_000 {
            tap.webhook("chat.message.sent", "id", b"{}", 200);
        }
        assert_eq!(recorder.0.lost.load(Ordering::Relaxed), 1 + 5_000 - 4_096);
        receiver.close();
        let mut waiting = 0;
        while let Some(observed) = receiver.recv().await {
            waiting += observed.size;
        }
        assert_eq!(recorder.0.waiting.load(Ordering::Relaxed), waiting);
    }
}
