//! Reads the past of sources: their histories, and when daemons ran.

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::app::StoreAccess;
use crate::blocking::blocking;
use crate::cli::context::Context;
use crate::core::source::SourceKey;
use crate::core::time::Timestamp;
use crate::failure::{ExitCode, Failure};
use crate::store::{HistoryEntry, StoreError};
use crate::view::past::{Past, Run};
use crate::view::since::Since;
use crate::view::source_row::SourceRow;
use crate::watch::runs;

/// Histories that are read at the same time.
const READERS: usize = 8;
/// More entries than a history has.
pub const ALL: usize = 10_000;

/// Returns at most `limit` entries of the history of each source, newest first, as they are stored.
pub async fn histories(
    cx: &Context,
    keys: impl IntoIterator<Item = SourceKey>,
    limit: usize,
) -> Result<Vec<(SourceKey, Vec<HistoryEntry>)>, Failure> {
    let store = cx.app.store(StoreAccess::Read).await?;
    let read = |key: SourceKey| {
        let store = Arc::clone(&store);
        async move {
            let entries = store.history(&key, limit).await?;
            Ok::<_, StoreError>((key, entries))
        }
    };
    let keys: Vec<SourceKey> = keys.into_iter().collect();
    Ok(stream::iter(keys)
        .map(read)
        .buffered(READERS)
        .try_collect()
        .await?)
}

/// Returns the runs of daemons of this state directory, oldest first; none where nothing recorded them.
pub async fn runs(cx: &Context) -> Vec<Run> {
    let directory = cx.app.settings.state_dir.clone();
    let runs = blocking(move || runs::read(&directory)).await.into_iter();
    let runs = runs.map(|run| Run {
        from: run.from,
        until: run.until,
    });
    runs.collect()
}

/// Returns the time that `when` means; one in the future is a usage error.
pub fn moment(cx: &Context, when: Since) -> Result<Timestamp, Failure> {
    let now = cx.app.clock.now();
    let at = when.before(now);
    if at > now {
        let what = format!("{at} is in the future, of which nothing is known");
        return Err(Failure::new(ExitCode::Usage, what).hint("write a past time, or a duration such as 2h"));
    }
    Ok(at)
}

/// Replaces what is known of the sources now by what was known at `at`.
pub async fn rows_at(cx: &Context, rows: Vec<SourceRow>, at: Timestamp) -> Result<Vec<SourceRow>, Failure> {
    let keys = rows.iter().map(|row| row.summary.key.clone());
    let histories = histories(cx, keys, ALL).await?;
    let (runs, intervals) = (runs(cx).await, cx.app.intervals());
    let past = rows.into_iter().zip(histories).map(|(row, (key, history))| {
        let past = Past {
            key: &key,
            name: row.summary.display_name.as_deref(),
            history: &history,
            runs: &runs,
        };
        SourceRow {
            configured: row.configured.clone(),
            ..past.row(&intervals, at)
        }
    });
    Ok(past.collect())
}
