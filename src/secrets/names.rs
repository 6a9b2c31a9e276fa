//! Names that are no secrets although they have the form of one, such as a login of 20 letters and digits: those of configured sources
//! and of accounts. Without this list, messages about them would not say which source or account they are about.

use std::collections::HashSet;
use std::sync::LazyLock;

use parking_lot::RwLock;

use super::shapes::looks_random;

static KNOWN: LazyLock<RwLock<HashSet<Box<str>>>> = LazyLock::new(RwLock::default);

/// How many are remembered. Only names that would be masked are, so this is not the number of sources.
const MOST: usize = 65_536;

/// Registers a name.
pub(super) fn add(name: &str) {
    let name = name.trim().to_ascii_lowercase();
    let is_maskable = looks_random(name.as_bytes()) || super::has_form_of_secret(&name);
    if !is_maskable || KNOWN.read().contains(&*name) {
        return;
    }
    let mut known = KNOWN.write();
    if known.len() < MOST {
        known.insert(name.into());
    }
}

/// Returns whether text is a registered name, in any case. A full stop or slash after it belongs to the sentence or address.
pub(super) fn is_known(text: &[u8]) -> bool {
    let known = KNOWN.read();
    if known.is_empty() {
        return false;
    }
    std::str::from_utf8(text).is_ok_and(|text| {
        let text = text.trim_end_matches(['.', '/']);
        known.contains(&*text.to_ascii_lowercase())
    })
}
