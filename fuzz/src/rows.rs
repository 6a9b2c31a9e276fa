//! Messages of the bus, stored documents, and rows of the state file.

use std::collections::BTreeMap;

use bitbrat::alerts::cause::Conditions;
use bitbrat::alerts::incident::{Incident, MessageKind};
use bitbrat::alerts::message::Message;
use bitbrat::bus::event_lines;
use bitbrat::core::compact::Compact;
use bitbrat::core::document::{SourceDocument, whole_numbers};
use bitbrat::core::event::mutation::mutations;
use bitbrat::core::event::read::{Reading, Side, read};
use bitbrat::core::event::{Event, baseline};
use bitbrat::core::join::Join;
use bitbrat::core::source::SourceKey;
use bitbrat::core::summary::SourceSummary;
use bitbrat::core::transition::{Chain, Transition, transitions};
use serde_json::Value;

use crate::{laws, now};

/// A message of the bus. What is read from it merges as evidence does, and our event about the result is read as ours.
pub fn bus(data: &[u8]) {
    for side in [Side::Ingress, Side::Egress] {
        match read(side, &BTreeMap::new(), data, now()) {
            Reading::SourceUpdate(update) => {
                let mut twice = update.knowledge.clone();
                twice.join(update.knowledge.clone());
                assert_eq!(twice, update.knowledge);
                let document = SourceDocument::from_knowledge(update.source, update.knowledge);
                laws::document(&document);
                own_event(&document);
            }
            Reading::Unprocessable(unprocessable) => {
                let letter = unprocessable.letter(data, now());
                let _ = format!("{letter:?}");
            }
            Reading::Chat(_) | Reading::Ignored(_) => {}
        }
    }
    let _ = mutations("id", data);
    let _ = event_lines::prepare(data, now()).is_ok();
}

fn own_event(document: &SourceDocument) {
    let event = baseline(document, now());
    let reading = read(Side::Ingress, &event.attributes, event.body.as_bytes(), now());
    let Reading::SourceUpdate(update) = reading else {
        panic!("our own event is about a source: {reading:?}");
    };
    assert_eq!(update.source, document.key);
}

/// A stored document. What is read can be written and read again, and both readers agree.
pub fn document(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let key: SourceKey = "twitch:111".parse().expect("the key is valid");
    let by_text = SourceDocument::from_text(key.clone(), text);
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        let _ = whole_numbers(value.clone());
        let by_value = SourceDocument::from_stored(key, value);
        assert_eq!(by_text.is_ok(), by_value.is_ok(), "both readers agree");
    }
    let Ok(mut document) = by_text else { return };
    laws::document(&document);
    let before = document.verdict.clone();
    document.drop_future(now());
    document.redate_future(now());
    let mut chain = Chain::default();
    for transition in transitions(&before, &document.verdict) {
        let _ = chain.append(transition);
    }
}

/// Rows of the state file and of the embedded store. What is read can be written and read again.
pub fn state_rows(data: &[u8]) {
    if let Some(summary) = summary(data) {
        assert_eq!(
            SourceSummary::from_bytes(&summary.to_bytes()).as_ref(),
            Some(&summary)
        );
        let _ = (summary.names(), serde_json::to_string(&summary.record()));
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Some((own, shared)) = text.split_once('\n')
        && let Some(knowledge) = Compact::parse(own, shared)
    {
        let key = "discord:9001".parse().expect("the key is valid");
        laws::document(&SourceDocument::from_knowledge(key, knowledge));
    }
    if let Ok(event) = serde_json::from_str::<Event>(text) {
        let _ = event.made_at();
        same(
            &event,
            &serde_json::from_str(&written(&event)).expect("an event can be read"),
        );
    }
    if let Ok(transition) = serde_json::from_str::<Transition>(text) {
        same(
            &transition,
            &serde_json::from_str(&written(&transition)).expect("a transition can be read"),
        );
    }
    let _ = serde_json::from_str::<Conditions>(text).is_ok();
    if let Ok(message) = serde_json::from_str::<Message>(text) {
        same(
            &message,
            &serde_json::from_str(&written(&message)).expect("a message can be read"),
        );
    }
    if let Ok(mut incident) = serde_json::from_str::<Incident>(text) {
        same(
            &incident,
            &serde_json::from_str(&written(&incident)).expect("an incident can be read"),
        );
        let _ = (incident.key(), incident.is_over(now()));
        for kind in [MessageKind::Open, MessageKind::Flapping, MessageKind::Close] {
            let _ = Message::of(&incident, kind, Some("{title} {since}"), now());
        }
    }
}

/// Reads a summary, behind the version with which each one begins: the input alone would hardly ever guess it.
fn summary(data: &[u8]) -> Option<SourceSummary> {
    let key = "twitch:111".parse().expect("the key is valid");
    let own = SourceSummary::of(&SourceDocument::new(key)).to_bytes();
    let version = own.get(..=usize::from(*own.first()?))?;
    SourceSummary::from_bytes(&[version, data].concat())
}

fn same<T: PartialEq + std::fmt::Debug>(one: &T, other: &T) {
    assert_eq!(one, other);
}

fn written(row: &impl serde::Serialize) -> String {
    serde_json::to_string(row).expect("a row can be written")
}
