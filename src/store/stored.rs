//! What every adapter does with a raw document: reads it as a source's, or says why not; writes it within bounds.

use serde_json::{Map, Value};

use crate::core::document::SourceDocument;
use crate::core::source::SourceKey;
use crate::store::{StoreError, Unusable};

/// Bytes of JSON that a document may have. Firestore's own limit is 1 MiB; every adapter keeps it, so that a store can
/// always be migrated to another.
pub const MAX_DOCUMENT_BYTES: usize = 1_000_000;

/// Reads what is stored under `document_id`.
pub fn read(document_id: &str, stored: Value) -> Result<SourceDocument, Unusable> {
    let key: SourceKey = document_id.parse().map_err(|_| Unusable::NotASource)?;
    if let Some(belongs_to) = orphan_of(&key, &stored) {
        return Err(Unusable::Orphan { belongs_to });
    }
    Ok(SourceDocument::from_stored(key, stored)?)
}

/// Returns the document id of the source that an orphan should have been: the platform's persistence takes a stream's
/// id for the source's when a stream starts, and leaves the true one in `metadata.broadcasterId`. A document with our
/// evidence was made by us and is never an orphan.
fn orphan_of(key: &SourceKey, stored: &Value) -> Option<String> {
    if stored.get("evidence").is_some() {
        return None;
    }
    let broadcaster = match stored.get("metadata")?.get("broadcasterId")? {
        Value::String(id) => id.clone(),
        Value::Number(id) => id.to_string(),
        _ => return None,
    };
    let owner = SourceKey::new(key.platform(), &broadcaster).ok()?;
    (owner != *key).then(|| owner.to_string())
}

/// Returns `document` as it is stored, and as text, refusing what no store could take.
pub fn write(document: &SourceDocument) -> Result<(Map<String, Value>, String), StoreError> {
    let fields = document.to_stored();
    let text = serde_json::to_string(&fields).unwrap_or_default();
    if text.len() > MAX_DOCUMENT_BYTES {
        return Err(StoreError::Rejected {
            document_id: document.key.to_string(),
            reason: format!(
                "it has {} bytes, more than the {MAX_DOCUMENT_BYTES} that a document may have; shorten its metadata",
                text.len()
            ),
        });
    }
    Ok((fields, text))
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
        let stored = json!({ "evidence": {}, "metadata": { "broadcasterId": "5" } });
        assert!(read("twitch:6", stored).is_ok());
    }

    #[test]
    fn a_document_too_large_for_any_store_is_refused() {
        let stored = json!({ "notes": "x".repeat(MAX_DOCUMENT_BYTES) });
        let document = read("kick:5", stored).unwrap();
        assert!(matches!(write(&document), Err(StoreError::Rejected { .. })));
    }
}
