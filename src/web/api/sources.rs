//! Sources: lists, one in full, and answers about one.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;

use super::query::{AgeQuery, Checked, HistoryQuery, ListQuery, offset};
use super::{Page, Site, etag, known};
use crate::core::code::Code;
use crate::core::freshness::MaxAge;
use crate::store::HistoryEntry;
use crate::view::answer::AnswerItem;
use crate::view::can::{self, Limits};
use crate::view::detail::{SourceDetail, SourceInFull};
use crate::view::envelope::Envelope;
use crate::view::found::Found;
use crate::view::history::HistoryItem;
use crate::view::item::SourceItem;
use crate::view::reading::NotFound;
use crate::view::{is_live as live, order};
use crate::web::problem::Problem;

/// Transitions shown with one source.
const HISTORY: usize = 20;

type Id = Result<Path<String>, PathRejection>;

/// Every source that is stored or configured.
pub(super) async fn list(
    State(site): State<Site>,
    Checked(query): Checked<ListQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let selected = query.parse()?;
    let mut sources = known(&site, selected.max_age).await?;
    sources.rows.retain(|row| selected.selects(row));
    if !selected.sort.is_empty() {
        sources
            .rows
            .sort_by(|one, other| order::compare(&selected.sort, one, other));
    }
    let total = sources.rows.len();
    let rows = sources.rows.iter().skip(selected.offset).take(selected.limit);
    let mut list = Envelope::of(
        SourceItem::KIND,
        site.clock.now(),
        rows.map(SourceItem::from).collect(),
    );
    list.total = Some(total);
    if selected.offset == 0 {
        list.unusable = sources.unusable;
    }
    let end = selected.offset + selected.limit;
    let next = (end < total).then(|| format!("/api/v1/sources?{}", query.at(end)));
    Ok(etag::tagged(&headers, &Page { list, next }))
}

pub(super) async fn one(
    State(site): State<Site>,
    id: Id,
    Checked(query): Checked<AgeQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let found = found(&site, &path(id)?, query.max_age()?).await?;
    let history = site.store.history(&found.document.key, HISTORY).await?;
    let source = SourceInFull {
        as_of: site.clock.now(),
        row: found.row,
        document: found.document,
        listening: None,
        history: HistoryEntry::without_repeats(history),
    };
    let mut list = Envelope::of(SourceDetail::KIND, source.as_of, vec![source.detail()]);
    list.total = Some(1);
    Ok(etag::tagged(&headers, &list))
}

pub(super) async fn is_live(
    State(site): State<Site>,
    id: Id,
    Checked(query): Checked<AgeQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let max_age = query.max_age()?;
    let found = found(&site, &path(id)?, max_age).await?;
    Ok(answered(&site, &headers, live::judge(&found, max_age).0))
}

pub(super) async fn can(
    State(site): State<Site>,
    ids: Result<Path<(String, String)>, PathRejection>,
    Checked(query): Checked<AgeQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path((id, action)) = ids.map_err(|_| not_text())?;
    let max_age = query.max_age()?;
    let found = found(&site, &id, max_age).await?;
    let question = can::question(found.document.key.platform(), &action).map_err(|failure| {
        Problem::new(404, Code::ApiUnknownAction)
            .detail(format!(
                "{}; /api/v1/actions lists what can be asked",
                failure.what
            ))
            .about(&action)
    })?;
    let limits = Limits {
        intervals: (site.configured)().intervals.within(max_age),
        now: site.clock.now(),
    };
    Ok(answered(&site, &headers, can::judge(&found, &question, limits).0))
}

pub(super) async fn history(
    State(site): State<Site>,
    id: Id,
    Checked(query): Checked<HistoryQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let now = site.clock.now();
    let (since, limit, offset) = (query.since(now)?, query.limit()?, offset(query.offset)?);
    let key = found(&site, &path(id)?, None).await?.document.key;
    let end = offset + limit;
    // One more, by which another part is recognized.
    let mut entries = site.reading().history(&key, since, offset, limit + 1).await?;
    let next = (entries.len() > limit).then(|| format!("/api/v1/sources/{key}/history?{}", query.at(end)));
    entries.truncate(limit);
    let list = Envelope::of(HistoryItem::KIND, now, HistoryItem::of(&entries));
    Ok(etag::tagged(&headers, &Page { list, next }))
}

fn answered(site: &Site, headers: &HeaderMap, answer: AnswerItem) -> Response {
    etag::tagged(
        headers,
        &Envelope::of(AnswerItem::KIND, site.clock.now(), vec![answer]),
    )
}

fn path(id: Id) -> Result<String, Problem> {
    id.map(|Path(id)| id).map_err(|_| not_text())
}

fn not_text() -> Problem {
    Problem::new(400, Code::ApiInvalidSource).detail("the path is not UTF-8 once it is decoded")
}

/// Returns a source that is stored or configured, judged with this maximum age.
pub(in crate::web) async fn found(site: &Site, id: &str, max_age: MaxAge) -> Result<Found, Problem> {
    let found = site.reading().found(id, max_age).await;
    found.map_err(|error| match error {
        NotFound::Invalid(message) => Problem::new(400, Code::ApiInvalidSource)
            .detail(message)
            .about(id),
        NotFound::Unknown(wanted) => Problem::new(404, Code::ApiUnknownSource)
            .detail("no stored source has this id or name; /api/v1/sources lists those that are stored")
            .about(&wanted),
        NotFound::Ambiguous { wanted, sources } => Problem::new(409, Code::ApiAmbiguousSource)
            .detail("several sources have this name; ask for one of them as platform:id")
            .about(&wanted)
            .sources(sources),
        NotFound::Store(error) => error.into(),
    })
}
