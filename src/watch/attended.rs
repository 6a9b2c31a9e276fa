//! The sources that the daemon attends, by platform, with names resolved to ids once and remembered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::{info, warn};

use super::ledger::{Ledger, LedgerError};
use crate::config::{SourceAddress, SourceSpec};
use crate::core::source::{PlatformName, SourceKey};
use crate::platforms::Platform;

/// The sources attended now. A change of the configuration replaces them.
#[derive(Debug, Default)]
pub struct Attended(Mutex<Arc<BTreeMap<PlatformName, Vec<SourceKey>>>>);

impl Attended {
    /// Returns the sources of a platform, in the order of the configuration.
    pub fn of(&self, platform: PlatformName) -> Vec<SourceKey> {
        self.all().get(&platform).cloned().unwrap_or_default()
    }

    /// Returns all sources by platform.
    pub fn all(&self) -> Arc<BTreeMap<PlatformName, Vec<SourceKey>>> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the sources.
    pub fn set(&self, sources: BTreeMap<PlatformName, Vec<SourceKey>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(sources);
    }
}

/// What became of configured sources.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Keys by platform.
    pub sources: BTreeMap<PlatformName, Vec<SourceKey>>,
    /// Names that could not be resolved now, because the platform did not answer.
    pub unanswered: Vec<SourceSpec>,
    /// Names that their platform does not know.
    pub unknown: Vec<SourceSpec>,
}

/// Finds the keys of configured sources. Names are asked for once; what was found is remembered, so that a later start
/// needs no answer and a renamed channel is still followed.
pub async fn resolve(
    specs: &[SourceSpec],
    platforms: &[Arc<dyn Platform>],
    ledger: &Ledger,
) -> Result<Resolved, LedgerError> {
    let mut resolved = Resolved::default();
    for platform in platforms {
        let name = platform.name();
        let specs: Vec<&SourceSpec> = specs.iter().filter(|spec| spec.platform == name).collect();
        let mut known: BTreeMap<String, SourceKey> = ledger.names(name)?.into_iter().collect();
        let missing: Vec<String> = specs
            .iter()
            .filter_map(|spec| match &spec.address {
                SourceAddress::Name(name) if !known.contains_key(name) => Some(name.clone()),
                _ => None,
            })
            .collect();
        let mut not_there = BTreeSet::new();
        if !missing.is_empty() {
            match platform.resolve(&missing).await {
                Ok(keys) => {
                    for (name, key) in missing.into_iter().zip(keys) {
                        match key {
                            Some(key) => {
                                info!(source.key = %key, name, "Found `{key}` for `{name}`");
                                ledger.remember_name(&name, &key)?;
                                known.insert(name, key);
                            }
                            None => {
                                not_there.insert(name);
                            }
                        }
                    }
                }
                Err(error) => {
                    warn!(platform = %name, error = &error as &dyn std::error::Error, "Names cannot be resolved now");
                }
            }
        }
        let mut seen = BTreeSet::new();
        for spec in specs {
            let key = match &spec.address {
                SourceAddress::Id(key) => Some(key),
                SourceAddress::Name(name) => known.get(name),
            };
            match (key, &spec.address) {
                (Some(key), _) if seen.insert(key.clone()) => {
                    resolved.sources.entry(name).or_default().push(key.clone());
                }
                (Some(_), _) => {}
                (None, SourceAddress::Name(name)) if not_there.contains(name) => {
                    resolved.unknown.push(spec.clone());
                }
                (None, _) => resolved.unanswered.push(spec.clone()),
            }
        }
    }
    Ok(resolved)
}
