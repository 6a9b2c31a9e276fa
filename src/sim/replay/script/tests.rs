use serde_json::json;

use super::*;

fn header_line() -> String {
    json!({"format": FORMAT, "version": 1, "program": "1.0.0", "startedAt": "2026-06-01T11:00:00.000Z", "platforms": [
        {"platform": "twitch", "sources": ["twitch:1"], "accounts": ["twitch/bot"], "application": true}]})
    .to_string()
}

fn request(at: u64, token: &str, path: &str, status: u16, body: &Value) -> String {
    json!({"at": at, "platform": "twitch", "request": {"method": "GET", "path": path, "token": token, "took": 1,
        "answer": {"status": status, "body": {"json": body}}}})
    .to_string()
}

fn parse(lines: &[String]) -> Result<Script, Unusable> {
    Script::parse(lines.join("\n").as_bytes())
}

fn status(script: &PlatformScript, path: &str, account: &Account) -> Option<u16> {
    let found = script.find(("GET", path, String::new()), Some(account), None)?;
    match &found.outcome {
        Outcome::Answer(answer) => Some(answer.status),
        Outcome::Failed(_) => None,
    }
}

#[test]
fn answers_follow_in_their_order_and_the_last_repeats() {
    let lines = [200, 500, 401].map(|status| request(5, "token-1", "/helix/streams", status, &json!({})));
    let script = parse(&[vec![header_line()], lines.to_vec()].concat()).unwrap();
    let twitch = &script.platforms[&PlatformName::Twitch];
    let app = Account::App;
    let seen = [(); 4].map(|()| status(twitch, "/helix/streams", &app));
    assert_eq!(seen, [Some(200), Some(500), Some(401), Some(401)]);
    assert_eq!(status(twitch, "/helix/users", &app), None);
}

#[test]
fn each_account_gets_its_own_answers() {
    let bot = json!({"user_id": "9", "scopes": ["user:bot"]});
    let script = parse(&[
        header_line(),
        request(1, "token-1", "/oauth2/validate", 200, &json!({"expires_in": 5})),
        request(2, "token-2", "/oauth2/validate", 200, &bot),
        request(3, "token-2", "/oauth2/validate", 401, &json!({})),
    ])
    .unwrap();
    let twitch = &script.platforms[&PlatformName::Twitch];
    let user = Account::User("9".to_owned());
    let path = "/oauth2/validate";
    assert_eq!(status(twitch, path, &user), Some(200));
    assert_eq!(status(twitch, path, &user), Some(401));
    assert_eq!(status(twitch, path, &Account::App), Some(200));
    assert_eq!(twitch.bot().unwrap().scopes, ["user:bot"]);
    assert_eq!(script.first, 1);
}

#[test]
fn file_that_is_no_recording_is_refused_with_its_line() {
    let other = header_line().replace("\"version\":1", "\"version\":7");
    let whole = request(1, "token-1", "/helix/users", 200, &json!({}));
    for (text, error) in [
        (String::new(), "the file is empty"),
        ("\n\n".to_owned(), "the file is empty"),
        ("hello".to_owned(), "line 1 is not"),
        ("{\"format\":\"other\"}".to_owned(), "line 1 is not"),
        (header_line()[..40].to_owned(), "line 1 ends early"),
        (other, "version 7"),
        (
            format!("{}\n{}", header_line(), &whole[..60]),
            "line 2 ends early",
        ),
        (
            format!("{}\n{whole}\n{{\"at\":1}}", header_line()),
            "line 3 is not",
        ),
        (format!("{}\n\u{0}", header_line()), "line 2 is not"),
    ] {
        let found = Script::parse(text.as_bytes())
            .err()
            .map(|error| error.to_string());
        assert!(
            found.as_ref().is_some_and(|found| found.contains(error)),
            "{error}: {found:?}"
        );
    }
    assert!(parse(&[header_line()]).is_ok());
}
