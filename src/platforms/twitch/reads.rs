//! The public reads of a probe run: users and streams, in batches that share their calls.
//!
//! Users and streams serve to judge the link. The results of all batches are known at the end of the run, and only then is the
//! meaning of a failed one reported.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;

use super::helix::{Call, PAGE, Page, by_id, each, unclear};
use super::map::{self, HELIX};
use super::probe::ProbeRun;
use super::reader::Reader;
use super::wire::Stream;
use crate::core::facet::Facet;
use crate::core::observation::Fact;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::platforms::kit::lenient::Unclear;
use crate::platforms::{PlatformError, Probe, Problem};

/// A request that is made for every source, and is therefore used to judge the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Question {
    Users,
    Streams,
}

impl Question {
    fn name(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Streams => "streams",
        }
    }

    /// The facet that it determines.
    fn facet(self) -> Facet {
        match self {
            Self::Users => Facet::Status,
            Self::Streams => Facet::Stream,
        }
    }
}

/// What the requests of one probe run have returned so far.
#[derive(Default)]
struct ReadResults<'a> {
    answered: BTreeMap<Question, Timestamp>,
    failures: Vec<Failure<'a>>,
}

/// A batch that produced no result.
struct Failure<'a> {
    question: Question,
    batch: &'a [&'a SourceKey],
    at: Timestamp,
    error: PlatformError,
}

/// Collects the results of concurrent calls.
#[derive(Default)]
struct Notes<'a>(Mutex<ReadResults<'a>>);

impl<'a> Notes<'a> {
    fn answered(&self, question: Question, at: Timestamp) {
        self.0.lock().answered.insert(question, at);
    }

    fn failed(&self, failure: Failure<'a>) {
        self.0.lock().failures.push(failure);
    }

    fn has_failed(&self, question: Question, batch: &[&SourceKey]) -> bool {
        let notes = self.0.lock();
        let mut failed = notes.failures.iter();
        failed.any(|failure| failure.question == question && failure.batch.first() == batch.first())
    }
}

impl ProbeRun<'_> {
    /// Reads users and streams, in batches that share their calls.
    pub(super) async fn public_reads(&self, sources: &[&SourceKey]) {
        let users = self.wants(Probe::Connection);
        let streams = self.wants(Probe::Stream) || self.wants(Probe::Viewers);
        if !users && !streams {
            return;
        }
        let reader = match Reader::new(self.twitch).await {
            Ok(reader) => reader,
            Err(error) => {
                self.failure(&error);
                let fact = map::api(error.link_state());
                return self.emit_all(sources, self.now(), HELIX, |_| fact.clone()).await;
            }
        };
        let batches: Vec<_> = sources.chunks(PAGE).collect();
        let [users, streams] = [users, streams].map(|wanted| if wanted { batches.as_slice() } else { &[] });
        self.meter.expect(users.len() + streams.len());
        let notes = Notes::default();
        // Existence comes first: for a channel that does not exist, its absence from a list of streams proves nothing.
        self.side_by_side(users, |batch| self.users(&reader, batch, &notes))
            .await;
        self.side_by_side(streams, |batch| self.streams(&reader, batch, &notes))
            .await;
        self.conclude(notes).await;
    }

    async fn users<'a>(&self, reader: &Reader<'_>, batch: &'a [&'a SourceKey], notes: &Notes<'a>) {
        let ids: Vec<_> = batch.iter().map(|source| source.id()).collect();
        match reader.users("id", &ids, &self.meter).await {
            Err(error) => self.failed(Question::Users, batch, error, notes),
            Ok(page) => {
                self.answered();
                notes.answered(Question::Users, page.at);
                let listed = page.rows.iter().map(|user| user.id.as_str());
                let unclear = unclear(ids.iter().copied(), listed, &page.unread, "id");
                self.note_unclear(Question::Users, &unclear);
                let (at, found) = (page.at, by_id(page.rows, |user| &user.id));
                for source in batch {
                    let row = found.get(source.id());
                    if row.is_none() && unclear.concerns(source.id()) {
                        self.sink.observe(map::unreadable(source, Facet::Status, at));
                        continue;
                    }
                    if row.is_none() {
                        let error = map::not_found();
                        let problem = Problem::of_source(source, format!("{source}: {}", error.message));
                        self.problem(problem.caused_by(error));
                    }
                    for reported in map::user(source, row, at) {
                        self.sink.observe(reported);
                    }
                }
                self.latency(batch, at);
            }
        }
    }

    async fn streams<'a>(&self, reader: &Reader<'_>, batch: &'a [&'a SourceKey], notes: &Notes<'a>) {
        match self.all_streams(reader, batch).await {
            Err(error) => self.failed(Question::Streams, batch, error, notes),
            Ok(mut page) => {
                self.answered();
                notes.answered(Question::Streams, page.at);
                let complete = page.cursor.is_none();
                // If a channel is listed twice, its newer stream is the live one, in whatever order they are listed. A row
                // without a type proves no stream.
                page.rows.sort_by(|one, other| {
                    let rank = |stream: &Stream| (!stream.kind.is_empty(), stream.started_at);
                    (rank(other), &other.id).cmp(&(rank(one), &one.id))
                });
                let asked = batch.iter().map(|source| source.id());
                let listed = page.rows.iter().map(|stream| stream.user_id.as_str());
                let unclear = unclear(asked, listed, &page.unread, "user_id");
                self.note_unclear(Question::Streams, &unclear);
                let (at, found) = (page.at, by_id(page.rows, |stream| &stream.user_id));
                // If the users request has reported the link, it need not be reported again for ten thousand sources.
                let users_reported = if self.wants(Probe::Connection) {
                    !notes.has_failed(Question::Users, batch)
                } else {
                    self.twitch
                        .link_health
                        .another_probe_succeeded(Question::Streams.name(), at)
                };
                let is_wanted = self.wants(Probe::Stream);
                for source in batch {
                    let row = found.get(source.id());
                    if !users_reported {
                        self.emit(source, at, HELIX, map::api(map::answered(row)));
                    }
                    let open = row.is_none() && unclear.concerns(source.id());
                    if open && is_wanted {
                        self.sink.observe(map::unreadable(source, Facet::Stream, at));
                    }
                    for reported in map::stream(source, row, complete && !open, is_wanted, at) {
                        self.sink.observe(reported);
                    }
                }
                if !self.wants(Probe::Connection) {
                    self.latency(batch, at);
                }
            }
        }
    }

    /// Reads the streams of a batch. One page contains them all; if Twitch announces another while some are missing, it is read
    /// too, but not a third.
    async fn all_streams(
        &self,
        reader: &Reader<'_>,
        batch: &[&SourceKey],
    ) -> Result<Page<Stream>, PlatformError> {
        let mut call = Call {
            operation: "the list of streams",
            path: "streams",
            // Without `first` Twitch lists 20 of 100.
            query: vec![("first", "100")],
        };
        call.query
            .extend(each("user_id", batch.iter().map(|source| source.id())));
        let mut page: Page<Stream> = reader.list(&call, &self.meter).await?;
        let missing = |rows: &[Stream]| {
            let listed: BTreeSet<_> = rows.iter().map(|stream| stream.user_id.as_str()).collect();
            batch.iter().any(|source| !listed.contains(source.id()))
        };
        let Some(cursor) = page.cursor.take().filter(|_| missing(&page.rows)) else {
            return Ok(page);
        };
        call.query.push(("after", &cursor));
        let next: Page<Stream> = reader.list(&call, &self.meter).await?;
        let nothing_new = next.rows.is_empty();
        page.rows.extend(next.rows);
        page.unread.extend(next.unread);
        page.cursor = next
            .cursor
            .filter(|further| !nothing_new && *further != cursor && missing(&page.rows));
        Ok(page)
    }

    fn note_unclear(&self, question: Question, unclear: &Unclear<String>) {
        if unclear.is_any() {
            let question = question.name();
            self.problem(Problem::of_platform(format!(
                "some rows of Twitch's answer to `{question}` cannot be read; channels missing from it are left as they were"
            )));
        }
    }

    fn failed<'a>(
        &self,
        question: Question,
        batch: &'a [&'a SourceKey],
        error: PlatformError,
        notes: &Notes<'a>,
    ) {
        self.failure(&error);
        notes.failed(Failure {
            question,
            batch,
            at: self.now(),
            error,
        });
    }

    /// Reports what the failed batches mean: a failed link, or an unanswered request over a link that works.
    async fn conclude(&self, notes: Notes<'_>) {
        let ReadResults { answered, failures } = notes.0.into_inner();
        let link_health = &self.twitch.link_health;
        for failure in &failures {
            link_health.failed(failure.question.name(), failure.at);
        }
        // A request that was answered for one batch counts as answered, whichever batch came last.
        for (question, at) in answered {
            link_health.answered(question.name(), at);
        }
        let is_the_links = |failure: &Failure<'_>| {
            failure.error.affects_every_request()
                // An answer that asks for fewer requests is an answer.
                || (!matches!(failure.error, PlatformError::RateLimited { .. })
                    && !link_health.another_probe_succeeded(failure.question.name(), failure.at))
        };
        let (of_the_link, unanswered): (Vec<_>, Vec<_>) = failures.into_iter().partition(is_the_links);
        for failure in of_the_link {
            link_health.link_failed(failure.at);
            let fact = map::api(failure.error.link_state());
            self.emit_all(failure.batch, failure.at, HELIX, |_| fact.clone())
                .await;
        }
        for failure in unanswered {
            let fact = Fact::Unanswered {
                facet: failure.question.facet(),
                error: failure.error.error_info(),
            };
            self.emit_all(failure.batch, failure.at, HELIX, |_| fact.clone())
                .await;
        }
    }

    fn latency(&self, batch: &[&SourceKey], at: Timestamp) {
        if let Some(millis) = self.twitch.helix.latency.millis() {
            for source in batch {
                self.emit(source, at, HELIX, Fact::Latency { millis });
            }
        }
    }
}
