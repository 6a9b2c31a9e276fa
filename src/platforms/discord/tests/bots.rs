//! Guilds that another bot serves.

use std::collections::BTreeSet;

use super::*;
use crate::core::observation::{AuthResult, Identity};
use crate::core::verdict::Status;
use crate::tokens::{MemoryTokenStore, StoredToken, TokenStoreExt as _};

/// Another bot, and its token.
const OTHER: u64 = 4_002;
const OTHER_TOKEN: &str = "other.secret-part.rest";
const PROBES: [Probe; 2] = [Probe::Auth, Probe::Connection];

async fn keep(tokens: &MemoryTokenStore, token: &str, clock: &dyn Clock) {
    let token = StoredToken::unproven(token.to_owned(), clock.now());
    let own = Identity::named("discord/bot:9002");
    tokens.set_token(&own, Some(token)).await.unwrap();
}

#[tokio::test]
async fn guild_with_own_bot_is_probed_with_its_own_token() {
    let rig = Rig::start().await;
    rig.discord().add_bot(OTHER, "other", OTHER_TOKEN, 0);
    rig.discord().put_guild(&GuildSpec {
        id: 9_002,
        ..GuildSpec::default()
    });
    let tokens = Arc::new(MemoryTokenStore::default());
    keep(&tokens, OTHER_TOKEN, rig.clock.as_ref()).await;
    let platform = rig.platform(|_| {}).following(Arc::clone(&tokens) as _);
    let both = probe(&platform, &PROBES, &[GUILD, 9_002]).await;
    for (guild, identity) in [(GUILD, "discord/bot"), (9_002, "discord/bot:9002")] {
        assert_eq!(both.record(guild).status, Status::Connected);
        let of_guild = both
            .observations
            .iter()
            .filter(|reported| reported.source == key(guild));
        let asked_as: BTreeSet<_> = of_guild
            .filter_map(|reported| match &*reported.fact {
                Fact::Auth { identity, .. } => Some(identity.to_string()),
                _ => None,
            })
            .collect();
        assert_eq!(asked_as, [identity.to_owned()].into());
    }
    assert_eq!(
        platform.with_own_bot(&[key(GUILD), key(9_002)]).await,
        [key(9_002)].into()
    );

    let fresh = rig.discord().reset_token(OTHER, true).unwrap();
    let reset = probe(&platform, &PROBES, &[GUILD, 9_002]).await;
    assert_eq!(reset.record(GUILD).status, Status::Connected);
    assert_eq!(reset.record(GUILD).auth_status, Some(AuthResult::Valid));
    let rejected = reset.record(9_002);
    assert_eq!(
        (rejected.status, rejected.auth_status),
        (Status::Error, Some(AuthResult::Revoked))
    );
    let calls = rig.total_calls();
    assert_eq!(probe(&platform, &PROBES, &[9_002]).await.summary.calls, 0);
    assert_eq!(rig.total_calls(), calls, "a dead token is silent, whosever it is");

    keep(&tokens, &fresh, rig.clock.as_ref()).await;
    let healed = probe(&platform, &PROBES, &[9_002]).await;
    assert_eq!(healed.record(9_002).status, Status::Connected);
}

#[tokio::test]
async fn guild_with_own_bot_is_probed_without_a_shared_token() {
    let rig = Rig::start().await;
    let tokens = Arc::new(MemoryTokenStore::default());
    rig.discord().add_bot(OTHER, "other", OTHER_TOKEN, 0);
    rig.discord().put_guild(&GuildSpec {
        id: 9_002,
        ..GuildSpec::default()
    });
    keep(&tokens, OTHER_TOKEN, rig.clock.as_ref()).await;
    let platform = rig.platform(|options| options.bot_token = None);
    let platform = platform.following(Arc::clone(&tokens) as _);
    let seen = probe(&platform, &PROBES, &[GUILD, 9_002]).await;
    assert_eq!(seen.error_code(GUILD).as_deref(), Some("discord.not_configured"));
    assert_eq!(seen.record(9_002).status, Status::Connected);
}
