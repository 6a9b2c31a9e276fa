//! Conversion between raw documents and source documents, common to all adapters, with size limits.

use serde_json::{Map, Value};

use crate::core::document::SourceDocument;
use crate::core::evidence::Evidence;
use crate::core::source::SourceKey;
use crate::store::{StoreError, Unusable};

/// Maximum size of a document in bytes of JSON. Firestore's own limit is 1 MiB; every adapter enforces this limit, so that a
/// store can always be migrated to another.
pub const MAX_DOCUMENT_BYTES: usize = 1_000_000;

/// Parses the stored document with this id.
pub fn read(document_id: &str, stored: Value) -> Result<SourceDocument, Unusable> {
    accept(SourceDocument::from_stored(key(document_id)?, stored)?)
}

/// Parses the text of the stored document with this id.
pub fn read_text(document_id: &str, stored: &str) -> Result<SourceDocument, Unusable> {
    accept(SourceDocument::from_text(key(document_id)?, stored)?)
}

fn key(document_id: &str) -> Result<SourceKey, Unusable> {
    document_id.parse().map_err(|_| Unusable::NotASource)
}

/// Detects orphans: when a stream starts, the platform's persistence service uses the stream's id as the source's, and stores
/// the correct one in `metadata.broadcasterId`. A document with our evidence is never an orphan.
fn accept(document: SourceDocument) -> Result<SourceDocument, Unusable> {
    let broadcaster = match document.foreign_metadata("broadcasterId") {
        Some(Value::String(id)) if document.knowledge.evidence == Evidence::default() => id,
        _ => return Ok(document),
    };
    match SourceKey::new(document.key.platform(), broadcaster) {
        Ok(owner) if owner != document.key => Err(Unusable::Orphan {
            belongs_to: owner.to_string(),
        }),
        _ => Ok(document),
    }
}

/// Returns the stored fields of `document` and their size in bytes of JSON; rejects documents that no store accepts.
pub fn write(document: &SourceDocument) -> Result<(Map<String, Value>, usize), StoreError> {
    let text = write_text(document)?;
    Ok((document.to_stored(), text.len()))
}

/// Returns the stored text of `document`; rejects documents that no store accepts.
pub fn write_text(document: &SourceDocument) -> Result<String, StoreError> {
    let text = document.to_text();
    if text.len() > MAX_DOCUMENT_BYTES {
        return Err(StoreError::Rejected {
            document_id: document.key.to_string(),
            reason: format!(
                "it has {} bytes, more than the {MAX_DOCUMENT_BYTES} that a document may have; shorten its metadata",
                text.len()
            ),
        });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_document_keyed_by_a_stream_is_an_orphan_of_its_broadcaster() {
        let stored = json!({ "id": "40999888777", "metadata": { "broadcasterId": "777001" } });
        let orphan = Unusable::Orphan {
            belongs_to: "twitch:777001".into(),
        };
        assert_eq!(read("twitch:40999888777", stored.clone()).unwrap_err(), orphan);
        assert!(read("twitch:777001", stored).is_ok());
    }

    #[test]
    fn names_in_place_of_ids_are_not_sources() {
        for id in ["twitch:bitbrat_bot", "discord:discord", "probe", ""] {
            assert_eq!(read(id, json!({})).unwrap_err(), Unusable::NotASource, "{id}");
        }
    }

    #[test]
    fn a_document_with_our_evidence_is_never_an_orphan() {
        let evidence = json!({ "latency": { "at": "2026-05-01T18:00:00.000Z", "value": 3 } });
        let stored = json!({ "evidence": evidence, "metadata": { "broadcasterId": "5" } });
        assert!(read("twitch:6", stored).is_ok());
    }

    #[test]
    fn a_document_too_large_for_any_store_is_refused() {
        let stored = json!({ "notes": "x".repeat(MAX_DOCUMENT_BYTES) });
        let document = read("kick:5", stored).unwrap();
        assert!(matches!(write(&document), Err(StoreError::Rejected { .. })));
    }
}
