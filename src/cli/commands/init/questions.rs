//! The questions of `init`. Each one names the flag that answers it.

use super::{Answers, InitArgs, key};
use crate::app::{App, Lookup};
use crate::cli::login::Keyboard;
use crate::cli::login::loopback::redirect_uri;
use crate::cli::output::write_err;
use crate::cli::source_arg::SourceArg;
use crate::config::{self, Configuration, SourceAddress};
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::failure::{ExitCode, Failure};
use crate::platforms::descriptor::descriptor;
use crate::secrets;

pub(super) struct Wizard<'a> {
    pub args: &'a InitArgs,
    pub keyboard: &'a mut Keyboard,
    /// What is configured without the new file.
    pub known: Configuration,
    pub is_demo: bool,
    pub answers: Answers,
}

impl Wizard<'_> {
    /// Returns the channels of the flags, or else those that were typed.
    pub async fn channels(&mut self) -> Result<Vec<SourceArg>, Failure> {
        if !self.args.channels.is_empty() {
            return Ok(self.args.channels.clone());
        }
        write_err(
            "Which channels does your bot work in? Names, ids or addresses, separated by blanks; Enter for none.\n",
        )?;
        loop {
            let mut wanted = Vec::new();
            for platform in PlatformName::ALL {
                wanted.extend(self.channels_on(platform).await?);
            }
            if !wanted.is_empty() {
                return Ok(wanted);
            }
            write_err("Name at least one channel, or end with Ctrl-C.\n")?;
        }
    }

    async fn channels_on(&mut self, platform: PlatformName) -> Result<Vec<SourceArg>, Failure> {
        let rules = platform.rules();
        let form = if rules.names.is_some() { "NAME" } else { "ID" };
        let question = format!(
            "{} {}s (--channel {platform}:{form}): ",
            rules.title, rules.source
        );
        loop {
            let line = self.keyboard.asks(&question).await?;
            let words = line.split([' ', ',', ';']).filter(|word| !word.is_empty());
            match words.map(|word| on(platform, word)).collect() {
                Ok(channels) => return Ok(channels),
                Err(why) => write_err(&format!("{why}\n"))?,
            }
        }
    }

    /// Asks for the applications of the platforms that need one.
    pub async fn applications(&mut self, wanted: &[SourceArg]) -> Result<(), Failure> {
        self.answers.client_ids = self.args.client_ids.iter().cloned().collect();
        for platform in PlatformName::ALL {
            let is_wanted = wanted.iter().any(|arg| platform_of(arg) == Some(platform));
            if self.args.yes || !is_wanted || key(platform, "client_id").is_none() {
                continue;
            }
            if !self.is_known(platform, "client_id") {
                self.ask_client_id(platform).await?;
            }
            if self.is_known(platform, "client_id") && !self.is_known(platform, "client_secret") {
                self.ask_secret(platform).await?;
            }
        }
        Ok(())
    }

    async fn ask_client_id(&mut self, platform: PlatformName) -> Result<(), Failure> {
        let title = platform.rules().title;
        let redirect = redirect_uri(self.known.settings.auth.redirect_port);
        let page = descriptor(platform).application_page();
        let question = format!(
            "\nBots on {title} need an application of yours: register it at {page}\nwith the redirect address {redirect}\n\
             Its client id, or Enter to do that later (--client-id {platform}:ID): "
        );
        loop {
            let typed = self.keyboard.asks(&question).await?;
            if typed.is_empty() {
                return Ok(());
            }
            match config::word(&typed) {
                Ok(id) => {
                    self.answers.client_ids.insert(platform, id);
                    return Ok(());
                }
                Err(why) => write_err(&format!("That {why}.\n"))?,
            }
        }
    }

    async fn ask_secret(&mut self, platform: PlatformName) -> Result<(), Failure> {
        let Some(key) = key(platform, "client_secret") else {
            return Ok(());
        };
        let variable = key.names.first().copied().unwrap_or_default();
        let without = match platform {
            PlatformName::Twitch => "or Enter if the application is public",
            PlatformName::Kick | PlatformName::Discord => "or Enter to do that later",
        };
        let question = format!(
            "Its client secret, {without} (variable {variable}; it is not shown, and is written to .env): "
        );
        loop {
            let typed = self.keyboard.asks_hidden(&question).await?;
            if typed.is_empty() {
                return Ok(());
            }
            match config::token(&typed) {
                Ok(secret) => {
                    self.answers.secrets.insert(platform, secrets::secret(secret));
                    return Ok(());
                }
                Err((what, hint)) => write_err(&format!("That {what}; {hint}.\n"))?,
            }
        }
    }

    /// Whether a key of a platform has a value, from the answers or from elsewhere.
    fn is_known(&self, platform: PlatformName, name: &str) -> bool {
        let is_answered = match name {
            "client_id" => self.answers.client_ids.contains_key(&platform),
            _ => self.answers.secrets.contains_key(&platform),
        };
        let path = format!("{platform}.{name}");
        let mut resolved = self.known.resolved.iter();
        is_answered || resolved.any(|found| found.key == path && found.value.is_some())
    }

    /// Checks the names of channels where the platform can be asked.
    pub async fn resolve(&mut self, app: &App, wanted: Vec<SourceArg>) -> Result<(), Failure> {
        let usable = app.platforms.usable().await?;
        for arg in wanted {
            let mut next = Some(arg);
            while let Some(arg) = next.take() {
                match self.address(app, &usable, &arg).await? {
                    Found::Source(platform, address) => {
                        let source = (platform, address);
                        if !self.answers.sources.contains(&source) {
                            self.answers.sources.push(source);
                        }
                    }
                    Found::Nothing(failure) if self.args.yes => return Err(failure),
                    Found::Nothing(failure) => next = self.ask_instead(&arg, &failure).await?,
                }
            }
        }
        if self.answers.sources.is_empty() {
            let what = "no channel is left, so nothing was written";
            return Err(Failure::new(ExitCode::NoSuchSource, what).hint("run `bitbrat init` again"));
        }
        Ok(())
    }

    async fn address(&self, app: &App, usable: &[PlatformName], arg: &SourceArg) -> Result<Found, Failure> {
        let (platform, name) = match arg {
            SourceArg::Key(key) => return Ok(Found::Source(key.platform(), SourceAddress::Id(key.clone()))),
            SourceArg::Name {
                platform: Some(platform),
                name,
            } => (*platform, name),
            SourceArg::Name { platform: None, name } => {
                let what = format!("`{}` names no platform", secrets::repeated(name));
                return Ok(Found::Nothing(
                    Failure::new(ExitCode::Usage, what).hint("write twitch:NAME, kick:NAME or discord:ID"),
                ));
            }
        };
        let rules = platform.rules();
        let by_name = || SourceAddress::Name(name.clone());
        if !usable.contains(&platform) {
            if rules.names.is_some() {
                return Ok(Found::Source(platform, by_name()));
            }
            let what = format!(
                "the name of a {} is looked up with a login, which is missing",
                rules.source
            );
            return Ok(Found::Nothing(
                Failure::new(ExitCode::Usage, what).hint(format!("give its id: {platform}:ID")),
            ));
        }
        match app.look_up_name(platform, name).await {
            Ok(Lookup::Found(_)) if rules.names.is_some() && !self.is_demo => {
                Ok(Found::Source(platform, by_name()))
            }
            Ok(Lookup::Found(key)) => Ok(Found::Source(platform, SourceAddress::Id(key))),
            Ok(Lookup::NotFound { meant }) => {
                let shown = secrets::repeated(name);
                let what = format!("no {} on {} is called `{shown}`", rules.source, rules.title);
                let failure = Failure::new(ExitCode::NoSuchSource, what);
                Ok(Found::Nothing(match meant {
                    Some(meant) => failure.hint(format!("did you mean `{meant}`?")),
                    None => failure.hint("see how it is written in the address of its page"),
                }))
            }
            // The check at the end shows what is wrong with the platform or its application.
            Err(failure) if rules.names.is_some() => {
                write_err(&format!(
                    "{platform}:{name} is not checked yet: {}\n",
                    failure.what
                ))?;
                Ok(Found::Source(platform, by_name()))
            }
            Err(failure) => Ok(Found::Nothing(failure)),
        }
    }

    /// Asks for another channel; `None` to leave it out.
    async fn ask_instead(
        &mut self,
        arg: &SourceArg,
        failure: &Failure,
    ) -> Result<Option<SourceArg>, Failure> {
        let mut why = failure.what.clone();
        for hint in &failure.hints {
            why.push_str(&format!("; {hint}"));
        }
        write_err(&format!("{why}\n"))?;
        loop {
            let typed = self
                .keyboard
                .asks("Another one, or Enter to leave it out: ")
                .await?;
            if typed.is_empty() {
                return Ok(None);
            }
            let parsed = match platform_of(arg) {
                Some(platform) => on(platform, &typed),
                None => super::channel(&typed),
            };
            match parsed {
                Ok(found) => return Ok(Some(found)),
                Err(why) => write_err(&format!("{why}\n"))?,
            }
        }
    }

    /// Asks whether to log in where that is possible now.
    pub async fn logins(&mut self, app: &App) -> Result<(), Failure> {
        let mut possible = Vec::new();
        for platform in self.answers.platforms() {
            let bot = Identity::named(format!("{platform}/bot"));
            let is_logged_in = app.tokens().load(&bot).await?.is_some();
            if self.can_log_in(platform) && (self.is_demo || !is_logged_in) {
                possible.push(platform);
            }
        }
        let titles: Vec<_> = possible.iter().map(|platform| platform.rules().title).collect();
        let chosen = match () {
            () if possible.is_empty() => false,
            // The demo consents by itself.
            () if self.args.login || (self.args.yes && self.is_demo) => true,
            () if self.args.yes => false,
            () => {
                let question = format!("\nLog in as the bot now, to {} (--login)?", titles.join(" and "));
                self.keyboard.confirms(&question, true).await? == Some(true)
            }
        };
        if chosen {
            self.answers.logins = possible;
        }
        Ok(())
    }

    fn can_log_in(&self, platform: PlatformName) -> bool {
        match platform {
            PlatformName::Twitch => self.is_known(platform, "client_id"),
            PlatformName::Kick => {
                self.is_known(platform, "client_id") && self.is_known(platform, "client_secret")
            }
            // Its token is typed; the demo has one.
            PlatformName::Discord => self.keyboard.is_there() && !self.is_demo,
        }
    }

    /// Asks whether a systemd unit is wanted.
    pub async fn service(&mut self) -> Result<(), Failure> {
        let question = "Run `bitbrat watch` as a systemd service of yours (--service)?";
        let has_systemd = std::path::Path::new("/run/systemd/system").exists();
        self.answers.service = self.args.service
            || (!self.args.yes
                && has_systemd
                && !self.is_demo
                && self.keyboard.confirms(question, false).await? == Some(true));
        Ok(())
    }
}

/// What became of a channel.
enum Found {
    Source(PlatformName, SourceAddress),
    Nothing(Failure),
}

/// Parses a channel on `platform`, by name, id or address.
fn on(platform: PlatformName, text: &str) -> Result<SourceArg, String> {
    let is_address = text.contains('/') || text.starts_with(&format!("{platform}:"));
    let arg = if is_address {
        text.parse()?
    } else {
        SourceArg::of(platform, text)?
    };
    match platform_of(&arg) {
        Some(other) if other != platform => Err(format!("{arg} is not on {}", platform.rules().title)),
        _ => Ok(arg),
    }
}

fn platform_of(arg: &SourceArg) -> Option<PlatformName> {
    match arg {
        SourceArg::Key(key) => Some(key.platform()),
        SourceArg::Name { platform, .. } => *platform,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_of_a_platform_may_be_a_name_an_id_or_an_address() {
        let parse = |platform, text: &str| on(platform, text).map(|arg| arg.to_string());
        for (text, expected) in [
            ("PixelMeadow", "twitch:pixelmeadow"),
            ("777001", "twitch:777001"),
            ("twitch:pixelmeadow", "twitch:pixelmeadow"),
            ("https://www.twitch.tv/pixelmeadow", "twitch:pixelmeadow"),
        ] {
            assert_eq!(parse(PlatformName::Twitch, text).unwrap(), expected, "{text}");
        }
        let error = parse(PlatformName::Twitch, "https://kick.com/big-rat").unwrap_err();
        assert!(error.contains("is not on Twitch"), "{error}");
        assert!(parse(PlatformName::Twitch, "rat!").is_err());
    }
}
