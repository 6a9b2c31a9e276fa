//! Confirmed states: evidence that is newer than a document, but changes nothing in it except dates and measurements.
//!
//! Most probes only confirm what is known. Their evidence is written for many sources as one row, a group, instead of as one
//! document each; readers merge it into the documents. A state names the version of the document that it confirms. Every other
//! write of a document is based on the merged state and has a new version, so that the confirmed state is obsolete.

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde::{Deserialize, Serialize};

use crate::core::compact::Compact;
use crate::core::evidence::Knowledge;
use crate::core::source::SourceKey;
use crate::store::Version;
use crate::store::sqlite::database::WITH_CONFIRMATIONS;

/// Number of groups. Ten thousand sources make rows of about 50 KiB; many small rows would cost as much as the documents.
pub const GROUPS: u8 = 128;

/// The number of the format of [`Group`]; groups of other formats are ignored.
const FORMAT: u8 = 1;

/// A source's state that is newer than its document.
#[derive(Debug)]
pub struct ConfirmedState {
    pub source: SourceKey,
    /// The version of the document.
    pub base: Version,
    /// All that is known: the document's evidence, and what was observed since.
    pub knowledge: Compact,
    /// The serialized summary of the merged document.
    pub summary: Vec<u8>,
}

/// The confirmed states of the sources with one hash, by one writer.
#[derive(Debug)]
pub struct ConfirmedGroup {
    /// Less than [`GROUPS`].
    pub number: u8,
    pub states: Vec<ConfirmedState>,
}

/// A serialized group.
#[derive(Serialize, Deserialize)]
struct Group<'a> {
    format: u8,
    /// Texts that many states share.
    #[serde(borrow)]
    shared: Vec<&'a str>,
    states: Vec<State<'a>>,
}

#[derive(Serialize, Deserialize)]
struct State<'a> {
    document_id: &'a str,
    version: i64,
    shared: usize,
    own: &'a str,
    summary: &'a [u8],
}

/// Returns the number of the group of a document: a hash that is the same in every process (FNV-1a, with a last step of murmur3,
/// because ids often differ only in their last digits).
pub fn group_of(document_id: &str) -> u8 {
    let hash = document_id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd) >> 32;
    u8::try_from(mixed % u64::from(GROUPS)).expect("a remainder is less than its divisor")
}

/// Writes a group. Returns the sources whose documents have another version than the one that is confirmed; their states are left
/// out.
pub fn write(
    transaction: &Transaction<'_>,
    writer: &str,
    group: &ConfirmedGroup,
) -> rusqlite::Result<Vec<SourceKey>> {
    let mut conflicts = Vec::new();
    let mut version = transaction.prepare_cached("SELECT version FROM sources WHERE id = ?1")?;
    let mut places = HashMap::new();
    let mut shared = Vec::new();
    let ids: Vec<String> = group
        .states
        .iter()
        .map(|state| state.source.to_string())
        .collect();
    let mut states = Vec::with_capacity(ids.len());
    for (state, document_id) in group.states.iter().zip(&ids) {
        let stored: Option<i64> = version.query_row([document_id], |row| row.get(0)).optional()?;
        let Some(version) = stored.filter(|stored| stored.to_string() == state.base.0) else {
            conflicts.push(state.source.clone());
            continue;
        };
        let (own, of_many) = state.knowledge.texts();
        let place = *places.entry(of_many).or_insert_with(|| {
            shared.push(of_many);
            shared.len() - 1
        });
        states.push(State {
            document_id,
            version,
            shared: place,
            own,
            summary: &state.summary,
        });
    }
    let group_bytes = Group {
        format: FORMAT,
        shared,
        states,
    };
    let mut bytes = postcard::to_allocvec(&group_bytes).expect("text and numbers can be written");
    bytes.extend(checksum(&bytes));
    transaction
        .prepare_cached("INSERT OR REPLACE INTO confirmations (block, writer, states) VALUES (?1, ?2, ?3)")?
        .execute(params![group.number, writer, bytes])?;
    Ok(conflicts)
}

/// Bytes of a checksum.
const CHECKSUM: usize = 8;

/// Returns the first bytes of the SHA-256 digest: one wrong bit in a group could show a source with the state of another one.
fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let digest = digest(&SHA256, bytes);
    digest.as_ref()[..CHECKSUM]
        .try_into()
        .expect("a digest is longer")
}

/// Parses a stored group; `None` if it is damaged, or of another format.
fn parse(bytes: &[u8]) -> Option<Group<'_>> {
    let (group, sum) = bytes.split_last_chunk::<CHECKSUM>()?;
    if *sum != checksum(group) {
        return None;
    }
    let group: Group<'_> = postcard::from_bytes(group).ok()?;
    (group.format == FORMAT).then_some(group)
}

/// States that are newer than their documents.
#[derive(Default)]
pub struct Confirmed<T>(HashMap<String, Vec<(i64, T)>>);

impl<T> Confirmed<T> {
    /// Removes and returns the states that confirm this version of a document: one per writer.
    pub fn take(&mut self, document_id: &str, version: i64) -> impl Iterator<Item = T> + use<T> {
        let states = self.0.remove(document_id).unwrap_or_default();
        let current = states.into_iter().filter(move |(base, _)| *base == version);
        current.map(|(_, state)| state)
    }
}

/// Reads the confirmed evidence of the documents in a group, or of all. It must be read before the documents: one that is written in
/// between contains it.
pub fn knowledge(connection: &Connection, group: Option<u8>) -> rusqlite::Result<Confirmed<Knowledge>> {
    read(connection, group, |shared, state| {
        Compact::parse(state.own, shared)
    })
}

/// Reads the summaries of all confirmed states. They must be read before the documents.
pub fn summaries(connection: &Connection) -> rusqlite::Result<Confirmed<Vec<u8>>> {
    read(connection, None, |_, state| Some(state.summary.to_vec()))
}

fn read<T>(
    connection: &Connection,
    group: Option<u8>,
    of: impl Fn(&str, &State<'_>) -> Option<T>,
) -> rusqlite::Result<Confirmed<T>> {
    let mut found = Confirmed(HashMap::new());
    let schema: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if schema < WITH_CONFIRMATIONS {
        return Ok(found);
    }
    let (mut of_all, mut of_group);
    let mut rows = if let Some(group) = group {
        of_group = connection.prepare_cached("SELECT states FROM confirmations WHERE block = ?1")?;
        of_group.query([group])?
    } else {
        of_all = connection.prepare_cached("SELECT states FROM confirmations")?;
        of_all.query([])?
    };
    while let Some(row) = rows.next()? {
        let Some(group) = parse(row.get_ref(0)?.as_blob()?) else {
            tracing::warn!(
                "A row of the table `confirmations` is damaged; the dates of its sources are older until the next heartbeat"
            );
            continue;
        };
        for state in &group.states {
            let shared = group.shared.get(state.shared).copied().unwrap_or_default();
            if let Some(value) = of(shared, state) {
                let of_document = found.0.entry(state.document_id.to_owned()).or_default();
                of_document.push((state.version, value));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::compact::Interner;
    use crate::core::document::SourceDocument;
    use crate::core::observation::{Fact, Observation};
    use crate::core::summary::SourceSummary;
    use crate::core::time::Timestamp;
    use crate::store::Write;
    use crate::store::retention::Retention;
    use crate::store::sqlite::database::{self, Access, Opened};
    use crate::store::sqlite::rows::{self, Upsert};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(1_780_000_000_000).plus_secs(second)
    }

    fn seen(second: i64) -> SourceDocument {
        let key: SourceKey = "twitch:5".parse().unwrap();
        let seen = Observation::new(&key, at(second), "test", Fact::Exists);
        SourceDocument::from_knowledge(key, Knowledge::of([&seen]))
    }

    /// A file with one document, and its version.
    fn file() -> (tempfile::TempDir, Opened, Version) {
        let dir = tempfile::tempdir().unwrap();
        let opened = database::open(
            &dir.path().join("store.db"),
            Access::Write,
            std::time::Duration::ZERO,
        );
        let mut opened = opened.unwrap().unwrap();
        let version = store(&mut opened, &seen(0), None);
        (dir, opened, version)
    }

    fn store(opened: &mut Opened, document: &SourceDocument, base: Option<Version>) -> Version {
        let upsert = Upsert::of(&Write::new(document.clone(), base)).unwrap();
        let saved = rows::save(&mut opened.connection, &[upsert], Retention::default()).unwrap();
        saved.into_iter().next().unwrap().unwrap()
    }

    fn confirm(
        opened: &mut Opened,
        writer: &str,
        document: &SourceDocument,
        base: &Version,
    ) -> Vec<SourceKey> {
        let state = ConfirmedState {
            source: document.key.clone(),
            base: base.clone(),
            knowledge: Interner::default().compact(document.knowledge.clone()),
            summary: SourceSummary::of(document).to_bytes(),
        };
        let group = ConfirmedGroup {
            number: group_of(&document.key.to_string()),
            states: vec![state],
        };
        let transaction = opened.connection.transaction().unwrap();
        let conflicts = write(&transaction, writer, &group).unwrap();
        transaction.commit().unwrap();
        conflicts
    }

    /// When the source was last seen, by the document, the list of documents and the list of summaries.
    fn read_back(opened: &mut Opened) -> Option<Timestamp> {
        let connection = &mut opened.connection;
        let document = rows::load(connection, "twitch:5").unwrap().unwrap().read();
        let document = document.document.unwrap().value;
        let listed = rows::load_all(connection).unwrap().remove(0).document;
        assert_eq!(listed.unwrap().value, document);
        let summary = rows::summaries(connection).unwrap().remove(0).document;
        assert_eq!(*summary.unwrap(), SourceSummary::of(&document));
        document.knowledge.evidence.existence.seen
    }

    #[test]
    fn confirmed_state_is_read_with_its_document() {
        let (_dir, mut opened, version) = file();
        assert_eq!(confirm(&mut opened, "a", &seen(9), &version), []);
        assert_eq!(read_back(&mut opened), Some(at(9)));
    }

    #[test]
    fn states_of_several_writers_are_merged() {
        let (_dir, mut opened, version) = file();
        for (writer, second) in [("a", 9), ("b", 5)] {
            confirm(&mut opened, writer, &seen(second), &version);
        }
        assert_eq!(read_back(&mut opened), Some(at(9)));
    }

    #[test]
    fn state_of_another_version_is_obsolete_and_a_conflict() {
        let (_dir, mut opened, version) = file();
        confirm(&mut opened, "a", &seen(9), &version);
        store(&mut opened, &seen(3), Some(version.clone()));
        assert_eq!(read_back(&mut opened), Some(at(3)));
        assert_eq!(confirm(&mut opened, "a", &seen(9), &version), [seen(0).key]);
        assert_eq!(read_back(&mut opened), Some(at(3)));
    }

    #[test]
    fn damaged_group_costs_only_the_newest_dates() {
        let (_dir, mut opened, version) = file();
        confirm(&mut opened, "a", &seen(9), &version);
        for damage in ["zeroblob(900)", "substr(states, 1, 40)", "x''", "x'02' || states"] {
            let update = format!("UPDATE confirmations SET states = CAST({damage} AS BLOB)");
            opened.connection.execute(&update, []).unwrap();
            assert_eq!(read_back(&mut opened), Some(at(0)), "{damage}");
        }
    }

    #[test]
    fn no_wrong_bit_changes_what_is_shown() {
        let (_dir, mut opened, version) = file();
        confirm(&mut opened, "a", &seen(9), &version);
        let intact: Vec<u8> = opened
            .connection
            .query_row("SELECT states FROM confirmations", [], |row| row.get(0))
            .unwrap();
        for bit in 0..8 * intact.len() {
            let mut damaged = intact.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            opened
                .connection
                .execute("UPDATE confirmations SET states = ?1", [damaged])
                .unwrap();
            assert_eq!(read_back(&mut opened), Some(at(0)), "bit {bit}");
        }
    }

    #[test]
    fn every_group_has_a_fair_share() {
        let mut members = [0_u32; GROUPS as usize];
        for id in 0..12_800 {
            members[usize::from(group_of(&format!("twitch:{}", 1_000_000 + id)))] += 1;
        }
        assert!(
            members.iter().all(|count| (50..200).contains(count)),
            "{members:?}"
        );
    }
}
