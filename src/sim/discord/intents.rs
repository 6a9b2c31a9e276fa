//! Gateway intents: <https://docs.discord.com/developers/events/gateway#gateway-intents>.

pub(super) const GUILDS: u64 = 1;
pub(super) const VOICE_STATES: u64 = 1 << 7;
pub(super) const MEMBERS: u64 = 1 << 1;
pub(super) const MESSAGES: u64 = 1 << 9;
pub(super) const CONTENT: u64 = 1 << 15;
pub(super) const EVENTS: u64 = 1 << 16;
