//! `doctor`: every check, each with the next command to run.

use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::app::App;
use crate::cli::context::{Context, Setup, chmod};
use crate::cli::output::{Listing, humane};
use crate::cli::reports::doctor::{Check, Outcome};
use crate::config::{Configuration, ExposedFile, Problem, TokenTarget};
use crate::core::source::PlatformName;
use crate::failure::{ExitCode, Failure};

pub(super) mod bus;
pub(super) mod platforms;
pub(super) mod reach;
pub(super) mod state;
pub(super) mod store;

/// Check everything, and show what to run next
///
/// Works with a broken configuration too; what depends on it is then SKIPPED. 6: the configuration is invalid. 4: an
/// authorization is expired, revoked or missing. 1: something else does not work.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat doctor
  bitbrat doctor twitch store
  bitbrat doctor --strict -o json | jq '.items[] | select(.outcome != \"OK\")'")]
pub struct DoctorArgs {
    #[arg(value_name = "AREA", value_parser = PossibleValuesParser::new(areas()), help = help())]
    areas: Vec<String>,
    /// Fail when a check was skipped
    #[arg(long)]
    strict: bool,
}

/// Returns the areas, in the order in which they are checked.
fn areas() -> Vec<&'static str> {
    let platforms = PlatformName::ALL.map(PlatformName::as_str);
    let others = ["configuration", "state", "tokens", "store", "bus", "web"];
    others.into_iter().chain(platforms).collect()
}

fn help() -> String {
    format!("Only these areas: {}", areas().join(", "))
}

/// Runs the command. `cx` is absent when the configuration is invalid.
pub async fn run(
    setup: &Setup,
    configuration: &Configuration,
    cx: Option<&Context>,
    args: &DoctorArgs,
) -> Result<ExitCode, Failure> {
    let checks = checks(configuration, cx, &args.areas).await;
    let exit = exit_code(&checks, args.strict);
    setup.output.print(&Listing::new(setup.clock.now(), checks))?;
    Ok(exit)
}

/// Checks the areas that are `named`, or all if none is, and returns the results, failures first.
pub(super) async fn checks(
    configuration: &Configuration,
    cx: Option<&Context>,
    named: &[String],
) -> Vec<Check> {
    let wanted = |area: &str| named.is_empty() || named.iter().any(|asked| asked == area);
    let mut checks = Vec::new();
    if wanted("configuration") {
        checks.extend(of_configuration(configuration));
    } else if cx.is_none() {
        // The cause of every SKIPPED below, whichever areas were requested.
        let failed = |check: &Check| check.outcome == Outcome::Fail;
        checks.extend(of_configuration(configuration).into_iter().filter(failed));
    }
    match cx {
        Some(cx) => {
            let is_named = |area: &str| named.iter().any(|asked| asked == area);
            let running = Box::pin(of_running(cx, &wanted, &is_named));
            checks.extend(cx.progress.during(running).await);
        }
        None => checks.extend(
            areas()
                .into_iter()
                .skip(1)
                .filter(|area| wanted(area))
                .map(|area| Check::new(area, "all", Outcome::Skipped, "the configuration is invalid")),
        ),
    }
    failures_first(&mut checks);
    checks
}

/// Sorts failures first; otherwise the order of the areas stays.
fn failures_first(checks: &mut [Check]) {
    checks.sort_by_key(|check| match check.outcome {
        Outcome::Fail => 0,
        Outcome::Warn => 1,
        Outcome::Ok | Outcome::Skipped => 2,
    });
}

fn exit_code(checks: &[Check], strict: bool) -> ExitCode {
    let failed = |test: &dyn Fn(&Check) -> bool| {
        checks
            .iter()
            .any(|check| check.outcome == Outcome::Fail && test(check))
    };
    let skipped = checks.iter().any(|check| check.outcome == Outcome::Skipped);
    if failed(&|check| check.area == "configuration") {
        ExitCode::Configuration
    } else if failed(&|check| check.name.starts_with("identity")) {
        ExitCode::Unauthorized
    } else if failed(&|_| true) || (strict && skipped) {
        ExitCode::Failed
    } else {
        ExitCode::Healthy
    }
}

fn of_configuration(configuration: &Configuration) -> Vec<Check> {
    const AREA: &str = "configuration";
    let files: Vec<_> = configuration
        .files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    // The content of such a file is unknown, so no check depends on it.
    let unread = configuration.problems.iter().any(Problem::is_of_a_whole_file);
    let mut checks = vec![match (files.is_empty(), unread) {
        (true, true) => Check::new(AREA, "files", Outcome::Warn, "none could be read"),
        (true, false) => Check::new(
            AREA,
            "files",
            Outcome::Ok,
            "none; only the environment and defaults count",
        ),
        (false, true) => {
            let detail = format!("{}; others could not be read", files.join(", "));
            Check::new(AREA, "files", Outcome::Warn, detail)
        }
        (false, false) => Check::new(AREA, "files", Outcome::Ok, files.join(", ")),
    }];
    for problem in &configuration.problems {
        checks.push(
            Check::new(AREA, "settings", Outcome::Fail, problem.to_string()).next("bitbrat config check"),
        );
    }
    for warning in &configuration.warnings {
        checks.push(Check::new(AREA, "settings", Outcome::Warn, warning.with_hint()));
    }
    if configuration.problems.is_empty() {
        checks.push(Check::new(AREA, "settings", Outcome::Ok, "valid"));
    }
    checks.extend(configuration.exposed.iter().map(exposed));
    let sources = configuration.settings.sources.len();
    checks.push(if unread {
        Check::new(
            AREA,
            "sources",
            Outcome::Skipped,
            "not known while a file cannot be read",
        )
    } else if sources == 0 {
        Check::new(AREA, "sources", Outcome::Warn, "none are configured").next("bitbrat init")
    } else {
        Check::new(
            AREA,
            "sources",
            Outcome::Ok,
            humane::count(sources as u64, "source"),
        )
    });
    checks
}

/// Returns the check of a file whose secrets others may read.
pub(super) fn exposed(file: &ExposedFile) -> Check {
    Check::new("configuration", "secrets", Outcome::Warn, file.to_string()).next(chmod(file))
}

async fn of_running(
    cx: &Context,
    wanted: &(dyn Fn(&str) -> bool + Sync),
    is_named: &(dyn Fn(&str) -> bool + Sync),
) -> Vec<Check> {
    let app = &cx.app;
    let mut checks = Vec::new();
    if wanted("configuration") {
        let merged = app.sources.all().merged.into_iter();
        checks.extend(merged.map(|merged| {
            Check::new("configuration", "duplicate", Outcome::Warn, merged.to_string())
                .next("bitbrat sources list")
        }));
    }
    if wanted("state") {
        checks.extend(state::directory(&app.settings, &app.state_file_path()));
    }
    if wanted("tokens") {
        checks.push(of_tokens(app).await);
    }
    if wanted("store") {
        checks.extend(store::check(app).await);
    }
    if wanted("bus") {
        checks.extend(bus::check(app).await);
    }
    if wanted("web") {
        checks.push(state::address(app).await);
    }
    for platform in PlatformName::ALL {
        if wanted(platform.as_str()) {
            checks.extend(platforms::check(cx, platform, is_named(platform.as_str())).await);
        }
    }
    checks
}

/// Says what is done with tokens of the platform.
fn of_platform(place: &str, app: &App) -> String {
    match app.settings.tokens.refresh {
        true => format!("{place}, refreshed by bitbrat"),
        false => format!("{place}, only read (tokens.refresh = false)"),
    }
}

pub(super) async fn of_tokens(app: &App) -> Check {
    let place = match &app.settings.tokens.target {
        _ if app.demo.is_some() => "the demo's own memory".to_owned(),
        TokenTarget::File(path) => path.display().to_string(),
        TokenTarget::Keyring(name) => format!("the keyring, as `{name}`"),
        TokenTarget::Firestore { project, database } => {
            of_platform(&format!("firestore:{project}/{database}"), app)
        }
        TokenTarget::Postgres(address) => of_platform(&address.to_string(), app),
    };
    let file = match &app.settings.tokens.target {
        TokenTarget::File(path) => path,
        TokenTarget::Keyring(_) | TokenTarget::Firestore { .. } | TokenTarget::Postgres(_) => {
            &app.settings.tokens.file
        }
    };
    if app.demo.is_none()
        && let Some(check) = state::tokens(file)
    {
        return check;
    }
    match app.tokens().identities().await {
        Ok(identities) => {
            let count = match identities.len() {
                1 => "1 identity".to_owned(),
                many => format!("{many} identities"),
            };
            Check::new(
                "tokens",
                "token store",
                Outcome::Ok,
                format!("{count} in {place}"),
            )
        }
        Err(error) => {
            let failure = Failure::from(error);
            Check {
                detail: failure.causes.join(": "),
                ..Check::of_failure("tokens", "token store", Outcome::Fail, &failure)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_stand_first_and_areas_keep_their_order() {
        let check = |area: &str, outcome| Check::new(area, "x", outcome, "");
        let mut checks = vec![
            check("a", Outcome::Ok),
            check("b", Outcome::Warn),
            check("c", Outcome::Fail),
            check("d", Outcome::Skipped),
            check("e", Outcome::Fail),
        ];
        failures_first(&mut checks);
        let areas: String = checks.iter().map(|check| check.area.as_str()).collect();
        assert_eq!(areas, "cebad");
    }

    #[test]
    fn exit_code_reflects_worst_kind_of_failure() {
        let check = |area: &str, name: &str, outcome| Check::new(area, name, outcome, "");
        let ok = check("store", "reachable", Outcome::Ok);
        let store = check("store", "reachable", Outcome::Fail);
        let identity = check("twitch", "identity twitch/bot", Outcome::Fail);
        let configuration = check("configuration", "settings", Outcome::Fail);
        let skipped = check("kick", "all", Outcome::Skipped);
        for (checks, strict, expected) in [
            (vec![ok.clone(), skipped.clone()], false, 0),
            (vec![ok.clone(), skipped.clone()], true, 1),
            (vec![ok.clone()], true, 0),
            (vec![store.clone(), ok.clone()], false, 1),
            (vec![store.clone(), identity.clone()], false, 4),
            (vec![store, identity, configuration], false, 6),
        ] {
            assert_eq!(exit_code(&checks, strict).number(), expected, "{checks:?}");
        }
    }
}
