//! Entry points of the fuzz targets in `fuzz/`: the queries of the API.

use axum::extract::Query;
use axum::http::Uri;
use serde::de::DeserializeOwned;

use super::query::{ActionsQuery, AgeQuery, HistoryQuery, ListQuery, NoQuery};
use crate::core::time::Timestamp;

/// Reads a query, as that of each route. The address of the next part is a query of the same route.
pub fn query(query: &str, now: Timestamp) {
    let _ = (
        read::<NoQuery>(query).is_some(),
        read::<ActionsQuery>(query).is_some(),
    );
    if let Some(age) = read::<AgeQuery>(query) {
        let _ = age.max_age().is_ok();
    }
    if let Some(history) = read::<HistoryQuery>(query)
        && let (Ok(since), Ok(limit)) = (history.since(now), history.limit())
    {
        let next: HistoryQuery = read(&history.at(7)).expect("the next part has a query");
        assert_eq!(
            (next.since(now).ok(), next.limit().ok()),
            (Some(since), Some(limit))
        );
        assert_eq!(next.offset, Some(7));
    }
    if let Some(list) = read::<ListQuery>(query)
        && let Ok(selected) = list.parse()
    {
        let next: ListQuery = read(&list.at(7)).expect("the next part has a query");
        let next = next.parse().expect("the next part has a valid query");
        assert_eq!(
            (next.limit, next.offset, next.max_age),
            (selected.limit, 7, selected.max_age)
        );
    }
}

fn read<T: DeserializeOwned>(query: &str) -> Option<T> {
    let uri = Uri::builder().path_and_query(format!("/?{query}")).build().ok()?;
    Query::<T>::try_from_uri(&uri).ok().map(|Query(query)| query)
}
