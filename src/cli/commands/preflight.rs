//! `preflight`: whether everything will work until the end of a show, answered within three seconds.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use jiff::civil::Time;
use jiff::tz::TimeZone;

use crate::app::{App, Sources};
use crate::blocking::blocking;
use crate::cli::commands::doctor::{self, bus, reach, state, store};
use crate::cli::context::Context;
use crate::cli::output::view::Tone;
use crate::cli::output::{Listing, Note, humane};
use crate::cli::reports::doctor::{Check, Outcome};
use crate::cli::reports::preflight::{PreflightCheck, Readiness, exit_code};
use crate::config::parse_duration;
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::failure::{ExitCode, Failure};

mod accounts;
mod limit;
mod permissions;
mod push;

use limit::{LIMIT, Limited, NAMES_LIMIT};

/// Check that all works until the end of a show
///
/// Checks at the same time, in less than 3 seconds: that accounts work until then, their scopes, the bot's permissions, push
/// connections, remaining rate limits, the store, the bus, the clock and the disk. What does not answer in time is UNKNOWN. Exit
/// code 4: an account fails. 3: anything else fails or is UNKNOWN. WARN is no failure. `bitbrat doctor` checks more, without a
/// time limit.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat preflight --until 23:00
  bitbrat preflight --until 2h && start-show
  bitbrat preflight --until 2026-12-01T23:00:00Z -o json | jq '.items[] | select(.outcome != \"OK\")'")]
pub struct PreflightArgs {
    /// The end of the show: a local time such as 23:00, a duration such as 2h, or RFC 3339
    #[arg(long, value_name = "TIME", default_value = "4h")]
    until: Until,
}

/// The end of a show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    In(Duration),
    At(Timestamp),
    /// The next time that clocks show this.
    Clock(Time),
}

impl FromStr for Until {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(duration) = parse_duration(text) {
            return Ok(Self::In(duration));
        }
        if let Ok(time) = Time::strptime("%H:%M", text) {
            return Ok(Self::Clock(time));
        }
        let at = text.parse().map(Self::At);
        at.map_err(|_| {
            format!(
                "`{text}` is neither a local time such as 23:00, a duration such as 2h, nor a time such as 2026-12-01T23:00:00Z"
            )
        })
    }
}

impl Until {
    /// Returns the time, counted from `now`.
    fn after(self, now: Timestamp, zone: &TimeZone) -> Timestamp {
        let time = match self {
            Self::In(duration) => return now.plus(duration),
            Self::At(at) => return at,
            Self::Clock(time) => time,
        };
        let Ok(today) = jiff::Timestamp::from_millisecond(now.as_millis()) else {
            return now;
        };
        let today = today.to_zoned(zone.clone()).date();
        let on = |date: jiff::civil::Date| {
            let at = date.to_datetime(time).to_zoned(zone.clone()).ok()?;
            Some(Timestamp::from_millis(at.timestamp().as_millisecond()))
        };
        let days = [Some(today), today.tomorrow().ok()].into_iter().flatten();
        days.filter_map(on).find(|at| *at > now).unwrap_or(now)
    }
}

/// Runs the command.
pub async fn run(cx: &Context, args: &PreflightArgs) -> Result<ExitCode, Failure> {
    let now = cx.app.clock.now();
    let zone = TimeZone::system();
    let until = args.until.after(now, &zone);
    if until <= now {
        let what = "--until is in the past";
        return Err(Failure::new(ExitCode::Usage, what).hint("give the end of the show, such as --until 2h"));
    }
    let limited = Limited::default();
    let mut checks = cx.progress.during(Box::pin(all(cx, &limited, until))).await;
    checks.sort_by_key(|check| check.outcome);
    let exit = exit_code(&checks);
    let result = result(&checks, &shown(until, &zone));
    let mut report = Listing::new(now, checks);
    report.notes.push(result);
    cx.output.print(&report)?;
    limited.finish_refreshes(cx).await;
    Ok(exit)
}

/// Returns the end of the show as it was understood.
fn shown(until: Timestamp, zone: &TimeZone) -> String {
    match jiff::Timestamp::from_millisecond(until.as_millis()) {
        Ok(at) => at
            .to_zoned(zone.clone())
            .strftime("%Y-%m-%d %H:%M %Z")
            .to_string(),
        Err(_) => until.to_string(),
    }
}

/// Returns the last line: the result of all checks, for a show until `until`.
fn result(checks: &[PreflightCheck], until: &str) -> Note {
    let count = |outcome| checks.iter().filter(|check| check.outcome == outcome).count();
    let (failed, unknown) = (count(Readiness::Fail), count(Readiness::Unknown));
    let warnings = humane::count(count(Readiness::Warn) as u64, "warning");
    let parts = [(failed, "failed"), (unknown, "unknown")];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0);
    let mut parts: Vec<String> = parts.map(|(count, what)| format!("{count} {what}")).collect();
    let (tone, ready) = match (parts.is_empty(), count(Readiness::Warn)) {
        (true, 0) => (Tone::Good, "ready"),
        (true, _) => (Tone::Warn, "ready"),
        (false, _) => (Tone::Bad, "not ready"),
    };
    if count(Readiness::Warn) > 0 {
        parts.push(warnings);
    }
    let result = match parts.is_empty() {
        true => "all OK".to_owned(),
        false => parts.join(", "),
    };
    let what = format!(
        "{ready} for a show until {until}: {result} ({})",
        humane::count(checks.len() as u64, "check")
    );
    Note::hint(tone, what, None)
}

/// Runs every check at the same time.
async fn all<'a>(cx: &'a Context, limited: &Limited<'a>, until: Timestamp) -> Vec<PreflightCheck> {
    let found = resolve_names(cx, limited).await;
    let mut checks: Vec<BoxFuture<'_, Vec<PreflightCheck>>> = vec![
        within(limited, "state", "directory", of_disk(&cx.app)).boxed(),
        within(limited, "tokens", "token store", async {
            vec![doctor::of_tokens(&cx.app).await]
        })
        .boxed(),
        within(limited, "store", "reachable", async {
            vec![store::writable(&cx.app).await]
        })
        .boxed(),
        within(limited, "bus", "reachable", bus::reachable(&cx.app)).boxed(),
    ];
    for platform in PlatformName::ALL {
        let mut sources = cx.app.settings.sources.iter();
        if sources.any(|spec| spec.platform == platform) {
            checks.push(of_platform(cx, limited, platform, until).boxed());
        }
    }
    let checks = join_all(checks).await.into_iter().flatten();
    let exposed = cx.exposed.iter().map(|file| doctor::exposed(file).into());
    exposed
        .chain(of_sources(cx, found.as_ref()))
        .chain(checks)
        .collect()
}

/// Looks up the ids of configured names that are not known yet, as in a new state directory: without an id, a source cannot be checked.
/// Returns `None` if that takes too long.
async fn resolve_names<'a>(cx: &'a Context, limited: &Limited<'a>) -> Option<Sources> {
    let known = cx.app.sources.all();
    if known.unresolved.is_empty() {
        return Some(known);
    }
    let resolved = limited.within(NAMES_LIMIT, async {
        let platforms = cx.app.platforms.needed().await?;
        cx.app.sources.resolve(&platforms).await
    });
    resolved.await?.ok()
}

/// Runs checks within the time limit.
async fn within<'a>(
    limited: &Limited<'a>,
    area: &str,
    name: &str,
    checks: impl Future<Output = Vec<Check>> + Send + 'a,
) -> Vec<PreflightCheck> {
    match limited.run(checks).await {
        Some(checks) => checks.into_iter().map(PreflightCheck::from).collect(),
        None => vec![unanswered(area, name)],
    }
}

/// Returns the check that was not completed in time.
fn unanswered(area: &str, name: &str) -> PreflightCheck {
    let detail = format!("not known after {:.1} s", LIMIT.as_secs_f32());
    Check::new(area, name, Outcome::Skipped, detail)
        .next(format!("bitbrat doctor {area}"))
        .into()
}

/// Checks that there is something to show, and that the ids of all sources are known: without one, a source is not checked.
fn of_sources(cx: &Context, resolved: Option<&Sources>) -> Vec<PreflightCheck> {
    let stored = cx.app.sources.all();
    let sources = resolved.unwrap_or(&stored);
    let check = |outcome, detail: String| Check::new("sources", "configured", outcome, detail);
    let known = match (sources.known.len(), sources.unresolved.as_slice()) {
        (0, []) => check(Outcome::Fail, "none are configured".to_owned()).next("bitbrat init"),
        (count, []) => check(Outcome::Ok, format!("the ids of {count} are known")),
        (_, [first, others @ ..]) => {
            let more = match others.len() {
                0 => String::new(),
                count => format!(" (and {count} more)"),
            };
            let detail = format!("the id of {}{more} is not known: {}", first.name, first.reason);
            check(Outcome::Skipped, detail).next("bitbrat probe")
        }
    };
    let merged = sources.merged.iter();
    let merged = merged.map(|merged| Check::new("sources", "duplicate", Outcome::Warn, merged.to_string()));
    std::iter::once(known)
        .chain(merged)
        .map(PreflightCheck::from)
        .collect()
}

async fn of_disk(app: &App) -> Vec<Check> {
    let (settings, file) = (Arc::clone(&app.settings), app.state_file_path());
    // A disk that hangs must not stop the other checks.
    blocking(move || {
        let mut checks = state::directory(&settings, &file);
        checks.extend(state::disk(&settings));
        checks
    })
    .await
}

async fn of_platform<'a>(
    cx: &'a Context,
    limited: &Limited<'a>,
    platform: PlatformName,
    until: Timestamp,
) -> Vec<PreflightCheck> {
    let area = platform.as_str();
    let application = format!("identity {area}/app");
    let checks: Vec<BoxFuture<'_, Vec<PreflightCheck>>> = vec![
        // First: this check of the application is newer than one of its stored token.
        within(limited, area, &application, async move {
            let check = doctor::platforms::application(cx, platform).await;
            check.into_iter().collect()
        })
        .boxed(),
        accounts::check(cx, limited, platform, until).boxed(),
        addresses(cx, platform).boxed(),
        within(limited, area, "permissions", permissions::check(cx, platform)).boxed(),
        within(
            limited,
            area,
            "rate limit",
            doctor::platforms::rate_limits(cx, platform),
        )
        .boxed(),
        within(limited, area, "push", doctor::platforms::listener(cx, platform)).boxed(),
        within(limited, area, push::NAME, push::plan(cx, platform)).boxed(),
    ];
    let mut found: Vec<PreflightCheck> = Vec::new();
    for check in join_all(checks).await.into_iter().flatten() {
        let is_known = |known: &PreflightCheck| known.name == check.name && known.is_authorization;
        if !found.iter().any(is_known) {
            found.push(check);
        }
    }
    found
}

/// Checks the addresses of a platform, and the clock by their answers.
async fn addresses(cx: &Context, platform: PlatformName) -> Vec<PreflightCheck> {
    let area = platform.as_str();
    let endpoints = cx.app.platforms.endpoints(platform);
    let asked = endpoints.iter().map(async |endpoint| {
        match tokio::time::timeout(LIMIT, reach::check(cx, platform, endpoint)).await {
            Ok((check, skew)) => (PreflightCheck::from(check), skew),
            Err(_) => (unanswered(area, endpoint.what), None),
        }
    });
    let (mut checks, skews): (Vec<_>, Vec<_>) = join_all(asked).await.into_iter().unzip();
    let skew = skews.into_iter().flatten().next();
    checks.push(doctor::platforms::clock(area, skew, None).into());
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_line_counts_what_is_not_ok() {
        let check = |outcome| PreflightCheck::from(Check::new("twitch", "x", outcome, ""));
        let (ok, warn) = (check(Outcome::Ok), check(Outcome::Warn));
        let (fail, unknown) = (check(Outcome::Fail), check(Outcome::Skipped));
        for (checks, tone, expected) in [
            (
                vec![ok.clone()],
                Tone::Good,
                "ready for a show until 23:00: all OK (1 check)",
            ),
            (
                vec![ok.clone(), warn.clone()],
                Tone::Warn,
                "ready for a show until 23:00: 1 warning (2 checks)",
            ),
            (
                vec![fail.clone(), fail, unknown.clone(), warn],
                Tone::Bad,
                "not ready for a show until 23:00: 2 failed, 1 unknown, 1 warning (4 checks)",
            ),
            (
                vec![ok, unknown],
                Tone::Bad,
                "not ready for a show until 23:00: 1 unknown (2 checks)",
            ),
        ] {
            assert_eq!(result(&checks, "23:00"), Note::hint(tone, expected, None));
        }
    }

    #[test]
    fn end_of_the_show_is_read_in_three_forms() {
        let now: Timestamp = "2026-12-01T20:30:00Z".parse().unwrap();
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        for (text, expected) in [
            ("2h", "2026-12-01T22:30:00.000Z"),
            ("23:00", "2026-12-01T22:00:00.000Z"),
            // It is 21:30 there, so this is tomorrow.
            ("21:30", "2026-12-02T20:30:00.000Z"),
            ("01:15", "2026-12-02T00:15:00.000Z"),
            ("2026-12-01T23:00:00-05:00", "2026-12-02T04:00:00.000Z"),
        ] {
            let until: Until = text.parse().unwrap();
            assert_eq!(until.after(now, &zone).to_string(), expected, "{text}");
        }
        for text in ["", "25:00", "midnight", "23", "-2h"] {
            assert!(text.parse::<Until>().is_err(), "{text}");
        }
    }
}
