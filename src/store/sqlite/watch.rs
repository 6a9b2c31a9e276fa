//! Watches the file: a separate connection polls SQLite's data version, which changes when any other connection commits.

use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt};

use crate::blocking::blocking;
use crate::store::sqlite::database::{Access, Opened};
use crate::store::sqlite::{Shared, database, error, rows};
use crate::store::{StoreError, Stored};

/// The watcher's last state.
struct Watcher {
    shared: Arc<Shared>,
    opened: Option<Opened>,
    seen: Seen,
}

#[derive(PartialEq)]
enum Seen {
    /// Nothing was emitted yet.
    Nothing,
    /// There was no file.
    NoFile,
    /// The file at this data version.
    Version(i64),
    /// The last check failed, and the error was reported.
    Unreadable,
}

/// Emits all documents now and after every change.
pub fn documents(shared: Arc<Shared>) -> BoxStream<'static, Result<Vec<Stored>, StoreError>> {
    let watcher = Watcher {
        shared,
        opened: None,
        seen: Seen::Nothing,
    };
    stream::unfold(watcher, |mut watcher| async move {
        loop {
            if watcher.seen != Seen::Nothing {
                tokio::time::sleep(watcher.shared.options.watch_interval).await;
            }
            let looked = blocking(move || {
                let change = watcher.poll();
                (watcher, change)
            });
            match looked.await {
                (seen, Some(change)) => return Some((change, seen)),
                (seen, None) => watcher = seen,
            }
        }
    })
    .boxed()
}

impl Watcher {
    /// Checks once. Returns the documents if they changed, or an error that was not reported yet.
    fn poll(&mut self) -> Option<Result<Vec<Stored>, StoreError>> {
        match self.changed() {
            Ok(documents) => documents.map(Ok),
            Err(error) => {
                self.opened = None;
                let first = self.seen != Seen::Unreadable;
                self.seen = Seen::Unreadable;
                first.then_some(Err(error))
            }
        }
    }

    fn changed(&mut self) -> Result<Option<Vec<Stored>>, StoreError> {
        let path = &self.shared.path;
        if self
            .opened
            .as_ref()
            .is_some_and(|opened| opened.was_replaced(path))
        {
            self.opened = None;
        }
        if self.opened.is_none() {
            self.opened = database::open(path, Access::Read, self.shared.options.busy_timeout)?;
            // The data version is specific to a connection.
            if let Seen::Version(_) = self.seen {
                self.seen = Seen::Nothing;
            }
        }
        let Some(opened) = &mut self.opened else {
            let known = std::mem::replace(&mut self.seen, Seen::NoFile) == Seen::NoFile;
            return Ok((!known).then(Vec::new));
        };
        let connection = &mut opened.connection;
        let explain = |error| error::explain(path, &error);
        // Queried before reading, so that a change during the read is detected by the next check.
        let version = connection
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(explain)?;
        if self.seen == Seen::Version(version) {
            return Ok(None);
        }
        let documents = rows::load_all(connection).map_err(explain)?;
        self.seen = Seen::Version(version);
        Ok(Some(documents))
    }
}
