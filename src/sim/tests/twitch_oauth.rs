//! Simulated `id.twitch.tv`: the life cycle of every kind of token.

use serde_json::{Value, json};

use super::answer;
use super::twitch::{BOT, RAT, Rig, oauth_error};

fn refresh_form<'a>(client: &'a str, token: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut form = vec![
        ("grant_type", "refresh_token"),
        ("client_id", client),
        ("refresh_token", token),
    ];
    if client == "app" {
        form.push(("client_secret", "hush"));
    }
    form
}

#[tokio::test]
async fn validate_distinguishes_user_app_and_invalid_tokens() {
    let rig = Rig::start().await;
    let (user, app) = (rig.token(BOT, &["user:bot"]), rig.app_token());
    for scheme in ["OAuth", "Bearer"] {
        let (status, body) = rig.validate(&format!("{scheme} {user}")).await;
        assert_eq!(
            (status, &body["login"], &body["user_id"]),
            (200, &json!("bitbrat_bot"), &json!(BOT))
        );
        assert_eq!(
            (&body["client_id"], &body["scopes"]),
            (&json!("app"), &json!(["user:bot"]))
        );
        assert!((14_390..=14_400).contains(&body["expires_in"].as_i64().unwrap()));
    }
    let (status, body) = rig.validate(&format!("OAuth {app}")).await;
    assert_eq!(
        (status, body.get("user_id"), body.get("login")),
        (200, None, None)
    );
    assert_eq!(
        rig.validate("OAuth nonsense").await,
        oauth_error(401, "invalid access token")
    );
    assert_eq!(
        rig.validate("Basic nonsense").await,
        oauth_error(401, "missing authorization token")
    );
    rig.sim.clock.advance(14_400_000);
    assert_eq!(
        rig.validate(&format!("OAuth {user}")).await,
        oauth_error(401, "invalid access token")
    );
}

#[tokio::test]
async fn a_spent_public_refresh_token_ends_the_whole_connection() {
    let rig = Rig::start().await;
    let first = rig.pair("pub", BOT, &["user:bot"]);
    let spent = first.refresh.unwrap();
    let (status, second) = rig.oauth("/token", &refresh_form("pub", &spent)).await;
    assert_eq!(
        (status, &second["scope"], &second["token_type"]),
        (200, &json!(["user:bot"]), &json!("bearer"))
    );
    assert_eq!(rig.validate(&format!("OAuth {}", first.access)).await.0, 401);
    let access = format!("OAuth {}", second["access_token"].as_str().unwrap());
    assert_eq!(rig.validate(&access).await.0, 200);
    let refused = oauth_error(400, "Invalid refresh token");
    assert_eq!(rig.oauth("/token", &refresh_form("pub", &spent)).await, refused);
    assert_eq!(rig.validate(&access).await.0, 401);
    let current = second["refresh_token"].as_str().unwrap();
    assert_eq!(rig.oauth("/token", &refresh_form("pub", current)).await, refused);
}

#[tokio::test]
async fn a_confidential_refresh_token_stays_and_needs_the_secret() {
    let rig = Rig::start().await;
    let text = rig.pair("app", BOT, &[]).refresh.unwrap();
    for _ in 0..2 {
        let (status, body) = rig.oauth("/token", &refresh_form("app", &text)).await;
        assert_eq!(
            (status, body["refresh_token"].as_str()),
            (200, Some(text.as_str()))
        );
        assert_eq!(body.get("scope"), None);
    }
    let mut form = refresh_form("app", &text);
    form.pop();
    assert_eq!(
        rig.oauth("/token", &form).await,
        oauth_error(400, "missing client secret")
    );
    form.push(("client_secret", "wrong"));
    assert_eq!(
        rig.oauth("/token", &form).await,
        oauth_error(403, "invalid client secret")
    );
    assert_eq!(
        rig.oauth("/token", &refresh_form("else", &text)).await,
        oauth_error(400, "invalid client")
    );
    assert_eq!(
        rig.oauth("/token", &refresh_form("app", "n%+/o")).await,
        oauth_error(400, "Invalid refresh token")
    );
}

#[tokio::test]
async fn client_credentials_are_for_confidential_clients() {
    let rig = Rig::start().await;
    let ask = |client, secret| {
        [
            ("grant_type", "client_credentials"),
            ("client_id", client),
            ("client_secret", secret),
        ]
    };
    let (status, body) = rig.oauth("/token", &ask("app", "hush")).await;
    assert_eq!((status, body.get("refresh_token")), (200, None));
    assert!(body["expires_in"].as_i64().unwrap() > 4_000_000);
    assert_eq!(
        rig.oauth("/token", &ask("app", "no")).await,
        oauth_error(403, "invalid client secret")
    );
    assert_eq!(rig.oauth("/token", &ask("pub", "any")).await.0, 403);
    assert_eq!(
        rig.oauth("/token", &[("client_id", "app")]).await,
        oauth_error(400, "missing grant type")
    );
}

fn device_form(code: &str) -> [(&str, &str); 4] {
    [
        ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
        ("client_id", "pub"),
        ("scopes", "user:bot chat:read"),
        ("device_code", code),
    ]
}

#[tokio::test]
async fn the_device_flow_waits_for_its_user() {
    let rig = Rig::start().await;
    let (status, started) = rig
        .oauth(
            "/device",
            &[("client_id", "pub"), ("scopes", "user:bot chat:read")],
        )
        .await;
    assert_eq!(
        (status, &started["interval"], &started["expires_in"]),
        (200, &json!(5), &json!(1800))
    );
    let page = started["verification_uri"].as_str().unwrap();
    assert!(page.contains(started["user_code"].as_str().unwrap()));
    let code = started["device_code"].as_str().unwrap();
    assert_eq!(
        rig.oauth("/token", &device_form(code)).await,
        oauth_error(400, "authorization_pending")
    );
    let grant = json!({"code": started["user_code"], "state": "granted", "user_id": BOT});
    assert_eq!(rig.command("device", &grant).await, (204, Value::Null));
    let (status, body) = rig.oauth("/token", &device_form(code)).await;
    assert_eq!((status, &body["scope"]), (200, &json!(["user:bot", "chat:read"])));
    assert_eq!(
        rig.oauth("/token", &device_form(code)).await,
        oauth_error(400, "invalid device code")
    );

    for (state, message) in [
        ("denied", "invalid device code"),
        ("expired", "invalid device code"),
    ] {
        let started = rig
            .oauth("/device", &[("client_id", "pub"), ("scopes", "user:bot")])
            .await
            .1;
        rig.command("device", &json!({"state": state})).await;
        let code = started["device_code"].as_str().unwrap();
        assert_eq!(
            rig.oauth("/token", &device_form(code)).await,
            oauth_error(400, message),
            "{state}"
        );
    }
}

#[tokio::test]
async fn a_browser_gets_a_code_that_works_once() {
    let rig = Rig::start().await;
    rig.twitch().knobs(|knobs| knobs.consent = Some(RAT.to_owned()));
    let url = format!(
        "{}/authorize?response_type=code&client_id=app&scope=channel%3Abot&state=s1&redirect_uri={}",
        rig.twitch().urls().auth,
        "http%3A%2F%2F127.0.0.1%3A1%2Fback"
    );
    let redirect = rig.http.get(&url).send().await.unwrap();
    assert_eq!(redirect.status().as_u16(), 303);
    let target: url::Url = redirect.headers()["location"].to_str().unwrap().parse().unwrap();
    let given = |name: &str| {
        target
            .query_pairs()
            .find(|(key, _)| key == name)
            .unwrap()
            .1
            .into_owned()
    };
    assert_eq!(
        (given("state"), given("scope")),
        ("s1".into(), "channel:bot".into())
    );
    let code = given("code");
    let form = [
        ("grant_type", "authorization_code"),
        ("client_id", "app"),
        ("client_secret", "hush"),
        ("code", &code),
        ("redirect_uri", "http://127.0.0.1:1/back"),
    ];
    let (status, body) = rig.oauth("/token", &form).await;
    assert_eq!((status, &body["scope"]), (200, &json!(["channel:bot"])));
    assert_eq!(
        rig.oauth("/token", &form).await,
        oauth_error(400, "Invalid authorization code")
    );
}

#[tokio::test]
async fn revoking_ends_an_access_token_once() {
    let rig = Rig::start().await;
    let pair = rig.pair("app", BOT, &[]);
    let form = [("client_id", "app"), ("token", pair.access.as_str())];
    assert_eq!(rig.oauth("/revoke", &form).await, (200, Value::Null));
    assert_eq!(
        rig.oauth("/revoke", &form).await,
        oauth_error(400, "Invalid token")
    );
    assert_eq!(
        rig.oauth("/revoke", &form[1..]).await,
        oauth_error(400, "missing client id")
    );
    let unknown = [("client_id", "else"), ("token", "x")];
    assert_eq!(
        rig.oauth("/revoke", &unknown).await,
        oauth_error(404, "client does not exist")
    );
    assert_eq!(
        rig.oauth("/token", &refresh_form("app", &pair.refresh.unwrap()))
            .await
            .0,
        200
    );
}

#[tokio::test]
async fn a_user_who_disconnects_ends_every_token() {
    let rig = Rig::start().await;
    let pair = rig.pair("app", BOT, &[]);
    assert_eq!(rig.command("disconnect", &json!({"user_id": BOT})).await.0, 204);
    assert_eq!(rig.validate(&format!("OAuth {}", pair.access)).await.0, 401);
    assert_eq!(
        rig.oauth("/token", &refresh_form("app", &pair.refresh.unwrap()))
            .await,
        oauth_error(400, "Invalid refresh token")
    );
}

#[tokio::test]
async fn mock_mode_addresses_answer_like_the_real_ones() {
    let rig = Rig::start().await;
    let base = rig.twitch().http();
    let query =
        format!("client_id=app&client_secret=hush&grant_type=user_token&user_id={BOT}&scope=user:bot");
    let (status, token) = answer(rig.http.post(format!("{base}/auth/authorize?{query}"))).await;
    assert_eq!((status, &token["scope"]), (200, &json!(["user:bot"])));
    let access = token["access_token"].as_str().unwrap();
    let get = |path: &str| {
        let request = rig.http.get(format!("{base}{path}"));
        answer(request.bearer_auth(access).header("Client-Id", "app"))
    };
    assert_eq!(get("/auth/validate").await.1["user_id"], json!(BOT));
    assert_eq!(get("/mock/users").await.1["data"][0]["id"], json!(BOT));
    let (status, listed) = get("/eventsub/subscriptions").await;
    assert_eq!((status, &listed["total"]), (200, &json!(0)));
    let wrong = query.replace("hush", "hash");
    assert_eq!(
        answer(rig.http.post(format!("{base}/auth/authorize?{wrong}")))
            .await
            .0,
        403
    );
}
