//! A small fictional Discord in which every guild is in a different state, for `--demo` and first tries.

use super::handle::DiscordSim;
use super::specs::{ChannelSpec, GuildSpec};
use crate::sim::kit::{DemoLogin, DemoPlatform, Setting};

/// The bot's user and application.
const BOT: u64 = 888_100;
pub const TOKEN: &str = "demotoken.bitbrat.simulator";
/// All three privileged intents are enabled.
const FLAGS: u64 = 565_248;

/// Without any problem.
pub const HEALTHY: u64 = 888_001;
/// The bot may not read the history, and not send messages in the configured channel.
pub const MUTED: u64 = 888_002;
/// The bot is in a timeout for a day.
pub const TIMED_OUT: u64 = 888_003;
/// The bot is administrator.
pub const ADMINISTERED: u64 = 888_004;
/// The bot was removed.
pub const GONE: u64 = 888_005;
/// A bot of its own serves it, whose token was reset.
pub const RESET: u64 = 888_006;
/// The bot of [`RESET`].
pub const OTHER_BOT: u64 = 888_101;
/// Its token before the reset.
const OLD_TOKEN: &str = "oldtoken.outpost.simulator";

/// All guilds, including the one that the bot was removed from.
pub const GUILDS: [u64; 6] = [HEALTHY, MUTED, TIMED_OUT, ADMINISTERED, GONE, RESET];
/// Configured channels by guild.
pub const CHANNELS: [(u64, u64); 3] = [
    (HEALTHY, general(HEALTHY)),
    (MUTED, general(MUTED)),
    (TIMED_OUT, general(TIMED_OUT)),
];

/// The demo world as a client of it sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoWorld;

impl DemoPlatform for DemoWorld {
    fn sources(&self) -> Vec<String> {
        GUILDS.map(|guild| guild.to_string()).to_vec()
    }

    fn channels(&self) -> Vec<(String, String)> {
        CHANNELS
            .map(|(guild, channel)| (guild.to_string(), channel.to_string()))
            .to_vec()
    }

    fn application(&self) -> Vec<Setting> {
        Vec::new()
    }

    fn tokens(&self) -> Vec<Setting> {
        vec![("discord.bot_token", TOKEN.to_owned())]
    }

    fn logins(&self) -> Vec<DemoLogin> {
        let login = |account: String, user: u64, token: &str| DemoLogin {
            account,
            user_id: user.to_string(),
            access: token.to_owned(),
            refresh: None,
            scopes: Vec::new(),
            client_id: None,
            issued: None,
        };
        vec![
            login("discord/bot".to_owned(), BOT, TOKEN),
            login(format!("discord/bot:{RESET}"), OTHER_BOT, OLD_TOKEN),
        ]
    }
}

pub fn populate(discord: &DiscordSim) -> DemoWorld {
    discord.add_bot(BOT, "bitbrat", TOKEN, FLAGS);
    discord.add_bot(OTHER_BOT, "outpost", OLD_TOKEN, 0);
    discord.reset_token(OTHER_BOT, true);
    for (id, name, members, presences) in [
        (HEALTHY, "Lantern Lab", 1_204, 317),
        (MUTED, "The Quiet Library", 86, 12),
        (TIMED_OUT, "Penalty Box", 431, 58),
        (ADMINISTERED, "雪の庭", 27, 9),
        (RESET, "The Old Outpost", 64, 3),
    ] {
        discord.put_guild(&GuildSpec {
            id,
            name: Some(name.to_owned()),
            members: Some(members),
            presences: Some(presences),
            ..GuildSpec::default()
        });
        discord.put_channel(&ChannelSpec {
            guild: id,
            id: general(id),
            name: Some("general".to_owned()),
            ..ChannelSpec::default()
        });
    }
    // Everyone may see and write; the bot's own role grants nothing more, and the channel denies writing to everyone.
    discord.put_role(MUTED, MUTED, 1 << 10 | 1 << 11, None);
    discord.put_role(MUTED, MUTED + 1, 1 << 10, None);
    discord.set_overwrite(general(MUTED), MUTED, 0, 0, 1 << 11);
    discord.time_out(
        TIMED_OUT,
        Some(crate::clock::Clock::now(&**discord.clock()).plus_secs(86_400)),
    );
    discord.put_role(ADMINISTERED, ADMINISTERED + 1, 1 << 3, None);
    DemoWorld
}

/// The channel that every guild of the demo world has.
const fn general(guild: u64) -> u64 {
    guild * 10
}
