//! The schema in the database, and its migrations.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::PostgresTarget;
use super::error::Failure;
use crate::store::StoreError;

/// Each step migrates from the schema version of its index to the next, in the schema of the documents.
///
/// Processes of an older version stop at their next statement and continue when the schema fits them again, so a step must leave a
/// schema to which one of their statements that is being executed can still write.
const MIGRATIONS: &[&str] = &["
    CREATE SEQUENCE versions;
    CREATE TABLE documents (
        id text COLLATE \"C\" PRIMARY KEY,
        version bigint NOT NULL DEFAULT nextval('versions'),
        data jsonb NOT NULL,
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        -- Guarded by type and length: a value of another program that does not fit would make the whole write fail.
        platform text GENERATED ALWAYS AS (left(data->>'platform', 40)) STORED,
        display_name text GENERATED ALWAYS AS (left(data->>'displayName', 200)) STORED,
        status text GENERATED ALWAYS AS (left(data->>'status', 40)) STORED,
        stream_status text GENERATED ALWAYS AS (left(data->>'streamStatus', 40)) STORED,
        auth_status text GENERATED ALWAYS AS (left(data->>'authStatus', 40)) STORED,
        viewer_count int GENERATED ALWAYS AS (CASE WHEN jsonb_typeof(data->'viewerCount') = 'number'
            THEN greatest(0, least((data->>'viewerCount')::numeric, 2147483647))::int END) STORED,
        latency_ms int GENERATED ALWAYS AS (CASE WHEN jsonb_typeof(data->'latencyMs') = 'number'
            THEN greatest(0, least((data->>'latencyMs')::numeric, 2147483647))::int END) STORED,
        -- Text, because a cast to a time depends on settings of the session; the form sorts by time.
        last_status_update text GENERATED ALWAYS AS (left(data->>'lastStatusUpdate', 40)) STORED,
        last_stream_update text GENERATED ALWAYS AS (left(data->>'lastStreamUpdate', 40)) STORED
    ) WITH (fillfactor = 80);
    -- Only columns that rarely change: an index on any other would rule out updates within a page.
    CREATE INDEX documents_status ON documents (platform, status);
    CREATE INDEX documents_stream_status ON documents (stream_status);
    CREATE TABLE history (
        source text COLLATE \"C\" NOT NULL, id text COLLATE \"C\" NOT NULL, at bigint NOT NULL,
        recorded_at bigint NOT NULL, entry jsonb NOT NULL, PRIMARY KEY (source, id)
    );
    CREATE INDEX history_newest ON history (source, at DESC, recorded_at DESC, id DESC);
    -- What the platform's tables of tokens have no column for: one row beside each of theirs.
    CREATE TABLE tokens (
        id text COLLATE \"C\" PRIMARY KEY, version bigint NOT NULL DEFAULT nextval('versions'), data jsonb NOT NULL
    );
    CREATE TABLE probe (id text PRIMARY KEY, note text NOT NULL);

    -- Our writes change a document together with its version; a change of the document alone is one of another program.
    CREATE FUNCTION renumber() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        NEW.version := nextval(format('%I.versions', TG_TABLE_SCHEMA)::regclass);
        RETURN NEW;
    END $$;
    CREATE TRIGGER document_edited BEFORE UPDATE ON documents FOR EACH ROW
        WHEN (NEW.version = OLD.version) EXECUTE FUNCTION renumber();

    -- One notification a statement, whatever it wrote: transactions that notify wait for each other when they commit.
    CREATE FUNCTION notify_changes() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify(TG_TABLE_SCHEMA || '_changes', '');
        RETURN NULL;
    END $$;
    CREATE TRIGGER documents_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON documents
        FOR EACH STATEMENT EXECUTE FUNCTION notify_changes();
"];

/// Generated columns exist since PostgreSQL 12.
const OLDEST_SERVER: i32 = 120_000;

/// What was found in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    Usable,
    /// There is none, and only reading was wanted.
    Absent,
}

/// Returns the schema version that this program has.
pub fn newest() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// The statement that reads the schema version; `{s}` is the schema.
pub const SELECT_VERSION: &str = "SELECT value FROM {s}.meta WHERE key = 'schema_version'";

/// Returns the condition that the schema is the one of this program, for statements that write; `{s}` is the schema.
pub fn fits() -> String {
    format!(
        "EXISTS (SELECT FROM {{s}}.meta WHERE key = 'schema_version' AND value = '{}')",
        newest()
    )
}

/// Checks the schema without changing anything. `None` if there is none. One whose version is unknown is refused: it may contain
/// documents that this program cannot read.
pub async fn version(client: &Client, target: &PostgresTarget) -> Result<Option<i64>, Failure> {
    let schema = &target.schema;
    if !has_table(client, schema, "meta").await? {
        return Ok(None);
    }
    let select = SELECT_VERSION.replace("{s}", &format!("\"{schema}\""));
    let found = client.query_typed(&select, &[]).await?;
    let text: Option<&str> = found.first().and_then(|row| row.try_get(0).ok());
    match text {
        Some(text) => text.parse().map(Some).map_err(|_| without_version(target)),
        None if has_table(client, schema, "documents").await? => Err(without_version(target)),
        None => Ok(None),
    }
}

async fn has_table(client: &Client, schema: &str, table: &str) -> Result<bool, Failure> {
    let found = client
        .query_typed(
            "SELECT to_regclass(format('%I.%I', $1, $2)) IS NOT NULL",
            &[(&schema, Type::TEXT), (&table, Type::TEXT)],
        )
        .await?;
    Ok(found.first().is_some_and(|row| row.get(0)))
}

fn without_version(target: &PostgresTarget) -> Failure {
    Failure::Store(StoreError::Refused {
        location: target.to_string(),
        reason: format!(
            "the row schema_version of its table {}.meta is missing or no number",
            target.schema
        ),
        hint: "restore that row from a backup, or use another schema".to_owned(),
    })
}

/// Makes sure that the schema is one that this program can use, and migrates it if `create`.
pub async fn ensure(client: &Client, target: &PostgresTarget, create: bool) -> Result<Schema, Failure> {
    match version(client, target).await? {
        Some(found) if found > newest() => Err(newer(target, found)),
        Some(found) if found == newest() => Ok(Schema::Usable),
        // An older one can be read as far as it goes only if no step changed what is read; none has so far.
        Some(_) if !create => Ok(Schema::Usable),
        None if !create => Ok(Schema::Absent),
        _ => migrate(client, target).await.map(|()| Schema::Usable),
    }
}

fn newer(target: &PostgresTarget, found: i64) -> Failure {
    Failure::Store(StoreError::NewerSchema {
        location: target.to_string(),
        found,
        known: newest(),
    })
}

/// Migrates in one transaction, and one process at a time. The lock is that of the transaction, which poolers support.
async fn migrate(client: &Client, target: &PostgresTarget) -> Result<(), Failure> {
    let migrated = migrate_in_transaction(client, target).await;
    if migrated.is_err() {
        // The transaction has failed; its own error is the one to report.
        let _ = client.batch_execute("ROLLBACK").await;
    }
    migrated
}

async fn migrate_in_transaction(client: &Client, target: &PostgresTarget) -> Result<(), Failure> {
    let schema = &target.schema;
    client
        .batch_execute(&format!(
            "BEGIN; SET LOCAL lock_timeout = '10s'; SELECT pg_advisory_xact_lock(hashtext('bitbrat.schema.{schema}'))"
        ))
        .await?;
    let server = client
        .query_typed("SELECT current_setting('server_version_num')::int", &[])
        .await?;
    let server: i32 = server.first().map_or(0, |row| row.get(0));
    if server < OLDEST_SERVER {
        return Err(Failure::Store(StoreError::Refused {
            location: target.to_string(),
            reason: format!("it runs PostgreSQL {}, and 12 is needed", server / 10_000),
            hint: "upgrade the server".to_owned(),
        }));
    }
    let found = version(client, target).await?.unwrap_or(0);
    if found > newest() {
        return Err(newer(target, found));
    }
    // With a right on the schema alone, which somebody else has made, creating it would be refused even where it exists.
    let exists = client
        .query_typed(
            "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)",
            &[(schema, Type::TEXT)],
        )
        .await?;
    if !exists.first().is_some_and(|row| row.get(0)) {
        client
            .batch_execute(&format!("CREATE SCHEMA \"{schema}\""))
            .await?;
    }
    client
        .batch_execute(&format!(
            "SET LOCAL search_path TO \"{schema}\"; \
             CREATE TABLE IF NOT EXISTS meta (key text PRIMARY KEY, value text NOT NULL)"
        ))
        .await?;
    for step in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        client.batch_execute(step).await?;
    }
    client
        .batch_execute(&format!(
            "INSERT INTO meta VALUES ('schema_version', '{}') ON CONFLICT (key) DO UPDATE SET value = excluded.value; COMMIT",
            newest()
        ))
        .await?;
    Ok(())
}
