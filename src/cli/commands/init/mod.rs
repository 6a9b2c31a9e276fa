//! `init`: the whole set-up in one command. Everything is asked before anything is written, so that an interruption leaves nothing
//! behind; then come the files, the logins and the first check.

mod files;
mod questions;

use std::collections::BTreeMap;

use clap::Args;
use clap_complete::ArgValueCompleter;
use secrecy::{ExposeSecret as _, SecretString};

use crate::app::demo::Demo;
use crate::app::{App, Untried};
use crate::cli::commands::auth;
use crate::cli::commands::sources::status;
use crate::cli::complete;
use crate::cli::context::{Context, Setup};
use crate::cli::interruption;
use crate::cli::login::Keyboard;
use crate::cli::output::view::Tone;
use crate::cli::output::{Note, write_err};
use crate::cli::source_arg::SourceArg;
use crate::config::{self, ConfigInputs, Configuration, SourceAddress, SourceEntry};
use crate::core::observation::Identity;
use crate::core::source::PlatformName;
use crate::failure::{ExitCode, Failure};
use files::Files;
use questions::Wizard;

/// Set up: name channels, log in, see the status
///
/// Asks for channels, the platforms' applications and a login, writes a short bitbrat.toml, and checks everything once. Client
/// secrets go into .env, which only you may read. An existing configuration is not changed; without a terminal use --yes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat init
  bitbrat --demo init                                     try it with simulated platforms; writes no file
  bitbrat init --yes --channel twitch:pixelmeadow --channel kick:ratcaster
  bitbrat init --yes --channel twitch:pixelmeadow --client-id twitch:abc123 --login
  bitbrat init --force                                    replace a configuration; the old one is kept beside it")]
pub struct InitArgs {
    /// Ask nothing
    #[arg(short, long)]
    yes: bool,
    /// A channel or guild: platform:name, platform:id, or its page's address; may be repeated
    #[arg(long = "channel", value_name = "SOURCE", value_parser = channel, add = ArgValueCompleter::new(complete::sources))]
    channels: Vec<SourceArg>,
    /// The client id of a platform's application; its secret is read from the environment or `.env`
    #[arg(long = "client-id", value_name = "PLATFORM:ID", value_parser = client_id)]
    client_ids: Vec<(PlatformName, String)>,
    /// Log in as the bot
    #[arg(long)]
    login: bool,
    /// Write a systemd unit that runs `bitbrat watch` for this user
    #[arg(long)]
    service: bool,
    /// Replace an existing configuration; the old one is kept beside it
    #[arg(long)]
    force: bool,
}

/// Parses a channel. Its platform is not guessed: that would take a login at each of them.
fn channel(text: &str) -> Result<SourceArg, String> {
    match text.parse()? {
        SourceArg::Name { platform: None, .. } => {
            Err("name its platform: twitch:NAME, kick:NAME or discord:ID".to_owned())
        }
        found => Ok(found),
    }
}

fn client_id(text: &str) -> Result<(PlatformName, String), String> {
    let (platform, id) = text.split_once(':').ok_or("write PLATFORM:ID")?;
    let platform = auth::platform(platform)?;
    if key(platform, "client_id").is_none() {
        return Err(format!("{platform} needs no client id"));
    }
    if id.trim().is_empty() {
        return Err(format!("write the id after `{platform}:`"));
    }
    Ok((platform, config::word(id)?))
}

/// Returns the configuration key of a platform's application.
fn key(platform: PlatformName, name: &str) -> Option<&'static config::Key> {
    config::key(&format!("{platform}.{name}"))
}

/// What was chosen.
#[derive(Default)]
struct Answers {
    sources: Vec<(PlatformName, SourceAddress)>,
    client_ids: BTreeMap<PlatformName, String>,
    secrets: BTreeMap<PlatformName, SecretString>,
    /// The platforms to log in to.
    logins: Vec<PlatformName>,
    service: bool,
}

impl Answers {
    /// Returns the chosen platforms, each once.
    fn platforms(&self) -> Vec<PlatformName> {
        let mut platforms: Vec<_> = self.sources.iter().map(|(platform, _)| *platform).collect();
        platforms.sort_unstable();
        platforms.dedup();
        platforms
    }

    /// Returns the text of the configuration file.
    fn text(&self) -> Result<String, Failure> {
        let client_ids: Vec<_> = self.client_ids.clone().into_iter().collect();
        let entries = self.sources.iter().map(|(platform, address)| SourceEntry {
            platform: *platform,
            address: address.clone(),
            priority: 0,
            channels: Vec::new(),
        });
        config::compose(&client_ids, &entries.collect::<Vec<_>>()).map_err(|error| {
            Failure::new(ExitCode::Failed, "cannot compose the configuration").because(&error)
        })
    }

    /// Returns the variables of `.env`.
    fn variables(&self) -> Vec<(String, SecretString)> {
        let variable = |(platform, secret): (&PlatformName, &SecretString)| {
            let key = key(*platform, "client_secret")?;
            let name = key
                .names
                .first()
                .map_or_else(|| key.variable(), |name| (*name).to_owned());
            Some((name, secret.clone()))
        };
        self.secrets.iter().filter_map(variable).collect()
    }
}

pub async fn run(setup: &mut Setup, demo: Option<Demo>, args: &InitArgs) -> Result<ExitCode, Failure> {
    let mut keyboard = Keyboard::open();
    let nothing = Note::hint(Tone::Warn, "stopped; nothing was written", None);
    interruption::leaves(vec![nothing]);
    require_answers(setup, args, &keyboard)?;
    let files = Files::of(setup, demo.is_some(), args.force)?;
    // As if the file were empty, also where there is none yet.
    let mut inputs = ConfigInputs {
        draft: Some((files.config.clone(), String::new())),
        ..setup.inputs.clone()
    };
    let known = config::load(&inputs, setup.clock.now());
    let mut wizard = Wizard {
        args,
        keyboard: &mut keyboard,
        known: Configuration::clone(&known),
        is_demo: demo.is_some(),
        answers: Answers::default(),
    };
    known.checked()?;
    let wanted = wizard.channels().await?;
    wizard.applications(&wanted).await?;
    let demo = {
        let settings = with_answers(&inputs, &wizard.answers, setup);
        let mut app = App::new(settings.checked()?, std::sync::Arc::clone(&setup.clock), demo)?;
        wizard.resolve(&app, wanted).await?;
        wizard.logins(&app).await?;
        app.demo.take()
    };
    wizard.service().await?;
    let answers = wizard.answers;
    let text = answers.text()?;
    inputs.draft = Some((files.config.clone(), text.clone()));
    with_answers(&inputs, &answers, setup).checked()?;
    let unit = answers.service.then(|| files.unit(setup)).transpose()?;
    if demo.is_some() {
        show(&text, unit.as_deref())?;
        monitor_in_demo(setup, &answers);
    } else {
        setup
            .output
            .note(&files.write(&text, &answers.variables(), unit.as_deref())?)?;
    }
    let configuration = setup.configuration();
    warn_of_other_sources(setup, &configuration, &files)?;
    let written = Written::of(&configuration, &files, demo.is_some());
    interruption::leaves(written.left_behind(&answers, &[]));
    let cx = crate::cli::prepare(setup, configuration, demo).await?;
    let refused = refused_applications(&cx, &answers, &written).await;
    let exit = log_in(&cx, &answers, &refused, &written, &mut keyboard).await?;
    status::probed(&cx).await?;
    cx.note(&next(&cx, &answers, &files, &refused, exit).await?)?;
    Ok(exit)
}

/// Where the answers are after the files were written.
struct Written {
    files: Vec<String>,
    /// The places of the keys of applications, by path.
    origins: BTreeMap<String, String>,
}

impl Written {
    fn of(configuration: &Configuration, files: &Files, is_demo: bool) -> Self {
        let keys = configuration.resolved.iter();
        let set = keys.filter(|resolved| resolved.value.is_some());
        Self {
            files: match is_demo {
                true => Vec::new(),
                false => files.present(),
            },
            origins: set
                .map(|resolved| (resolved.key.to_string(), resolved.origin.to_string()))
                .collect(),
        }
    }

    /// Returns what a signal leaves behind now. `done` are the platforms that were logged in to.
    fn left_behind(&self, answers: &Answers, done: &[PlatformName]) -> Vec<Note> {
        let mut stored = self.files.clone();
        stored.extend(done.iter().map(|platform| format!("the login of {platform}/bot")));
        let stored = match stored.is_empty() {
            true => "nothing".to_owned(),
            false => stored.join(", "),
        };
        let mut missing = answers.logins.iter().filter(|platform| !done.contains(platform));
        let next = match missing.next() {
            Some(platform) => format!("bitbrat auth login {platform}"),
            None => "bitbrat status --probe".to_owned(),
        };
        let what = format!("stopped; stored so far: {stored}");
        vec![Note::hint(Tone::Warn, what, Some(&next))]
    }

    /// Returns where the client id and the secret of a platform are.
    fn application(&self, platform: PlatformName) -> String {
        let place = |name: &str| {
            let path = format!("{platform}.{name}");
            let origin = self.origins.get(&path)?;
            Some(format!("{path} ({origin})"))
        };
        let places: Vec<String> = ["client_id", "client_secret"]
            .into_iter()
            .filter_map(place)
            .collect();
        places.join(" or ")
    }
}

/// Returns the platforms that reject the client id or the secret, with what to correct: a login would have to be repeated.
async fn refused_applications(
    cx: &Context,
    answers: &Answers,
    written: &Written,
) -> BTreeMap<PlatformName, String> {
    let mut refused = BTreeMap::new();
    for platform in answers.platforms() {
        if let Some(Err(Untried::Refused(reason))) = cx.app.platforms.try_application(platform).await {
            let title = platform.rules().title;
            let what = format!(
                "{title} rejects the application: {reason}; correct {}",
                written.application(platform)
            );
            refused.insert(platform, what);
        }
    }
    refused
}

/// Fails where neither the arguments nor a person can answer what has to be known.
fn require_answers(setup: &Setup, args: &InitArgs, keyboard: &Keyboard) -> Result<(), Failure> {
    if args.yes && args.channels.is_empty() {
        let what = "with --yes nothing is asked, so at least one channel has to be named";
        return Err(Failure::new(ExitCode::Usage, what).hint("add --channel twitch:NAME"));
    }
    if !args.yes && !can_ask(keyboard, &setup.inputs.environment) {
        return Err(Failure::new(
            ExitCode::Usage,
            "no terminal: use `init --yes --channel twitch:NAME`",
        )
        .hint("`bitbrat init --help` describes the other flags"));
    }
    Ok(())
}

/// Whether questions reach a person. A terminal without controls and that of a build server have no reader.
fn can_ask(keyboard: &Keyboard, environment: &BTreeMap<String, String>) -> bool {
    let is = |name: &str| environment.get(name).map(String::as_str).unwrap_or_default();
    keyboard.is_there() && is("TERM") != "dumb" && matches!(is("CI"), "" | "false" | "0")
}

/// Loads the configuration as it will be with the answers.
fn with_answers(inputs: &ConfigInputs, answers: &Answers, setup: &Setup) -> Configuration {
    let mut inputs = inputs.clone();
    for (platform, id) in &answers.client_ids {
        if let Some(key) = key(*platform, "client_id") {
            inputs.environment.insert(key.variable(), id.clone());
        }
    }
    for (name, secret) in answers.variables() {
        inputs.environment.insert(name, secret.expose_secret().to_owned());
    }
    config::load(&inputs, setup.clock.now())
}

/// Shows what would be written.
fn show(text: &str, unit: Option<&str>) -> Result<(), Failure> {
    let mut page = format!("The demo writes no file. bitbrat.toml would be:\n\n{text}\n");
    if let Some(unit) = unit {
        page.push_str(&format!("and {}:\n\n{unit}\n", files::UNIT));
    }
    Ok(write_err(&page)?)
}

/// Replaces the sources of the demo.
fn monitor_in_demo(setup: &mut Setup, answers: &Answers) {
    let shown = |(platform, address): &(PlatformName, SourceAddress)| match address {
        SourceAddress::Id(key) => key.to_string(),
        SourceAddress::Name(name) => format!("{platform}:{name}"),
    };
    let sources: Vec<_> = answers.sources.iter().map(shown).collect();
    let values = setup.inputs.demo.iter_mut().flat_map(|demo| &mut demo.platforms);
    for (path, value) in values {
        if path == "sources" {
            *value = sources.join(" ");
        }
    }
}

/// Warns where the sources of the new file are not all, or not used.
fn warn_of_other_sources(setup: &Setup, configuration: &Configuration, files: &Files) -> Result<(), Failure> {
    let mut sources = configuration.settings.sources.iter();
    let is_ours = |origin: &config::Origin| match origin {
        config::Origin::File(path) => *path == files.config,
        config::Origin::Demo => true,
        _ => false,
    };
    let Some(other) = sources.find(|spec| !is_ours(&spec.origin)) else {
        return Ok(());
    };
    let what = format!(
        "sources are also configured by {}; where that is the `sources` list, the [[source]] list of the file is not used",
        other.origin
    );
    let note = Note::hint(Tone::Warn, what, Some("bitbrat sources list"));
    Ok(setup.output.note(&[note])?)
}

/// Logs in to the chosen platforms. A login that fails does not end the set-up: it can be repeated alone. None is begun where the
/// platform rejects the application.
async fn log_in(
    cx: &Context,
    answers: &Answers,
    refused: &BTreeMap<PlatformName, String>,
    written: &Written,
    keyboard: &mut Keyboard,
) -> Result<ExitCode, Failure> {
    let mut exit = match refused.is_empty() {
        true => ExitCode::Healthy,
        false => ExitCode::Unauthorized,
    };
    let mut done = Vec::new();
    for platform in answers
        .logins
        .iter()
        .filter(|platform| !refused.contains_key(platform))
    {
        let failure = match auth::login::bot(cx, *platform, keyboard).await {
            Ok(code) => {
                exit = exit.worse(code);
                done.push(*platform);
                interruption::leaves(written.left_behind(answers, &done));
                continue;
            }
            Err(failure) => failure,
        };
        exit = exit.worse(failure.exit);
        let title = platform.rules().title;
        let mut what = format!("not logged in to {title}: {}", failure.what);
        for why in failure.causes.iter().chain(&failure.hints) {
            what.push_str(&format!("; {why}"));
        }
        cx.note(&[Note::hint(Tone::Bad, what, None)])?;
    }
    Ok(exit)
}

/// Returns what to do next: what to correct, the missing logins, then the daemon. The last note says whether the set-up is complete.
async fn next(
    cx: &Context,
    answers: &Answers,
    files: &Files,
    refused: &BTreeMap<PlatformName, String>,
    exit: ExitCode,
) -> Result<Vec<Note>, Failure> {
    let mut notes = Vec::new();
    let mut first = None;
    for (platform, what) in refused {
        let command = format!("bitbrat doctor {platform}");
        notes.push(Note::hint(Tone::Bad, what, Some(&command)));
        first.get_or_insert(command);
    }
    for platform in answers.platforms() {
        let bot = Identity::named(format!("{platform}/bot"));
        if cx.app.tokens().load(&bot).await?.is_some() {
            continue;
        }
        let what = format!("there is no login on {} yet", platform.rules().title);
        let command = format!("bitbrat auth login {platform}");
        notes.push(Note::hint(Tone::Warn, what, Some(&command)));
        first.get_or_insert(command);
    }
    if exit != ExitCode::Healthy {
        let what = "the set-up is not complete; what was entered is kept";
        let command = first.unwrap_or_else(|| "bitbrat auth status".to_owned());
        notes.push(Note::hint(Tone::Bad, what, Some(&command)));
        return Ok(notes);
    }
    let (what, command) = if answers.service && cx.app.demo.is_none() {
        let command = format!("systemctl --user enable --now {}", files.unit_path());
        (
            "set up; start the service, and see `journalctl --user -u bitbrat-watch`",
            command,
        )
    } else {
        ("set up; keep it monitored", "bitbrat watch".to_owned())
    };
    notes.push(Note::hint(Tone::Good, what, Some(&command)));
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_needs_its_platform_and_client_id_an_application() {
        assert!(channel("twitch:pixelmeadow").is_ok());
        assert!(channel("https://kick.com/big-rat").is_ok());
        assert!(channel("pixelmeadow").unwrap_err().contains("name its platform"));
        assert_eq!(
            client_id("twitch:abc").unwrap(),
            (PlatformName::Twitch, "abc".to_owned())
        );
        for text in ["abc", "discord:abc", "myspace:abc", "twitch:a b", "twitch:"] {
            assert!(client_id(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nothing_is_asked_on_a_dumb_terminal_or_build_server() {
        let keyboard = Keyboard::open();
        for (name, value) in [("TERM", "dumb"), ("CI", "true")] {
            let environment = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            assert!(!can_ask(&keyboard, &environment), "{name}");
        }
    }

    #[test]
    fn secrets_go_to_variables_and_not_into_the_file() {
        let answers = Answers {
            sources: vec![(
                PlatformName::Twitch,
                SourceAddress::Name("pixelmeadow".to_owned()),
            )],
            client_ids: BTreeMap::from([(PlatformName::Twitch, "the-id".to_owned())]),
            secrets: BTreeMap::from([(PlatformName::Twitch, "hunter2hunter2".into())]),
            ..Answers::default()
        };
        assert_eq!(answers.variables()[0].0, "TWITCH_CLIENT_SECRET");
        let text = answers.text().unwrap();
        assert!(text.contains("the-id") && !text.contains("hunter2"), "{text}");
    }
}
