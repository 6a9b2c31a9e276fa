use serde_json::json;

use super::*;

fn redactor() -> Redactor {
    Redactor::new(HashSet::from(["777001".to_owned(), "900100".to_owned()]))
}

fn kept(value: &Value) -> Value {
    match redactor().body(value.to_string().as_bytes(), false) {
        Some(Body::Json(value)) => value,
        other => panic!("{other:?}"),
    }
}

#[test]
fn viewers_and_chat_are_removed_and_channels_stay() {
    for (platform, event) in [
        (
            "twitch",
            json!({"payload": {"event": {
                "broadcaster_user_id": "777001", "broadcaster_user_name": "PixelMeadow",
                "chatter_user_id": "55501", "chatter_user_login": "viewer_login", "chatter_user_name": "Viewer Name",
                "message": {"text": "viewer text", "fragments": [
                    {"type": "mention", "text": "viewer text", "mention": {"user_id": "55502", "user_login": "viewer_login"}}]},
                "reply": {"parent_user_login": "viewer_login", "parent_message_body": "viewer text"},
            }}}),
        ),
        (
            "kick",
            json!({
                "broadcaster": {"user_id": 777_001, "username": "PixelMeadow", "channel_slug": "pixelmeadow"},
                "sender": {"user_id": 55501, "username": "Viewer Name", "channel_slug": "viewer_login",
                    "identity": {"badges": [{"text": "viewer text", "type": "subscriber"}]}},
                "content": "viewer text", "replies_to": {"sender": {"username": "Viewer Name"}, "content": "viewer text"},
            }),
        ),
        (
            "discord",
            json!({"t": "MESSAGE_CREATE", "d": {
                "guild_id": "777001", "name": "PixelMeadow", "content": "viewer text",
                "author": {"id": "55501", "username": "viewer_login", "global_name": "Viewer Name"},
                "member": {"nick": "Viewer Name", "user": {"id": "55501", "username": "viewer_login"}},
                "mentions": [{"id": "55502", "username": "viewer_login"}],
                "presences": [{"user": {"id": "55502"}, "activities": [{"name": "viewer text"}]}],
                "embeds": [{"title": "viewer text"}], "owner_id": "55501",
            }}),
        ),
    ] {
        let text = kept(&event).to_string();
        for hidden in ["55501", "55502", "viewer text", "viewer_login", "Viewer Name"] {
            assert!(!text.contains(hidden), "{platform}: {hidden} in {text}");
        }
        assert!(text.contains("777001") && text.contains("PixelMeadow"), "{text}");
    }
}

#[test]
fn same_viewer_has_the_same_number_in_a_recording_only() {
    let event = json!([{"user_id": "55501"}, {"chatter_user_id": 55501}, {"user_id": "55502"}]);
    let first = kept(&event);
    let number = first[0]["user_id"].as_str().unwrap();
    assert_eq!(first[1]["chatter_user_id"].to_string(), number);
    assert_ne!(first[2]["user_id"], number);
    assert_ne!(kept(&event)[0]["user_id"], number, "another recording");
}

#[test]
fn bots_and_channels_keep_their_ids_and_names() {
    let rows = json!({"data": [{"user_id": "777001", "user_login": "pixelmeadow", "title": "Evening", "id": "4001"}],
        "member": {"user": {"id": "900100", "username": "bitbrat_bot"}}});
    assert_eq!(kept(&rows), rows);
    let mut redactor = redactor();
    redactor.learn_owner(
        "/api/v10/users/@me",
        "",
        br#"{"id":"900200","username":"other_bot"}"#,
    );
    let me = json!({"id": "900200", "username": "other_bot"});
    assert_eq!(
        redactor.body(me.to_string().as_bytes(), false),
        Some(Body::Json(me))
    );
}

#[test]
fn errors_of_a_platform_stay_readable() {
    let error = json!({"error": "Forbidden", "status": 403, "message": "Missing Access", "code": 50001});
    assert_eq!(kept(&error), error);
}

#[test]
fn sessions_and_addresses_that_continue_them_are_replaced() {
    let welcome = json!({"payload": {"session": {"id": "AgoQsecret", "status": "connected",
        "reconnect_url": "wss://eventsub.wss.twitch.tv/ws?challenge=secret"}}});
    let ready = json!({"d": {"session_id": "AgoQsecret", "resume_gateway_url": "wss://us-east.discord.gg/?x=secret",
        "token": "MTE3.secret.abc"}});
    let mut redactor = redactor();
    let mut kept = |value: &Value| redactor.body(value.to_string().as_bytes(), false).unwrap();
    let (Body::Json(welcome), Body::Json(ready)) = (kept(&welcome), kept(&ready)) else {
        panic!("both are objects");
    };
    assert!(!welcome.to_string().contains("secret") && !ready.to_string().contains("secret"));
    assert_eq!(welcome["payload"]["session"]["id"], ready["d"]["session_id"]);
    assert_eq!(welcome["payload"]["session"]["status"], "connected");
    assert_eq!(
        welcome["payload"]["session"]["reconnect_url"],
        "wss://platform/ws"
    );
    assert_eq!(ready["d"]["resume_gateway_url"], "wss://platform/");
}

#[test]
fn of_oauth_only_the_shape_is_kept() {
    let mut redactor = redactor();
    let sent = b"client_id=abc&client_secret=hush&grant_type=refresh_token&refresh_token=r1";
    assert_eq!(
        redactor.form(sent),
        Body::Json(
            json!({"client_id": "***", "client_secret": "***", "grant_type": "refresh_token",
            "refresh_token": "***"})
        )
    );
    let answer = json!({"access_token": "a1", "refresh_token": "r2", "expires_in": 14_400, "scope": ["user:bot"],
        "token_type": "bearer", "login": "bitbrat_bot", "device_code": "d", "client_id": "abc"});
    let name = redactor.token("Bearer a1");
    assert_eq!(
        redactor.body(answer.to_string().as_bytes(), true),
        Some(Body::Json(
            json!({"access_token": name, "refresh_token": "***", "expires_in": 14_400,
            "scope": ["user:bot"], "token_type": "bearer", "login": "bitbrat_bot", "device_code": "***",
            "client_id": "***"})
        ))
    );
    assert_eq!(redactor.body(b"a1 as text", true), Some(Body::Unreadable(10)));
}

#[test]
fn json_that_ends_early_is_not_kept() {
    let mut redactor = redactor();
    let cut = br#"{"content":"viewer text"#;
    assert_eq!(
        redactor.body(cut, false),
        Some(Body::Unreadable(cut.len() as u64))
    );
    assert_eq!(redactor.body(b" \n", false), None);
    let page = redactor.body(b"<html>Bad Gateway</html>", false);
    assert_eq!(page, Some(Body::Text("<html>Bad Gateway</html>".to_owned())));
}

#[test]
fn parameters_are_sorted_and_secrets_among_them_masked() {
    assert_eq!(
        query(Some("user_id=2&first=100&user_id=1&token=hush")),
        "first=100&token=***&user_id=1&user_id=2"
    );
    assert_eq!(query(None), "");
}
