//! Discord's limits are respected before it has to enforce them, and requests stop before they become harmful.

use super::*;
use crate::core::code::Code;
use crate::core::permission::{CHANNEL_METHOD, GUILD_METHOD};
use crate::core::source::PlatformName;
use crate::core::verdict::Status;
use crate::sim::discord::faults::named;

async fn with_guilds(count: u64) -> (Rig, Vec<u64>) {
    let rig = Rig::empty().await;
    let guilds: Vec<_> = (1..=count).map(|n| 10_000 + n * 10).collect();
    for id in &guilds {
        rig.discord().put_guild(&GuildSpec {
            id: *id,
            ..GuildSpec::default()
        });
        rig.discord().put_channel(&ChannelSpec {
            guild: *id,
            id: id + 5,
            ..ChannelSpec::default()
        });
    }
    (rig, guilds)
}

fn statuses(rig: &Rig, status: &str) -> u64 {
    let journal = rig.discord().host().journal().to_json();
    let counts = journal["counts"].as_array().unwrap().iter();
    counts
        .filter_map(|count| count["statuses"][status].as_u64())
        .sum()
}

/// Configures the one channel of each of `guilds`, which takes a request to probe.
fn with_a_channel_each(guilds: &[u64]) -> BTreeMap<u64, GuildOptions> {
    let configured = guilds.iter().map(|id| {
        let options = GuildOptions {
            channels: vec![id + 5],
        };
        (*id, options)
    });
    configured.collect()
}

#[tokio::test]
async fn a_small_bucket_is_never_overdrawn_however_wrong_our_clock_is() {
    for ahead in [0, 3_600_000] {
        let (rig, guilds) = with_guilds(1_000).await;
        rig.clock.advance(ahead);
        rig.discord().knobs(|knobs| {
            knobs.bucket = 2;
            knobs.bucket_window_ms = 150;
        });
        let seen = rig.probe_once(&[Probe::Connection], &guilds).await;
        assert_eq!((rig.calls("users/@me/guilds"), statuses(&rig, "429")), (5, 0));
        assert_eq!(seen.record(guilds[999]).status, Status::Connected);
    }
}

#[tokio::test]
async fn our_own_pace_stays_below_the_global_limit() {
    let (rig, guilds) = with_guilds(8).await;
    rig.discord().knobs(|knobs| knobs.global_per_second = 20);
    let platform = rig.platform(|options| {
        options.requests_per_second = 10;
        options.guilds = with_a_channel_each(&guilds);
    });
    let seen = probe(&platform, &[Probe::Permissions], &guilds).await;
    assert_eq!((rig.total_calls(), statuses(&rig, "429")), (25, 0));
    assert!(guilds.iter().all(|id| !seen.record(*id).held().is_empty()));
}

#[tokio::test]
async fn json_rate_limit_is_waited_out() {
    for name in [
        "limited_user",
        "limited_shared",
        "limited_global",
        "limited_without_headers",
    ] {
        let rig = Rig::start().await;
        rig.fail(named(name).unwrap().times(1));
        let seen = rig.probe_once(&Probe::ALL, &[GUILD]).await;
        let record = seen.record(GUILD);
        assert_eq!(
            (record.status, record.last_error),
            (Status::Connected, None),
            "{name}"
        );
        assert_eq!(
            seen.summary.calls, 4,
            "{name}: the bot, the list twice, the member"
        );
    }
}

#[tokio::test]
async fn after_a_ban_nothing_is_sent_by_this_process_or_the_next() {
    let rig = Rig::start().await;
    let platform = rig.platform(|_| {});
    let before = probe(&platform, &Probe::ALL, &[GUILD]).await;
    rig.fail(named("cloudflare_text").unwrap());
    let banned = probe(&platform, &[Probe::Connection], &[GUILD]).await;
    assert_eq!(banned.summary.calls, 1);
    let calls = rig.total_calls();
    let silent = probe(&platform, &Probe::ALL, &[GUILD]).await;
    assert_eq!((silent.summary.calls, silent.observations.len()), (0, 0));
    assert!(
        silent.summary.problems[0].text.contains("Cloudflare"),
        "{:?}",
        silent.summary.problems
    );
    let next_process = rig.probe_once(&Probe::ALL, &[GUILD]).await;
    assert_eq!((next_process.summary.calls, rig.total_calls()), (0, calls));
    let record = silent.record_after(GUILD, &[&before, &banned]);
    assert_eq!(
        record.last_error.unwrap().code,
        Code::EdgeBlocked(PlatformName::Discord)
    );
    rig.discord().host().faults().clear();
    rig.clock.advance(301_000);
    assert_eq!(
        rig.probe_once(&Probe::ALL, &[GUILD]).await.record(GUILD).status,
        Status::Connected
    );
}

#[tokio::test]
async fn refused_requests_stop_by_themselves_long_before_the_ban() {
    let (rig, guilds) = with_guilds(60).await;
    rig.discord().knobs(|knobs| {
        knobs.invalid_limit = 30;
        knobs.list_without_hidden = true;
    });
    for id in &guilds {
        rig.discord().set_overwrite(id + 5, BOT, 1, 0, 1 << 10);
    }
    let platform = rig.platform(|options| {
        options.max_invalid_requests = 10;
        options.guilds = with_a_channel_each(&guilds);
    });
    for _ in 0..3 {
        probe(&platform, &[Probe::Permissions], &guilds).await;
    }
    let refused = rig.discord().invalid_requests();
    // Requests in flight when the limit was reached may come on top.
    assert!((10..=14).contains(&refused), "{refused}");
    assert_eq!(
        rig.probe_once(&[Probe::Connection], &guilds)
            .await
            .record(guilds[0])
            .status,
        Status::Connected
    );
}

#[tokio::test]
async fn a_forbidden_channel_is_left_alone_for_a_while() {
    let rig = Rig::start().await;
    rig.discord().knobs(|knobs| knobs.list_without_hidden = true);
    rig.discord().set_overwrite(9_200, BOT, 1, 0, 1 << 10);
    let platform = rig.platform(|options| {
        options.guilds = guild_options(GuildOptions {
            channels: vec![9_200],
        });
    });
    let first = probe(&platform, &[Probe::Permissions], &[GUILD]).await;
    assert!(first.answers(CHANNEL_METHOD));
    let second = probe(&platform, &[Probe::Permissions], &[GUILD]).await;
    assert!(
        !second.answers(CHANNEL_METHOD),
        "what was not asked is not claimed"
    );
    assert!(second.answers(GUILD_METHOD), "the guild was asked");
    assert_eq!(rig.calls("channels/9200"), 1);
    rig.clock.advance(301_000);
    probe(&platform, &[Probe::Permissions], &[GUILD]).await;
    assert_eq!(rig.calls("channels/9200"), 2);
}
