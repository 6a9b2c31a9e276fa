//! The sources that completions offer, without requests to another machine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::app::demo::{Demo, Motion};
use crate::app::{App, StoreAccess};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, ConfigInputs, SourceAddress, StoreTarget};
use crate::core::source::PlatformName;

/// Sources by their ids and names.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// `platform:id`, and the display name of the source.
    pub(super) ids: BTreeMap<String, String>,
    /// Names that can be typed as they are, and their sources.
    pub(super) names: Vec<(PlatformName, String, String)>,
}

impl Sources {
    /// Collects the configured and stored sources for completion. What cannot be read is left out: the command itself reports the
    /// problem.
    pub(super) fn load() -> Self {
        let words = super::typed();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let mut sources = Self::default();
        if let Ok(runtime) = runtime {
            let _ = runtime.block_on(sources.collect(&words));
            runtime.shutdown_background();
        }
        sources
    }

    async fn collect(&mut self, words: &[String]) -> Option<()> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let demo = match words.iter().any(|word| word == "--demo") {
            true => Some(Demo::start(Arc::clone(&clock), Motion::None).await.ok()?),
            false => None,
        };
        let mut inputs = ConfigInputs::of_process();
        inputs.config_file = values_of(words, "--config").pop().map(PathBuf::from);
        inputs.env_file = values_of(words, "--env-file").pop().map(PathBuf::from);
        inputs.demo = demo.as_ref().map(Demo::configuration);
        for setting in values_of(words, "--set") {
            if let Some((key, value)) = setting.split_once('=') {
                inputs = inputs.flag(key, value.to_owned(), "--set");
            }
        }
        let settings = config::load(&inputs, clock.now()).settings;
        for spec in &settings.sources {
            match &spec.address {
                SourceAddress::Id(key) => self.add(key.to_string(), None),
                SourceAddress::Name(name) => self.add_name(spec.platform, name, ""),
            }
        }
        // Completion must not wait for another machine.
        let reads_store = matches!(settings.store.target, StoreTarget::Sqlite(_));
        let app = App::new(settings, clock, demo).ok()?;
        for (name, key) in app.sources.resolved_names() {
            self.add_name(key.platform(), &name, &key.to_string());
        }
        if !reads_store {
            return None;
        }
        let stored = app.store(StoreAccess::Read).await.ok()?.summaries().await.ok()?;
        for summary in stored.into_iter().filter_map(|stored| stored.document.ok()) {
            let key = summary.key.to_string();
            let metadata = summary.record().metadata;
            for field in ["login", "slug"] {
                if let Some(name) = metadata.get(field).and_then(|name| name.as_str()) {
                    self.add_name(summary.key.platform(), name, &key);
                }
            }
            self.add(key, summary.display_name.as_deref());
        }
        Some(())
    }

    fn add(&mut self, key: String, called: Option<&str>) {
        let known = self.ids.entry(key).or_default();
        if let Some(called) = called {
            // A shell shows it on one line.
            *known = called.split_whitespace().collect::<Vec<_>>().join(" ");
        }
    }

    fn add_name(&mut self, platform: PlatformName, name: &str, key: &str) {
        // Names that a shell would have to quote are not offered; the id is.
        let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
        if !name.is_empty() && name.chars().all(is_plain) {
            self.names.push((platform, name.to_owned(), key.to_owned()));
        }
    }
}

/// Returns the values of an option in the order in which they were typed.
fn values_of(words: &[String], option: &str) -> Vec<String> {
    let mut values = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == option {
            values.extend(words.next().cloned());
        } else if let Some(value) = word.strip_prefix(option).and_then(|rest| rest.strip_prefix('=')) {
            values.push(value.to_owned());
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_values_are_found_in_both_spellings() {
        let values = |line: &str, option: &str| {
            let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
            values_of(&words, option)
        };
        for line in ["x --config a.toml y", "x --config=a.toml"] {
            assert_eq!(values(line, "--config"), ["a.toml"], "{line}");
        }
        assert_eq!(values("x --set a=b --set=c=d --sets e", "--set"), ["a=b", "c=d"]);
        assert!(values("x --configure", "--config").is_empty());
        assert!(values("x --config", "--config").is_empty());
    }

    #[test]
    fn name_that_a_shell_would_have_to_quote_is_not_offered() {
        let mut sources = Sources::default();
        for name in ["The Rat Pack", "$(reboot)", "a;b", "", "big-rat", "雪の庭"] {
            sources.add_name(PlatformName::Kick, name, "kick:1");
        }
        let names: Vec<_> = sources.names.iter().map(|(_, name, _)| name.as_str()).collect();
        assert_eq!(names, ["big-rat", "雪の庭"]);
        sources.add("kick:1".into(), Some("two\nlines\tof it"));
        assert_eq!(sources.ids["kick:1"], "two lines of it");
    }
}
