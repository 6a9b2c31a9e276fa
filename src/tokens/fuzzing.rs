//! Entry points of the fuzz targets in `fuzz/`: stored tokens, of this program and of others.

use std::collections::BTreeMap;

use secrecy::ExposeSecret as _;
use serde_json::{Map, Value};

use super::documents::PlatformDocument;
use super::on_disk::RecordOnDisk;
use super::{StoredToken, TokenRecord};
use crate::core::observation::Identity;
use crate::core::time::Timestamp;
use crate::store::Version;

/// Reads the records of a token file. One that is read and written keeps its meaning.
pub fn file(text: &str) {
    let Ok(records) = serde_json::from_str::<BTreeMap<Identity, RecordOnDisk>>(text) else {
        return;
    };
    for record in records.into_values() {
        let written = rewritten(record);
        let again: RecordOnDisk = serde_json::from_str(&written).expect("what was written can be read");
        assert_eq!(rewritten(again), written);
    }
}

fn rewritten(record: RecordOnDisk) -> String {
    let record = TokenRecord::from(record);
    serde_json::to_string(&RecordOnDisk::from(&record)).expect("a record can be written")
}

/// Reads a token document of the platform. A token that is read from it and written into it can be read again.
pub fn document(fields: Map<String, Value>, now: Timestamp) {
    let document = |fields| PlatformDocument {
        place: "a document".to_owned(),
        fields,
        version: Version("1".to_owned()),
        written_at: now,
    };
    let found = document(fields);
    let Ok(token) = found.token() else { return };
    let (names, values) = found.change(token.as_ref(), now);
    let mut changed = found.fields.clone();
    changed.retain(|name, _| !names.contains(&name.as_str()));
    changed.extend(values);
    let again = document(changed);
    let read = again.token().expect("a token that was written can be read");
    let secrets = |token: Option<&StoredToken>| {
        let token = token?;
        let refresh = token
            .refresh
            .as_ref()
            .map(|refresh| refresh.secret.expose_secret().to_owned());
        Some((token.access.expose_secret().to_owned(), refresh))
    };
    assert_eq!(secrets(read.as_ref()), secrets(token.as_ref()));
    assert_eq!(again.owner(), found.owner(), "a document keeps its owner");
}
