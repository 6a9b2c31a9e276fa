//! `doctor`: every check, each with the next command to run.

use clap::Args;

use crate::app::App;
use crate::cli::context::{Context, Setup};
use crate::cli::output::humane;
use crate::cli::reports::doctor::{Check, DoctorReport, Outcome};
use crate::config::{Configuration, Problem, TokenTarget};
use crate::core::source::PlatformName;
use crate::failure::{ExitCode, Failure};

mod bus;
mod platforms;
mod reach;
mod store;

/// Check everything, and tell the next command to run
///
/// Works with a broken configuration too; what depends on it is then SKIPPED. 6: the configuration is invalid. 4: an
/// authorisation is expired, revoked or missing. 1: something else does not work.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat doctor
  bitbrat doctor twitch store
  bitbrat doctor --strict -o json | jq '.items[] | select(.outcome != \"OK\")'")]
pub struct DoctorArgs {
    /// Only these areas: configuration, state, tokens, store, bus, web, twitch, kick, discord
    #[arg(value_name = "AREA", value_parser = AREAS)]
    areas: Vec<String>,
    /// Fail when a check was skipped
    #[arg(long)]
    strict: bool,
}

const AREAS: [&str; 9] = [
    "configuration",
    "state",
    "tokens",
    "store",
    "bus",
    "web",
    "twitch",
    "kick",
    "discord",
];

/// Runs the command. `cx` is absent when the configuration is invalid.
pub async fn run(
    setup: &Setup,
    configuration: &Configuration,
    cx: Option<&Context>,
    args: &DoctorArgs,
) -> Result<ExitCode, Failure> {
    let wanted = |area: &str| args.areas.is_empty() || args.areas.iter().any(|asked| asked == area);
    let mut checks = Vec::new();
    if wanted("configuration") {
        checks.extend(of_configuration(configuration));
    }
    match cx {
        Some(cx) => checks.extend(cx.progress.during(Box::pin(of_running(cx, &wanted))).await),
        None => checks.extend(
            AREAS[1..]
                .iter()
                .filter(|area| wanted(area))
                .map(|area| Check::new(area, "all", Outcome::Skipped, "the configuration is invalid")),
        ),
    }
    let exit = exit_code(&checks, args.strict);
    setup.output.print(&DoctorReport {
        as_of: setup.clock.now(),
        checks,
    })?;
    Ok(exit)
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
        ExitCode::Unauthorised
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
    // What such a file says is not known, so nothing is said of it either.
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
        checks.push(Check::new(AREA, "settings", Outcome::Warn, warning.to_string()));
    }
    if configuration.problems.is_empty() {
        checks.push(Check::new(AREA, "settings", Outcome::Ok, "valid"));
    }
    let sources = configuration.settings.sources.len();
    checks.push(if unread {
        Check::new(
            AREA,
            "sources",
            Outcome::Skipped,
            "not known while a file cannot be read",
        )
    } else if sources == 0 {
        Check::new(AREA, "sources", Outcome::Warn, "none are configured").next("bitbrat config init")
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

async fn of_running(cx: &Context, wanted: &dyn Fn(&str) -> bool) -> Vec<Check> {
    let app = &cx.app;
    let mut checks = Vec::new();
    if wanted("state") {
        checks.push(of_state(app));
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
        checks.push(of_web(app));
    }
    for platform in PlatformName::ALL {
        if wanted(platform.as_str()) {
            checks.extend(platforms::check(cx, platform).await);
        }
    }
    checks
}

/// Returns the permission bits of a file.
fn mode(path: &std::path::Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path)
        .ok()
        .map(|found| found.permissions().mode() & 0o777)
}

fn of_state(app: &App) -> Check {
    let path = &app.settings.state_dir;
    let shown = path.display();
    match mode(path) {
        None => Check::new(
            "state",
            "directory",
            Outcome::Ok,
            format!("{shown} is made when it is first needed"),
        ),
        Some(mode) if mode & 0o077 != 0 => Check::new(
            "state",
            "directory",
            Outcome::Warn,
            format!("{shown} can be read by others (mode {mode:03o})"),
        )
        .next(format!("chmod 700 {shown}")),
        Some(_) => Check::new("state", "directory", Outcome::Ok, shown.to_string()),
    }
}

async fn of_tokens(app: &App) -> Check {
    let place = match &app.settings.tokens.target {
        _ if app.demo.is_some() => "the demo's own memory".to_owned(),
        TokenTarget::File(path) => path.display().to_string(),
        TokenTarget::Firestore { project, database } => format!("firestore:{project}/{database}"),
    };
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
            let check = Check::new("tokens", "token store", Outcome::Fail, failure.causes.join(": "));
            match failure.hints.first() {
                Some(hint) => check.next(hint.clone()),
                None => check,
            }
        }
    }
}

fn of_web(app: &App) -> Check {
    match app.settings.web.listen {
        None => Check::new("web", "address", Outcome::Ok, "`watch` serves no web"),
        Some(address) if address.ip().is_loopback() => Check::new(
            "web",
            "address",
            Outcome::Ok,
            format!("{address}, for this machine only"),
        ),
        Some(address) => Check::new(
            "web",
            "address",
            Outcome::Ok,
            format!("{address}, behind BITBRAT_WEB_TOKEN"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_tells_the_worst_kind_of_failure() {
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
