use super::*;
use crate::alerts::incident::Incident;
use crate::alerts::trigger::TriggerKind;

fn receiver(kind: ReceiverKind, url: &str) -> Receiver {
    Receiver {
        kind,
        url: url.parse().unwrap(),
        signing_key: None,
        token: None,
        allow_private: false,
    }
}

fn now() -> Timestamp {
    Timestamp::from_millis(1_780_000_000_000)
}

/// A message whose texts are too long for every receiver, and full of what they could interpret.
fn hostile(sources: usize) -> Message {
    let mut incident = Incident::new("ops", &(TriggerKind::AuthRevoked, "twitch/bot".to_owned()));
    incident.detail = "<!channel> @everyone [x](https://evil.example) & 👩‍👩‍👧\u{202e}".repeat(400);
    let name = |number: usize| {
        let key = format!("twitch:{number}").parse().unwrap();
        (key, "<script>👩‍👩‍👧".repeat(20))
    };
    incident.sources = (1..=sources).map(name).collect();
    incident.affected = sources;
    incident.opened_at = Some(now());
    let mut message = Message::of(&incident, MessageKind::Open, None, now());
    message.title = format!("{} {}", message.title, "👩‍👩‍👧".repeat(200));
    message
}

fn body(request: &ReceiverRequest) -> Value {
    serde_json::from_str(&request.body).unwrap()
}

fn characters(value: &Value) -> usize {
    value.as_str().unwrap().chars().count()
}

#[test]
fn discord_gets_an_embed_within_its_limits_and_no_mentions() {
    let discord = receiver(ReceiverKind::Discord, "https://discord.com/api/webhooks/1/token");
    let message = hostile(300);
    let sent = request(&discord, &message, None, false, now());
    assert_eq!(sent.method, "POST");
    assert_eq!(
        sent.url.as_str(),
        "https://discord.com/api/webhooks/1/token?wait=true"
    );
    let json = body(&sent);
    let embed = &json["embeds"][0];
    assert_eq!(json["allowed_mentions"]["parse"], serde_json::json!([]));
    assert!(characters(&embed["title"]) <= 256 && characters(&embed["description"]) <= 4096);
    let all = ["title", "description"].map(|field| characters(&embed[field]));
    assert!(all.iter().sum::<usize>() + characters(&embed["footer"]["text"]) <= 6000);
    assert!(!sent.body.contains('\u{202e}'));
    let edit = request(&discord, &message, Some("42"), true, now());
    assert_eq!(edit.method, "PATCH");
    assert_eq!(edit.url.path(), "/api/webhooks/1/token/messages/42");
    assert!(characters(&body(&edit)["content"]) <= 2000);
}

#[test]
fn slack_text_is_escaped_and_never_cut_inside_an_entity() {
    let slack = receiver(ReceiverKind::Slack, "https://hooks.slack.com/services/T/B/x");
    let json = body(&request(&slack, &hostile(300), None, false, now()));
    let section = json["blocks"][1]["text"]["text"].as_str().unwrap();
    assert!(characters(&json["blocks"][0]["text"]["text"]) <= 150);
    assert!(section.chars().count() <= 3000 && !section.contains('<'));
    for (place, _) in section.match_indices('&') {
        let rest = &section[place..];
        assert!(
            ["&amp;", "&lt;", "&gt;"]
                .iter()
                .any(|entity| rest.starts_with(entity)),
            "{rest}"
        );
    }
}

#[test]
fn ntfy_counts_bytes_and_posts_to_the_root() {
    let ntfy = receiver(ReceiverKind::Ntfy, "https://ntfy.example/base/my-topic");
    let sent = request(&ntfy, &hostile(300), None, false, now());
    assert_eq!(sent.url.as_str(), "https://ntfy.example/base");
    let json = body(&sent);
    assert_eq!(json["topic"], "my-topic");
    assert!(json["message"].as_str().unwrap().len() <= 4096);
}

#[test]
fn webhooks_are_signed_over_the_exact_body() {
    let mut own = receiver(ReceiverKind::Webhook, "https://example.com/alerts");
    own.signing_key = Some(b"012345678901234567890123".to_vec());
    let message = hostile(300);
    let sent = request(&own, &message, None, false, now());
    assert!(sent.body.len() <= 20 * 1024, "{}", sent.body.len());
    let header = |name: &str| {
        sent.headers
            .iter()
            .find(|(own, _)| *own == name)
            .unwrap()
            .1
            .clone()
    };
    assert_eq!(header("webhook-id"), message.id);
    let signature = sign(
        b"012345678901234567890123",
        &message.id,
        1_780_000_000,
        &sent.body,
    );
    assert_eq!(
        (header("webhook-timestamp"), header("webhook-signature")),
        ("1780000000".to_owned(), signature)
    );
    let json = body(&sent);
    assert_eq!(json["type"], "alert.open");
    assert_eq!(json["data"]["incident"]["affected"], 300);
}

#[test]
fn responses_decide_whether_and_when_a_message_is_sent_again() {
    let of = |kind, status, body: &str| reply(kind, status, None, body.as_bytes(), false);
    let (discord, slack, hook) = (ReceiverKind::Discord, ReceiverKind::Slack, ReceiverKind::Webhook);
    let accepted = Reply::Accepted {
        remote_ref: Some("42".to_owned()),
    };
    assert_eq!(of(discord, 200, r#"{"id":"42"}"#), accepted);
    // An id that would lead elsewhere is none.
    assert_eq!(
        of(discord, 200, r#"{"id":"../1"}"#),
        Reply::Accepted { remote_ref: None }
    );
    let Reply::Later { wait, .. } = of(discord, 429, r#"{"retry_after":64.57}"#) else {
        panic!("a 429 is sent again");
    };
    assert_eq!(wait, Some(Duration::from_millis(64_570)));
    assert!(matches!(of(hook, 503, ""), Reply::Later { .. }));
    for (kind, status) in [(hook, 404), (slack, 410), (slack, 403), (discord, 401)] {
        assert!(matches!(of(kind, status, ""), Reply::Stopped { .. }), "{status}");
    }
    for (kind, status) in [(hook, 400), (hook, 401), (hook, 302), (slack, 413)] {
        assert!(matches!(of(kind, status, ""), Reply::Rejected { .. }), "{status}");
    }
    assert_eq!(reply(discord, 404, None, b"", true), Reply::Gone);
}

#[test]
fn addresses_of_private_networks_are_recognized() {
    for (url, private) in [
        ("https://discord.com/x", false),
        ("https://127.0.0.1/x", true),
        ("https://2130706433/x", true),
        ("https://[::1]/x", true),
        ("https://[::ffff:10.0.0.1]/x", true),
        ("https://169.254.169.254/latest", true),
        ("https://100.100.0.1/", true),
        ("https://localhost:8080/", true),
        ("https://printer.local/", true),
        ("https://1.1.1.1/", false),
        ("https://[2606:4700::1111]/", false),
    ] {
        assert_eq!(is_private(&url.parse().unwrap()), private, "{url}");
    }
}
