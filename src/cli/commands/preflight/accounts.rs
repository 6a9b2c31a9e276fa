//! Whether the accounts of a platform work until the end of the show, and have their scopes.

use std::time::Duration;

use super::limit::Limited;
use super::unanswered;
use crate::cli::commands::auth::{self, Identities};
use crate::cli::commands::doctor::platforms;
use crate::cli::context::Context;
use crate::cli::output::humane;
use crate::cli::reports::auth::{AuthState, IdentityItem};
use crate::cli::reports::doctor::{Check, Outcome};
use crate::cli::reports::preflight::PreflightCheck;
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::tokens::login_command;

/// How long reading the stored tokens may take.
const READ_LIMIT: Duration = Duration::from_millis(300);

/// Checks the accounts with their platform. Without an answer, what is stored is still compared with the end of the show.
pub(super) async fn check<'a>(
    cx: &'a Context,
    limited: &Limited<'a>,
    platform: PlatformName,
    until: Timestamp,
) -> Vec<PreflightCheck> {
    let area = platform.as_str();
    let asked = limited.run(auth::identities(cx, Some(platform), true)).await;
    let is_answered = asked.is_some();
    let found = match asked {
        Some(found) => Ok(found),
        None => tokio::time::timeout(READ_LIMIT, auth::identities(cx, Some(platform), false)).await,
    };
    let Ok(found) = found else {
        return vec![unanswered(area, "identities")];
    };
    let found = match found {
        Ok(found) => found,
        Err(failure) => {
            let check = Check::of_failure(area, "identities", Outcome::Fail, &failure);
            return vec![check.into()];
        }
    };
    let mut checks = Vec::new();
    for item in &found.items {
        checks.push(match item.status {
            AuthState::Unknown if !is_answered => unanswered(area, &format!("identity {}", item.identity)),
            _ => platforms::identity(area, item).into(),
        });
        checks.extend(until_end(area, item, until).map(PreflightCheck::of_authorization));
        checks.extend(scopes(area, item).map(PreflightCheck::of_authorization));
    }
    checks.extend(others(area, &found));
    checks
}

/// Returns whether the account works until the end of the show.
fn until_end(area: &str, item: &IdentityItem, until: Timestamp) -> Option<PreflightCheck> {
    let forecast = item.forecast.as_ref()?;
    let name = format!("expiry {}", item.identity);
    let check = match forecast.facts.outlives(until) {
        Some(true) => Check::new(area, &name, Outcome::Ok, &forecast.text),
        Some(false) => {
            let left = forecast.works_for_ms.unwrap_or_default().max(0).unsigned_abs();
            let detail = format!("stops working in {}: {}", humane::duration(left), forecast.text);
            Check::new(area, &name, Outcome::Fail, detail).next(login_command(&item.identity))
        }
        None => Check::new(area, &name, Outcome::Skipped, &forecast.text)
            .next(format!("bitbrat auth status {area}")),
    };
    Some(check.into())
}

/// Returns the scopes that the account lacks, if any.
fn scopes(area: &str, item: &IdentityItem) -> Option<PreflightCheck> {
    let lacks = item
        .missing_scopes
        .iter()
        .map(|missing| format!("{} ({})", missing.scope, missing.without));
    let lacks: Vec<String> = lacks.collect();
    if lacks.is_empty() {
        return None;
    }
    let name = format!("scopes {}", item.identity);
    let check = Check::new(area, &name, Outcome::Fail, format!("lacks {}", lacks.join("; ")));
    Some(check.next(login_command(&item.identity)).into())
}

/// Returns problems of the checks themselves, and logins that are not finished.
fn others(area: &str, found: &Identities) -> Vec<PreflightCheck> {
    let problems = found
        .problems
        .iter()
        .filter(|problem| !auth::names_account(&found.items, problem))
        .map(|problem| Check::new(area, "requests", Outcome::Warn, &problem.text));
    let pending = found.pending.iter().map(|account| {
        let detail = "a login is stored, but not finished: it is not known whose it is";
        Check::new(area, &format!("login of {account}"), Outcome::Warn, detail)
            .next(login_command(account.as_str()))
    });
    problems.chain(pending).map(PreflightCheck::from).collect()
}
