//! The public reads of a look: users, streams and channels, in batches that share their calls.
//!
//! Users and streams are the witnesses of the link. What became of all their batches is known at the end of the look, and
//! only then it is told what a failed one means.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::helix::{Call, PAGE, Page, by_id, each};
use super::map::{self, HELIX, Wanted};
use super::probe::Look;
use super::reader::Reader;
use super::wire::{Channel, Stream};
use crate::core::facet::Facet;
use crate::core::observation::Fact;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::platforms::{PlatformError, Probe};

/// A question that is asked of every source, and so a witness of the link.
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

    /// What it serves.
    fn facet(self) -> Facet {
        match self {
            Self::Users => Facet::Status,
            Self::Streams => Facet::Stream,
        }
    }
}

/// What the questions of one look have brought so far.
#[derive(Default)]
struct Outcome<'a> {
    answered: BTreeMap<Question, Timestamp>,
    failures: Vec<Failure<'a>>,
}

/// A batch of which nothing was learnt.
struct Failure<'a> {
    question: Question,
    batch: &'a [&'a SourceKey],
    at: Timestamp,
    error: PlatformError,
}

/// Collects what the questions bring, from calls side by side.
#[derive(Default)]
struct Notes<'a>(Mutex<Outcome<'a>>);

impl<'a> Notes<'a> {
    fn answered(&self, question: Question, at: Timestamp) {
        self.lock().answered.insert(question, at);
    }

    fn failed(&self, failure: Failure<'a>) {
        self.lock().failures.push(failure);
    }

    /// Whether `question` failed for a batch.
    fn has_failed(&self, question: Question, batch: &[&SourceKey]) -> bool {
        let notes = self.lock();
        let mut failed = notes.failures.iter();
        failed.any(|failure| failure.question == question && failure.batch.first() == batch.first())
    }

    fn lock(&self) -> MutexGuard<'_, Outcome<'a>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Look<'_> {
    /// Users, streams and channels, in batches that share their calls.
    pub(super) async fn public_reads(&self, sources: &[&SourceKey]) {
        let wanted = Wanted {
            stream: self.wants(Probe::Stream),
            viewers: self.wants(Probe::Viewers),
        };
        let users = self.wants(Probe::Connection);
        let streams = wanted.stream || wanted.viewers;
        let channels = wanted.stream && self.twitch.options.channel_details;
        if !users && !streams {
            return;
        }
        let reader = match Reader::new(self.twitch).await {
            Ok(reader) => reader,
            Err(error) => {
                self.problem(error.to_string());
                let fact = map::api(error.link_state());
                return self.tell_all(sources, self.now(), HELIX, |_| fact.clone()).await;
            }
        };
        let batches: Vec<_> = sources.chunks(PAGE).collect();
        let kinds = usize::from(users) + usize::from(streams) + usize::from(channels);
        self.meter.expect(batches.len() * kinds);
        let notes = Notes::default();
        // Who exists comes first: of a channel that does not, a list of streams without it proves nothing.
        self.side_by_side(
            batches
                .iter()
                .filter(|_| users)
                .map(|batch| self.users(&reader, batch, &notes)),
        )
        .await;
        let (streams, channels) = tokio::join!(
            self.side_by_side(
                batches
                    .iter()
                    .filter(|_| streams)
                    .map(|batch| self.streams(&reader, batch, wanted, &notes))
            ),
            self.side_by_side(
                batches
                    .iter()
                    .filter(|_| channels)
                    .map(|batch| self.channels(&reader, batch))
            ),
        );
        let ((), ()) = (streams, channels);
        self.conclude(notes).await;
    }

    async fn users<'a>(&self, reader: &Reader<'_>, batch: &'a [&'a SourceKey], notes: &Notes<'a>) {
        let ids: Vec<_> = batch.iter().map(|source| source.id()).collect();
        match reader.users("id", &ids, &self.meter).await {
            Err(error) => self.failed(Question::Users, batch, error, notes),
            Ok(page) => {
                notes.answered(Question::Users, page.at);
                let (at, found) = (page.at, by_id(page.rows, |user| &user.id));
                for source in batch {
                    for told in map::user(source, found.get(source.id()), at) {
                        self.sink.observe(told);
                    }
                }
                self.latency(batch, at);
            }
        }
    }

    async fn streams<'a>(
        &self,
        reader: &Reader<'_>,
        batch: &'a [&'a SourceKey],
        wanted: Wanted,
        notes: &Notes<'a>,
    ) {
        match self.all_streams(reader, batch).await {
            Err(error) => self.failed(Question::Streams, batch, error, notes),
            Ok(page) => {
                notes.answered(Question::Streams, page.at);
                let complete = page.cursor.is_none();
                let (at, found) = (page.at, by_id(page.rows, |stream| &stream.user_id));
                // Where users has told of the link, it need not be told again for ten thousand sources.
                let users_told = if self.wants(Probe::Connection) {
                    !notes.has_failed(Question::Users, batch)
                } else {
                    self.twitch.witnesses.vouch_against(Question::Streams.name(), at)
                };
                for source in batch {
                    let row = found.get(source.id());
                    if !users_told {
                        self.tell(source, at, HELIX, map::api(map::answered(row)));
                    }
                    for told in map::stream(source, row, complete, wanted, at) {
                        self.sink.observe(told);
                    }
                }
                if !self.wants(Probe::Connection) {
                    self.latency(batch, at);
                }
            }
        }
    }

    /// Reads the streams of a batch. One page holds them all; should Twitch still announce another while some are
    /// missing, it is read too, and a third is not.
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
        page.cursor = next
            .cursor
            .filter(|further| !nothing_new && *further != cursor && missing(&page.rows));
        Ok(page)
    }

    async fn channels(&self, reader: &Reader<'_>, batch: &[&SourceKey]) {
        let call = Call {
            operation: "the channels' titles",
            path: "channels",
            query: each("broadcaster_id", batch.iter().map(|source| source.id())),
        };
        match reader.list::<Channel>(&call, &self.meter).await {
            Err(error) => self.problem(error.to_string()),
            Ok(page) => {
                let (at, found) = (page.at, by_id(page.rows, |channel| &channel.broadcaster_id));
                for source in batch {
                    let found = found.get(source.id());
                    if let Some(told) = found.and_then(|channel| map::channel(source, channel, at)) {
                        self.sink.observe(told);
                    }
                }
            }
        }
    }

    fn failed<'a>(
        &self,
        question: Question,
        batch: &'a [&'a SourceKey],
        error: PlatformError,
        notes: &Notes<'a>,
    ) {
        self.problem(error.to_string());
        notes.failed(Failure {
            question,
            batch,
            at: self.now(),
            error,
        });
    }

    /// Tells what the failed batches mean: trouble of the link, or a question without an answer over a link that works.
    async fn conclude(&self, notes: Notes<'_>) {
        let Outcome { answered, failures } = notes.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let witnesses = &self.twitch.witnesses;
        for failure in &failures {
            witnesses.failed(failure.question.name(), failure.at);
        }
        // A question that was answered for one batch is answered, whichever came last.
        for (question, at) in answered {
            witnesses.answered(question.name(), at);
        }
        let is_the_links = |failure: &Failure<'_>| {
            failure.error.concerns_every_question()
                || !witnesses.vouch_against(failure.question.name(), failure.at)
        };
        let (of_the_link, unanswered): (Vec<_>, Vec<_>) = failures.into_iter().partition(is_the_links);
        for failure in of_the_link {
            witnesses.link_failed(failure.at);
            let fact = map::api(failure.error.link_state());
            self.tell_all(failure.batch, failure.at, HELIX, |_| fact.clone())
                .await;
        }
        for failure in unanswered {
            let fact = Fact::Unanswered {
                facet: failure.question.facet(),
                error: failure.error.error_info(),
            };
            self.tell_all(failure.batch, failure.at, HELIX, |_| fact.clone())
                .await;
        }
    }

    fn latency(&self, batch: &[&SourceKey], at: Timestamp) {
        if let Some(millis) = self.twitch.helix.latency.millis() {
            for source in batch {
                self.tell(source, at, HELIX, Fact::Latency { millis });
            }
        }
    }
}
