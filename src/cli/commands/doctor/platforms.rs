//! Does a platform answer, do the clocks agree, is each identity authorised, what is left of the budget?

use crate::cli::commands::auth;
use crate::cli::commands::doctor::reach;
use crate::cli::context::Context;
use crate::cli::look;
use crate::cli::output::humane;
use crate::cli::reports::auth::AuthState;
use crate::cli::reports::doctor::{Check, Outcome};
use crate::cli::reports::sources::login_command;
use crate::core::source::PlatformName;
use crate::platforms::discord::SessionStarts;
use crate::platforms::discord::gateway::GatewayOptions;
use crate::platforms::{Budget, Probe, ProbeSet};

/// Clocks that differ by more than this many milliseconds make ages and waiting times wrong.
const SKEW_WARN: u64 = 5_000;
/// With more than this, signatures and tokens are refused.
const SKEW_FAIL: u64 = 300_000;

/// Checks one platform.
pub async fn check(cx: &Context, platform: PlatformName) -> Vec<Check> {
    let area = platform.as_str();
    if !cx
        .app
        .settings
        .sources
        .iter()
        .any(|spec| spec.platform == platform)
    {
        let detail = format!("no {platform} source is configured");
        return vec![Check::new(area, "all", Outcome::Skipped, detail)];
    }
    let mut checks = Vec::new();
    let mut skew = None;
    for (what, url) in cx.app.addresses(platform) {
        let (check, found) = reach::check(cx, platform, what, &url).await;
        checks.push(check);
        skew = skew.or(found);
    }
    checks.push(clock(area, skew));
    checks.extend(identities(cx, platform).await);
    checks.extend(budgets(cx, platform).await);
    checks.extend(listener(cx, platform).await);
    checks
}

/// Whether what `watch` is to hear can be heard. Nothing is subscribed or begun for that.
async fn listener(cx: &Context, platform: PlatformName) -> Option<Check> {
    let settings = &cx.app.settings;
    let area = platform.as_str();
    match platform {
        PlatformName::Kick if settings.kick.webhook => {
            const NAME: &str = "webhooks";
            if settings.web.listen.is_none() {
                let detail = "kick.webhook is on, but web.listen is off, so nobody could deliver";
                return Some(Check::new(area, NAME, Outcome::Warn, detail));
            }
            Some(match cx.app.kick_webhooks().await {
                Ok((listed, all)) => {
                    let detail = format!("Kick lists {listed} of {all} subscriptions");
                    if listed == all {
                        Check::new(area, NAME, Outcome::Ok, detail)
                    } else {
                        let detail = format!("{detail}; `watch` asks for the others");
                        Check::new(area, NAME, Outcome::Warn, detail).next("bitbrat watch")
                    }
                }
                Err(failure) => Check::new(area, NAME, Outcome::Warn, failure.to_string()),
            })
        }
        PlatformName::Discord if settings.discord.gateway => {
            const NAME: &str = "gateway sessions";
            let GatewayOptions {
                identify_cap,
                identify_reserve,
                ..
            } = GatewayOptions::default();
            Some(match cx.app.discord_sessions().await {
                Ok(SessionStarts { ours, left }) => {
                    let told = left.map_or_else(
                        || "Discord does not tell how many are left".to_owned(),
                        |left| format!("Discord has {left} left"),
                    );
                    let detail = format!("{ours} of our {identify_cap} a day were begun; {told}");
                    let scarce =
                        ours * 10 >= identify_cap * 8 || left.is_some_and(|left| left < identify_reserve);
                    let outcome = if scarce { Outcome::Warn } else { Outcome::Ok };
                    Check::new(area, NAME, outcome, detail)
                }
                Err(failure) => Check::new(area, NAME, Outcome::Warn, failure.to_string()),
            })
        }
        _ => None,
    }
}

/// Dates of HTTP are in whole seconds, so a second more or less says nothing.
fn clock(area: &str, skew: Option<i64>) -> Check {
    let Some(skew) = skew else {
        return Check::new(area, "clock", Outcome::Skipped, "no answer told the time");
    };
    let apart = skew.unsigned_abs();
    let direction = if skew > 0 { "behind" } else { "ahead" };
    let detail = format!("this machine is {} {direction}", humane::span(apart));
    if apart > SKEW_FAIL {
        Check::new(area, "clock", Outcome::Fail, detail).next("timedatectl set-ntp true")
    } else if apart > SKEW_WARN {
        Check::new(area, "clock", Outcome::Warn, detail).next("timedatectl set-ntp true")
    } else {
        Check::new(area, "clock", Outcome::Ok, "agrees with this machine's")
    }
}

async fn identities(cx: &Context, platform: PlatformName) -> Vec<Check> {
    let area = platform.as_str();
    let found = match auth::identities(cx, Some(platform), true).await {
        Ok(found) => found,
        Err(failure) => {
            let mut words = vec![failure.what];
            words.extend(failure.causes);
            return vec![Check::new(area, "identities", Outcome::Skipped, words.join(": "))];
        }
    };
    let mut checks: Vec<Check> = found
        .items
        .iter()
        .map(|item| {
            let name = format!("identity {}", item.identity);
            let login = login_command(platform, &item.identity);
            let who = item.login.as_deref().or(item.user_id.as_deref()).unwrap_or(
                if item.identity.ends_with("/app") {
                    "the application"
                } else {
                    "unknown account"
                },
            );
            let why = item
                .reason
                .as_deref()
                .map_or_else(String::new, |reason| format!(": {reason}"));
            match item.status {
                AuthState::Valid => {
                    let ends = match item.expires_in_ms {
                        Some(left) => format!(", ends in {}", humane::span(left.unsigned_abs())),
                        None => String::new(),
                    };
                    let outcome = if item.reason.is_some() {
                        Outcome::Warn
                    } else {
                        Outcome::Ok
                    };
                    Check::new(area, &name, outcome, format!("VALID as {who}{ends}{why}"))
                }
                AuthState::Expired => {
                    Check::new(area, &name, Outcome::Fail, format!("EXPIRED{why}")).next(login)
                }
                AuthState::Revoked => {
                    Check::new(area, &name, Outcome::Fail, format!("REVOKED{why}")).next(login)
                }
                AuthState::Missing => Check::new(area, &name, Outcome::Fail, "there is no token").next(login),
                AuthState::Unknown => Check::new(area, &name, Outcome::Skipped, "nobody said how it is"),
            }
        })
        .collect();
    let problems = found
        .problems
        .iter()
        .filter(|problem| !auth::tells(&found.items, problem));
    checks.extend(problems.map(|problem| Check::new(area, "requests", Outcome::Warn, problem)));
    checks
}

/// Looks at one source, so that the platform tells what is left of its limits: every real request is then known to work too.
async fn budgets(cx: &Context, platform: PlatformName) -> Vec<Check> {
    let area = platform.as_str();
    let sources = cx.app.sources();
    let Some(source) = sources
        .known
        .iter()
        .find(|known| known.key.platform() == platform)
    else {
        let detail = "the id of no configured source is known yet";
        return vec![Check::new(area, "budget", Outcome::Skipped, detail).next("bitbrat probe")];
    };
    let adapter = match cx.app.platform(platform).await {
        Ok(adapter) => adapter,
        Err(failure) => return vec![Check::new(area, "budget", Outcome::Skipped, failure.what)],
    };
    let (probes, source) = (ProbeSet::from([Probe::Connection]), source.key.clone());
    look::look(cx, std::slice::from_ref(&adapter), &probes, &[source]).await;
    let levels = adapter.budgets();
    if levels.is_empty() {
        return vec![Check::new(
            area,
            "budget",
            Outcome::Skipped,
            "no answer told of one",
        )];
    }
    levels.into_iter().map(|level| budget(area, &level)).collect()
}

fn budget(area: &str, level: &Budget) -> Check {
    let detail = format!(
        "{} of {} {} left",
        humane::thousands(level.left.into()),
        humane::thousands(level.size.into()),
        level.name
    );
    if u64::from(level.left) * 10 < u64::from(level.size) {
        let next = "wait a minute, and see what else uses this client id";
        Check::new(area, "budget", Outcome::Warn, detail).next(next)
    } else {
        Check::new(area, "budget", Outcome::Ok, detail)
    }
}
