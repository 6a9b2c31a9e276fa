//! The account that a command is about, as it is written on the command line.

use clap::Args;
use clap_complete::ArgValueCompleter;

use crate::cli::complete;
use crate::cli::context::Context;
use crate::cli::source_arg::{self, SourceArg};
use crate::core::observation::Identity;
use crate::core::source::{PlatformName, SourceKey};
use crate::failure::{ExitCode, Failure};
use crate::platforms::Platform;

/// Which account.
#[derive(Debug, Args)]
pub struct AccountArgs {
    /// The account as `auth status` lists it, such as twitch/bot; a platform alone means its bot
    #[arg(value_name = "ACCOUNT", add = ArgValueCompleter::new(complete::platforms))]
    account: String,
    /// The account of that platform: bot, or broadcaster:ID (or its name); on Discord bot:ID for the bot of one guild
    #[arg(long = "as", value_name = "IDENTITY", add = ArgValueCompleter::new(complete::identities))]
    identity: Option<String>,
}

impl AccountArgs {
    /// Returns the account and its platform.
    pub(super) async fn resolve(&self, cx: &Context) -> Result<(PlatformName, Identity), Failure> {
        let (platform, named) = match self.account.split_once('/') {
            Some((platform, name)) => (platform, Some(name)),
            None => (self.account.as_str(), None),
        };
        // Not repeated: a token that was pasted in its place would be in it.
        let wrong = |what: &str| {
            Failure::new(ExitCode::Usage, what)
                .hint("name an account such as twitch/bot; `bitbrat auth status` lists them")
        };
        let platform: PlatformName = platform
            .parse()
            .map_err(|_| wrong("ACCOUNT does not name an account"))?;
        let name = match (named, &self.identity) {
            (Some(_), Some(_)) => return Err(wrong("the account is named twice, by ACCOUNT and by --as")),
            (Some(name), None) => name,
            (None, identity) => identity.as_deref().unwrap_or("bot"),
        };
        Ok((platform, identity_of(cx, platform, name).await?))
    }
}

/// Parses an identity; `text` may leave out the platform.
fn identity(platform: PlatformName, text: &str) -> Result<Identity, Failure> {
    let account = &platform.rules().source_account;
    let name = text.strip_prefix(&format!("{platform}/")).unwrap_or(text);
    let valid = match name.split_once(':') {
        None => matches!(name, "bot" | "app"),
        Some((role, id)) => role == account.role && SourceKey::new(platform, id).is_ok(),
    };
    if !valid {
        // Not repeated: a token that was pasted after the wrong option would be in it.
        let what = format!("--as does not name an account of {platform}");
        return Err(Failure::new(ExitCode::Usage, what).hint(account.hint));
    }
    Ok(Identity::named(format!("{platform}/{name}")))
}

/// As [`identity`], which also accepts a name in place of the id.
pub(super) async fn identity_of(
    cx: &Context,
    platform: PlatformName,
    text: &str,
) -> Result<Identity, Failure> {
    let Some((role, arg)) = by_name(platform, text) else {
        return identity(platform, text);
    };
    let key = source_arg::resolve(cx, &arg, true)
        .await
        .map_err(|failure| failure.hint(format!("or write the user id: --as {role}:ID")))?;
    identity(platform, &format!("{role}:{}", key.id()))
}

/// Returns the role and the source of an identity whose owner is named, instead of given by id.
fn by_name(platform: PlatformName, text: &str) -> Option<(&'static str, SourceArg)> {
    let role = platform.rules().source_account.role;
    let name = text.strip_prefix(&format!("{platform}/")).unwrap_or(text);
    let owner = name.strip_prefix(role)?.strip_prefix(':')?;
    // The address of a channel contains its platform; anything else belongs to the platform argument before it.
    let arg = format!("{platform}:{owner}").parse().or_else(|_| owner.parse());
    match arg {
        Ok(arg @ SourceArg::Name { platform: of, .. }) => (of == Some(platform)).then_some((role, arg)),
        Ok(SourceArg::Key(_)) | Err(_) => None,
    }
}

/// Returns a user by name and id; the name is requested where it is not known.
pub(super) async fn named(adapter: &dyn Platform, id: &str, login: Option<String>) -> String {
    let login = match login {
        Some(login) => Some(login),
        None => adapter.user_name(id).await,
    };
    match login {
        Some(login) => format!("{login} ({id})"),
        None => format!("user {id}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_may_be_written_with_or_without_its_platform() {
        for (text, expected) in [
            ("bot", Some("twitch/bot")),
            ("twitch/bot", Some("twitch/bot")),
            ("broadcaster:900200", Some("twitch/broadcaster:900200")),
            ("twitch/broadcaster:900200", Some("twitch/broadcaster:900200")),
            ("broadcaster:ratcaster", None),
            ("broadcaster", None),
            ("kick/bot", None),
            ("", None),
        ] {
            let found = identity(PlatformName::Twitch, text).ok();
            assert_eq!(found.as_ref().map(Identity::as_str), expected, "{text}");
        }
    }

    #[test]
    fn broadcaster_may_be_given_by_name_or_address() {
        let named = |platform, text: &str| by_name(platform, text).map(|(role, arg)| format!("{role} {arg}"));
        for (platform, text, expected) in [
            (
                PlatformName::Twitch,
                "broadcaster:PixelMeadow",
                Some("broadcaster twitch:pixelmeadow"),
            ),
            (
                PlatformName::Twitch,
                "twitch/broadcaster:pixelmeadow",
                Some("broadcaster twitch:pixelmeadow"),
            ),
            (
                PlatformName::Kick,
                "broadcaster:https://kick.com/big-rat",
                Some("broadcaster kick:big-rat"),
            ),
            (
                PlatformName::Discord,
                "bot:The Rat Pack",
                Some("bot discord:the rat pack"),
            ),
            (PlatformName::Twitch, "broadcaster:https://kick.com/big-rat", None),
            (PlatformName::Twitch, "broadcaster:900200", None),
            (PlatformName::Twitch, "broadcaster:", None),
            (PlatformName::Twitch, "bot", None),
            (PlatformName::Twitch, "moderator:pixelmeadow", None),
        ] {
            assert_eq!(named(platform, text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn only_on_discord_a_bot_may_be_of_one_source() {
        let own = identity(PlatformName::Discord, "bot:900200").unwrap();
        assert_eq!(own.as_str(), "discord/bot:900200");
        assert!(identity(PlatformName::Discord, "broadcaster:900200").is_err());
        assert!(identity(PlatformName::Twitch, "bot:900200").is_err());
    }
}
