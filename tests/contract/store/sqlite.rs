//! Faults of a file, and two processes on one.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use bitbrat::core::document::SourceDocument;
use bitbrat::core::source::SourceKey;
use bitbrat::store::sqlite::{SqliteOptions, SqliteStore};
use bitbrat::store::{SourceStore, StoreError, Write};

use crate::support::process;

fn key() -> SourceKey {
    "kick:5".parse().unwrap()
}

fn write(id: &str) -> Write {
    Write::new(SourceDocument::new(id.parse().unwrap()), None)
}

fn quick() -> SqliteOptions {
    SqliteOptions {
        busy_timeout: Duration::from_millis(50),
        ..SqliteOptions::default()
    }
}

struct Place {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    Place {
        _directory: directory,
        path,
    }
}

impl Place {
    async fn writer(&self) -> SqliteStore {
        SqliteStore::open(&self.path, SqliteOptions::default())
            .await
            .unwrap()
    }

    /// Opens it with one document in it.
    async fn filled(&self) -> SqliteStore {
        let store = self.writer().await;
        store.save(&[write("kick:5")]).await.remove(0).unwrap();
        store
    }

    async fn reader(&self, options: SqliteOptions) -> SqliteStore {
        SqliteStore::open_read_only(&self.path, options).await.unwrap()
    }

    fn file(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(&self.path).unwrap()
    }
}

async fn refusal(path: &Path) -> String {
    match SqliteStore::open(path, quick())
        .await
        .err()
        .expect("it cannot be opened")
    {
        StoreError::Refused { reason, hint, .. } => format!("{reason}; {hint}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn reader_without_store_returns_nothing_and_creates_no_file() {
    let place = place();
    let reader = place.reader(SqliteOptions::default()).await;
    assert!(reader.load_all().await.unwrap().is_empty());
    assert!(reader.load(&key()).await.unwrap().is_none());
    assert!(!place.path.exists());
    // Once there is one, the same reader sees it.
    let _writer = place.filled().await;
    assert_eq!(reader.load_all().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_reader_cannot_write() {
    let place = place();
    place.writer().await;
    let reader = place.reader(SqliteOptions::default()).await;
    assert!(matches!(
        reader.save(&[write("kick:5")]).await[0],
        Err(StoreError::Refused { .. })
    ));
    assert!(matches!(reader.check().await, Err(StoreError::Refused { .. })));
}

#[tokio::test]
async fn a_newer_schema_is_refused_with_both_versions() {
    let place = place();
    place.writer().await;
    place.file().pragma_update(None, "user_version", 99).unwrap();
    for opened in [
        SqliteStore::open(&place.path, quick()).await,
        SqliteStore::open_read_only(&place.path, quick()).await,
    ] {
        let refused = opened.err().unwrap();
        assert!(
            matches!(
                refused,
                StoreError::NewerSchema {
                    found: 99,
                    known: 7,
                    ..
                }
            ),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn schema_that_becomes_newer_stops_writes_until_it_fits() {
    let place = place();
    let writer = place.writer().await;
    let reader = SqliteStore::open_read_only(&place.path, quick()).await.unwrap();
    assert!(writer.save(&[write("kick:5")]).await[0].is_ok());
    let file = place.file();
    let known: i64 = file
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap();
    file.pragma_update(None, "user_version", 99).unwrap();
    let refusals = [
        writer.save(&[write("kick:6")]).await.remove(0).unwrap_err(),
        writer.delete("kick:5").await.unwrap_err(),
        writer.load_all().await.unwrap_err(),
        reader.load_all().await.unwrap_err(),
    ];
    for refused in refusals {
        assert!(
            matches!(refused, StoreError::NewerSchema { found: 99, .. }),
            "{refused}"
        );
    }
    let rows: i64 = file
        .query_row("SELECT count(*) FROM sources", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 1);
    file.pragma_update(None, "user_version", known).unwrap();
    assert!(writer.save(&[write("kick:6")]).await[0].is_ok());
    assert_eq!(reader.load_all().await.unwrap().len(), 2);
}

#[tokio::test]
async fn damaged_bytes_of_one_document_hide_no_other() {
    let place = place();
    let store = place.writer().await;
    assert!(store.save(&[write("kick:5")]).await[0].is_ok());
    let damage = "INSERT INTO sources VALUES ('kick:6', 9, CAST(x'7bff' AS TEXT), NULL)";
    place.file().execute(damage, []).unwrap();
    let all = store.load_all().await.unwrap();
    assert!(all[0].document.is_ok() && all[1].document.is_err());
    assert_eq!(store.unusable().await.unwrap().len(), 1);
}

/// The schema of the first version.
const FIRST_SCHEMA: &str = "
    CREATE TABLE sources (id TEXT PRIMARY KEY, version INTEGER NOT NULL, document TEXT NOT NULL) STRICT;
    CREATE TABLE history (
        source TEXT NOT NULL, id TEXT NOT NULL, at INTEGER NOT NULL, recorded_at INTEGER NOT NULL,
        entry TEXT NOT NULL, PRIMARY KEY (source, id)
    ) STRICT;
    CREATE TABLE sequence (value INTEGER NOT NULL) STRICT;
    INSERT INTO sequence VALUES (1);
    CREATE TABLE probe (id INTEGER PRIMARY KEY, note TEXT NOT NULL) STRICT;
    INSERT INTO sources VALUES ('kick:5', 1, '{\"displayName\":\"ChiliClara\"}');
    INSERT INTO history VALUES ('kick:5', 'a', 5000, 6000, '{\"id\":\"a\",\"recordedAt\":\"1970-01-01T00:00:06Z\",
        \"facet\":\"auth\",\"to\":\"VALID\",\"at\":\"1970-01-01T00:00:05Z\",\"rule\":\"auth.validated\",\"initial\":true}');
    PRAGMA user_version = 1;
    PRAGMA application_id = 0x62697462;
";

#[tokio::test]
async fn schema_1_file_is_readable_and_migrated_by_first_writer() {
    let place = place();
    let file = place.file();
    file.execute_batch(FIRST_SCHEMA).unwrap();
    let reader = place.reader(quick()).await;
    let name = async |store: &SqliteStore| {
        let summary = store.summaries().await.unwrap().remove(0).document.unwrap();
        (
            summary.key.to_string(),
            summary.display_name.clone().unwrap().into_string(),
        )
    };
    let expected = ("kick:5".to_owned(), "ChiliClara".to_owned());
    let of_history = async |store: &SqliteStore| store.history(&key(), 9).await.unwrap().remove(0).id;
    let schema = || file.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
    assert_eq!(name(&reader).await, expected);
    assert_eq!(of_history(&reader).await, "a");
    assert_eq!(schema().unwrap(), 1);
    let writer = place.writer().await;
    assert_eq!(schema().unwrap(), 7);
    assert_eq!(name(&writer).await, expected);
    assert_eq!(of_history(&writer).await, "a");
    assert_eq!(name(&reader).await, expected);
    let found = writer.load(&key()).await.unwrap().unwrap();
    let again = Write::new(found.value, Some(found.version));
    writer.save(&[again]).await.remove(0).unwrap();
    assert_eq!(name(&reader).await, expected);
}

#[tokio::test]
async fn a_list_is_read_without_the_documents() {
    let place = place();
    let _store = place.filled().await;
    let file = place.file();
    // The trigger that deletes summaries must not run for this.
    file.execute_batch("DROP TRIGGER document_edited; UPDATE sources SET document = 'no document at all'")
        .unwrap();
    let reader = place.reader(quick()).await;
    let summary = reader.summaries().await.unwrap().remove(0).document.unwrap();
    assert_eq!(summary.key, key());
    let plan = "EXPLAIN QUERY PLAN SELECT id, version, summary FROM sources ORDER BY id";
    let plan: String = file.query_row(plan, [], |row| row.get(3)).unwrap();
    assert!(plan.contains("COVERING INDEX sources_in_short"), "{plan}");
}

#[tokio::test]
async fn a_document_edited_by_hand_is_summed_up_as_it_is_now() {
    let place = place();
    let store = place.filled().await;
    let edited = "UPDATE sources SET document = '{\"displayName\":\"Edited\"}'";
    place.file().execute(edited, []).unwrap();
    let summary = store.summaries().await.unwrap().remove(0).document.unwrap();
    assert_eq!(summary.display_name.as_deref(), Some("Edited"));
}

#[tokio::test]
async fn files_that_are_no_store_are_refused_and_left_alone() {
    let place = place();
    std::fs::write(&place.path, "# notes\n".repeat(1000)).unwrap();
    assert!(refusal(&place.path).await.contains("not a SQLite database"));
    assert_eq!(std::fs::read(&place.path).unwrap().len(), 8000);

    std::fs::remove_file(&place.path).unwrap();
    let theirs = place.file();
    theirs.execute_batch("CREATE TABLE sources (mine TEXT)").unwrap();
    assert!(refusal(&place.path).await.contains("another program"));

    let directory = tempfile::tempdir().unwrap();
    assert!(
        refusal(directory.path())
            .await
            .contains("a directory, not a regular file")
    );
    let below_a_file = place.path.join("deeper/store.db");
    assert!(refusal(&below_a_file).await.contains("directory cannot be made"));
}

#[tokio::test]
async fn damaged_file_is_reported_as_damaged() {
    let place = place();
    let store = place.writer().await;
    for number in 1..200 {
        store
            .save(&[write(&format!("kick:{number}"))])
            .await
            .remove(0)
            .unwrap();
    }
    drop(store);
    let mut bytes = std::fs::read(&place.path).unwrap();
    for byte in bytes.iter_mut().skip(4096) {
        *byte = 0xA5;
    }
    std::fs::write(&place.path, bytes).unwrap();
    let reported = match SqliteStore::open_read_only(&place.path, quick()).await {
        Ok(store) => store.load_all().await.unwrap_err(),
        Err(error) => error,
    };
    assert!(
        matches!(&reported, StoreError::Refused { reason, hint, .. } if reason.contains("damaged") && hint.contains("recover")),
        "{reported:?}"
    );
}

#[tokio::test]
async fn reader_waiting_for_a_lock_does_not_block_the_thread() {
    let place = place();
    drop(place.filled().await);
    let locker = place.file();
    locker
        .execute_batch("PRAGMA locking_mode = EXCLUSIVE; UPDATE sequence SET value = value + 1")
        .unwrap();
    // All on one thread: if the reader blocked it, the lock would never be released.
    let read = async {
        let reader = place.reader(SqliteOptions::default()).await;
        reader.summaries().await.unwrap().len()
    };
    let (read, ()) = tokio::join!(read, async { drop(locker) });
    assert_eq!(read, 1);
}

#[tokio::test]
async fn held_lock_is_a_transient_error() {
    let place = place();
    let store = SqliteStore::open(&place.path, quick()).await.unwrap();
    let holder = place.file();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let reported = store.save(&[write("kick:5")]).await.remove(0).unwrap_err();
    assert!(
        reported.is_transient() && reported.to_string().contains("locked"),
        "{reported}"
    );
    // Readers continue in the meantime.
    assert!(store.load_all().await.unwrap().is_empty());
    holder.execute_batch("COMMIT").unwrap();
    store.save(&[write("kick:5")]).await.remove(0).unwrap();
}

#[tokio::test]
async fn a_store_that_was_deleted_in_use_is_made_anew() {
    let place = place();
    let store = place.writer().await;
    let version = store.save(&[write("kick:5")]).await.remove(0).unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", place.path.display()));
    }
    let based = Write::new(SourceDocument::new(key()), Some(version));
    assert!(matches!(
        store.save(&[based]).await[0],
        Err(StoreError::Conflict { .. })
    ));
    store.save(&[write("kick:5")]).await.remove(0).unwrap();
    let reader = place.reader(SqliteOptions::default()).await;
    assert_eq!(reader.load_all().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_read_only_place_refuses_writers_and_serves_readers() {
    let place = place();
    drop(place.filled().await);
    let directory = place.path.parent().unwrap();
    let mode =
        |path: &Path, mode: u32| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    mode(&place.path, 0o444);
    mode(directory, 0o555);
    // Root may write anywhere; then there is nothing to reject.
    let unprivileged = std::fs::write(directory.join("attempt"), "").is_err();
    if unprivileged {
        let reported = refusal(&place.path).await;
        assert!(
            reported.contains("read-only") || reported.contains("cannot be opened"),
            "{reported}"
        );
    }
    let reader = place.reader(SqliteOptions::default()).await;
    let read = reader.load_all().await.map(|all| all.len());
    mode(directory, 0o755);
    assert_eq!(read.unwrap(), 1);
}

/// The second process, chosen by `BITBRAT_TEST_ROLE`; the tests below start this same binary for it.
#[tokio::test]
#[ignore = "started by other tests as a second process"]
async fn second_process() {
    let (Ok(role), Ok(path)) = (
        std::env::var("BITBRAT_TEST_ROLE"),
        std::env::var("BITBRAT_TEST_PATH"),
    ) else {
        return;
    };
    // SQLite does not queue writers: on a loaded machine one of eight may have to wait longer than the default five seconds.
    let options = SqliteOptions {
        busy_timeout: Duration::from_secs(60),
        ..SqliteOptions::default()
    };
    let store = SqliteStore::open(Path::new(&path), options).await.unwrap();
    let number: u64 = role.parse().unwrap();
    for round in 0..50 {
        let id = format!("kick:{}", number * 1000 + round + 1);
        store.save(&[write(&id)]).await.remove(0).unwrap();
    }
}

fn start(role: u64, path: &Path) -> Child {
    process::again("contract::store::sqlite::second_process")
        .env("BITBRAT_TEST_ROLE", role.to_string())
        .env("BITBRAT_TEST_PATH", path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn eight_processes_make_and_fill_one_file_while_another_reads() {
    const PROCESSES: u64 = 8;
    let place = place();
    let reader = place.reader(SqliteOptions::default()).await;
    let mut writers: Vec<_> = (0..PROCESSES).map(|role| start(role, &place.path)).collect();
    let mut seen = 0;
    while writers
        .iter_mut()
        .any(|writer| writer.try_wait().unwrap().is_none())
    {
        let now = reader.load_all().await.unwrap().len();
        assert!(now >= seen, "documents vanished: {seen} then {now}");
        seen = now;
    }
    for writer in writers {
        let ended = writer.wait_with_output().unwrap();
        assert!(
            ended.status.success(),
            "{}",
            String::from_utf8_lossy(&ended.stdout)
        );
    }
    assert_eq!(
        reader.load_all().await.unwrap().len(),
        usize::try_from(PROCESSES * 50).unwrap()
    );
}
