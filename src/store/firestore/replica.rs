//! Replica of a collection, built from a listener's messages: all documents at the newest consistent time. No I/O.
//!
//! Production sends the changes, then a message that marks them as consistent. The emulator responds to every change with a
//! reset and the whole collection again, and indicates a deletion only by omitting the document. One rule covers both: a reset
//! clears the collected documents, and they become valid with the message that marks them as consistent.

use std::collections::BTreeMap;

use firestore::gcloud_sdk::google::firestore::v1::listen_response::ResponseType;
use firestore::gcloud_sdk::google::firestore::v1::target_change::TargetChangeType;
use firestore::gcloud_sdk::google::firestore::v1::{Document, ListenResponse, TargetChange};
use firestore::gcloud_sdk::tonic::{Code, Status};

/// The target id of our listeners.
pub const TARGET: i32 = 1;

/// The documents received so far.
#[derive(Default)]
pub struct Replica {
    documents: BTreeMap<String, Document>,
    /// Whether the server has reported since the last reset that it has sent everything.
    complete: bool,
    /// Whether there are changes that were not emitted yet.
    changes: bool,
    resume: Vec<u8>,
}

/// The action after a message.
#[derive(Debug)]
pub enum Step {
    /// Wait for the next message.
    Wait,
    /// Emit the documents: they are consistent, and have changed.
    Show,
    /// Restart the listener: the server ended the target, or the replica is inconsistent.
    Restart(Option<Status>),
}

impl Replica {
    /// Creates an empty replica that is emitted even if it stays empty.
    pub fn new() -> Self {
        Self {
            changes: true,
            ..Self::default()
        }
    }

    /// Returns the documents, ordered by path.
    pub fn documents(&self) -> impl Iterator<Item = &Document> {
        self.documents.values()
    }

    /// Returns the position after which to resume, so that only changes are sent and billed.
    pub fn resume_token(&self) -> Option<Vec<u8>> {
        (!self.resume.is_empty()).then(|| self.resume.clone())
    }

    /// Prepares for a new stream. Without a token the server sends everything again.
    pub fn reconnecting(&mut self) {
        if self.resume.is_empty() {
            self.documents.clear();
            self.complete = false;
            self.changes = true;
        }
    }

    /// Processes a message.
    pub fn receive(&mut self, message: ListenResponse) -> Step {
        match message.response_type {
            Some(ResponseType::TargetChange(change)) => self.on_target(change),
            Some(ResponseType::DocumentChange(change)) => {
                let Some(document) = change.document else {
                    return Step::Wait;
                };
                if change.removed_target_ids.contains(&TARGET) {
                    self.changes |= self.documents.remove(&document.name).is_some();
                } else {
                    let old = self.documents.insert(document.name.clone(), document.clone());
                    self.changes |= old.is_none_or(|old| old.update_time != document.update_time);
                }
                Step::Wait
            }
            Some(ResponseType::DocumentDelete(gone)) => self.forget(&gone.document),
            Some(ResponseType::DocumentRemove(gone)) => self.forget(&gone.document),
            Some(ResponseType::Filter(filter)) => {
                if usize::try_from(filter.count) == Ok(self.documents.len()) {
                    return Step::Wait;
                }
                // A change was missed, for example a deletion while the stream was interrupted.
                self.resume.clear();
                Step::Restart(None)
            }
            None => Step::Wait,
        }
    }

    fn on_target(&mut self, change: TargetChange) -> Step {
        if !change.resume_token.is_empty() {
            self.resume = change.resume_token;
        }
        match TargetChangeType::try_from(change.target_change_type) {
            Ok(TargetChangeType::Reset) => {
                self.documents.clear();
                self.complete = false;
                self.changes = true;
                Step::Wait
            }
            Ok(TargetChangeType::Current) => {
                self.complete = true;
                self.show()
            }
            // Without targets and with a read time it means: everything sent so far is consistent as of that time.
            Ok(TargetChangeType::NoChange) if change.target_ids.is_empty() && change.read_time.is_some() => {
                self.show()
            }
            Ok(TargetChangeType::Remove) => {
                self.resume.clear();
                Step::Restart(
                    change
                        .cause
                        .map(|cause| Status::new(Code::from(cause.code), cause.message)),
                )
            }
            _ => Step::Wait,
        }
    }

    fn forget(&mut self, path: &str) -> Step {
        self.changes |= self.documents.remove(path).is_some();
        Step::Wait
    }

    fn show(&mut self) -> Step {
        if self.complete && std::mem::take(&mut self.changes) {
            Step::Show
        } else {
            Step::Wait
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use firestore::gcloud_sdk::google::firestore::v1::{
        DocumentChange, DocumentDelete, DocumentRemove, ExistenceFilter,
    };
    use firestore::gcloud_sdk::prost_types::Timestamp;

    fn target(kind: TargetChangeType, to: &[i32], token: &[u8]) -> ListenResponse {
        message(ResponseType::TargetChange(TargetChange {
            target_change_type: kind.into(),
            target_ids: to.to_vec(),
            resume_token: token.to_vec(),
            read_time: Some(Timestamp::default()),
            cause: None,
        }))
    }

    fn message(response: ResponseType) -> ListenResponse {
        ListenResponse {
            response_type: Some(response),
        }
    }

    fn changed(name: &str, version: i64) -> ListenResponse {
        message(ResponseType::DocumentChange(DocumentChange {
            document: Some(Document {
                name: name.into(),
                update_time: Some(Timestamp {
                    seconds: version,
                    nanos: 0,
                }),
                ..Document::default()
            }),
            target_ids: vec![TARGET],
            removed_target_ids: vec![],
        }))
    }

    fn deleted(name: &str) -> ListenResponse {
        message(ResponseType::DocumentDelete(DocumentDelete {
            document: name.into(),
            removed_target_ids: vec![TARGET],
            read_time: None,
        }))
    }

    fn add() -> ListenResponse {
        target(TargetChangeType::Add, &[TARGET], b"")
    }

    fn reset() -> ListenResponse {
        target(TargetChangeType::Reset, &[TARGET], b"")
    }

    fn current() -> ListenResponse {
        target(TargetChangeType::Current, &[TARGET], b"t")
    }

    fn consistent() -> ListenResponse {
        target(TargetChangeType::NoChange, &[], b"t")
    }

    /// Processes all `messages` and returns the emitted states, as names with versions.
    fn shown(replica: &mut Replica, messages: Vec<ListenResponse>) -> Vec<String> {
        let mut shown = Vec::new();
        for message in messages {
            match replica.receive(message) {
                Step::Wait => {}
                Step::Show => {
                    let describe = |document: &Document| {
                        let version = document.update_time.as_ref().map_or(0, |at| at.seconds);
                        format!("{}{version}", document.name)
                    };
                    shown.push(replica.documents().map(describe).collect::<Vec<_>>().join(" "));
                }
                Step::Restart(_) => shown.push("restart".into()),
            }
        }
        shown
    }

    #[test]
    fn production_sends_what_changed() {
        let mut replica = Replica::new();
        let start = vec![add(), changed("a", 1), changed("b", 1), current(), consistent()];
        assert_eq!(shown(&mut replica, start), ["a1 b1"]);
        assert_eq!(
            shown(&mut replica, vec![changed("a", 2), consistent()]),
            ["a2 b1"]
        );
        // Two changes at the same time are emitted once, and heartbeats emit nothing.
        let both = vec![changed("a", 3), changed("c", 1), consistent(), consistent()];
        assert_eq!(shown(&mut replica, both), ["a3 b1 c1"]);
        assert_eq!(shown(&mut replica, vec![deleted("a"), consistent()]), ["b1 c1"]);
        let left = message(ResponseType::DocumentRemove(DocumentRemove {
            document: "b".into(),
            removed_target_ids: vec![TARGET],
            read_time: None,
        }));
        assert_eq!(shown(&mut replica, vec![left, consistent()]), ["c1"]);
    }

    #[test]
    fn the_emulator_sends_everything_again_and_deletions_as_absence() {
        let mut replica = Replica::new();
        let start = vec![add(), changed("a", 1), changed("b", 1), current(), consistent()];
        assert_eq!(shown(&mut replica, start), ["a1 b1"]);
        let change = vec![reset(), changed("a", 2), changed("b", 1), current(), consistent()];
        assert_eq!(shown(&mut replica, change), ["a2 b1"]);
        let deletion = vec![reset(), changed("b", 1), current(), consistent()];
        assert_eq!(shown(&mut replica, deletion), ["b1"]);
        let last = vec![reset(), current(), consistent()];
        assert_eq!(shown(&mut replica, last), [""]);
    }

    #[test]
    fn an_empty_collection_is_shown_as_such() {
        let mut replica = Replica::new();
        assert_eq!(shown(&mut replica, vec![add(), current(), consistent()]), [""]);
    }

    #[test]
    fn snapshot_is_withheld_between_reset_and_current() {
        let mut replica = Replica::new();
        shown(&mut replica, vec![add(), changed("a", 1), current()]);
        let half = vec![reset(), changed("b", 1), consistent()];
        assert!(shown(&mut replica, half).is_empty());
    }

    #[test]
    fn a_resumed_stream_sends_only_what_changed_since() {
        let mut replica = Replica::new();
        shown(
            &mut replica,
            vec![add(), changed("a", 1), changed("b", 1), current()],
        );
        assert_eq!(replica.resume_token(), Some(b"t".to_vec()));
        replica.reconnecting();
        let since = vec![add(), changed("b", 2), current(), consistent()];
        assert_eq!(shown(&mut replica, since), ["a1 b2"]);
    }

    #[test]
    fn document_count_mismatch_restarts_the_replica() {
        let mut replica = Replica::new();
        shown(
            &mut replica,
            vec![add(), changed("a", 1), changed("b", 1), current()],
        );
        let filter = |count| {
            message(ResponseType::Filter(ExistenceFilter {
                target_id: TARGET,
                count,
                unchanged_names: None,
            }))
        };
        assert!(shown(&mut replica, vec![filter(2)]).is_empty());
        assert_eq!(shown(&mut replica, vec![filter(1)]), ["restart"]);
        assert_eq!(replica.resume_token(), None);
        replica.reconnecting();
        assert_eq!(
            shown(&mut replica, vec![add(), changed("a", 1), current()]),
            ["a1"]
        );
    }

    #[test]
    fn a_target_that_the_server_ends_starts_over() {
        let mut replica = Replica::new();
        shown(&mut replica, vec![add(), current()]);
        assert_eq!(
            shown(
                &mut replica,
                vec![target(TargetChangeType::Remove, &[TARGET], b"")]
            ),
            ["restart"]
        );
    }
}
