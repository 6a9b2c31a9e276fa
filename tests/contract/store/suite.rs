//! The contract. Each test runs in a world of its own and uses only the port.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bitbrat::core::counters::Counters;
use bitbrat::core::document::SourceDocument;
use bitbrat::core::evidence::Knowledge;
use bitbrat::core::facet::Facet;
use bitbrat::core::observation::{Fact, LinkState, Observation, Transport};
use bitbrat::core::source::SourceKey;
use bitbrat::core::summary::SourceSummary;
use bitbrat::core::time::Timestamp;
use bitbrat::core::transition::Transition;
use bitbrat::store::retention::Retention;
use bitbrat::store::{HistoryEntry, SourceStore, StoreError, Stored, Unusable, Version, Write};
use futures_util::StreamExt;
use serde_json::json;

use crate::contract::store::worlds::World;

const PATIENCE: Duration = Duration::from_secs(20);

async fn fresh<W: World>() -> (W, Arc<dyn SourceStore>) {
    let world = W::with(Retention::default()).await;
    let store = world.open().await;
    (world, store)
}

fn key(id: &str) -> SourceKey {
    id.parse().unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_780_000_000_000).plus_secs(seconds)
}

/// Evidence of a source that is connected and live for `viewers`.
fn live(key: &SourceKey, viewers: u64) -> Knowledge {
    let facts = [
        Fact::Connection {
            transport: Transport::Api,
            state: LinkState::Up,
        },
        Fact::StreamSeen {
            stream_id: "40900001".into(),
            started_at: Some(at(-60)),
        },
        Fact::Viewers {
            count: viewers,
            stream_id: Some("40900001".into()),
        },
        Fact::Profile {
            fields: BTreeMap::from([
                ("displayName".into(), "Ratte 🐀".into()),
                ("title".into(), "Ho\nhum".into()),
            ]),
        },
    ];
    let moment = at(i64::try_from(viewers).unwrap());
    Knowledge::of(&facts.map(|fact| Observation::new(key, moment, "twitch.helix", fact)))
}

fn document(id: &str, viewers: u64) -> SourceDocument {
    let key = key(id);
    let known = live(&key, viewers);
    SourceDocument::from_knowledge(key, known)
}

fn entry(id: &str, seconds: i64) -> HistoryEntry {
    let transition = Transition {
        facet: Facet::Stream,
        from: Some("OFFLINE".into()),
        to: Some("ONLINE".into()),
        at: at(seconds),
        rule: "stream.pushed-start".into(),
        stream_id: None,
        initial: false,
    };
    HistoryEntry::new(&key(id), at(seconds + 1), transition)
}

async fn save(
    store: &dyn SourceStore,
    document: SourceDocument,
    base: Option<Version>,
) -> Result<Version, StoreError> {
    let mut results = store.save(&[Write::new(document, base)]).await;
    assert_eq!(results.len(), 1);
    results.remove(0)
}

async fn happened(store: &dyn SourceStore, id: &str, limit: usize) -> Vec<i64> {
    let entries = store.history(&key(id), limit).await.unwrap();
    let seconds = |entry: &HistoryEntry| entry.transition.at.millis_since(at(0)) / 1000;
    entries.iter().map(seconds).collect()
}

fn ids<T>(stored: &[Stored<T>]) -> Vec<&str> {
    stored.iter().map(|stored| stored.document_id.as_str()).collect()
}

pub async fn nothing_is_there_at_first<W: World>() {
    let (_world, store) = fresh::<W>().await;
    assert!(store.load(&key("twitch:1")).await.unwrap().is_none());
    assert!(store.load_all().await.unwrap().is_empty());
    assert!(store.history(&key("twitch:1"), 10).await.unwrap().is_empty());
    assert!(!store.delete("twitch:1").await.unwrap());
    assert!(store.save(&[]).await.is_empty());
}

pub async fn a_document_reads_back_as_it_was_saved<W: World>() {
    let (world, store) = fresh::<W>().await;
    let written = document("twitch:900200", 37);
    let version = save(&*store, written.clone(), None).await.unwrap();
    for reader in [store, world.open().await] {
        let read = reader.load(&written.key).await.unwrap().unwrap();
        assert_eq!(read.value, written);
        assert_eq!(read.version, version);
        let all = reader.load_all().await.unwrap();
        assert_eq!(all[0].document.as_ref().unwrap(), &read);
    }
    let raw = world.raw("twitch:900200").await.unwrap();
    assert_eq!(raw, serde_json::Value::Object(written.to_stored()));
}

pub async fn documents_are_listed_by_id<W: World>() {
    let (_world, store) = fresh::<W>().await;
    let writes = ["twitch:9", "kick:1", "twitch:10", "discord:7"].map(|id| Write::new(document(id, 1), None));
    for result in store.save(&writes).await {
        result.unwrap();
    }
    let all = store.load_all().await.unwrap();
    assert_eq!(ids(&all), ["discord:7", "kick:1", "twitch:10", "twitch:9"]);
}

pub async fn a_write_on_an_old_version_is_a_conflict<W: World>() {
    let (world, store) = fresh::<W>().await;
    let first = save(&*store, document("kick:5", 1), None).await.unwrap();
    let second = save(&*store, document("kick:5", 2), Some(first.clone()))
        .await
        .unwrap();
    assert_ne!(first, second);
    let other = world.open().await;
    let refused = save(&*other, document("kick:5", 3), Some(first))
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, StoreError::Conflict { document_id } if document_id == "kick:5"),
        "{refused}"
    );
    let kept = store.load(&key("kick:5")).await.unwrap().unwrap();
    assert_eq!((kept.value, kept.version), (document("kick:5", 2), second));
}

pub async fn a_first_write_where_something_is_already_is_a_conflict<W: World>() {
    let (_world, store) = fresh::<W>().await;
    save(&*store, document("kick:5", 1), None).await.unwrap();
    let refused = save(&*store, document("kick:5", 2), None).await.unwrap_err();
    assert!(matches!(refused, StoreError::Conflict { .. }), "{refused}");
}

pub async fn a_version_never_returns_after_a_deletion<W: World>() {
    let (_world, store) = fresh::<W>().await;
    let first = save(&*store, document("kick:5", 1), None).await.unwrap();
    store.delete("kick:5").await.unwrap();
    let gone = save(&*store, document("kick:5", 2), Some(first.clone()))
        .await
        .unwrap_err();
    assert!(matches!(gone, StoreError::Conflict { .. }), "{gone}");
    save(&*store, document("kick:5", 1), None).await.unwrap();
    let stale = save(&*store, document("kick:5", 2), Some(first))
        .await
        .unwrap_err();
    assert!(matches!(stale, StoreError::Conflict { .. }), "{stale}");
}

pub async fn a_conflict_never_stops_its_neighbors<W: World>() {
    let (_world, store) = fresh::<W>().await;
    save(&*store, document("kick:2", 1), None).await.unwrap();
    let writes = ["kick:1", "kick:2", "kick:3"].map(|id| Write::new(document(id, 7), None));
    let results = store.save(&writes).await;
    assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
    assert!(
        matches!(results[1], Err(StoreError::Conflict { .. })),
        "{results:?}"
    );
    let kept = store.load(&key("kick:3")).await.unwrap().unwrap();
    assert_eq!(&kept.version, results[2].as_ref().unwrap());
}

pub async fn a_document_too_large_is_rejected_and_its_neighbors_are_kept<W: World>() {
    let (_world, store) = fresh::<W>().await;
    // Observations are bounded; documents of earlier versions may have longer texts.
    let title = |length: usize| {
        let fields = BTreeMap::from([("title".to_owned(), "short".to_owned())]);
        let fact = Fact::Profile { fields };
        let known = Knowledge::of(&[Observation::new(&key("kick:2"), at(0), "kick.api", fact)]);
        let small = SourceDocument::from_knowledge(key("kick:2"), known).to_text();
        let text = small.replace("short", &"x".repeat(length));
        Write::new(SourceDocument::from_text(key("kick:2"), &text).unwrap(), None)
    };
    let writes = [
        Write::new(document("kick:1", 7), None),
        title(600_000),
        Write::new(document("kick:3", 7), None),
    ];
    let results = store.save(&writes).await;
    assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
    assert!(
        matches!(results[1], Err(StoreError::Rejected { .. })),
        "{results:?}"
    );
    // A title is in the document twice: as evidence and as metadata.
    store.save(&[title(400_000)]).await.remove(0).unwrap();
}

pub async fn fields_of_others_survive_our_writes<W: World>() {
    let (world, store) = fresh::<W>().await;
    let theirs = json!({
        "id": "900200", "platform": "twitch", "status": "CONNECTED", "streamStatus": "ONLINE",
        "owner": "team-a", "tags": ["x", {"deep": [1.5, true]}], "limits": {"daily": 9_007_199_254_740_993_i64},
        "metadata": {"login": "ratcaster", "note": "keep me"},
    });
    world.put_raw("twitch:900200", theirs).await;
    let read = store.load(&key("twitch:900200")).await.unwrap().unwrap();
    let mut ours = read.value;
    // Values of other programs without evidence are not taken over.
    assert_eq!(ours.record().stream_status.to_string(), "UNKNOWN");
    ours.join(live(&key("twitch:900200"), 12));
    let version = save(&*store, ours.clone(), Some(read.version)).await.unwrap();
    let raw = world.raw("twitch:900200").await.unwrap();
    assert_eq!(raw["owner"], "team-a");
    assert_eq!(raw["tags"], json!(["x", {"deep": [1.5, true]}]));
    assert_eq!(raw["limits"]["daily"], 9_007_199_254_740_993_i64);
    assert_eq!(raw["metadata"]["note"], "keep me");
    assert_eq!(raw["viewerCount"], 12);
    let again = store.load(&key("twitch:900200")).await.unwrap().unwrap();
    assert_eq!((again.value, again.version), (ours, version));
}

pub async fn nulls_and_foreign_metric_names_are_read_and_healed<W: World>() {
    let (world, store) = fresh::<W>().await;
    let theirs = json!({
        "id": "900200", "platform": "twitch", "status": "CONNECTING", "displayName": null, "lastError": null,
        "metrics": {"received": 120, "published": 80, "failed": 3, "lastHeartbeat": "2026-05-01T18:00:00.000Z"},
        "metadata": {"login": "ratcaster", "gone": null, "list": [1, null]}, "viewerCount": null, "extra": null,
    });
    world.put_raw("twitch:900200", theirs).await;
    let read = store.load(&key("twitch:900200")).await.unwrap().unwrap();
    assert_eq!(read.value.record().metrics.messages_in, 120);
    save(&*store, read.value, Some(read.version)).await.unwrap();
    let raw = world.raw("twitch:900200").await.unwrap();
    assert_eq!(raw["metrics"]["messagesIn"], 120);
    assert_eq!(raw["metrics"]["errors"], 3);
    assert_eq!(raw["status"], "DISCONNECTED");
    assert_eq!(raw["schemaVersion"], 1);
    let fields = raw.as_object().unwrap();
    assert!(
        !fields.contains_key("extra") && !fields.contains_key("viewerCount"),
        "{raw}"
    );
    assert!(
        !raw["metadata"].as_object().unwrap().contains_key("gone"),
        "{raw}"
    );
}

pub async fn a_document_without_status_is_read<W: World>() {
    let (world, store) = fresh::<W>().await;
    let restored = json!({ "id": "5", "platform": "kick", "authStatus": "VALID", "permissions": ["chat"] });
    world.put_raw("kick:5", restored).await;
    let read = store.load(&key("kick:5")).await.unwrap().unwrap().value;
    assert_eq!(read, SourceDocument::new(key("kick:5")));
}

pub async fn one_broken_document_hides_no_other<W: World>() {
    let (world, store) = fresh::<W>().await;
    save(&*store, document("kick:5", 1), None).await.unwrap();
    world.put_raw("kick:6", json!({ "schemaVersion": 99 })).await;
    world.put_raw("kick:7", json!({ "evidence": "mine now" })).await;
    world
        .put_raw("twitch:bitbrat_bot", json!({ "id": "bitbrat_bot" }))
        .await;
    let orphan = json!({ "id": "409", "metadata": { "broadcasterId": "777001", "title": "x" } });
    world.put_raw("twitch:409", orphan).await;
    let all = store.load_all().await.unwrap();
    let reported: Vec<_> = all
        .iter()
        .map(|stored| match &stored.document {
            Ok(_) => format!("{} ok", stored.document_id),
            Err(Unusable::NotASource) => format!("{} not a source", stored.document_id),
            Err(Unusable::Orphan { belongs_to }) => format!("{} orphan of {belongs_to}", stored.document_id),
            Err(Unusable::Broken(why)) => format!("{} {}", stored.document_id, &why.to_string()[..24]),
        })
        .collect();
    assert_eq!(
        reported,
        [
            "kick:5 ok",
            "kick:6 the document has schemaV",
            "kick:7 the document's evidence ",
            "twitch:409 orphan of twitch:777001",
            "twitch:bitbrat_bot not a source",
        ]
    );
}

pub async fn summaries_tell_what_the_documents_tell<W: World>() {
    let (world, store) = fresh::<W>().await;
    let first = save(&*store, document("kick:5", 1), None).await.unwrap();
    save(&*store, document("twitch:6", 2), None).await.unwrap();
    save(&*store, document("kick:5", 37), Some(first)).await.unwrap();
    let theirs = json!({ "displayName": "Theirs", "metadata": { "tags": ["a"] } });
    world.put_raw("discord:7", theirs).await;
    world.put_raw("kick:8", json!({ "schemaVersion": 99 })).await;
    // Another program replaces our document with its own.
    world
        .put_raw("twitch:6", json!({ "displayName": "Changed" }))
        .await;
    for store in [store, world.open().await] {
        let all = store.load_all().await.unwrap();
        let expected: Vec<_> = all.into_iter().map(Stored::to_summary).collect();
        let summaries = store.summaries().await.unwrap();
        let reported = |stored: &[Stored<Arc<SourceSummary>>]| -> Vec<_> {
            let each = stored.iter();
            each.map(|stored| (stored.document_id.clone(), stored.document.clone()))
                .collect()
        };
        assert_eq!(reported(&summaries), reported(&expected));
        assert_eq!(ids(&summaries), ["discord:7", "kick:5", "kick:8", "twitch:6"]);
        let viewers = summaries[1].document.as_ref().unwrap().viewer_count;
        assert_eq!(viewers, Some(37));
    }
}

pub async fn what_cannot_be_used_is_never_overwritten<W: World>() {
    let (world, store) = fresh::<W>().await;
    let newer = json!({ "schemaVersion": 99, "evidence": {"future": true} });
    world.put_raw("kick:6", newer.clone()).await;
    let refused = store.load(&key("kick:6")).await.unwrap_err();
    assert!(
        matches!(&refused, StoreError::Unusable { document_id, .. } if document_id == "kick:6"),
        "{refused}"
    );
    assert!(!refused.is_transient());
    let refused = save(&*store, document("kick:6", 1), None).await.unwrap_err();
    assert!(matches!(refused, StoreError::Conflict { .. }), "{refused}");
    assert_eq!(world.raw("kick:6").await.unwrap(), newer);
}

pub async fn unusable_documents_are_listed_alone<W: World>() {
    let (world, store) = fresh::<W>().await;
    save(&*store, document("kick:5", 1), None).await.unwrap();
    assert!(store.unusable().await.unwrap().is_empty());
    world.put_raw("kick:6", json!({ "evidence": "lost" })).await;
    world.put_raw("twitch:lost", json!({})).await;
    let mut unusable = store.unusable().await.unwrap();
    unusable.sort_by(|(one, _), (other, _)| one.cmp(other));
    let ids: Vec<&str> = unusable.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["kick:6", "twitch:lost"]);
    assert!(matches!(unusable[0].1, Unusable::Broken(_)));
}

pub async fn removed_document_keeps_its_history<W: World>() {
    let (world, store) = fresh::<W>().await;
    let damaged = json!({ "evidence": "lost" });
    world.put_raw("kick:5", damaged.clone()).await;
    store
        .append_history(&key("kick:5"), &[entry("kick:5", 1)])
        .await
        .unwrap();
    let found = store.raw("kick:5").await.unwrap().unwrap();
    let text: serde_json::Value = serde_json::from_str(&found.value).unwrap();
    assert_eq!(text, damaged);
    store.remove("kick:5", &found.version).await.unwrap();
    assert!(store.load(&key("kick:5")).await.unwrap().is_none());
    assert_eq!(store.raw("kick:5").await.unwrap(), None);
    assert_eq!(store.history(&key("kick:5"), 10).await.unwrap().len(), 1);
    save(&*store, document("kick:5", 1), None).await.unwrap();
}

pub async fn changed_document_is_not_removed<W: World>() {
    let (_world, store) = fresh::<W>().await;
    let first = save(&*store, document("kick:5", 1), None).await.unwrap();
    save(&*store, document("kick:5", 2), Some(first.clone()))
        .await
        .unwrap();
    let refused = store.remove("kick:5", &first).await.unwrap_err();
    assert!(matches!(refused, StoreError::Conflict { .. }), "{refused}");
    assert!(store.load(&key("kick:5")).await.unwrap().is_some());
}

pub async fn deleting_takes_the_history_along<W: World>() {
    let (_world, store) = fresh::<W>().await;
    let mut write = Write::new(document("kick:5", 1), None);
    write.history = vec![entry("kick:5", 1)];
    store.save(&[write]).await.remove(0).unwrap();
    assert!(store.delete("kick:5").await.unwrap());
    assert!(store.load(&key("kick:5")).await.unwrap().is_none());
    assert!(store.history(&key("kick:5"), 10).await.unwrap().is_empty());
    assert!(!store.delete("kick:5").await.unwrap());
}

pub async fn anything_can_be_deleted_by_its_raw_id<W: World>() {
    let (world, store) = fresh::<W>().await;
    world
        .put_raw("twitch:bitbrat_bot", json!({ "id": "bitbrat_bot" }))
        .await;
    assert!(store.delete("twitch:bitbrat_bot").await.unwrap());
    assert!(world.raw("twitch:bitbrat_bot").await.is_none());
}

pub async fn history_is_newest_first_and_limited<W: World>() {
    let (_world, store) = fresh::<W>().await;
    let entries = [3, 1, 4, 2].map(|seconds| entry("kick:5", seconds));
    store.append_history(&key("kick:5"), &entries).await.unwrap();
    store
        .append_history(&key("kick:6"), &[entry("kick:6", 9)])
        .await
        .unwrap();
    assert_eq!(happened(&*store, "kick:5", 10).await, [4, 3, 2, 1]);
    assert_eq!(happened(&*store, "kick:5", 2).await, [4, 3]);
    assert_eq!(
        store.history(&key("kick:6"), 10).await.unwrap(),
        [entry("kick:6", 9)]
    );
}

pub async fn history_written_twice_is_kept_once<W: World>() {
    let (world, store) = fresh::<W>().await;
    let entries = [entry("kick:5", 1), entry("kick:5", 2)];
    store.append_history(&key("kick:5"), &entries).await.unwrap();
    let mut write = Write::new(document("kick:5", 1), None);
    write.history = vec![entry("kick:5", 2), entry("kick:5", 3)];
    world.open().await.save(&[write]).await.remove(0).unwrap();
    store.append_history(&key("kick:5"), &entries).await.unwrap();
    assert_eq!(happened(&*store, "kick:5", 10).await, [3, 2, 1]);
}

pub async fn history_after_a_date_is_dropped<W: World>() {
    let (world, store) = fresh::<W>().await;
    let entries = [1, 2, 3, 4].map(|second| entry("kick:5", second));
    store.append_history(&key("kick:5"), &entries).await.unwrap();
    store
        .append_history(&key("kick:6"), &[entry("kick:6", 9)])
        .await
        .unwrap();
    store.drop_history_after(&key("kick:5"), at(2)).await.unwrap();
    store.drop_history_after(&key("kick:7"), at(2)).await.unwrap();
    let again = world.open().await;
    assert_eq!(happened(&*again, "kick:5", 10).await, [2, 1]);
    assert_eq!(happened(&*again, "kick:6", 10).await, [9]);
}

pub async fn history_of_a_refused_write_is_not_kept<W: World>() {
    let (_world, store) = fresh::<W>().await;
    save(&*store, document("kick:5", 1), None).await.unwrap();
    let mut write = Write::new(document("kick:5", 2), None);
    write.history = vec![entry("kick:5", 1)];
    assert!(store.save(&[write]).await.remove(0).is_err());
    assert!(happened(&*store, "kick:5", 10).await.is_empty());
}

pub async fn a_conflict_never_stops_its_neighbors_with_history<W: World>() {
    let (_world, store) = fresh::<W>().await;
    save(&*store, document("kick:2", 1), None).await.unwrap();
    // Twice: after one conflict with another writer the code path differs.
    for round in 0..2 {
        let writes = ["1", "2", "3"].map(|id| {
            let id = format!("kick:{id}");
            let id = if id == "kick:2" {
                id
            } else {
                format!("{id}{round}")
            };
            let mut write = Write::new(document(&id, 7), None);
            write.history = vec![entry(&id, 1), entry(&id, 2)];
            write
        });
        let results = store.save(&writes).await;
        assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
        assert!(
            matches!(results[1], Err(StoreError::Conflict { .. })),
            "{results:?}"
        );
        let third = format!("kick:3{round}");
        let kept = store.load(&key(&third)).await.unwrap().unwrap();
        assert_eq!(&kept.version, results[2].as_ref().unwrap());
        assert_eq!(happened(&*store, &third, 10).await, [2, 1]);
        assert!(happened(&*store, "kick:2", 10).await.is_empty());
    }
}

pub async fn many_documents_with_history_are_written_in_one_call<W: World>() {
    let (_world, store) = fresh::<W>().await;
    let ids: Vec<String> = (1..=60).map(|n| format!("kick:{n}")).collect();
    let mut bases = vec![None; ids.len()];
    for round in 1..=3 {
        let writes: Vec<_> = ids
            .iter()
            .zip(bases)
            .map(|(id, base)| {
                let mut write = Write::new(document(id, round), base);
                write.history = vec![entry(id, i64::try_from(round).unwrap())];
                write
            })
            .collect();
        let results = store.save(&writes).await;
        bases = results.into_iter().map(|result| Some(result.unwrap())).collect();
    }
    for (id, version) in ids.iter().zip(bases) {
        let kept = store.load(&key(id)).await.unwrap().unwrap();
        assert_eq!(Some(kept.version), version, "{id}");
        assert_eq!(kept.value.verdict.viewer_count, Some(3));
    }
    assert_eq!(happened(&*store, "kick:60", 10).await, [3, 2, 1]);
}

pub async fn history_beyond_the_retention_is_dropped_oldest_first<W: World>() {
    let retention = Retention {
        entries: 3,
        ..Retention::default()
    };
    let store = W::with(retention).await.open().await;
    for seconds in [5, 1, 4, 2, 3] {
        store
            .append_history(&key("kick:5"), &[entry("kick:5", seconds)])
            .await
            .unwrap();
    }
    assert_eq!(happened(&*store, "kick:5", 10).await, [5, 4, 3]);
    // What was dropped does not come back when it is replayed.
    store
        .append_history(&key("kick:5"), &[entry("kick:5", 1)])
        .await
        .unwrap();
    assert_eq!(happened(&*store, "kick:5", 10).await, [5, 4, 3]);
}

pub async fn history_older_than_the_retention_is_dropped<W: World>() {
    let retention = Retention {
        age: Duration::from_mins(1),
        ..Retention::default()
    };
    let store = W::with(retention).await.open().await;
    let key = key("kick:5");
    store
        .append_history(&key, &[entry("kick:5", 0), entry("kick:5", 50)])
        .await
        .unwrap();
    assert_eq!(happened(&*store, "kick:5", 10).await, [50, 0]);
    store.append_history(&key, &[entry("kick:5", 70)]).await.unwrap();
    assert_eq!(happened(&*store, "kick:5", 10).await, [70, 50]);
}

type Watching = futures_util::stream::BoxStream<'static, Result<Vec<Stored>, StoreError>>;

/// Waits until the condition holds for the watched documents. Several changes may arrive as one.
async fn until(watching: &mut Watching, wanted: impl Fn(&[Stored]) -> bool) {
    let seen = async {
        while let Some(seen) = watching.next().await {
            if wanted(&seen.expect("nothing is wrong with the store")) {
                return;
            }
        }
        panic!("the watch ended");
    };
    tokio::time::timeout(PATIENCE, seen)
        .await
        .expect("the watch shows the change");
}

fn viewers(stored: &[Stored]) -> Vec<Option<u64>> {
    let count = |stored: &Stored| stored.document.as_ref().unwrap().value.verdict.viewer_count;
    stored.iter().map(count).collect()
}

pub async fn watching_yields_now_and_after_every_change<W: World>() {
    let (world, store) = fresh::<W>().await;
    let mut watching = store.watch().await.unwrap();
    until(&mut watching, <[Stored]>::is_empty).await;
    let first = save(&*store, document("kick:5", 1), None).await.unwrap();
    until(&mut watching, |seen| viewers(seen) == [Some(1)]).await;
    save(&*world.open().await, document("kick:5", 2), Some(first))
        .await
        .unwrap();
    until(&mut watching, |seen| viewers(seen) == [Some(2)]).await;
    world.put_raw("kick:6", json!({ "schemaVersion": 99 })).await;
    until(&mut watching, |seen| {
        ids(seen) == ["kick:5", "kick:6"] && seen[1].document.is_err()
    })
    .await;
}

pub async fn watching_sees_deletions<W: World>() {
    let (_world, store) = fresh::<W>().await;
    for id in ["kick:5", "kick:6"] {
        save(&*store, document(id, 1), None).await.unwrap();
    }
    let mut watching = store.watch().await.unwrap();
    until(&mut watching, |seen| ids(seen) == ["kick:5", "kick:6"]).await;
    store.delete("kick:5").await.unwrap();
    until(&mut watching, |seen| ids(seen) == ["kick:6"]).await;
    store.delete("kick:6").await.unwrap();
    until(&mut watching, <[Stored]>::is_empty).await;
}

pub async fn watchers_do_not_disturb_each_other<W: World>() {
    let (world, store) = fresh::<W>().await;
    let mut one = store.watch().await.unwrap();
    let mut two = world.open().await.watch().await.unwrap();
    until(&mut one, <[Stored]>::is_empty).await;
    save(&*store, document("kick:5", 1), None).await.unwrap();
    until(&mut one, |seen| viewers(seen) == [Some(1)]).await;
    drop(one);
    until(&mut two, |seen| ids(seen) == ["kick:5"]).await;
}

pub async fn concurrent_writers_lose_nothing<W: World>() {
    const WRITERS: u64 = 6;
    const ROUNDS: u64 = 15;
    let (world, store) = fresh::<W>().await;
    let mut writers = Vec::new();
    for number in 0..WRITERS {
        let store = world.open().await;
        writers.push(async move {
            for round in 1..=ROUNDS {
                let totals = Counters {
                    messages_in: round,
                    ..Counters::default()
                };
                let writer = format!("writer-{number}");
                let fact = Fact::Counters { writer, totals };
                let known = Knowledge::of(&[Observation::new(&key("kick:5"), at(0), "test", fact)]);
                loop {
                    let read = store.load(&key("kick:5")).await.unwrap();
                    let (mut document, base) = read.map_or_else(
                        || (SourceDocument::new(key("kick:5")), None),
                        |read| (read.value, Some(read.version)),
                    );
                    document.join(known.clone());
                    match save(&*store, document, base).await {
                        Ok(_) => break,
                        Err(StoreError::Conflict { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            }
        });
    }
    futures_util::future::join_all(writers).await;
    let all = store.load(&key("kick:5")).await.unwrap().unwrap().value;
    assert_eq!(all.record().metrics.messages_in, WRITERS * ROUNDS);
}

pub async fn a_thousand_writes_go_in_one_call<W: World>() {
    let (_world, store) = fresh::<W>().await;
    let writes: Vec<_> = (1..=1000)
        .map(|id| Write::new(document(&format!("kick:{id}"), id), None))
        .collect();
    let results = store.save(&writes).await;
    assert_eq!(results.len(), 1000);
    assert!(results.iter().all(Result::is_ok));
    let all = store.load_all().await.unwrap();
    assert_eq!(all.len(), 1000);
    let one = all
        .iter()
        .find(|stored| stored.document_id == "kick:517")
        .unwrap();
    assert_eq!(
        &one.document.as_ref().unwrap().version,
        results[516].as_ref().unwrap()
    );
}

/// Stores differ in whether they keep such a character; none may refuse the document, or its neighbors.
pub async fn nul_characters_of_others_stop_no_write<W: World>() {
    let (_world, store) = fresh::<W>().await;
    let titled = |id: &str| {
        let fields = BTreeMap::from([("title".to_owned(), "a\0b \\u0000".to_owned())]);
        let fact = Fact::Profile { fields };
        let known = Knowledge::of(&[Observation::new(&key(id), at(0), "kick.api", fact)]);
        Write::new(SourceDocument::from_knowledge(key(id), known), None)
    };
    let mut writes = [
        Write::new(document("kick:1", 7), None),
        titled("kick:2"),
        Write::new(document("kick:3", 7), None),
    ];
    let mut recorded = entry("kick:2", 1);
    recorded.transition.stream_id = Some("4\09".to_owned());
    writes[1].history = vec![recorded];
    for result in store.save(&writes).await {
        result.unwrap();
    }
    let read = store.load(&key("kick:2")).await.unwrap().unwrap();
    let title = read.value.record().metadata["title"].to_string();
    assert!(title.contains("\\\\u0000"), "{title}");
    assert_eq!(happened(&*store, "kick:2", 10).await, [1]);
    assert!(!store.delete("kick:\0").await.unwrap());
}

pub async fn checking_leaves_nothing_behind<W: World>() {
    let (_world, store) = fresh::<W>().await;
    store.check().await.unwrap();
    store.check().await.unwrap();
    assert!(store.load_all().await.unwrap().is_empty());
}
