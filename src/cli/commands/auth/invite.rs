//! `auth invite`: the consent of another person, by a link or by a code.

use clap::Args;
use clap_complete::ArgValueCompleter;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::app::Lookup;
use crate::app::invites::{self, Invite, Judged, Outcome, Person, Received, callback};
use crate::cli::complete;
use crate::cli::context::Context;
use crate::cli::login::{self, Keyboard, Login, loopback};
use crate::cli::output::view::Tone;
use crate::cli::output::{Listing, Note};
use crate::cli::reports::invites::{InviteItem, InviteState};
use crate::core::source::PlatformName;
use crate::failure::{ExitCode, Failure};
use crate::platforms::Platform;
use crate::platforms::kit::oauth::Accounts;
use crate::platforms::kit::oauth::callback::Callback;

/// Ask the owner of a channel for a consent
///
/// Prints a link that works once within 24 hours, to be sent to the owner of the channel. The consent is received by a running
/// `bitbrat watch` at `web.public_url`. With --device, a code is shown, to be confirmed now. Only the consent is recorded;
/// with --scope, the token is stored, too.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bitbrat auth invite twitch pixelmeadow
  bitbrat auth invite twitch pixelmeadow --device
  bitbrat auth invite twitch pixelmeadow --scope moderation:read --scope channel:read:vips
  bitbrat auth invite kick
  bitbrat auth invite --list")]
pub struct InviteArgs {
    /// The platform
    #[arg(value_name = "PLATFORM", value_parser = super::platform, required_unless_present = "list", add = ArgValueCompleter::new(complete::platforms))]
    platform: Option<PlatformName>,
    /// Who is invited, by name; the consent of any other account is refused
    #[arg(value_name = "LOGIN")]
    login: Option<String>,
    /// Show a code that is confirmed within half an hour, instead of a link (Twitch)
    #[arg(long)]
    device: bool,
    /// Request this scope, too, and store the token; may be repeated
    #[arg(long = "scope", value_name = "SCOPE", value_parser = crate::config::word)]
    scopes: Vec<String>,
    /// Show the invitations and what became of them
    #[arg(long, conflicts_with_all = ["platform", "login", "device", "scopes"])]
    list: bool,
}

/// An invitation that is made.
struct Inviting<'a> {
    cx: &'a Context,
    platform: PlatformName,
    adapter: &'a dyn Platform,
    accounts: &'a dyn Accounts,
    scopes: Vec<String>,
    expected: Option<Person>,
}

/// Runs the command.
pub(super) async fn run(cx: &Context, args: &InviteArgs) -> Result<ExitCode, Failure> {
    let Some(platform) = args.platform else {
        return list(cx);
    };
    cx.app.platforms.seed_tokens().await?;
    let adapter = cx.app.platforms.get(platform).await?;
    let Some(accounts) = adapter.accounts() else {
        let what = format!(
            "on {} a bot is invited with a link of its own",
            platform.rules().title
        );
        return Err(Failure::new(ExitCode::Usage, what)
            .hint(format!("`bitbrat auth login {platform}` prints the link")));
    };
    let inviting = Inviting {
        cx,
        platform,
        adapter: adapter.as_ref(),
        accounts,
        scopes: invites::scopes(platform, &args.scopes),
        expected: expected(cx, platform, args.login.as_deref()).await?,
    };
    if let Some(demo) = &cx.app.demo {
        let of_platform = |key: &crate::core::source::SourceKey| key.platform() == platform;
        let first = cx.app.sources.all().keys().into_iter().find(of_platform);
        let expected = inviting.expected.as_ref().and_then(|person| person.id.clone());
        demo.consent_as(expected.or(first.map(|key| key.id().to_owned())).as_deref());
    }
    match (args.device, &cx.app.demo) {
        (true, _) => inviting.by_device().await,
        (false, Some(_)) => inviting.by_link_in_demo().await,
        (false, None) => inviting.by_link(),
    }
}

/// Returns who is invited. The id is looked up, because names change owners.
async fn expected(
    cx: &Context,
    platform: PlatformName,
    login: Option<&str>,
) -> Result<Option<Person>, Failure> {
    let Some(login) = login else { return Ok(None) };
    let usage = |what: String| Failure::new(ExitCode::Usage, what).hint("give the name of the channel alone");
    let name = crate::config::source_name(platform, login).map_err(usage)?;
    let looked_up = cx.app.look_up_name(platform, &name).await;
    let id = match looked_up {
        Ok(Lookup::Found(key)) => Some(key.id().to_owned()),
        Ok(Lookup::NotFound { meant }) => {
            let title = platform.rules().title;
            let failure = Failure::new(
                ExitCode::NoSuchSource,
                format!("no account on {title} is called `{name}`"),
            );
            return Err(match meant {
                Some(meant) => failure.hint(format!("did you mean `{meant}`?")),
                None => failure,
            });
        }
        Err(failure) => {
            let what = format!(
                "the id of {name} is not known ({}), so the name is compared",
                failure.what
            );
            cx.note(&[Note::hint(Tone::Warn, what, None)])?;
            None
        }
    };
    Ok(Some(Person {
        id,
        login: Some(name),
    }))
}

fn list(cx: &Context) -> Result<ExitCode, Failure> {
    let now = cx.app.clock.now();
    let invites = invites::file(&cx.app).all()?;
    let items: Vec<_> = invites
        .iter()
        .map(|invite| InviteItem::new(invite, now))
        .collect();
    let mut report = Listing::new(now, items);
    if report.items.is_empty() {
        let what = "there are no invitations yet";
        report
            .notes
            .push(Note::hint(Tone::Dim, what, Some("bitbrat auth invite twitch")));
    }
    cx.output.print(&report)?;
    Ok(ExitCode::Healthy)
}

impl Inviting<'_> {
    /// Creates a link, which `watch` receives the consent of.
    fn by_link(&self) -> Result<ExitCode, Failure> {
        let Some(public) = &self.cx.app.settings.web.public_url else {
            let mut failure = Failure::new(
                ExitCode::Configuration,
                "a link needs an address at which the consent arrives, and web.public_url is not set",
            )
            .hint("set web.public_url to the https address that leads to the web server of `bitbrat watch`");
            if self.platform == PlatformName::Twitch {
                failure = failure.hint(format!(
                    "or run `bitbrat auth invite {} --device`, if the owner of the channel is at hand now",
                    self.platform
                ));
            }
            return Err(failure);
        };
        let redirect_uri = format!("{}{}", public.as_str().trim_end_matches('/'), callback::PATH);
        let (invite, link) = self.create(redirect_uri.clone())?;
        let who = invite
            .expected
            .as_ref()
            .map_or("the owner of the channel".to_owned(), ToString::to_string);
        let notes = vec![
            Note::hint(
                Tone::Good,
                format!(
                    "send this link to {who}; it works once, until {}",
                    invite.expires_at
                ),
                Some("bitbrat auth invite --list"),
            ),
            Note::hint(
                Tone::Warn,
                format!(
                    "the application needs the redirect address {redirect_uri}, exactly as it is here, and `bitbrat watch` must run when the \
                     link is used"
                ),
                None,
            ),
        ];
        self.print(&invite, Some(&link), notes)?;
        Ok(ExitCode::Healthy)
    }

    fn create(&self, redirect_uri: String) -> Result<(Invite, Url), Failure> {
        invites::create(
            &self.cx.app,
            self.accounts,
            self.platform,
            self.scopes.clone(),
            self.expected.clone(),
            redirect_uri,
        )
    }

    /// Creates a link and uses it at once, because the demo ends with this command.
    async fn by_link_in_demo(&self) -> Result<ExitCode, Failure> {
        let app = &self.cx.app;
        let port = app.settings.auth.redirect_port;
        let listener = login::browser::bind(port).await?;
        let (invite, link) = self.create(listener.redirect_uri())?;
        let what = "in the demo the owner of the channel follows the link at once";
        self.print(&invite, Some(&link), vec![Note::hint(Tone::Good, what, None)])?;
        let state = link.query_pairs().find(|(name, _)| name == "state");
        let state = state.map(|(_, state)| state.into_owned()).unwrap_or_default();
        let (events, mut seen) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let serving = listener.serve(state.clone(), events, stop.clone());
        let receiving = async {
            let _end = stop.drop_guard();
            let callback = tokio::select! {
                Some(loopback::Event::Callback(callback)) = seen.recv() => callback,
                never = login::agree_in_demo(self.cx, link.as_str()) => match never {},
            };
            let result = match callback {
                Callback::Code(code) => Ok(code),
                Callback::Refused(error) => Err(error),
            };
            invites::receive(app, &state, result).await
        };
        let ((), received) = tokio::join!(serving, receiving);
        let invites = invites::file(app).all()?;
        let used = invites.last().unwrap_or(&invite);
        let item = InviteItem::new(used, app.clock.now());
        self.cx.note(&[note_of(&item)])?;
        Ok(match received {
            Received::Consented => ExitCode::Healthy,
            _ => ExitCode::Unauthorized,
        })
    }

    /// Shows a code, and waits for its confirmation.
    async fn by_device(&self) -> Result<ExitCode, Failure> {
        let app = &self.cx.app;
        let who = self
            .expected
            .as_ref()
            .map_or("the owner of the channel".to_owned(), ToString::to_string);
        let login = Login {
            cx: self.cx,
            platform: self.platform,
            accounts: self.accounts,
            account: who,
            scopes: self.scopes.join(" "),
        };
        let obtained = login::device::obtain(&login, false, &mut Keyboard::open()).await?;
        let token = obtained.ok_or_else(|| {
            let what = format!("{} has no codes", self.platform.rules().title);
            Failure::new(ExitCode::Usage, what).hint("leave out --device")
        })?;
        let now = app.clock.now();
        let mut invite = Invite {
            platform: self.platform,
            scopes: self.scopes.clone(),
            expected: self.expected.clone(),
            state_hash: None,
            verifier: None,
            redirect_uri: String::new(),
            created_at: now,
            expires_at: now,
            outcome: None,
            last_failure: None,
        };
        let outcome = match invites::judge(app, self.adapter, &invite, token).await? {
            Judged::Decided(outcome) => outcome,
            Judged::Unanswered(reason) => {
                return Err(Failure::new(ExitCode::NoEvidence, reason)
                    .hint("nothing was stored; run the command again for a new code"));
            }
        };
        let is_refused = matches!(outcome, Outcome::Refused { .. });
        invite.outcome = Some(outcome);
        invites::file(app).add(invite.clone(), now)?;
        let item = InviteItem::new(&invite, now);
        self.print(&invite, None, vec![note_of(&item)])?;
        Ok(if is_refused {
            ExitCode::Unauthorized
        } else {
            ExitCode::Healthy
        })
    }

    fn print(&self, invite: &Invite, link: Option<&Url>, notes: Vec<Note>) -> Result<(), Failure> {
        let now = self.cx.app.clock.now();
        let item = InviteItem {
            link: link.map(ToString::to_string),
            ..InviteItem::new(invite, now)
        };
        Ok(self.cx.output.print(&Listing {
            as_of: now,
            items: vec![item],
            notes,
        })?)
    }
}

/// Returns what became of an invitation, for people.
fn note_of(item: &InviteItem) -> Note {
    match (item.state, &item.reason) {
        (InviteState::Consented, _) => {
            let name = item.login.clone().unwrap_or_default();
            let id = item.user_id.clone().unwrap_or_default();
            let what = match item.kept {
                true => format!("the token is stored as {}/broadcaster:{id}", item.platform),
                false => "only the consent is recorded, because no token is needed".to_owned(),
            };
            Note::hint(
                Tone::Good,
                format!(
                    "{name} ({id}) has consented to {}; {what}",
                    item.scopes.join(", ")
                ),
                None,
            )
        }
        (_, reason) => {
            let why = reason
                .clone()
                .unwrap_or_else(|| "there was no consent".to_owned());
            let mut command = format!("bitbrat auth invite {}", item.platform);
            if let Some(login) = &item.login {
                command.push_str(&format!(" {login}"));
            }
            Note::hint(Tone::Bad, format!("nothing was stored: {why}"), Some(&command))
        }
    }
}
