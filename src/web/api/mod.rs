//! The read-only API: what the commands print, over HTTP.
//!
//! One table of routes makes both the router and the OpenAPI document.

mod etag;
mod events;
#[cfg(fuzzing)]
pub mod fuzzing;
pub(super) mod openapi;
pub(super) mod query;
mod sources;

use axum::Router;
use axum::extract::State;
use axum::http::header::ALLOW;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;

use super::Site;
use super::problem::Problem;
use crate::bus::event_lines::Line;
use crate::core::code::Code;
use crate::core::freshness::MaxAge;
use crate::core::source::PlatformName;
use crate::core::time::Timestamp;
use crate::store::StoreError;
use crate::tokens::remedy;
use crate::view::actions::{ActionItem, actions};
use crate::view::answer::AnswerItem;
use crate::view::attention::{self, Attention};
use crate::view::detail::SourceDetail;
use crate::view::envelope::Envelope;
use crate::view::history::HistoryItem;
use crate::view::item::SourceItem;
use crate::view::sources::Sources;
use crate::watch::account_reports::AccountState;
pub(super) use etag::with_tag;
use query::{ActionsQuery, AgeQuery, Checked, HistoryQuery, ListQuery, NoQuery};
pub(super) use sources::found;

/// One path.
pub(super) struct Route {
    pub(super) path: &'static str,
    /// The name of the operation.
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    handler: fn() -> MethodRouter<Site>,
    pub(super) query: fn(&mut SchemaGenerator) -> Schema,
    /// The schema of the response, and its media type.
    pub(super) answer: (fn(&mut SchemaGenerator) -> Schema, &'static str),
    /// Statuses beside 200.
    pub(super) others: &'static [u16],
}

const JSON: &str = "application/json";

/// Every path, in the order of the document.
pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/api/v1/sources",
        id: "listSources",
        summary: "List sources with their status and its age",
        handler: || get(sources::list),
        query: ListQuery::json_schema,
        answer: (schema::<Page<SourceItem>>, JSON),
        others: &[304, 400, 404],
    },
    Route {
        path: "/api/v1/sources/{id}",
        id: "getSource",
        summary: "Show one source with the evidence and reason of each status",
        handler: || get(sources::one),
        query: AgeQuery::json_schema,
        answer: (schema::<Envelope<SourceDetail>>, JSON),
        others: &[304, 400, 404, 409],
    },
    Route {
        path: "/api/v1/sources/{id}/is-live",
        id: "isLive",
        summary: "Answer whether a source is live: yes, no or unknown",
        handler: || get(sources::is_live),
        query: AgeQuery::json_schema,
        answer: (schema::<Envelope<AnswerItem>>, JSON),
        others: &[304, 400, 404, 409],
    },
    Route {
        path: "/api/v1/sources/{id}/can/{action}",
        id: "can",
        summary: "Answer whether the bot may do something at a source: yes, no or unknown",
        handler: || get(sources::can),
        query: AgeQuery::json_schema,
        answer: (schema::<Envelope<AnswerItem>>, JSON),
        others: &[304, 400, 404, 409],
    },
    Route {
        path: "/api/v1/sources/{id}/history",
        id: "getHistory",
        summary: "List what changed about a source, newest first",
        handler: || get(sources::history),
        query: HistoryQuery::json_schema,
        answer: (schema::<Page<HistoryItem>>, JSON),
        others: &[304, 400, 404, 409],
    },
    Route {
        path: "/api/v1/attention",
        id: "listAttention",
        summary: "List what needs attention: one entry per cause, with the command that fixes it",
        handler: || get(attention),
        query: NoQuery::json_schema,
        answer: (schema::<Envelope<Attention>>, JSON),
        others: &[304, 400],
    },
    Route {
        path: "/api/v1/accounts",
        id: "listAccounts",
        summary: "List the accounts that sources need, with the state and expiry of their tokens",
        handler: || get(accounts),
        query: NoQuery::json_schema,
        answer: (schema::<Envelope<AccountItem>>, JSON),
        others: &[304, 400],
    },
    Route {
        path: "/api/v1/actions",
        id: "listActions",
        summary: "List the actions that `can` answers about",
        handler: || get(all_actions),
        query: ActionsQuery::json_schema,
        answer: (schema::<Envelope<ActionItem>>, JSON),
        others: &[304, 400],
    },
    Route {
        path: "/api/v1/events",
        id: "followEvents",
        summary: "Follow the published events as server-sent events; Last-Event-ID resumes",
        handler: || get(events::follow),
        query: NoQuery::json_schema,
        answer: (schema::<Line>, "text/event-stream"),
        others: &[400, 503],
    },
];

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

pub(super) fn router() -> Router<Site> {
    let document = get(openapi::document).fallback(not_allowed);
    let router = Router::new().route("/api/v1/openapi.json", document);
    ROUTES.iter().fold(router, |router, route| {
        router.route(route.path, (route.handler)().fallback(not_allowed))
    })
}

/// The API changes nothing, whatever is asked of it.
async fn not_allowed() -> Response {
    let mut refused = Problem::new(405, Code::ApiMethodNotAllowed).into_response();
    refused
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("GET,HEAD"));
    refused
}

/// A part of a list.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "{T}Page")]
pub(super) struct Page<T> {
    #[serde(flatten)]
    list: Envelope<T>,
    /// Where the next part is; absent from the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// An account that sources need. It never contains a token.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AccountItem {
    /// Its name, such as `twitch/bot`.
    identity: String,
    /// VALID, EXPIRED, REVOKED or REJECTED.
    status: String,
    /// When the access token expires, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    expires_at: Option<Timestamp>,
    /// When it was last checked.
    #[schemars(with = "String")]
    checked_at: Timestamp,
    /// Why it is not valid, if the platform gives a reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The command that fixes it, if it is not valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl AccountItem {
    const KIND: &'static str = "AccountList";
}

impl From<AccountState> for AccountItem {
    fn from(account: AccountState) -> Self {
        let fix = remedy(account.identity.as_str(), account.client_rejected);
        Self {
            fix: (account.state != "VALID").then_some(fix),
            identity: account.identity.to_string(),
            status: account.state,
            expires_at: account.expires_at,
            checked_at: account.checked_at,
            reason: account.reason,
        }
    }
}

async fn attention(
    State(site): State<Site>,
    _: Checked<NoQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let sources = known(&site, None).await?;
    let items = attention::of(&sources.rows, &sources.unusable, &(site.problems)());
    let list = Envelope::of(Attention::KIND, site.clock.now(), items);
    Ok(etag::tagged(&headers, &list))
}

async fn accounts(State(site): State<Site>, _: Checked<NoQuery>, headers: HeaderMap) -> Response {
    let accounts = site.overview().map(|overview| overview.summary.accounts);
    let items = accounts.unwrap_or_default().into_iter().map(AccountItem::from);
    let list = Envelope::of(AccountItem::KIND, site.clock.now(), items.collect());
    etag::tagged(&headers, &list)
}

async fn all_actions(
    State(site): State<Site>,
    Checked(query): Checked<ActionsQuery>,
    headers: HeaderMap,
) -> Response {
    let platforms = PlatformName::ALL.into_iter();
    let wanted = platforms.filter(|name| query.platform.is_none_or(|wanted| wanted.name() == *name));
    let items = wanted.flat_map(actions).collect();
    etag::tagged(&headers, &Envelope::of(ActionItem::KIND, site.clock.now(), items))
}

/// Judges every source that is stored or configured; `max_age` replaces the usual three intervals.
pub(super) async fn known(site: &Site, max_age: MaxAge) -> Result<Sources, StoreError> {
    let stored = site.hub.listing.read(site.store.as_ref()).await?;
    Ok(site.reading().judge(stored, max_age))
}
