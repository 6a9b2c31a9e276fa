//! `top`: the status of sources on the whole screen, with keys.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCompleter;
use futures_util::StreamExt as _;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::{BoxStream, FuturesUnordered};
use ratatui::crossterm::event::Event;
use tokio::time::{Instant, sleep_until};

use crate::app::StoreAccess;
use crate::cli::commands::sources::known::{self, Ask, Known};
use crate::cli::commands::sources::{describe, status};
use crate::cli::complete;
use crate::cli::context::{Context, Setup};
use crate::cli::filters::FilterArgs;
use crate::cli::output::Format;
use crate::cli::output::view::Tone;
use crate::cli::reports::history::HistoryReport;
use crate::cli::reports::source::SourceReport;
use crate::cli::screen::model::{Action, Content, Model, PageKind, Snapshot};
use crate::cli::screen::terminal::{self, Screen};
use crate::cli::selection::Selection;
use crate::cli::source_arg::{self, SourceSelector};
use crate::core::source::SourceKey;
use crate::core::summary::SourceSummary;
use crate::failure::{ExitCode, Failure};
use crate::os::{self, JobSignal, JobSignals, Signals};
use crate::platforms::Problem;
use crate::store::{HistoryEntry, StoreError, Stored};

/// Ages grow, so everything is judged again this often.
const TICK: Duration = Duration::from_secs(1);
/// Least time between two frames.
const FRAME: Duration = Duration::from_millis(100);
/// Transitions on the page of a history.
const HISTORY: usize = 200;

/// Show the status of sources on the whole screen
///
/// What needs attention comes first. It follows the store, which `bitbrat watch` keeps up to date, or with --probe checks the
/// platforms itself. The keys are shown at the bottom, all of them by `?`. Needs a terminal of at least 60x15; for pipes and logs
/// there is `bitbrat status --watch`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat top
  bitbrat top 'twitch:*' --failing
  bitbrat top --probe                  without a running `bitbrat watch`
  bitbrat --demo top                   the simulated platforms")]
pub struct TopArgs {
    /// Sources to show: platform:id, platform:name, names, channels' addresses, or globs; all when none are given
    #[arg(value_name = "SOURCE", add = ArgValueCompleter::new(complete::sources))]
    ids: Vec<SourceSelector>,
    /// Check the platforms, as often as the schedule of streams
    #[arg(long)]
    probe: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Prepares for a screen: nothing else may write to the terminal.
pub fn prepare(setup: &mut Setup) -> Result<(), Failure> {
    let usage = |what: &str| {
        let failure = Failure::new(ExitCode::Usage, what);
        failure.hint("for pipes and logs, run `bitbrat status --watch`")
    };
    if let Some(obstacle) = terminal::obstacle() {
        return Err(usage(&format!("top draws on a terminal, and {obstacle}")));
    }
    if setup.output.is_chosen && setup.output.format != Format::Table {
        return Err(usage("top draws on a terminal, and has no other output formats"));
    }
    setup.draws = true;
    setup.progress = false;
    setup.output.quiet = true;
    Ok(())
}

pub async fn run(cx: &Context, args: &TopArgs) -> Result<ExitCode, Failure> {
    let probes = args.probe || cx.app.is_store_temporary();
    let selection = source_arg::select(cx, &args.ids, probes).await?;
    let selection = selection.on(&args.filter.platform);
    let store = cx.app.store(StoreAccess::Read).await?;
    let mut updates = store.watch().await?;
    let first = updates
        .next()
        .await
        .expect("the stream of a store's changes does not end")?;
    let mut feed = Feed {
        cx,
        filter: &args.filter,
        selection,
        stored: Vec::new(),
        problem: None,
        problems: Vec::new(),
    };
    feed.stored = first.into_iter().map(Stored::to_summary).collect();
    let model = Model::new(feed.snapshot()?);
    let top = Top {
        feed,
        model,
        jobs: FuturesUnordered::new(),
        is_probing: false,
        probe_at: probes.then(Instant::now),
    };
    top.run(updates).await
}

/// Where snapshots come from.
struct Feed<'a> {
    cx: &'a Context,
    filter: &'a FilterArgs,
    selection: Selection,
    stored: Vec<Stored<Arc<SourceSummary>>>,
    /// Why `stored` is not current, if so.
    problem: Option<Problem>,
    /// Problems of the last check of all sources.
    problems: Vec<Problem>,
}

impl Feed<'_> {
    fn snapshot(&self) -> Result<Snapshot, Failure> {
        let sources = self.cx.app.sources.all();
        let stored = self.stored.clone();
        let mut known = known::among(self.cx, &self.selection, &sources, stored, None)?;
        self.filter.apply(&mut known);
        Ok(Snapshot {
            as_of: self.cx.app.clock.now(),
            rows: known.rows,
            unusable: known.unusable,
            problems: self
                .problems
                .iter()
                .cloned()
                .chain(self.problem.clone())
                .collect(),
        })
    }

    fn replace(&mut self, change: Result<Vec<Stored>, StoreError>) {
        match change {
            Ok(all) => {
                self.stored = all.into_iter().map(Stored::to_summary).collect();
                self.problem = None;
            }
            Err(error) => self.problem = Some(status::shown_is_older(&error)),
        }
    }
}

type Updates = BoxStream<'static, Result<Vec<Stored>, StoreError>>;

/// The result of something that was begun by a key or a schedule.
enum Done {
    /// A check of one source, or of all.
    Probed(Option<SourceKey>, Result<Known, Failure>),
    Loaded(PageKind, SourceKey, Content),
}

struct Top<'a> {
    feed: Feed<'a>,
    model: Model,
    jobs: FuturesUnordered<LocalBoxFuture<'a, Done>>,
    is_probing: bool,
    /// When the next check of all sources is due, if there is a schedule.
    probe_at: Option<Instant>,
}

impl Top<'_> {
    async fn run(mut self, mut updates: Updates) -> Result<ExitCode, Failure> {
        let no_signals =
            |error: std::io::Error| Failure::new(ExitCode::Failed, "cannot receive signals").because(&error);
        let mut signals = Signals::new().map_err(no_signals)?;
        let mut job = JobSignals::new().map_err(no_signals)?;
        let mut screen = Screen::enter().map_err(|error| no_screen(&error))?;
        let mut events = terminal::events();
        let output = self.feed.cx.output;
        let mut tick = Instant::now();
        let mut drawn_at = tick;
        let mut is_changed = true;
        loop {
            let sorts_at = self.model.sorts_at();
            tokio::select! {
                biased;
                // The program watches the same signals, and either may be woken first.
                Some(signal) = signals.recv() => return Ok(ExitCode::of_signal(signal)),
                signal = job.recv() => match signal {
                    JobSignal::Stop => screen.suspend().await,
                    JobSignal::Continue => screen.resume(),
                }.map_err(|error| no_screen(&error))?,
                event = events.recv() => match self.receive(event.as_ref()) {
                    Action::Quit => return Ok(ExitCode::Healthy),
                    Action::Interrupt => return Ok(ExitCode::Interrupted),
                    Action::HangUp => return Ok(ExitCode::HungUp),
                    // The signal reaches this process like the others of the job.
                    Action::Suspend => os::stop_job().map_err(|error| no_screen(&error))?,
                    Action::Probe(key) => self.probe(Some(key)),
                    Action::Open(kind, key) => self.load(kind, key),
                    Action::None => {}
                },
                // A frame is drawn before anything new is received: a store that changes all the time must not keep it back.
                () = sleep_until(drawn_at + FRAME), if is_changed => {
                    screen.draw(&mut self.model, &output).map_err(|error| no_screen(&error))?;
                    (drawn_at, is_changed) = (Instant::now(), false);
                    continue;
                }
                change = updates.next() => {
                    self.feed.replace(change.expect("the stream of a store's changes does not end"));
                    self.judge();
                    self.reload();
                }
                Some(done) = self.jobs.next(), if !self.jobs.is_empty() => self.finish(done),
                () = sleep_until(sorts_at.unwrap_or(tick)), if sorts_at.is_some() => {
                    self.model.settle(Instant::now());
                }
                () = sleep_until(tick) => {
                    tick = Instant::now() + TICK;
                    self.judge();
                    self.probe_on_schedule();
                }
            }
            is_changed = true;
        }
    }

    fn receive(&mut self, event: Option<&Event>) -> Action {
        match event {
            Some(Event::Key(key)) => self.model.key(*key, Instant::now()),
            Some(_) => Action::None,
            // The terminal is gone.
            None => Action::HangUp,
        }
    }

    fn judge(&mut self) {
        match self.feed.snapshot() {
            Ok(snapshot) => self.model.update(snapshot, Instant::now()),
            Err(failure) => self.model.set_message(Tone::Bad, in_one_line(&failure)),
        }
    }

    fn probe_on_schedule(&mut self) {
        let now = Instant::now();
        if self.probe_at.is_some_and(|due| now >= due) && !self.is_probing {
            self.probe_at = Some(now + self.feed.cx.app.probe_interval());
            self.probe(None);
        }
    }

    /// Checks one source, or all.
    fn probe(&mut self, key: Option<SourceKey>) {
        if self.is_probing {
            self.model
                .set_message(Tone::Warn, "a check is running; try again when it has ended");
            return;
        }
        self.is_probing = true;
        let mut selection = self.feed.selection.clone();
        if let Some(key) = &key {
            self.model.set_message(Tone::Plain, format!("checking {key} ..."));
            selection = Selection::default();
            selection.add_key(key.clone());
        }
        let cx = self.feed.cx;
        let ask = Ask {
            probe: true,
            max_age: None,
        };
        self.jobs.push(Box::pin(async move {
            Done::Probed(key, known::load(cx, &selection, ask).await)
        }));
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Loaded(kind, key, content) => self.model.show_page(kind, &key, content),
            Done::Probed(key, result) => {
                self.is_probing = false;
                match (key, result) {
                    (None, Ok(known)) => self.feed.problems = known.problems,
                    (None, Err(failure)) => {
                        self.feed.problems = vec![Problem::of_platform(in_one_line(&failure))];
                    }
                    (Some(key), Ok(known)) => self.report(&key, &known),
                    (Some(key), Err(failure)) => {
                        let what = format!("cannot check {key}: {}", in_one_line(&failure));
                        self.model.set_message(Tone::Bad, what);
                    }
                }
                self.judge();
            }
        }
    }

    /// Shows the result of the check of one source.
    fn report(&mut self, key: &SourceKey, known: &Known) {
        if let Some(problem) = known.problems.first() {
            self.model
                .set_message(Tone::Warn, format!("checked {key}: {}", problem.text));
        } else if known.unanswered.contains(key) {
            self.model.set_message(
                Tone::Warn,
                format!("checked {key}: no answer; what is shown is older"),
            );
        } else {
            self.model.set_message(Tone::Good, format!("checked {key}"));
        }
    }

    /// Reads the open page again.
    fn reload(&mut self) {
        if let Some((kind, key)) = self.model.open_page() {
            let key = key.clone();
            self.load(kind, key);
        }
    }

    fn load(&mut self, kind: PageKind, key: SourceKey) {
        let cx = self.feed.cx;
        self.jobs.push(Box::pin(async move {
            let content = match load(cx, kind, &key).await {
                Ok(content) => content,
                Err(failure) => Content::Failed(in_one_line(&failure)),
            };
            Done::Loaded(kind, key, content)
        }));
    }
}

fn no_screen(error: &std::io::Error) -> Failure {
    Failure::new(ExitCode::Failed, "cannot draw on the terminal").because(error)
}

fn in_one_line(failure: &Failure) -> String {
    let causes = failure.causes.iter().map(String::as_str);
    let parts: Vec<&str> = std::iter::once(&*failure.what).chain(causes).collect();
    parts.join(": ")
}

async fn load(cx: &Context, kind: PageKind, key: &SourceKey) -> Result<Content, Failure> {
    let as_of = cx.app.clock.now();
    if kind == PageKind::History {
        let store = cx.app.store(StoreAccess::Read).await?;
        let entries = HistoryEntry::without_repeats(store.history(key, HISTORY).await?);
        return Ok(Content::History(Box::new(HistoryReport {
            as_of,
            keys: vec![key.clone()],
            entries: entries.into_iter().map(|entry| (key.clone(), entry)).collect(),
            unusable: Vec::new(),
            since: None,
        })));
    }
    let several = known::stored_in_full(cx, std::slice::from_ref(key), None).await?;
    if let Some(unusable) = several.unusable.first() {
        return Ok(Content::Failed(format!("{}: {}", unusable.id, unusable.reason)));
    }
    let Some(found) = several.found.into_iter().next() else {
        return Err(known::no_such_source(key));
    };
    Ok(Content::Source(Box::new(SourceReport {
        as_of,
        sources: vec![describe::in_full(cx, found).await?],
        unusable: Vec::new(),
        total: 1,
        notes: Vec::new(),
    })))
}
