//! The laws that several targets check.

use bitbrat::core::compact::Interner;
use bitbrat::core::document::SourceDocument;
use bitbrat::core::evidence::Knowledge;
use bitbrat::core::join::Join;
use bitbrat::core::observation::Observation;
use bitbrat::core::source::SourceKey;
use bitbrat::core::summary::SourceSummary;

use crate::now;

/// Observations of one source: merging them does not depend on order and repetition, and the document of the source can be stored.
pub fn observations(source: &SourceKey, found: &[Observation]) {
    let found: Vec<_> = found.iter().cloned().map(|one| one.received(now())).collect();
    assert!(found.iter().all(|one| one.source == *source));
    let knowledge = Knowledge::of(&found);
    let mut reversed = Knowledge::of(found.iter().rev());
    assert_eq!(knowledge, reversed, "the order does not matter");
    reversed.join(knowledge.clone());
    assert_eq!(knowledge, reversed, "repetition does not matter");
    document(&SourceDocument::from_knowledge(source.clone(), knowledge));
}

/// A document that is written can be read, in each of its forms.
pub fn document(document: &SourceDocument) {
    let key = || document.key.clone();
    let text = document.to_text();
    let read = SourceDocument::from_text(key(), &text).expect("what was written can be read");
    assert_eq!(read, *document);
    let stored = document.to_stored().into();
    let read = SourceDocument::from_stored(key(), stored).expect("what was written can be read");
    assert_eq!(read, *document);
    let compact = Interner::default().compact(document.knowledge.clone());
    assert_eq!(compact.knowledge(), document.knowledge);
    let summary = SourceSummary::of(document);
    assert_eq!(
        SourceSummary::from_bytes(&summary.to_bytes()).as_ref(),
        Some(&summary)
    );
    let _ = (
        document.record(),
        document.cause(),
        summary.names(),
        summary.record(),
    );
}
