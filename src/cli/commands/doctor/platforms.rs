//! Checks a platform: whether it answers, clock skew, the authorization of each identity, and remaining rate limits.

use crate::app::{self, Untried};
use crate::cli::commands::auth;
use crate::cli::commands::doctor::{reach, store};
use crate::cli::context::Context;
use crate::cli::output::humane;
use crate::cli::reports::auth::{AuthState, IdentityItem};
use crate::cli::reports::doctor::{Check, Outcome};
use crate::cli::run_probe;
use crate::core::finding::{Finding, Level};
use crate::core::source::PlatformName;
use crate::platforms::twitch::eventsub::planner::PushTransport;
use crate::platforms::{Probe, ProbeSet, RateLimit};
use crate::tokens::login_command;

/// Clocks that differ by more than this many milliseconds make ages and waiting times wrong.
const SKEW_WARN: u64 = 5_000;
/// With more than this, signatures and tokens are rejected.
const SKEW_FAIL: u64 = 300_000;

/// Checks everything about a platform. Without a source it is skipped unless it `is_named`: then its application and accounts are
/// checked, because other commands advise that.
pub async fn check(cx: &Context, platform: PlatformName, is_named: bool) -> Vec<Check> {
    let area = platform.as_str();
    let mut sources = cx.app.settings.sources.iter();
    let has_source = sources.any(|spec| spec.platform == platform);
    let skipped =
        |detail: String, next: String| vec![Check::new(area, "all", Outcome::Skipped, detail).next(next)];
    if !has_source && !is_named {
        let detail = format!("no {platform} source is configured");
        return skipped(detail, format!("bitbrat doctor {area}"));
    }
    let mut checks = Vec::new();
    let mut skew = None;
    for endpoint in cx.app.platforms.endpoints(platform) {
        let (check, found) = reach::check(cx, platform, &endpoint).await;
        checks.push(check);
        skew = skew.or(found);
    }
    checks.push(clock(area, skew, store::ahead(&cx.app).await));
    let application = application(cx, platform).await;
    let others = identities(cx, platform).await;
    let bot = format!("{platform}/bot");
    let has_account = others.iter().any(|check| check.name.contains(&bot));
    if !has_source && application.is_none() && others.is_empty() {
        let detail =
            format!("neither a source nor an application nor an account of {platform} is configured");
        checks.extend(skipped(detail, login_command(&bot)));
        return checks;
    }
    // The check of just now is newer than what is stored.
    let tried = application.as_ref().map(|check| check.name.clone());
    checks.extend(
        others
            .into_iter()
            .filter(|check| Some(&check.name) != tried.as_ref()),
    );
    checks.extend(application);
    if has_source {
        checks.extend(rate_limits(cx, platform).await);
        checks.extend(listener(cx, platform).await);
    } else {
        if !has_account {
            let detail = "there is no token";
            let check = Check::new(area, &format!("account {bot}"), Outcome::Warn, detail);
            checks.push(check.next(login_command(&bot)));
        }
        let detail =
            format!("no {platform} source is configured, so only its application and accounts were checked");
        let next = "bitbrat sources add --help".to_owned();
        checks.extend(skipped(detail, next));
    }
    checks
}

/// Checks the push connections of `watch`. It creates no subscription and no session.
pub async fn listener(cx: &Context, platform: PlatformName) -> Vec<Check> {
    // A failure to build the adapter is in the check of the rate limits.
    let Ok(adapter) = cx.app.platforms.get(platform).await else {
        return Vec::new();
    };
    let findings = adapter
        .check_push(&cx.app.settings, &cx.app.sources.all().keys())
        .await;
    let check = |finding: Finding| {
        let outcome = match finding.level {
            Level::Ok => Outcome::Ok,
            Level::Warn => Outcome::Warn,
            Level::Fail => Outcome::Fail,
        };
        Check {
            next: finding.next,
            ..Check::new(platform.as_str(), finding.about, outcome, finding.detail)
        }
    };
    let mut checks: Vec<_> = findings.into_iter().map(check).collect();
    checks.extend(transport(cx, platform).await);
    checks
}

/// Reports which transport of EventSub the planner chooses, and why.
async fn transport(cx: &Context, platform: PlatformName) -> Option<Check> {
    if platform != PlatformName::Twitch {
        return None;
    }
    let plan = app::eventsub_plan_by_memory(&cx.app).await.ok()?;
    let over = match plan.transport {
        PushTransport::Websocket => "websockets",
        PushTransport::Conduit => "a conduit",
    };
    let detail = format!("over {over}: {}", plan.transport_reason);
    (!plan.transport_reason.is_empty())
        .then(|| Check::new(platform.as_str(), "transport", Outcome::Ok, detail))
}

/// HTTP dates have a resolution of one second, so a difference of a second is not significant.
pub fn clock(area: &str, skew: Option<i64>, evidence_ahead: Option<u64>) -> Check {
    let Some(skew) = skew else {
        return Check::new(area, "clock", Outcome::Skipped, "no answer contained a date");
    };
    let apart = skew.unsigned_abs();
    let direction = if skew > 0 { "behind" } else { "ahead" };
    let detail = format!("this machine is {} {direction}", humane::span(apart));
    if apart > SKEW_FAIL {
        Check::new(area, "clock", Outcome::Fail, detail).next("timedatectl set-ntp true")
    } else if apart > SKEW_WARN {
        Check::new(area, "clock", Outcome::Warn, detail).next("timedatectl set-ntp true")
    } else if let Some(ahead) = evidence_ahead {
        let detail = format!(
            "agrees with this machine's now, but stored evidence is dated up to {} in the future: a clock was wrong",
            humane::span(ahead)
        );
        Check::new(area, "clock", Outcome::Warn, detail).next("bitbrat doctor store")
    } else {
        Check::new(area, "clock", Outcome::Ok, "agrees with this machine's")
    }
}

/// Checks whether the platform accepts the client id and secret. The token that it issues for them is not kept.
pub async fn application(cx: &Context, platform: PlatformName) -> Option<Check> {
    let area = platform.as_str();
    let name = format!("identity {area}/app");
    Some(match cx.app.platforms.try_application(platform).await? {
        Ok(()) => Check::new(area, &name, Outcome::Ok, "the client id and secret are accepted"),
        Err(Untried::Refused(reason)) => {
            let detail = format!("{platform} refuses the client id or the client secret: {reason}");
            let next =
                format!("bitbrat config show  # {area}.client_id, {area}.client_secret: copy both anew");
            Check::new(area, &name, Outcome::Fail, detail).next(next)
        }
        Err(Untried::NotAsked(reason)) => {
            let detail = format!("the client id and secret could not be tried: {reason}");
            Check::new(area, &name, Outcome::Skipped, detail).next(format!("bitbrat doctor {area}"))
        }
    })
}

async fn identities(cx: &Context, platform: PlatformName) -> Vec<Check> {
    let area = platform.as_str();
    let found = match auth::identities(cx, Some(platform), true).await {
        Ok(found) => found,
        Err(failure) => {
            let reason = failure.with_causes();
            let check = Check::new(area, "identities", Outcome::Skipped, reason);
            return vec![check.next("bitbrat doctor tokens")];
        }
    };
    let mut checks: Vec<Check> = found.items.iter().map(|item| identity(area, item)).collect();
    let problems = found
        .problems
        .iter()
        .filter(|problem| !auth::names_account(&found.items, problem));
    checks.extend(found.pending.iter().map(|account| {
        let detail = "a login is stored, but not finished: it is not known whose it is";
        Check::new(area, &format!("login of {account}"), Outcome::Warn, detail)
            .next(login_command(account.as_str()))
    }));
    checks.extend(problems.map(|problem| Check::new(area, "requests", Outcome::Warn, &problem.text)));
    checks
}

/// Returns the check of one account from what its platform answered.
pub fn identity(area: &str, item: &IdentityItem) -> Check {
    let name = format!("identity {}", item.identity);
    let login = if item.client_rejected {
        "bitbrat config show".to_owned()
    } else {
        login_command(&item.identity)
    };
    let who =
        item.login
            .as_deref()
            .or(item.user_id.as_deref())
            .unwrap_or(if item.identity.ends_with("/app") {
                "the application"
            } else {
                "unknown account"
            });
    let why = item
        .reason
        .as_deref()
        .map_or_else(String::new, |reason| format!(": {reason}"));
    match item.status {
        AuthState::Valid => {
            let ends = match item.expires_in_ms {
                Some(left) => format!(", expires in {}", humane::span(left.unsigned_abs())),
                None => String::new(),
            };
            let outcome = if item.reason.is_some() {
                Outcome::Warn
            } else {
                Outcome::Ok
            };
            Check::new(area, &name, outcome, format!("VALID as {who}{ends}{why}"))
        }
        AuthState::Expired => Check::new(area, &name, Outcome::Fail, format!("EXPIRED{why}")).next(login),
        AuthState::Revoked => Check::new(area, &name, Outcome::Fail, format!("REVOKED{why}")).next(login),
        AuthState::Rejected => Check::new(area, &name, Outcome::Fail, format!("REJECTED{why}")).next(login),
        AuthState::Missing => Check::new(area, &name, Outcome::Fail, "there is no token").next(login),
        AuthState::Unknown => Check::new(area, &name, Outcome::Skipped, format!("not checked{why}"))
            .next(format!("bitbrat auth status {area}")),
    }
}

/// Probes one source, so that the response contains the remaining limits: this also shows that every real request works.
pub async fn rate_limits(cx: &Context, platform: PlatformName) -> Vec<Check> {
    let area = platform.as_str();
    let sources = cx.app.sources.all();
    let Some(source) = sources
        .known
        .iter()
        .find(|known| known.key.platform() == platform)
    else {
        let detail = "the id of no configured source is known yet";
        return vec![Check::new(area, "rate limit", Outcome::Skipped, detail).next("bitbrat probe")];
    };
    let adapter = match cx.app.platforms.get(platform).await {
        Ok(adapter) => adapter,
        Err(failure) => {
            let check = Check::new(area, "rate limit", Outcome::Skipped, failure.what);
            return vec![check.next("bitbrat config check")];
        }
    };
    let (probes, source) = (ProbeSet::from([Probe::Connection]), source.key.clone());
    run_probe::run_probe(cx, std::slice::from_ref(&adapter), &probes, &[source]).await;
    let levels = adapter.rate_limits();
    if levels.is_empty() {
        return vec![Check::new(
            area,
            "rate limit",
            Outcome::Skipped,
            "no answer reported one",
        )];
    }
    levels.into_iter().map(|level| rate_limit(area, &level)).collect()
}

fn rate_limit(area: &str, level: &RateLimit) -> Check {
    let detail = format!(
        "{} of {} {} left",
        humane::thousands(level.left.into()),
        humane::thousands(level.size.into()),
        level.name
    );
    if u64::from(level.left) * 10 < u64::from(level.size) {
        let next = "wait a minute, and see what else uses this client id";
        Check::new(area, "rate limit", Outcome::Warn, detail).next(next)
    } else {
        Check::new(area, "rate limit", Outcome::Ok, detail)
    }
}
