//! Simulated Helix: its responses to each kind of caller, and its deviating behavior when configured.

use serde_json::{Value, json};

use super::answer;
use super::twitch::{BOT, RAT, Rig, helix_error};
use crate::sim::twitch::{EndSpec, Role, StreamSpec};

fn ids(count: usize, parameter: &str) -> String {
    (1..=count)
        .map(|id| format!("{parameter}={id}"))
        .collect::<Vec<_>>()
        .join("&")
}

fn values(body: &Value, field: &str) -> Vec<String> {
    body["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item[field].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn the_gate_refuses_what_it_cannot_attribute() {
    let rig = Rig::start().await;
    let token = rig.token(BOT, &[]);
    let url = format!("{}/users", rig.twitch().urls().helix);
    let unauthorized = |message| helix_error(401, "Unauthorized", message);
    assert_eq!(
        answer(rig.http.get(&url).header("Client-Id", "app")).await,
        unauthorized("OAuth token is missing")
    );
    assert_eq!(
        answer(rig.http.get(&url).bearer_auth(&token)).await,
        unauthorized("Client ID is missing")
    );
    let other = rig.http.get(&url).bearer_auth(&token).header("Client-Id", "pub");
    assert_eq!(
        answer(other).await,
        unauthorized("Client ID and OAuth token do not match")
    );
    assert_eq!(
        rig.get("nonsense", "/users").await,
        unauthorized("Invalid OAuth token")
    );
    rig.twitch().expire_token(&token);
    assert_eq!(
        rig.get(&token, "/users").await,
        unauthorized("Invalid OAuth token")
    );
}

#[tokio::test]
async fn users_are_found_by_id_login_or_token_and_unknown_omitted() {
    let rig = Rig::start().await;
    let (token, app) = (rig.token(BOT, &["user:read:email"]), rig.app_token());
    let (_, own) = rig.get(&token, "/users").await;
    assert_eq!(
        (&own["data"][0]["id"], &own["data"][0]["email"]),
        (&json!(BOT), &json!("bitbrat_bot@mail.invalid"))
    );
    let (status, both) = rig.get(&app, "/users?login=RatCaster&id=900100&id=123").await;
    assert_eq!(
        (status, values(&both, "id")),
        (200, vec![BOT.to_owned(), RAT.to_owned()])
    );
    assert_eq!(both["data"][1].get("email"), None);
    assert_eq!(rig.get(&app, "/users").await.0, 400);
    assert_eq!(rig.get(&app, "/users?login=not%20a%20name").await.0, 400);
    assert_eq!(rig.get(&app, &format!("/users?{}", ids(101, "id"))).await.0, 400);
    rig.twitch().add_channel(RAT, "ratcaster2");
    assert_eq!(rig.get(&app, "/users?login=ratcaster").await.1["data"], json!([]));
    assert_eq!(
        rig.get(&app, "/users?login=ratcaster2").await.1["data"][0]["id"],
        json!(RAT)
    );
    rig.twitch().remove_channel(RAT);
    assert_eq!(rig.get(&app, "/users?id=900200").await.1["data"], json!([]));
}

#[tokio::test]
async fn a_hundred_ids_without_first_show_only_twenty_streams() {
    let rig = Rig::start().await;
    let app = rig.app_token();
    for id in 1..=60 {
        rig.twitch().add_channel(&id.to_string(), &format!("channel{id}"));
        rig.twitch().go_live(&id.to_string());
    }
    let hundred = ids(100, "user_id");
    let (_, trap) = rig.get(&app, &format!("/streams?{hundred}")).await;
    assert_eq!(values(&trap, "id").len(), 20);
    assert!(trap["pagination"]["cursor"].is_string());
    let (_, all) = rig.get(&app, &format!("/streams?first=100&{hundred}")).await;
    assert_eq!((values(&all, "id").len(), &all["pagination"]), (60, &json!({})));
    assert_eq!(
        rig.get(&app, &format!("/streams?{}", ids(101, "user_id")))
            .await
            .0,
        400
    );
    assert_eq!(rig.get(&app, "/streams?first=101").await.0, 400);
    assert_eq!(
        rig.get(&app, "/streams?first=100").await.1["data"]
            .as_array()
            .unwrap()
            .len(),
        60
    );
}

#[tokio::test]
async fn stream_matches_documentation_and_configuration() {
    let rig = Rig::start().await;
    let app = rig.app_token();
    let up = json!({"id": RAT, "stream_id": "40900001", "started_at": "2026-05-01T18:00:07Z", "viewers": 37,
        "title": "building"});
    assert_eq!(
        rig.command("stream_up", &up).await,
        (
            200,
            json!({"stream_id": "40900001", "started_at": "2026-05-01T18:00:07.000Z"})
        )
    );
    let path = "/streams?user_login=ratcaster";
    let (_, shown) = rig.get(&app, path).await;
    assert_eq!(
        shown["data"][0],
        json!({
            "id": "40900001", "user_id": RAT, "user_login": "ratcaster", "user_name": "ratcaster",
            "game_id": "509670", "game_name": "Science & Technology", "type": "live", "title": "building",
            "tags": ["English"], "viewer_count": 37, "started_at": "2026-05-01T18:00:07Z", "language": "en",
            "thumbnail_url": "https://static.invalid/ratcaster-{width}x{height}.jpg", "tag_ids": [],
            "is_mature": false,
        })
    );
    rig.command("viewers", &json!({"id": RAT, "viewers": 40})).await;
    rig.command("stream_type", &json!({"id": RAT, "type": ""})).await;
    rig.command("knobs", &json!({"null_tags": true, "unknown_fields": true}))
        .await;
    let (_, odd) = rig.get(&app, path).await;
    let odd_stream = &odd["data"][0];
    assert_eq!(
        (&odd_stream["viewer_count"], &odd_stream["type"]),
        (&json!(40), &json!(""))
    );
    assert!(odd_stream["tags"].is_null() && odd_stream["sim_novelty"].is_object());
    assert_eq!(rig.command("stream_down", &json!({"id": RAT})).await.0, 200);
    assert_eq!(rig.get(&app, path).await.1["data"], json!([]));
    assert_eq!(rig.command("stream_down", &json!({"id": RAT})).await.0, 404);
}

#[tokio::test]
async fn polls_lag_flap_and_recover() {
    let rig = Rig::start().await;
    let app = rig.app_token();
    let live = async || rig.get(&app, "/streams?user_id=900200&first=100").await.1["data"] != json!([]);
    rig.twitch().go_live_with(
        RAT,
        &StreamSpec {
            lag_ms: Some(120_000),
            ..StreamSpec::default()
        },
    );
    assert!(!live().await);
    rig.sim.clock.advance(120_001);
    assert!(live().await);
    rig.twitch().flap(RAT, 2);
    assert_eq!((live().await, live().await, live().await), (false, true, true));
    rig.twitch().end_stream_with(
        RAT,
        &EndSpec {
            lag_ms: Some(600_000),
            ..EndSpec::default()
        },
    );
    assert!(live().await);
    rig.sim.clock.advance(600_001);
    assert!(!live().await);
}

#[tokio::test]
async fn channels_are_listed_once_each_even_when_offline() {
    let rig = Rig::start().await;
    let app = rig.app_token();
    let (_, shown) = rig
        .get(
            &app,
            "/channels?broadcaster_id=900200&broadcaster_id=900200&broadcaster_id=5",
        )
        .await;
    assert_eq!(values(&shown, "broadcaster_login"), ["ratcaster"]);
    assert_eq!(rig.get(&app, "/channels").await.0, 400);
}

#[tokio::test]
async fn moderated_channels_come_in_pages_for_the_token_s_user_only() {
    let rig = Rig::start().await;
    let token = rig.token(BOT, &["user:read:moderated_channels"]);
    for id in 1..=250 {
        rig.twitch().add_channel(&id.to_string(), &format!("channel{id}"));
        rig.twitch().set_role(&id.to_string(), BOT, Role::Moderator, true);
    }
    let path = format!("/moderation/channels?user_id={BOT}&first=100");
    let (mut seen, mut next) = (Vec::new(), String::new());
    for _ in 0..3 {
        let (status, body) = rig.get(&token, &format!("{path}{next}")).await;
        assert_eq!(status, 200);
        seen.extend(values(&body, "broadcaster_id"));
        next = format!(
            "&after={}",
            body["pagination"]["cursor"].as_str().unwrap_or_default()
        );
    }
    assert_eq!((seen.len(), next.as_str()), (250, "&after="));
    rig.twitch().knobs(|knobs| knobs.missing_cursor = true);
    let (_, cut) = rig.get(&token, &path).await;
    assert_eq!(
        (values(&cut, "broadcaster_id").len(), &cut["pagination"]),
        (100, &json!({}))
    );

    assert_eq!(
        rig.get(&token, &format!("/moderation/channels?user_id={RAT}"))
            .await
            .0,
        401
    );
    let scopeless = rig.token(BOT, &["user:bot"]);
    assert_eq!(
        rig.get(&scopeless, &path).await,
        helix_error(401, "Unauthorized", "Missing scope: user:read:moderated_channels")
    );
    rig.twitch().knobs(|knobs| {
        knobs
            .denied_scopes
            .insert("user:read:moderated_channels".to_owned());
    });
    assert_eq!(rig.get(&token, &path).await.0, 401);
}

#[tokio::test]
async fn lists_of_members_need_the_broadcaster_s_own_token() {
    let rig = Rig::start().await;
    let own = rig.token(
        RAT,
        &["moderation:read", "channel:read:vips", "channel:read:editors"],
    );
    let bot = rig.token(
        BOT,
        &["moderation:read", "channel:read:vips", "channel:read:editors"],
    );
    let app = rig.app_token();
    let paths = ["/moderation/moderators", "/channels/vips", "/channels/editors"];
    for (role, path) in [Role::Moderator, Role::Vip, Role::Editor].into_iter().zip(paths) {
        rig.twitch().set_role(RAT, BOT, role, true);
        let (status, body) = rig.get(&own, &format!("{path}?broadcaster_id={RAT}")).await;
        assert_eq!(
            (status, values(&body, "user_id")),
            (200, vec![BOT.to_owned()]),
            "{path}"
        );
        assert_eq!(
            rig.get(&bot, &format!("{path}?broadcaster_id={RAT}")).await,
            helix_error(
                401,
                "Unauthorized",
                "The ID in broadcaster_id must match the user ID found in the request's OAuth token."
            )
        );
        assert_eq!(
            rig.get(&app, &format!("{path}?broadcaster_id={RAT}")).await.0,
            401
        );
    }
    let (_, moderators) = rig
        .get(&own, &format!("/moderation/moderators?broadcaster_id={RAT}"))
        .await;
    assert_eq!(
        moderators["data"],
        json!([]),
        "becoming VIP ended being moderator"
    );
    let filtered = format!("/channels/vips?broadcaster_id={RAT}&user_id={BOT}&user_id=5");
    assert_eq!(
        values(&rig.get(&own, &filtered).await.1, "user_login"),
        ["bitbrat_bot"]
    );
    assert_eq!(
        rig.get(&own, &format!("/moderation/banned?broadcaster_id={RAT}"))
            .await
            .1["data"],
        json!([])
    );
}

#[tokio::test]
async fn subscription_is_returned_and_its_absence_is_404() {
    let rig = Rig::start().await;
    let token = rig.token(BOT, &["user:read:subscriptions"]);
    let path = format!("/subscriptions/user?broadcaster_id={RAT}&user_id={BOT}");
    assert_eq!(
        rig.get(&token, &path).await,
        helix_error(404, "Not Found", "900100 does not subscribe to 900200")
    );
    rig.twitch().set_role(RAT, BOT, Role::Subscriber, true);
    assert_eq!(
        rig.get(&token, &path).await,
        (
            200,
            json!({"data": [{"broadcaster_id": RAT, "broadcaster_login": "ratcaster",
            "broadcaster_name": "ratcaster", "is_gift": false, "tier": "1000"}]})
        )
    );
    let own = rig.token(RAT, &["channel:read:subscriptions"]);
    let (_, all) = rig
        .get(
            &own,
            &format!("/subscriptions?broadcaster_id={RAT}&user_id={BOT}"),
        )
        .await;
    assert_eq!(
        (values(&all, "user_id"), &all["total"]),
        (vec![BOT.to_owned()], &json!(1))
    );
}

#[tokio::test]
async fn chatters_are_for_moderators() {
    let rig = Rig::start().await;
    let token = rig.token(BOT, &["moderator:read:chatters"]);
    let path = format!("/chat/chatters?broadcaster_id={RAT}&moderator_id={BOT}&first=1");
    assert_eq!(rig.get(&token, &path).await.0, 403);
    rig.command("role", &json!({"id": RAT, "user_id": BOT, "role": "moderator"}))
        .await;
    rig.twitch().set_role(RAT, BOT, Role::Chatter, true);
    rig.twitch().set_role(RAT, RAT, Role::Chatter, true);
    let (status, body) = rig.get(&token, &path).await;
    assert_eq!(
        (status, &body["total"], values(&body, "user_id").len()),
        (200, &json!(2), 1)
    );
    assert!(body["pagination"]["cursor"].is_string());
    rig.command(
        "role",
        &json!({"id": RAT, "user_id": BOT, "role": "moderator", "held": false}),
    )
    .await;
    assert_eq!(rig.get(&token, &path).await.0, 403);
}

#[tokio::test]
async fn user_authorizations_are_listed_for_app_tokens_only() {
    let rig = Rig::start().await;
    let (app, token) = (rig.app_token(), rig.token(RAT, &["channel:bot"]));
    let path = format!("/authorization/users?user_id={RAT}&user_id={BOT}");
    let (status, body) = rig.get(&app, &path).await;
    assert_eq!((status, values(&body, "user_id")), (200, vec![RAT.to_owned()]));
    assert_eq!(body["data"][0]["scopes"], json!(["channel:bot"]));
    assert_eq!(rig.get(&token, &path).await.0, 401);
    assert_eq!(
        rig.get(&app, &format!("/authorization/users?{}", ids(11, "user_id")))
            .await
            .0,
        400
    );
    rig.twitch().disconnect(RAT);
    assert_eq!(rig.get(&app, &path).await.1["data"], json!([]));
}

#[tokio::test]
async fn rate_limit_is_sent_in_headers_and_enforced() {
    let rig = Rig::start().await;
    rig.twitch().knobs(|knobs| knobs.bucket = Some(3));
    let (token, app) = (rig.token(BOT, &[]), rig.app_token());
    let ask = async |token: &str| {
        let url = format!("{}/users?id=1", rig.twitch().urls().helix);
        let answer = rig
            .http
            .get(url)
            .bearer_auth(token)
            .header("Client-Id", "app")
            .send()
            .await
            .unwrap();
        let header = |name| answer.headers()[name].to_str().unwrap().to_owned();
        let left = (header("ratelimit-limit"), header("ratelimit-remaining"));
        header("ratelimit-reset").parse::<i64>().unwrap();
        (answer.status().as_u16(), left)
    };
    for left in ["2", "1", "0"] {
        assert_eq!(ask(&token).await, (200, ("3".into(), left.into())));
    }
    assert_eq!(ask(&token).await.0, 429);
    assert_eq!(ask(&app).await.0, 200);
    rig.sim.clock.advance(20_000);
    assert_eq!(ask(&token).await.0, 200);
}

#[tokio::test]
async fn orders_that_make_no_sense_are_refused_with_a_reason() {
    let rig = Rig::start().await;
    for (order, fields, status) in [
        ("stream_up", json!({"id": "404"}), 404),
        ("stream_up", json!({"viewers": 3}), 400),
        ("stream_up", json!({"id": RAT, "vewers": 3}), 400),
        ("dance", json!({}), 400),
        ("device", json!({"state": "maybe"}), 400),
    ] {
        let (answered, body) = rig.command(order, &fields).await;
        assert_eq!(answered, status, "{order} {fields}");
        assert!(body["error"].is_string());
    }
}
