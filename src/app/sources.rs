//! Configured sources: those that have a key, those whose name is not resolved yet, and those that are monitored.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tracing::warn;

use super::name_cache::Names;
use crate::config::{Settings, SourceAddress};
use crate::core::source::SourceKey;
use crate::failure::Failure;
use crate::platforms::{Platform, PlatformError};
use crate::watch::monitored::MonitoredSource;

/// A configured source that has a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configured {
    pub key: SourceKey,
    /// Where it was configured.
    pub origin: String,
}

/// A configured source whose name has not become an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unresolved {
    /// What is configured, as `platform:name`.
    pub name: String,
    pub origin: String,
    /// Why it has no id: the platform has no such name, there was no lookup, or the platform did not answer.
    pub reason: String,
}

/// A source that is configured twice, by its id and by a name, or by two names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// As it is configured first, and where.
    pub first: (String, String),
    /// As it is configured again, and where.
    pub again: (String, String),
}

impl std::fmt::Display for Merged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ((first, first_at), (again, again_at)) = (&self.first, &self.again);
        write!(
            f,
            "`{first}` ({first_at}) and `{again}` ({again_at}) are the same source, which counts once; remove one of them"
        )
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// Sources with a key, in the order of the configuration.
    pub known: Vec<Configured>,
    /// Names without an id.
    pub unresolved: Vec<Unresolved>,
    /// Sources that are configured twice.
    pub merged: Vec<Merged>,
}

impl Sources {
    /// Returns the keys of the sources that have one.
    pub fn keys(&self) -> Vec<SourceKey> {
        self.known.iter().map(|source| source.key.clone()).collect()
    }

    /// Returns where each source that has a key was configured.
    pub fn origins(&self) -> BTreeMap<&SourceKey, &String> {
        self.known
            .iter()
            .map(|source| (&source.key, &source.origin))
            .collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The source of that name.
    Found(SourceKey),
    /// It has no source of that name.
    NotFound {
        /// The name of an existing source that was probably meant.
        meant: Option<String>,
    },
}

/// The configured sources, with the ids of names that were resolved.
pub struct ConfiguredSources {
    pub(super) settings: Arc<Settings>,
}

impl ConfiguredSources {
    fn names(&self) -> Names {
        Names::load(&self.settings.state_dir)
    }

    /// Returns the names that were resolved before, with their sources.
    pub fn resolved_names(&self) -> Vec<(String, SourceKey)> {
        self.names().all()
    }

    /// Looks up the source called `name` at a platform. `cache`: the result is cached.
    pub async fn look_up(&self, platform: &dyn Platform, name: &str, cache: bool) -> Result<Lookup, Failure> {
        let found = platform.resolve(&[name.to_owned()]).await?;
        let Some(key) = found.into_iter().flatten().next() else {
            return Ok(Lookup::NotFound {
                meant: other_separator(platform, name).await.unwrap_or_default(),
            });
        };
        if cache {
            let mut names = self.names();
            names.remember(platform.name(), name, key.clone());
            names.save()?;
        }
        Ok(Lookup::Found(key))
    }

    /// Returns what is configured, with the names that were resolved before.
    pub fn all(&self) -> Sources {
        let names = self.names();
        let mut sources = Sources::default();
        let mut seen: HashMap<SourceKey, (String, String)> = HashMap::new();
        for spec in &self.settings.sources {
            let origin = spec.origin.to_string();
            let key = match &spec.address {
                SourceAddress::Id(key) => Some(key.clone()),
                SourceAddress::Name(name) => names.key(spec.platform, name),
            };
            let again = (spec.to_string(), origin.clone());
            match key {
                Some(key) => match seen.entry(key.clone()) {
                    Entry::Occupied(first) => sources.merged.push(Merged {
                        first: first.get().clone(),
                        again,
                    }),
                    Entry::Vacant(free) => {
                        free.insert(again);
                        sources.known.push(Configured { key, origin });
                    }
                },
                None => sources.unresolved.push(Unresolved {
                    name: spec.to_string(),
                    origin,
                    reason: "its id has not been asked for yet".into(),
                }),
            }
        }
        sources
    }

    /// Looks up names that are not resolved yet, and caches their ids.
    pub async fn resolve(&self, platforms: &[Arc<dyn Platform>]) -> Result<Sources, Failure> {
        let mut names = self.names();
        let mut trouble: Vec<(String, String)> = Vec::new();
        for platform in platforms {
            let wanted: Vec<String> = self
                .settings
                .sources
                .iter()
                .filter(|spec| spec.platform == platform.name())
                .filter_map(|spec| match &spec.address {
                    SourceAddress::Name(name) if names.key(spec.platform, name).is_none() => {
                        Some(name.clone())
                    }
                    _ => None,
                })
                .collect();
            if wanted.is_empty() {
                continue;
            }
            match platform.resolve(&wanted).await {
                Ok(found) => {
                    for (name, key) in wanted.into_iter().zip(found) {
                        match key {
                            Some(key) => names.remember(platform.name(), &name, key),
                            None => trouble.push((
                                format!("{}:{name}", platform.name()),
                                no_such_name(platform.as_ref(), &name).await,
                            )),
                        }
                    }
                }
                Err(error) => {
                    let reason = error.to_string();
                    trouble.extend(
                        wanted
                            .iter()
                            .map(|name| (format!("{}:{name}", platform.name()), reason.clone())),
                    );
                }
            }
        }
        names.save()?;
        let mut sources = self.all();
        for unresolved in &mut sources.unresolved {
            if let Some((_, reason)) = trouble.iter().find(|(name, _)| *name == unresolved.name) {
                unresolved.reason.clone_from(reason);
            }
        }
        Ok(sources)
    }

    /// Returns the configured sources whose keys are known or can be looked up.
    pub(super) async fn monitored(
        &self,
        platforms: &[Arc<dyn Platform>],
    ) -> Result<Vec<MonitoredSource>, Failure> {
        let found = self.resolve(platforms).await?;
        for unresolved in &found.unresolved {
            warn!(
                source = unresolved.name,
                origin = unresolved.origin,
                "`{}` is not watched: {}",
                unresolved.name,
                unresolved.reason
            );
        }
        for merged in &found.merged {
            warn!("{merged}");
        }
        Ok(self.remembered())
    }

    /// Returns the configured sources whose keys are known or were looked up before.
    pub(super) fn remembered(&self) -> Vec<MonitoredSource> {
        let names = self.names();
        let mut monitored_sources: Vec<MonitoredSource> = Vec::new();
        let mut places: HashMap<SourceKey, usize> = HashMap::new();
        for spec in &self.settings.sources {
            let key = match &spec.address {
                SourceAddress::Id(key) => Some(key.clone()),
                SourceAddress::Name(name) => names.key(spec.platform, name),
            };
            let Some(key) = key else { continue };
            match places.entry(key.clone()) {
                // By an id and a name: neither may take priority from the other.
                Entry::Occupied(place) => {
                    let source = &mut monitored_sources[*place.get()];
                    source.priority = source.priority.max(spec.priority);
                }
                Entry::Vacant(free) => {
                    free.insert(monitored_sources.len());
                    monitored_sources.push(MonitoredSource {
                        key,
                        priority: spec.priority,
                        channels: spec.channels.clone(),
                    });
                }
            }
        }
        monitored_sources
    }
}

/// Returns a message that a platform has no source of this name, and which was probably meant.
async fn no_such_name(platform: &dyn Platform, name: &str) -> String {
    let meant = other_separator(platform, name).await.unwrap_or_default();
    let meant = match meant {
        Some(meant) => format!("; did you mean `{meant}`?"),
        // Names of digits alone exist, so it was looked up as one.
        None if name.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("; if it is an id, set it as `id = \"{name}\"` of a [[source]]")
        }
        None => String::new(),
    };
    format!("no {} source has this name{meant}", platform.name())
}

/// Looks up `name` with `_` for `-` and the other way round, where names may have both. Kick shows a channel under its user's
/// name, `big_rat`, and lists it by its slug, `big-rat`; people type one for the other.
async fn other_separator(platform: &dyn Platform, name: &str) -> Result<Option<String>, PlatformError> {
    let names = platform.name().rules().names.as_ref();
    let has_both = names.is_some_and(|names| names.extra.contains('_') && names.extra.contains('-'));
    if !has_both || !name.contains(['_', '-']) {
        return Ok(None);
    }
    let swapped = [name.replace('_', "-"), name.replace('-', "_")];
    let swapped: Vec<String> = swapped.into_iter().filter(|other| other != name).collect();
    let found = platform.resolve(&swapped).await?;
    let found = swapped.into_iter().zip(found).find(|(_, key)| key.is_some());
    Ok(found.map(|(other, _)| other))
}
