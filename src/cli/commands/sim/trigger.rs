//! `sim trigger`: cause an event in a running simulator.

use std::time::Duration;

use clap::{ArgAction, Args};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::cli::context::Setup;
use crate::cli::output::Listing;
use crate::cli::reports::sim_events::{EventItem, TriggerItem};
use crate::failure::{ExitCode, Failure};
use crate::http::{Answer, Http, HttpOptions};

/// Cause an event in a running simulator
///
/// The event has the platform's own name. The source is an id (twitch:777002), a name or a channel's address. Without an
/// event the known ones are listed, with the fields that each takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat sim trigger                                    list the events
  bitbrat sim trigger stream.online quietharbor -f viewers=40
  bitbrat sim trigger channel.chat.message twitch:777002 -f 'text=hi @bitbrat_bot Kappa'
  bitbrat sim trigger channel.moderate twitch:777002 -f action=warn -f user_id=777100
  bitbrat sim trigger user.authorization.revoke bitbrat_bot
  bitbrat sim trigger MESSAGE_CREATE discord:888001
  bitbrat sim trigger livestream.status.updated kick:888002 --port 19000")]
pub struct TriggerArgs {
    /// The event, such as stream.online; all are listed without one
    event: Option<String>,
    /// The source in which it happens
    source: Option<String>,
    /// A field of the event
    #[arg(short, long = "field", value_name = "NAME=VALUE", value_parser = field, action = ArgAction::Append)]
    fields: Vec<(String, String)>,
}

fn field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or("write NAME=VALUE, for example viewers=40")?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

/// Runs the command against the simulator, one of whose platforms listens on `port`.
pub async fn run(setup: &Setup, port: u16, args: &TriggerArgs) -> Result<ExitCode, Failure> {
    let simulator = Simulator::new(setup, port);
    let Some(event) = &args.event else {
        let events: Events = simulator.ask("events", None).await?;
        setup
            .output
            .print(&Listing::new(setup.clock.now(), events.events))?;
        return Ok(ExitCode::Healthy);
    };
    let Some(source) = &args.source else {
        let what = format!("`{event}` happens in a source: which one?");
        let example = format!("name one, for example `bitbrat sim trigger {event} twitch:777002`");
        return Err(Failure::new(ExitCode::Usage, what).hint(example));
    };
    let fields: Map<String, Value> = args
        .fields
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    let order = json!({"event": event, "source": source, "fields": fields});
    let item: TriggerItem = simulator.ask("trigger", Some(&order)).await?;
    setup.output.print(&Listing::new(setup.clock.now(), vec![item]))?;
    Ok(ExitCode::Healthy)
}

#[derive(Deserialize)]
struct Events {
    events: Vec<EventItem>,
}

/// The simulator's response to a request that it cannot carry out.
#[derive(Deserialize)]
struct Refused {
    error: String,
}

struct Simulator {
    http: Http,
    port: u16,
}

impl Simulator {
    fn new(setup: &Setup, port: u16) -> Self {
        let options = HttpOptions {
            timeout: Duration::from_secs(10),
            ..HttpOptions::default()
        };
        Self {
            http: Http::new(options, setup.clock.clone()),
            port,
        }
    }

    async fn ask<T: DeserializeOwned>(&self, control: &str, order: Option<&Value>) -> Result<T, Failure> {
        let address = format!("http://127.0.0.1:{}/__sim/{control}", self.port);
        let url: url::Url = address.parse().expect("a loopback address with a port is a URL");
        let request = match order {
            Some(order) => self.http.request(reqwest::Method::POST, url).json(order),
            None => self.http.request(reqwest::Method::GET, url),
        };
        let request = request.build().map_err(|error| {
            Failure::new(ExitCode::Failed, "cannot write the order for the simulator").because(&error)
        })?;
        let answer = self.http.send(request).await.map_err(|error| {
            Failure::new(
                ExitCode::Failed,
                format!("no simulator answers on port {}", self.port),
            )
            .because(&error)
            .hint("start one with `bitbrat sim`, or name the port of one that runs with --port")
        })?;
        self.read(&answer)
    }

    fn read<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T, Failure> {
        if answer.is_success()
            && let Ok(body) = answer.json()
        {
            return Ok(body);
        }
        let failure = match answer.json::<Refused>() {
            Ok(refused) => Failure::new(ExitCode::Failed, format!("cannot cause it: {}", refused.error))
                .hint("`bitbrat sim trigger` lists the events with their fields"),
            Err(_) => Failure::new(
                ExitCode::Failed,
                format!(
                    "what listens on port {} is no bitbrat simulator of this version",
                    self.port
                ),
            )
            .hint("name the port of the simulator with --port"),
        };
        Err(failure)
    }
}
