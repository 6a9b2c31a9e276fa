//! Compact in-memory forms of a source's knowledge and document while they are not being processed.
//!
//! Maps with one or two members cost a multiple of their text, so the compact form is JSON text. Most of that text is
//! identical for thousands of sources (one bot, one set of scopes, one permission check); the interner stores that part once.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::core::document::SourceDocument;
use crate::core::evidence::Knowledge;
use crate::core::join::Newest;
use crate::core::observation::{AuthCheck, Grants, Identity};
use crate::core::source::SourceKey;

const OURS: &str = "it was written by us";

/// Unused texts are removed when the number of texts exceeds the number left by the last removal by this much.
const SLACK: usize = 256;

/// The knowledge of one source in compact form. Cloning copies only the part that is not shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compact {
    /// Knowledge without the shared part, as JSON.
    own: Box<str>,
    /// [`Shared`], as JSON.
    shared: Arc<str>,
}

/// The part that many sources have in common, including its time: it comes from one platform response about all of them.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Shared {
    auth: BTreeMap<Identity, Newest<Arc<AuthCheck>>>,
    permissions: BTreeMap<String, Newest<Arc<Grants>>>,
}

/// Stores each shared text once, as long as a [`Compact`] refers to it.
#[derive(Debug, Default)]
pub struct Interner {
    texts: HashSet<Arc<str>>,
    prune_at: usize,
    keeps_whole: bool,
}

impl Interner {
    /// Converts knowledge to the compact form.
    pub fn compact(&mut self, mut knowledge: Knowledge) -> Compact {
        let evidence = &mut knowledge.evidence;
        let shared = Shared {
            auth: std::mem::take(&mut evidence.auth),
            permissions: std::mem::take(&mut evidence.permissions),
        };
        Compact {
            own: json(&knowledge).into(),
            shared: self.shared(json(&shared)),
        }
    }

    fn shared(&mut self, text: String) -> Arc<str> {
        if let Some(known) = self.texts.get(text.as_str()) {
            return Arc::clone(known);
        }
        if self.texts.len() >= self.prune_at {
            self.texts.retain(|text| Arc::strong_count(text) > 1);
            self.texts.shrink_to(0);
            self.prune_at = 2 * self.texts.len() + SLACK;
        }
        let text: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&text));
        text
    }
}

impl Compact {
    /// Expands the compact form.
    pub fn knowledge(&self) -> Knowledge {
        Self::parse(&self.own, &self.shared).expect(OURS)
    }

    /// Parses the texts of [`Compact::texts`]; `None` if they were damaged where they were stored.
    pub fn parse(own: &str, shared: &str) -> Option<Knowledge> {
        let mut knowledge: Knowledge = serde_json::from_str(own).ok()?;
        let Shared { auth, permissions } = serde_json::from_str(shared).ok()?;
        knowledge.evidence.auth = auth;
        knowledge.evidence.permissions = permissions;
        Some(knowledge)
    }

    /// Returns the text of this source alone, and the text that many sources share.
    pub fn texts(&self) -> (&str, &str) {
        (&self.own, &self.shared)
    }

    /// Returns the knowledge as JSON, identical to the JSON of the expanded form.
    pub fn to_json(&self) -> String {
        json(&self.knowledge())
    }
}

/// A source's document in compact form.
#[derive(Debug, Clone, PartialEq)]
pub enum CompactDocument {
    /// The knowledge from which the document is derived.
    Ours(Compact),
    /// The stored document as JSON, including fields of other programs.
    WithForeign(Box<str>),
    /// The document as it is, for a process that needs it again at once.
    Whole(Box<SourceDocument>),
}

impl CompactDocument {
    /// Returns the document of `key`.
    pub fn document(&self, key: &SourceKey) -> SourceDocument {
        match self {
            Self::Ours(known) => SourceDocument::from_knowledge(key.clone(), known.knowledge()),
            Self::WithForeign(text) => SourceDocument::from_text(key.clone(), text).expect(OURS),
            Self::Whole(document) => SourceDocument::clone(document),
        }
    }
}

impl Interner {
    /// Creates an interner that leaves documents as they are: for a few hundred that are needed again at once, compacting takes
    /// longer than everything else.
    pub fn of_whole_documents() -> Self {
        Self {
            keeps_whole: true,
            ..Self::default()
        }
    }

    /// Converts a document to the compact form.
    pub fn document(&mut self, document: SourceDocument) -> CompactDocument {
        if self.keeps_whole {
            CompactDocument::Whole(Box::new(document))
        } else if document.is_all_ours() {
            CompactDocument::Ours(self.compact(document.knowledge))
        } else {
            CompactDocument::WithForeign(document.to_text().into())
        }
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("our own structs with text keys always serialize")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::observation::{AuthResult, Fact, Observation};
    use crate::core::time::Timestamp;

    fn known(id: u32, permission: &str) -> Knowledge {
        let source = format!("twitch:{id}").parse().unwrap();
        let check = AuthCheck {
            scopes: ["user:bot".to_owned()].into(),
            ..AuthCheck::of(AuthResult::Valid)
        };
        let grants = Grants {
            denied: [permission.to_owned()].into(),
            ..Grants::default()
        };
        let facts = [
            Fact::Auth {
                identity: Identity::named("twitch/bot"),
                check: check.into(),
            },
            Fact::Permissions {
                method: "twitch.scopes".into(),
                grants: grants.into(),
            },
            Fact::Latency { millis: id.into() },
            Fact::StreamAbsent,
        ];
        let observations = facts.map(|fact| Observation::new(&source, Timestamp::EPOCH, "test", fact));
        Knowledge::of(&observations)
    }

    #[test]
    fn compact_form_expands_to_the_same_knowledge() {
        let mut interner = Interner::default();
        for knowledge in [known(7, "VIP"), Knowledge::default()] {
            let compact = interner.compact(knowledge.clone());
            assert_eq!(compact.to_json(), json(&knowledge));
            assert_eq!(compact.knowledge(), knowledge);
        }
    }

    #[test]
    fn shared_values_are_interned_once_and_freed_when_unused() {
        let mut interner = Interner::default();
        let many: Vec<_> = (1..1000).map(|id| interner.compact(known(id, "VIP"))).collect();
        assert!(many.iter().all(|one| Arc::ptr_eq(&one.shared, &many[0].shared)));
        assert_eq!(interner.texts.len(), 1);
        drop(many);
        for round in 0..10 * SLACK {
            interner.compact(known(1, &round.to_string()));
        }
        assert!(interner.texts.len() <= 2 * SLACK, "{}", interner.texts.len());
    }
}
