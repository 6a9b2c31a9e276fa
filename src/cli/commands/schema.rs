//! `schema`: the structure of every JSON output, as JSON Schema.

use std::ffi::OsStr;

use clap::Args;
use clap_complete::{ArgValueCompleter, CompletionCandidate};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::json;

use crate::bus::event_lines::Line;
use crate::cli::complete;
use crate::cli::context::Setup;
use crate::cli::output::{Envelope, Listing, Report, write_out};
use crate::cli::reports::{
    alerts::{AlertItem, AlertTestItem},
    auth::AuthReport,
    config::CheckReport,
    config::ConfigReport,
    config::InitItem,
    diff::DiffReport,
    doctor::Check,
    edit::EditItem,
    events::PublishReport,
    fleet::FleetReport,
    history::HistoryReport,
    invites::InviteItem,
    migrate::MigrateReport,
    plan::PlanReport,
    predicate::AnswerReport,
    preflight::PreflightCheck,
    probe::ProbeReport,
    prune::PruneReport,
    schemas::SchemaItem,
    sessions::SessionsReport,
    sim::SimItem,
    sim_events::EventItem,
    sim_events::TriggerItem,
    source::SourceReport,
    sources::SourcesReport,
};
use crate::failure::{ExitCode, Failure, FailureDocument};
use crate::view::actions::ActionItem;
use crate::view::envelope::API_VERSION;

/// Print the JSON Schema of an output
///
/// What `-o json` prints is a promise: fields are added, never renamed or removed. `-o ndjson` prints the entries of
/// `items` alone, one a line.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat schema                 list what there is
  bitbrat schema sources         the output of `sources status` and `sources list`
  bitbrat schema doctor > doctor.schema.json")]
pub struct SchemaArgs {
    /// The output; without one, every name is listed with the commands that print it
    #[arg(add = ArgValueCompleter::new(schemas))]
    name: Option<String>,
}

/// One kind of output.
pub struct Described {
    /// The argument of `schema`.
    pub name: &'static str,
    pub commands: &'static str,
    pub schema: fn() -> Schema,
}

/// Every kind of output.
pub const ALL: &[Described] = &[
    Described {
        name: "sources",
        commands: "sources status, sources list",
        schema: of::<SourcesReport>,
    },
    Described {
        name: "source",
        commands: "sources describe",
        schema: of::<SourceReport>,
    },
    Described {
        name: "history",
        commands: "sources history",
        schema: of::<HistoryReport>,
    },
    Described {
        name: "sessions",
        commands: "sources history --sessions",
        schema: of::<SessionsReport>,
    },
    Described {
        name: "diff",
        commands: "diff",
        schema: of::<DiffReport>,
    },
    Described {
        name: "answer",
        commands: "sources is-live, sources can, sources wait",
        schema: of::<AnswerReport>,
    },
    Described {
        name: "actions",
        commands: "sources can ID help",
        schema: of::<Listing<ActionItem>>,
    },
    Described {
        name: "edit",
        commands: "sources add, sources remove",
        schema: of::<Listing<EditItem>>,
    },
    Described {
        name: "error",
        commands: "every command that fails, on standard error",
        schema: of_failure,
    },
    Described {
        name: "prune",
        commands: "sources prune",
        schema: of::<PruneReport>,
    },
    Described {
        name: "probe",
        commands: "probe",
        schema: of::<ProbeReport>,
    },
    Described {
        name: "fleet",
        commands: "fleet status",
        schema: of::<FleetReport>,
    },
    Described {
        name: "plan",
        commands: "watch --plan",
        schema: of::<PlanReport>,
    },
    Described {
        name: "auth",
        commands: "auth status, auth login, auth refresh, auth logout",
        schema: of::<AuthReport>,
    },
    Described {
        name: "doctor",
        commands: "doctor",
        schema: of::<Listing<Check>>,
    },
    Described {
        name: "preflight",
        commands: "preflight",
        schema: of::<Listing<PreflightCheck>>,
    },
    Described {
        name: "events",
        commands: "events tail (each line is one of its items; `events schema` describes an event)",
        schema: of::<Listing<Line>>,
    },
    Described {
        name: "alerts",
        commands: "alert list, alert mute, alert unmute",
        schema: of::<Listing<AlertItem>>,
    },
    Described {
        name: "alert-test",
        commands: "alert test",
        schema: of::<Listing<AlertTestItem>>,
    },
    Described {
        name: "publish",
        commands: "events publish",
        schema: of::<PublishReport>,
    },
    Described {
        name: "migrate",
        commands: "store migrate",
        schema: of::<MigrateReport>,
    },
    Described {
        name: "config",
        commands: "config show",
        schema: of::<ConfigReport>,
    },
    Described {
        name: "check",
        commands: "config check",
        schema: of::<CheckReport>,
    },
    Described {
        name: "init",
        commands: "config init",
        schema: of::<Listing<InitItem>>,
    },
    Described {
        name: "invites",
        commands: "auth invite",
        schema: of::<Listing<InviteItem>>,
    },
    Described {
        name: "schemas",
        commands: "schema",
        schema: of::<Listing<SchemaItem>>,
    },
    Described {
        name: "sim",
        commands: "sim",
        schema: of::<Listing<SimItem>>,
    },
    Described {
        name: "sim-events",
        commands: "sim trigger (without an event)",
        schema: of::<Listing<EventItem>>,
    },
    Described {
        name: "sim-trigger",
        commands: "sim trigger",
        schema: of::<Listing<TriggerItem>>,
    },
];

/// Other names that people may use for a schema.
const ALSO: &[(&str, &str)] = &[
    ("status", "sources"),
    ("list", "sources"),
    ("describe", "source"),
    ("is-live", "answer"),
    ("can", "answer"),
    ("wait", "answer"),
    ("tail", "events"),
    ("add", "edit"),
    ("remove", "edit"),
];

pub fn run(setup: &Setup, args: &SchemaArgs) -> Result<ExitCode, Failure> {
    let Some(name) = args.name.as_deref() else {
        let items = ALL.iter().map(|described| SchemaItem {
            name: described.name.to_owned(),
            commands: described.commands.to_owned(),
        });
        setup
            .output
            .print(&Listing::new(setup.clock.now(), items.collect()))?;
        return Ok(ExitCode::Healthy);
    };
    let name = ALSO
        .iter()
        .find(|(also, _)| *also == name)
        .map_or(name, |(_, name)| name);
    let described = ALL
        .iter()
        .find(|described| described.name == name)
        .ok_or_else(|| {
            let names: Vec<_> = ALL.iter().map(|described| described.name).collect();
            Failure::new(ExitCode::Usage, format!("there is no output named `{name}`"))
                .hint(format!("use one of {}", names.join(", ")))
        })?;
    write_out(&text(described))?;
    Ok(ExitCode::Healthy)
}

/// Returns a schema as it is printed and shipped.
pub fn text(described: &Described) -> String {
    let schema = (described.schema)();
    serde_json::to_string_pretty(schema.as_value()).expect("a schema is plain JSON") + "\n"
}

fn of_failure() -> Schema {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut schema = generator.into_root_schema_for::<FailureDocument>();
    schema.insert("title".into(), json!("Error"));
    schema
}

fn of<R: Report>() -> Schema
where
    R::Item: JsonSchema,
{
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut schema = generator.into_root_schema_for::<Envelope<R::Item>>();
    schema.insert("title".into(), json!(R::KIND));
    if let Some(properties) = schema
        .get_mut("properties")
        .and_then(|value| value.as_object_mut())
    {
        properties["apiVersion"]["const"] = json!(API_VERSION);
        properties["kind"]["const"] = json!(R::KIND);
        if !R::LIMITED {
            properties.remove("total");
        }
    }
    schema
}
pub fn schemas(current: &OsStr) -> Vec<CompletionCandidate> {
    complete::among(current, ALL.iter().map(|one| (one.name, one.commands)))
}
