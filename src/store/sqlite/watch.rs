//! Follows the file: a connection of its own asks SQLite's data version, which moves when any other connection commits.

use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt};

use crate::blocking::blocking;
use crate::store::sqlite::database::Opened;
use crate::store::sqlite::{Access, Shared, database, rows, trouble};
use crate::store::{StoreError, Stored};

/// What a watcher has seen so far.
struct Watcher {
    shared: Arc<Shared>,
    opened: Option<Opened>,
    seen: Seen,
}

#[derive(PartialEq)]
enum Seen {
    /// Nothing was yielded yet.
    Nothing,
    /// There was no file.
    NoFile,
    /// The file at this data version.
    Version(i64),
    /// The last look failed, and that was told.
    Trouble,
}

/// Yields all documents now and after every change.
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
                let news = watcher.look();
                (watcher, news)
            });
            match looked.await {
                (seen, Some(news)) => return Some((news, seen)),
                (seen, None) => watcher = seen,
            }
        }
    })
    .boxed()
}

impl Watcher {
    /// Looks once. Returns what is new: the documents, or a trouble that was not told yet.
    fn look(&mut self) -> Option<Result<Vec<Stored>, StoreError>> {
        match self.changed() {
            Ok(documents) => documents.map(Ok),
            Err(error) => {
                self.opened = None;
                let first = self.seen != Seen::Trouble;
                self.seen = Seen::Trouble;
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
            // A new connection counts from its own beginning.
            if let Seen::Version(_) = self.seen {
                self.seen = Seen::Nothing;
            }
        }
        let Some(opened) = &mut self.opened else {
            let known = std::mem::replace(&mut self.seen, Seen::NoFile) == Seen::NoFile;
            return Ok((!known).then(Vec::new));
        };
        let connection = &mut opened.connection;
        let explain = |error| trouble::explain(path, &error);
        // Asked before reading, so that a change during the reading is seen at the next look.
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
