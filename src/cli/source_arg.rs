//! Resolves source arguments: from the configuration and the store, then by a lookup at the platforms.

use std::collections::BTreeSet;

use crate::app::{Lookup, StoreAccess};
use crate::cli::context::Context;
pub use crate::cli::selection::SourceSelector;
use crate::cli::selection::{Names, Selection};
use crate::config;
pub use crate::config::SourceArg;
use crate::core::source::{PlatformName, SourceKey};
use crate::failure::{ExitCode, Failure};
use crate::secrets;

/// Names listed in an error message at most.
const LISTED: usize = 5;

/// Returns what `selectors` stand for. Globs are matched later, because a check may reveal names. With `online`, names that are
/// not known locally are looked up at the platforms.
pub async fn select(cx: &Context, selectors: &[SourceSelector], online: bool) -> Result<Selection, Failure> {
    let mut selection = Selection::default();
    let mut known = None;
    for selector in selectors {
        match selector {
            SourceSelector::One(arg) => selection.add_key(key_of(cx, arg, &mut known, online).await?),
            SourceSelector::Glob(glob) => selection.add_glob(glob, names(cx, &mut known).await?)?,
        }
    }
    Ok(selection)
}

/// Returns the keys of `selectors`, each once, in their order; globs are matched against what is configured and stored.
pub async fn select_keys(
    cx: &Context,
    selectors: &[SourceSelector],
    online: bool,
) -> Result<Vec<SourceKey>, Failure> {
    let selection = select(cx, selectors, online).await?;
    if !selection.has_globs() {
        let mut seen = BTreeSet::new();
        let mut keys = selection.keys();
        keys.retain(|key| seen.insert(key.clone()));
        return Ok(keys);
    }
    let names = known_names(cx).await?;
    selection.check_globs(&names, &std::iter::empty())?;
    Ok(selection.among(&names))
}

/// Returns the key of `arg`. With `online`, a name that is not known locally is looked up at the platforms.
pub async fn resolve(cx: &Context, arg: &SourceArg, online: bool) -> Result<SourceKey, Failure> {
    key_of(cx, arg, &mut None, online).await
}

async fn key_of(
    cx: &Context,
    arg: &SourceArg,
    known: &mut Option<Names>,
    online: bool,
) -> Result<SourceKey, Failure> {
    match arg {
        SourceArg::Key(key) => Ok(key.clone()),
        SourceArg::Name { platform, name } => {
            by_name(cx, names(cx, known).await?, *platform, name, online).await
        }
    }
}

/// Returns the names, which are collected at the first use.
async fn names<'a>(cx: &Context, known: &'a mut Option<Names>) -> Result<&'a Names, Failure> {
    if known.is_none() {
        *known = Some(known_names(cx).await?);
    }
    Ok(known.get_or_insert_default())
}

/// Collects the names of the configured and stored sources, ids included.
pub async fn known_names(cx: &Context) -> Result<Names, Failure> {
    let stored = cx.app.store(StoreAccess::Read).await?.summaries().await?;
    Ok(Names::of(
        &cx.app.sources.all(),
        cx.app.sources.resolved_names(),
        &stored,
    ))
}

async fn by_name(
    cx: &Context,
    known: &Names,
    platform: Option<PlatformName>,
    name: &str,
    online: bool,
) -> Result<SourceKey, Failure> {
    let found = known.called(name, platform);
    match found.as_slice() {
        [one] => return Ok(one.clone()),
        [] => {}
        several => return Err(ambiguous(name, several)),
    }
    let mut suggestion = None;
    if online && !name.bytes().all(|byte| byte.is_ascii_digit()) {
        let mut asked = Vec::new();
        let mut failed = None;
        let platforms = match platform {
            Some(platform) => vec![platform],
            None => cx.app.platforms.usable().await?,
        };
        for platform in platforms {
            match cx.app.look_up_name(platform, name).await {
                Ok(Lookup::Found(key)) => asked.push(key),
                Ok(Lookup::NotFound { meant }) => suggestion = suggestion.or(meant),
                Err(failure) => failed = failed.or(Some(failure)),
            }
        }
        match (asked.as_slice(), failed) {
            ([one], _) => return Ok(one.clone()),
            ([], Some(failure)) => {
                let shown = if secrets::is_credential(name) {
                    secrets::MASK
                } else {
                    name
                };
                return Err(failure.while_doing(format!("cannot ask for the id of `{shown}`")));
            }
            ([], None) => {}
            (several, _) => return Err(ambiguous(name, several)),
        }
    }
    let shown = if secrets::is_credential(name) {
        secrets::MASK
    } else {
        name
    };
    let typed = platform.map_or_else(|| shown.to_owned(), |platform| format!("{platform}:{shown}"));
    let mut failure = Failure::new(
        ExitCode::NoSuchSource,
        format!("there is no source named `{typed}`"),
    );
    let suggestion = suggestion.or_else(|| similar(name, known.on(platform)));
    if let Some(meant) = suggestion {
        failure = failure.hint(format!("did you mean `{meant}`?"));
    }
    failure = failure.hint("run `bitbrat sources list` to see the configured and stored sources");
    if !online {
        failure = failure.hint("with --probe the platforms are asked for a name that is not known here");
    }
    Err(failure)
}

/// Returns the known name that was probably meant. `_` and `-` are confused so often (a Kick channel `big_rat` has the slug
/// `big-rat`) that they count as the same.
fn similar<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<String> {
    let plain = |text: &str| text.replace('-', "_");
    let same = known.clone().find(|candidate| plain(candidate) == plain(name));
    same.or_else(|| config::closest(name, known)).map(str::to_owned)
}

fn ambiguous(name: &str, keys: &[SourceKey]) -> Failure {
    let mut listed: Vec<String> = keys.iter().take(LISTED).map(SourceKey::to_string).collect();
    if keys.len() > LISTED {
        listed.push(format!("{} more", keys.len() - LISTED));
    }
    let what = format!("`{name}` is the name of several sources: {}", listed.join(", "));
    Failure::new(ExitCode::Usage, what).hint("write the one that is meant as platform:id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn underscore_and_hyphen_of_a_slug_are_suggested_for_each_other() {
        let known = ["big-rat", "bigger-rat", "small_cat"];
        for (name, meant) in [
            ("big_rat", Some("big-rat")),
            ("small-cat", Some("small_cat")),
            ("smal_cat", Some("small_cat")),
            ("elephant", None),
        ] {
            assert_eq!(similar(name, known.into_iter()).as_deref(), meant, "{name}");
        }
    }
}
