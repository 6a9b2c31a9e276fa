//! Deltas: the knowledge that is new since an earlier state; events carry only this part.

use std::collections::BTreeMap;

use crate::core::evidence::{Evidence, Existence, Knowledge};
use crate::core::stream::evidence::StreamEvidence;

/// Returns what must be joined to `before` to get `after`, where `after` grew out of `before`.
///
/// Only whole members are omitted, never parts of one, so that joining the delta to a state other than `before` still yields
/// complete facts.
pub fn delta(before: &Knowledge, after: &Knowledge) -> Knowledge {
    let (old, new) = (&before.evidence, &after.evidence);
    Knowledge {
        evidence: Evidence {
            existence: if old.existence == new.existence {
                Existence::default()
            } else {
                new.existence.clone()
            },
            connection: fresh(&old.connection, &new.connection),
            auth: fresh(&old.auth, &new.auth),
            stream: stream(&old.stream, &new.stream),
            viewers: changed(old.viewers.as_ref(), new.viewers.as_ref()),
            permissions: fresh(&old.permissions, &new.permissions),
            latency: changed(old.latency.as_ref(), new.latency.as_ref()),
            profile: fresh(&old.profile, &new.profile),
            error: changed(old.error.as_ref(), new.error.as_ref()),
        },
        counters: fresh(&before.counters, &after.counters),
    }
}

fn stream(old: &StreamEvidence, new: &StreamEvidence) -> StreamEvidence {
    if old == new {
        return StreamEvidence::default();
    }
    StreamEvidence {
        streams: fresh(&old.streams, &new.streams),
        // Always included: the receiver must discard what was discarded here.
        forgotten: new.forgotten,
        unnamed_end: changed(old.unnamed_end.as_ref(), new.unnamed_end.as_ref()),
        missed: fresh(&old.missed, &new.missed),
    }
}

fn fresh<K: Ord + Clone, V: PartialEq + Clone>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> BTreeMap<K, V> {
    new.iter()
        .filter(|(key, value)| old.get(key) != Some(value))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn changed<T: PartialEq + Clone>(old: Option<&T>, new: Option<&T>) -> Option<T> {
    new.filter(|_| old != new).cloned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::join::Join;
    use crate::core::laws;

    proptest! {
        #[test]
        fn joining_the_delta_to_what_was_before_gives_what_is_after(before in laws::knowledge(), more in laws::knowledge()) {
            let mut after = before.clone();
            after.join(more);
            let mut again = before.clone();
            again.join(delta(&before, &after));
            prop_assert_eq!(again, after);
        }

        #[test]
        fn nothing_new_is_nothing(known in laws::knowledge()) {
            prop_assert_eq!(delta(&known, &known), Knowledge::default());
        }
    }
}
