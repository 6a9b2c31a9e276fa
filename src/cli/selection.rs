//! The sources that a command is about: ids, names and globs as they were typed, and what they match.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::app::Sources;
pub use crate::config::SourceSelector;
use crate::config::{SourceArg, SourceGlob};
use crate::core::source::{PlatformName, SourceKey};
use crate::core::summary::SourceSummary;
use crate::failure::{ExitCode, Failure};
use crate::secrets;
use crate::store::Stored;
use crate::view::humane;

/// Returns the failure of a glob that matches none of `names`.
fn no_match(glob: &SourceGlob, names: &Names) -> Failure {
    let among = match names.sources().len() as u64 {
        0 => "no source is configured or stored".to_owned(),
        count => format!(
            "it was matched against platform:id and platform:name of {}",
            humane::count(count, "configured or stored source")
        ),
    };
    let what = format!(
        "no source matches the glob `{}`; {among}",
        secrets::repeated(&glob.text)
    );
    let mut failure = Failure::new(ExitCode::NoSuchSource, what);
    let anywhere = SourceGlob::parse(&format!("*:{}", glob.text));
    if let Some(anywhere) = anywhere.ok().filter(|_| !glob.text.contains(':'))
        && !names.matching(&anywhere).is_empty()
    {
        failure = failure.hint(format!("did you mean `'{}'`?", anywhere.text));
    }
    failure.hint("run `bitbrat sources list` to see the configured and stored sources")
}

/// The names of the configured and stored sources in lower case, ids included, and every source that has one of them.
#[derive(Debug, Default)]
pub struct Names(BTreeMap<String, BTreeSet<SourceKey>>);

impl Names {
    /// Collects the names of what is configured, what was resolved before, and what is stored.
    pub fn of(
        sources: &Sources,
        resolved: Vec<(String, SourceKey)>,
        stored: &[Stored<Arc<SourceSummary>>],
    ) -> Self {
        let mut names = Self::default();
        for configured in &sources.known {
            names.add(configured.key.id(), &configured.key);
        }
        for (name, key) in resolved {
            names.add(&name, &key);
        }
        for stored in stored {
            match &stored.document {
                Ok(summary) => {
                    for name in summary.names() {
                        names.add(&name, &summary.key);
                    }
                }
                // A document that cannot be used stands for a source, too.
                Err(_) => {
                    if let Ok(key) = stored.document_id.parse::<SourceKey>() {
                        names.add(key.id(), &key);
                    }
                }
            }
        }
        names
    }

    fn add(&mut self, name: &str, key: &SourceKey) {
        self.0.entry(name.to_lowercase()).or_default().insert(key.clone());
    }

    /// Returns the sources called `name`, on every platform or on one.
    pub fn called(&self, name: &str, platform: Option<PlatformName>) -> Vec<SourceKey> {
        let found = self.0.get(name).into_iter().flatten();
        let of_platform = |key: &&SourceKey| platform.is_none_or(|platform| key.platform() == platform);
        found.filter(of_platform).cloned().collect()
    }

    /// Returns the names of the sources of a platform, or of all.
    pub fn on(&self, platform: Option<PlatformName>) -> impl Iterator<Item = &str> + Clone {
        let of_platform = move |key: &SourceKey| platform.is_none_or(|platform| key.platform() == platform);
        self.0
            .iter()
            .filter(move |(_, keys)| keys.iter().any(of_platform))
            .map(|(name, _)| name.as_str())
    }

    fn sources(&self) -> BTreeSet<&SourceKey> {
        self.0.values().flatten().collect()
    }

    fn matching(&self, glob: &SourceGlob) -> BTreeSet<SourceKey> {
        let pairs = self
            .0
            .iter()
            .flat_map(|(name, keys)| keys.iter().map(move |key| (name, key)));
        let matching = pairs.filter(|(name, key)| glob.matches(&format!("{}:{name}", key.platform())));
        matching.map(|(_, key)| key.clone()).collect()
    }
}

/// The sources that a command is about.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// What was typed, in order; empty for every source.
    parts: Vec<Part>,
    /// The only platforms to check; empty for every platform.
    platforms: Vec<PlatformName>,
}

#[derive(Debug, Clone)]
enum Part {
    Key(SourceKey),
    Glob(SourceGlob),
}

impl Selection {
    /// Restricts what is checked to `platforms`, unless there are none.
    pub fn on(mut self, platforms: &[PlatformName]) -> Self {
        self.platforms = platforms.to_vec();
        self
    }

    pub fn add_key(&mut self, key: SourceKey) {
        self.parts.push(Part::Key(key));
    }

    /// Adds a glob. A source whose name is exactly the text of it is meant instead.
    pub fn add_glob(&mut self, glob: &SourceGlob, names: &Names) -> Result<(), Failure> {
        if let Some(SourceArg::Name { platform, name }) = &glob.name
            && let [one] = names.called(name, *platform).as_slice()
        {
            self.add_key(one.clone());
            return Ok(());
        }
        if let Err(reason) = &glob.pattern {
            return Err(Failure::new(ExitCode::Usage, reason)
                .hint("run `bitbrat sources list` to see the configured and stored sources"));
        }
        self.parts.push(Part::Glob(glob.clone()));
        Ok(())
    }

    /// Whether nothing was typed, which means every source.
    pub fn is_all(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether names are needed to find out what is meant.
    pub fn has_globs(&self) -> bool {
        self.globs().next().is_some()
    }

    /// Whether sources of `platform` are meant.
    pub fn includes(&self, platform: PlatformName) -> bool {
        self.platforms.is_empty() || self.platforms.contains(&platform)
    }

    /// Returns the sources that were typed by id or name.
    pub fn keys(&self) -> Vec<SourceKey> {
        let keys = self.parts.iter().filter_map(|part| match part {
            Part::Key(key) => Some(key.clone()),
            Part::Glob(_) => None,
        });
        keys.collect()
    }

    fn globs(&self) -> impl Iterator<Item = &SourceGlob> {
        self.parts.iter().filter_map(|part| match part {
            Part::Key(_) => None,
            Part::Glob(glob) => Some(glob),
        })
    }

    /// Returns every source that is meant, each once: in the order that was typed, those of a glob by key; with nothing typed,
    /// all of `names`.
    pub fn among(&self, names: &Names) -> Vec<SourceKey> {
        if self.is_all() {
            return names.sources().into_iter().cloned().collect();
        }
        let mut seen = BTreeSet::new();
        let mut keys = Vec::new();
        for part in &self.parts {
            let matching = match part {
                Part::Key(key) => BTreeSet::from([key.clone()]),
                Part::Glob(glob) => names.matching(glob),
            };
            keys.extend(matching.into_iter().filter(|key| seen.insert(key.clone())));
        }
        keys
    }

    /// Whether something without a key is meant: a configured name whose id is not known, or a document with another id.
    pub fn includes_text(&self, text: &str) -> bool {
        self.is_all() || self.globs().any(|glob| glob.matches(text))
    }

    /// Whether a source of `platform` may be meant whose name is not known before it is checked.
    pub fn may_include(&self, platform: PlatformName) -> bool {
        self.globs().any(|glob| glob.may_match(platform))
    }

    /// Returns the failure of the first glob that matches neither a source nor one of `others`, if any.
    pub fn check_globs<'a>(
        &self,
        names: &Names,
        others: &(impl Iterator<Item = &'a str> + Clone),
    ) -> Result<(), Failure> {
        let is_empty = |glob: &&SourceGlob| {
            names.matching(glob).is_empty() && !others.clone().any(|other| glob.matches(other))
        };
        let mut globs = self.globs();
        match globs.find(is_empty) {
            Some(glob) => Err(no_match(glob, names)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let mut names = Names::default();
        for (key, called) in [
            ("twitch:777001", "PixelMeadow"),
            ("twitch:777002", "QuietHarbor"),
            ("kick:888001", "pixel-rat"),
            ("discord:888001", "[GER] Rats"),
            ("discord:888004", "雪の庭"),
            ("discord:8880123", "Lantern Lab"),
        ] {
            let key: SourceKey = key.parse().unwrap();
            names.add(key.id(), &key);
            names.add(called, &key);
        }
        names
    }

    fn selected(typed: &[&str]) -> Result<String, Failure> {
        let names = names();
        let mut selection = Selection::default();
        for text in typed {
            match text.parse::<SourceSelector>().unwrap() {
                SourceSelector::One(SourceArg::Key(key)) => selection.add_key(key),
                SourceSelector::One(arg) => panic!("{arg} is no key"),
                SourceSelector::Glob(glob) => selection.add_glob(&glob, &names)?,
            }
        }
        selection.check_globs(&names, &std::iter::empty())?;
        let keys = selection.among(&names);
        Ok(keys
            .iter()
            .map(SourceKey::to_string)
            .collect::<Vec<_>>()
            .join(" "))
    }

    #[test]
    fn glob_matches_ids_and_names_regardless_of_case() {
        for (typed, expected) in [
            ("twitch:*", "twitch:777001 twitch:777002"),
            ("TWITCH:*001", "twitch:777001"),
            ("*:PIXEL*", "twitch:777001 kick:888001"),
            ("discord:8880??", "discord:888001 discord:888004"),
            ("discord:8880[0-3]?", "discord:888001 discord:888004"),
            ("discord:88800[!1]", "discord:888004"),
            ("*:雪?庭", "discord:888004"),
            ("discord:lantern*", "discord:8880123"),
            ("**:*harbor", "twitch:777002"),
            ("discord:[ger] rats", "discord:888001"),
        ] {
            assert_eq!(selected(&[typed]).unwrap(), expected, "{typed}");
        }
    }

    #[test]
    fn source_that_several_arguments_match_is_listed_once() {
        assert_eq!(
            selected(&["twitch:777002", "twitch:*", "*:*001"]).unwrap(),
            "twitch:777002 twitch:777001 kick:888001 discord:888001"
        );
    }

    #[test]
    fn glob_without_match_reports_what_it_was_matched_against() {
        let failure = selected(&["kick:quiet*"]).unwrap_err();
        assert_eq!(failure.exit, ExitCode::NoSuchSource);
        assert!(failure.what.contains("platform:name of 6"), "{failure:?}");
        let failure = selected(&["quiet*"]).unwrap_err();
        assert_eq!(failure.hints[0], "did you mean `'*:quiet*'`?");
    }

    #[test]
    fn unclosed_bracket_is_a_usage_error() {
        for text in ["twitch:[7", "kick:pixel[", "*:[a-"] {
            let error = match text.parse::<SourceSelector>() {
                Err(error) => error,
                Ok(_) => selected(&[text]).unwrap_err().what,
            };
            assert!(error.contains("a `[` has no `]`"), "{text}: {error}");
        }
        // Where a guild could have that name, it is an error once no guild has.
        let failure = selected(&["discord:[ger"]).unwrap_err();
        assert_eq!(failure.exit, ExitCode::Usage);
        assert_eq!(selected(&["[ger"]).unwrap_err().exit, ExitCode::Usage);
    }

    #[test]
    fn glob_of_unknown_platform_is_refused() {
        let error = "myspace:*".parse::<SourceSelector>().unwrap_err();
        assert!(error.contains("`myspace` is not a platform"), "{error}");
    }

    #[test]
    fn question_mark_of_an_address_is_no_glob() {
        let address: SourceSelector = "https://www.twitch.tv/PixelMeadow?x=1".parse().unwrap();
        assert!(matches!(address, SourceSelector::One(_)));
    }

    #[test]
    fn unchecked_source_may_match_by_platform_only() {
        let may = |typed: &str, platform| match typed.parse().unwrap() {
            SourceSelector::Glob(glob) => glob.may_match(platform),
            SourceSelector::One(arg) => panic!("{arg} is no glob"),
        };
        assert!(may("twitch:pix*", PlatformName::Twitch));
        assert!(!may("twitch:pix*", PlatformName::Kick));
        assert!(may("*pix*", PlatformName::Kick));
        assert!(may("[tk]*:pix*", PlatformName::Kick));
        assert!(!may("[tk]*:pix*", PlatformName::Discord));
    }
}
