//! `events tail`: follows the bus without effect on other consumers.

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use clap_complete::ArgValueCompleter;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

use super::{demo_daemon, failed};
use crate::bus::event_lines::{Line, Wanted, lines};
use crate::bus::{EventBus, Filter, Message, Messages, names};
use crate::cli::complete;
use crate::cli::context::{Context, Setup};
use crate::cli::output::view::Tone;
use crate::cli::output::{Format, Listed as _, Listing, Note, Output, machine, offer};
use crate::cli::reports::events;
use crate::cli::source_arg::{self, SourceSelector};
use crate::config::{BusTarget, parse_duration};
use crate::core::time::Timestamp;
use crate::failure::{ExitCode, Failure};
use crate::view::since::Since;
use crate::watch::sent_events;

/// Delay before a lost bus is followed again.
const PAUSE: Duration = Duration::from_secs(1);

/// Follow the events on the bus, one JSON object per line
///
/// It takes no messages from other consumers and leaves nothing on the bus. With the local bus it shows what a `bitbrat watch`
/// with the same state directory publishes; with --demo it shows the events of a demo world. Without --limit and --for it runs
/// until it is interrupted. `meaning` is how bitbrat interprets each message; `bitbrat schema events` describes a line.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat events tail
  bitbrat --demo events tail -o table
  bitbrat events tail --type system.stream.online,system.stream.offline --since 1h
  bitbrat events tail --source twitch:123456 | jq .event.payload
  bitbrat events tail --topic dead-letters --since 24h --for 5s -o json")]
pub struct TailArgs {
    /// Only events of these types
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',', add = ArgValueCompleter::new(complete::event_types))]
    types: Vec<String>,
    /// Only events about these sources: platform:id, platform:name, names, or globs of the sources that are known at the start
    #[arg(long, value_name = "SOURCE", value_delimiter = ',', add = ArgValueCompleter::new(complete::sources))]
    source: Vec<SourceSelector>,
    /// Begin in the past, as far as the bus retains messages: 10m, 24h, or a time as 2026-11-20T10:00:00Z
    #[arg(long, value_name = "WHEN")]
    since: Option<Since>,
    /// Which messages
    #[arg(long, value_enum, default_value_t)]
    topic: Topic,
    /// Stop after this many lines
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
    /// Stop after this time
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    lasting: Option<Duration>,
}

/// A part of the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Topic {
    /// Events about sources, and chat that comes in
    #[default]
    Ingress,
    /// What is handed to delivery, of every instance
    Egress,
    /// Messages that could not be used
    DeadLetters,
    /// What the platform's router could not route
    RouterDeadLetters,
    /// Mutations for the state engine
    Mutations,
}

impl Topic {
    fn filter(self) -> Filter {
        let topic = |name: &str| Filter::Topic(name.to_owned());
        match self {
            Self::Ingress => Filter::ingress(),
            Self::Egress => Filter::egress(),
            Self::DeadLetters => topic(names::DEAD_LETTERS),
            Self::RouterDeadLetters => topic(names::ROUTER_DEAD_LETTERS),
            Self::Mutations => topic(names::STATE_MUTATIONS),
        }
    }
}

pub async fn run(setup: &Setup, cx: Context, args: &TailArgs) -> Result<ExitCode, Failure> {
    let now = cx.app.clock.now();
    let since = args.since.map(|since| since.before(now));
    let wanted = source_arg::select_keys(&cx, &args.source, false).await?;
    // The one command whose output programs usually read: the table format has to be requested.
    let format = if cx.output.is_chosen {
        cx.output.format
    } else {
        Format::Ndjson
    };
    let endless = args.limit.is_none() && args.lasting.is_none();
    if endless && matches!(format, Format::Json | Format::Yaml) {
        let what = "a tail has no end, and one document needs one";
        return Err(Failure::new(ExitCode::Usage, what).hint("add --limit or --for, or use -o ndjson"));
    }
    let wanted = Wanted {
        types: args.types.iter().cloned().collect(),
        sources: wanted.into_iter().collect(),
    };
    let bus = cx.app.bus().await?;
    let mut printer = Printer::new(cx.output, format);
    let followed = match &bus {
        Some(bus) => {
            if since.is_some() && matches!(cx.app.settings.bus.target, BusTarget::Pubsub { .. }) {
                let what =
                    "Pub/Sub keeps no past for a new subscription; what is published from now on is shown";
                cx.note(&[Note::hint(Tone::Warn, what, None)])?;
            }
            let messages = bus.tail(&args.topic.filter(), since).await;
            let messages = messages.map_err(|error| failed("follow", bus.as_ref(), &error))?;
            follow_with_reconnect(Arc::clone(bus), args.topic.filter(), messages)
        }
        // All events of the demo are published after this moment, however soon its daemon begins.
        None => local(&cx, since.or_else(|| cx.app.demo.is_some().then_some(now)))?,
    };
    let (app, logs) = (Arc::new(cx.app), cx.logs);
    // The demo's world is in this process, and so is what changes it.
    let world = async {
        match (&bus, &app.demo) {
            (None, Some(_)) => demo_daemon(setup, &app, &logs).await.map(|_| ()),
            _ => std::future::pending().await,
        }
    };
    let end = async {
        match args.lasting {
            Some(lasting) => tokio::time::sleep(lasting).await,
            None => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        printed = print(lines(followed, wanted), args.limit, &mut printer) => printed,
        ended = world => ended,
        () = end => Ok(()),
    };
    printer.finish(app.clock.now())?;
    if let Some(bus) = bus {
        bus.close().await;
    }
    result.map(|()| ExitCode::Healthy)
}

async fn print(
    mut lines: BoxStream<'static, Result<Line, Failure>>,
    limit: Option<usize>,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let mut left = limit.unwrap_or(usize::MAX);
    while left > 0
        && let Some(line) = lines.next().await
    {
        left -= 1;
        if !printer.print(line?)? {
            break;
        }
    }
    Ok(())
}

/// Follows a bus indefinitely: after a connection loss, from the last message that was shown.
fn follow_with_reconnect(
    bus: Arc<dyn EventBus>,
    filter: Filter,
    messages: Messages,
) -> BoxStream<'static, Result<Message, Failure>> {
    struct Following {
        bus: Arc<dyn EventBus>,
        filter: Filter,
        open: Option<Messages>,
        last: Option<Message>,
        /// The last message before the bus was lost.
        shown: Option<Message>,
    }
    let start = Following {
        bus,
        filter,
        open: Some(messages),
        last: None,
        shown: None,
    };
    futures_util::stream::unfold(start, |mut following| async move {
        loop {
            let Some(open) = &mut following.open else {
                tokio::time::sleep(PAUSE).await;
                let since = following.last.as_ref().and_then(|last| last.published_at);
                following.open = following.bus.tail(&following.filter, since).await.ok();
                following.shown.clone_from(&following.last);
                continue;
            };
            match open.next().await {
                // After a reconnect the bus begins at the time of the last message, which was shown already.
                Some(Ok(message))
                    if following
                        .shown
                        .as_ref()
                        .is_some_and(|shown| is_old(shown, &message)) => {}
                Some(Ok(message)) => {
                    following.last = Some(message.clone());
                    return Some((Ok(message), following));
                }
                Some(Err(_)) | None => following.open = None,
            }
        }
    })
    .boxed()
}

fn is_old(shown: &Message, message: &Message) -> bool {
    let number = |message: &Message| message.transport_id.parse::<u64>().ok();
    message.published_at <= shown.published_at && number(message) <= number(shown)
}

/// Follows the events that a `watch` on this machine publishes.
fn local(
    cx: &Context,
    since: Option<Timestamp>,
) -> Result<BoxStream<'static, Result<Message, Failure>>, Failure> {
    let file = cx.app.state_file_path();
    if cx.app.demo.is_none() && !sent_events::has_events(&file) {
        let what = format!(
            "no `bitbrat watch` has published anything in {} yet",
            file.display()
        );
        cx.note(&[Note::hint(Tone::Warn, what, Some("bitbrat watch"))])?;
    }
    let messages = sent_events::follow(file, since).map(|message| {
        message.map_err(|error| {
            Failure::new(ExitCode::Failed, "cannot follow what `bitbrat watch` publishes").because(&error)
        })
    });
    Ok(messages.boxed())
}

/// Prints lines as they come, or all of them in one document at the end.
struct Printer {
    output: Output,
    format: Format,
    kept: Vec<Line>,
    begun: bool,
}

impl Printer {
    fn new(output: Output, format: Format) -> Self {
        Self {
            output,
            format,
            kept: Vec::new(),
            begun: false,
        }
    }

    /// Prints one line. Returns whether standard output is still open.
    fn print(&mut self, line: Line) -> Result<bool, Failure> {
        let one = |line| Listing::new(Timestamp::EPOCH, vec![line]);
        let text = match self.format {
            Format::Json | Format::Yaml => {
                self.kept.push(line);
                return Ok(true);
            }
            Format::Table | Format::Wide => events::line(&line, self.output.out),
            Format::Ndjson => machine::ndjson(&one(line))?,
            Format::Csv => {
                let text = machine::csv(&one(line))?;
                // The header is printed above the first row only.
                let skipped = usize::from(self.begun);
                text.split_inclusive('\n').skip(skipped).collect()
            }
            Format::Name => line.name() + "\n",
        };
        self.begun = true;
        Ok(offer(&text)?)
    }

    fn finish(&mut self, now: Timestamp) -> Result<(), Failure> {
        if matches!(self.format, Format::Json | Format::Yaml) {
            let output = Output {
                format: self.format,
                ..self.output
            };
            output.print(&Listing::new(now, std::mem::take(&mut self.kept)))?;
        }
        Ok(())
    }
}
