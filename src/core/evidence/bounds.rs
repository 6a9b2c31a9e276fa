//! Limits of the texts in evidence. A text from outside has no limit of its own, and with one that is too long the whole document of
//! its source would be rejected by every store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::core::evidence::Evidence;

/// Most characters of a field of a profile, such as a title. The longest of the platforms have some hundred.
pub const FIELD: usize = 2_000;
/// Most characters of a name: of a permission, a scope, a stream.
pub const NAME: usize = 200;
/// Most characters of a sentence: a reason, or the message of an error.
pub const SENTENCE: usize = 300;
/// Most fields of a profile, and most names in one list.
const MEMBERS: usize = 200;

/// Returns `text` with at most `limit` characters; one that is cut ends with `…`.
pub fn shortened(text: String, limit: usize) -> String {
    if is_short(&text, limit) {
        return text;
    }
    text.chars().take(limit - 1).chain(['…']).collect()
}

fn is_short(text: &str, limit: usize) -> bool {
    // A text has at least as many bytes as characters, and counting them takes longer.
    text.len() <= limit || text.chars().nth(limit).is_none()
}

fn shorten(text: &mut String, limit: usize) {
    *text = shortened(std::mem::take(text), limit);
}

/// Shortens every text of `evidence` that is longer than its limit. What sources share is copied only if it must be changed.
pub fn apply(evidence: &mut Evidence) {
    while evidence.profile.len() > MEMBERS {
        evidence.profile.pop_last();
    }
    for field in evidence.profile.values_mut() {
        shorten(&mut field.value, FIELD);
    }
    for grants in evidence.permissions.values_mut() {
        let lists = [&grants.value.granted, &grants.value.denied];
        if lists.into_iter().all(are_short) && are_short_reasons(&grants.value.unknown) {
            continue;
        }
        let grants = Arc::make_mut(&mut grants.value);
        shorten_all(&mut grants.granted);
        shorten_all(&mut grants.denied);
        let unknown = std::mem::take(&mut grants.unknown).into_iter().take(MEMBERS);
        grants.unknown = unknown
            .map(|(name, reason)| (shortened(name, NAME), shortened(reason, SENTENCE)))
            .collect();
    }
    for check in evidence.auth.values_mut() {
        let is_short_reason = |reason: &String| is_short(reason, FIELD);
        if are_short(&check.value.scopes) && check.value.reason.as_ref().is_none_or(is_short_reason) {
            continue;
        }
        let check = Arc::make_mut(&mut check.value);
        shorten_all(&mut check.scopes);
        check.reason = check.reason.take().map(|reason| shortened(reason, FIELD));
    }
    let failures = evidence.connection.values_mut();
    let failures = failures.filter_map(|link| Some(&mut link.failure.as_mut()?.value.error));
    let missing = evidence
        .existence
        .missing
        .iter_mut()
        .map(|missing| &mut missing.value);
    let newest = evidence.error.iter_mut().map(|error| &mut error.value);
    for error in failures.chain(missing).chain(newest) {
        shorten(&mut error.message, SENTENCE);
    }
}

fn are_short(names: &BTreeSet<String>) -> bool {
    names.len() <= MEMBERS && names.iter().all(|name| is_short(name, NAME))
}

fn are_short_reasons(reasons: &BTreeMap<String, String>) -> bool {
    let is_short = |(name, reason): (&String, &String)| is_short(name, NAME) && is_short(reason, SENTENCE);
    reasons.len() <= MEMBERS && reasons.iter().all(is_short)
}

fn shorten_all(names: &mut BTreeSet<String>) {
    let kept = std::mem::take(names).into_iter().take(MEMBERS);
    *names = kept.map(|name| shortened(name, NAME)).collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::code::Code;
    use crate::core::document::SourceDocument;
    use crate::core::evidence::Knowledge;
    use crate::core::observation::{AuthCheck, AuthResult, ErrorInfo, Fact, Grants, Identity, Observation};
    use crate::core::time::Timestamp;

    #[test]
    fn text_is_cut_at_characters_and_ends_with_an_ellipsis() {
        for (text, limit, expected) in [
            ("short", 5, "short"),
            ("longer", 5, "long…"),
            ("🐀🐀🐀", 3, "🐀🐀🐀"),
            ("🐀🐀🐀🐀", 3, "🐀🐀…"),
            ("", 3, ""),
        ] {
            assert_eq!(shortened(text.to_owned(), limit), expected, "{text}");
        }
    }

    #[test]
    fn no_answer_of_a_platform_makes_a_document_too_large() {
        let huge = || "\u{1}".repeat(1_500_000);
        let names = || {
            (0..5_000)
                .map(|number| format!("{number}{}", "x".repeat(5_000)))
                .collect()
        };
        let check = AuthCheck {
            scopes: names(),
            reason: Some(huge()),
            ..AuthCheck::of(AuthResult::Valid)
        };
        let grants = Grants {
            granted: names(),
            ..Grants::default()
        };
        let fields = ["title", "category", "displayName", "login", "language"];
        let facts = [
            Fact::Profile {
                fields: fields.map(|name| (name.to_owned(), huge())).into(),
            },
            Fact::StreamSeen {
                stream_id: huge(),
                started_at: None,
            },
            Fact::Auth {
                identity: Identity::named("twitch/bot"),
                check: check.into(),
            },
            Fact::Permissions {
                method: "twitch.scopes".to_owned(),
                grants: grants.into(),
            },
            Fact::Problem {
                error: ErrorInfo::new(Code::NetworkTimeout, huge()),
            },
        ];
        let key = "twitch:1".parse().unwrap();
        let mut document = SourceDocument::new(key);
        for fact in facts {
            let observation = Observation::new(&document.key, Timestamp::EPOCH, "twitch.helix", fact);
            document.join(Knowledge::from(&observation));
        }
        let size = document.to_text().len();
        assert!(size < 500_000, "{size}");
        assert!(document.knowledge.evidence.profile["title"].value.ends_with('…'));
    }
}
