//! What the configuration names: the sources that have a key, those whose name has yet to become one, and who is attended.

use std::collections::HashSet;
use std::sync::Arc;

use tracing::warn;

use super::App;
use super::names::Names;
use crate::config::SourceAddress;
use crate::core::source::SourceKey;
use crate::failure::Failure;
use crate::platforms::Platform;
use crate::watch::attended::Attendee;

/// A configured source that has a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configured {
    /// The source.
    pub key: SourceKey,
    /// Where it was configured.
    pub origin: String,
}

/// A configured source whose name has not become an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unresolved {
    /// What is configured, as `platform:name`.
    pub name: String,
    /// Where.
    pub origin: String,
    /// Why it has no id: the platform knows no such name, it was never asked, or it did not answer.
    pub reason: String,
}

/// What is configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// Sources with a key, in the order of the configuration.
    pub known: Vec<Configured>,
    /// Names without an id.
    pub unresolved: Vec<Unresolved>,
}

impl Sources {
    /// Returns the keys of the sources that have one.
    pub fn keys(&self) -> Vec<SourceKey> {
        self.known.iter().map(|source| source.key.clone()).collect()
    }
}

impl App {
    /// Returns what is configured, with the names that were resolved before.
    pub fn sources(&self) -> Sources {
        let names = Names::load(&self.settings.state_dir);
        let mut sources = Sources::default();
        let mut seen = HashSet::new();
        for spec in &self.settings.sources {
            let origin = spec.origin.to_string();
            let key = match &spec.address {
                SourceAddress::Id(key) => Some(key.clone()),
                SourceAddress::Name(name) => names.key(spec.platform, name),
            };
            match key {
                Some(key) if !seen.insert(key.clone()) => {}
                Some(key) => sources.known.push(Configured { key, origin }),
                None => sources.unresolved.push(Unresolved {
                    name: spec.to_string(),
                    origin,
                    reason: "its id has not been asked for yet".into(),
                }),
            }
        }
        sources
    }

    /// Asks the platforms for the ids of names that are not known yet, and remembers them.
    pub async fn resolve(&self, platforms: &[Arc<dyn Platform>]) -> Result<Sources, Failure> {
        let mut names = Names::load(&self.settings.state_dir);
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
                                format!("{} knows nobody of this name", platform.name()),
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
        let mut sources = self.sources();
        for unresolved in &mut sources.unresolved {
            if let Some((_, reason)) = trouble.iter().find(|(name, _)| *name == unresolved.name) {
                unresolved.reason.clone_from(reason);
            }
        }
        Ok(sources)
    }

    /// Returns what the configuration names, as far as its keys are known or can be found out.
    pub(super) async fn attendees(&self, platforms: &[Arc<dyn Platform>]) -> Result<Vec<Attendee>, Failure> {
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
        Ok(self.remembered())
    }

    /// Returns what the configuration names, as far as its keys are known or were found out before.
    pub(super) fn remembered(&self) -> Vec<Attendee> {
        let names = Names::load(&self.settings.state_dir);
        let attendees = self.settings.sources.iter().filter_map(|spec| {
            let key = match &spec.address {
                SourceAddress::Id(key) => key.clone(),
                SourceAddress::Name(name) => names.key(spec.platform, name)?,
            };
            Some(Attendee {
                key,
                priority: spec.priority,
                channels: spec.channels.clone(),
            })
        });
        attendees.collect()
    }
}
