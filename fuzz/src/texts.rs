//! Short texts that people write, texts of messages, and the masking of secrets.

use std::sync::Once;

use bitbrat::alerts::message::template_problem;
use bitbrat::alerts::mute::pattern_problem;
use bitbrat::alerts::receivers;
use bitbrat::alerts::rule::ReceiverKind;
use bitbrat::alerts::text::{Unit, clean, escape_discord, escape_slack, fit};
use bitbrat::alerts::trigger::Trigger;
use bitbrat::config::{SourceArg, SourceSelector, parse_duration, show_duration};
use bitbrat::core::code::ErrorCode;
use bitbrat::core::json::{repair, repair_text};
use bitbrat::core::schedule::Schedule;
use bitbrat::core::source::{PlatformName, SourceKey};
use bitbrat::core::time::Timestamp;
use bitbrat::view::order::SortKey;
use bitbrat::view::since::Since;

use crate::now;

/// Arguments and values of settings. What is shown of a value means the same.
pub fn words(data: &[u8]) {
    let repaired = repair(data);
    assert_eq!(
        repair_text(&repaired),
        repaired,
        "a repaired text needs no repair"
    );
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(at) = text.parse::<Timestamp>() {
        assert_eq!(at.to_string().parse::<Timestamp>().ok(), Some(at));
    }
    if let Ok(key) = text.parse::<SourceKey>() {
        assert_eq!(key.to_string().parse::<SourceKey>().ok(), Some(key));
    }
    if let Ok(arg) = text.parse::<SourceArg>() {
        let _ = arg.to_string();
    }
    for platform in PlatformName::ALL {
        let _ = SourceArg::of(platform, text);
    }
    if let Ok(selector) = text.parse::<SourceSelector>() {
        let key = "twitch:111".parse().expect("the key is valid");
        let _ = selector.selects_named(&key, &["pixelmeadow".to_owned()]);
    }
    if let Ok(duration) = parse_duration(text) {
        let _ = now().plus(duration);
        assert_eq!(parse_duration(&show_duration(duration)).ok(), Some(duration));
    }
    if let Ok(schedule) = Schedule::parse(text) {
        let _ = (schedule.runs_after(now()), schedule.widest_gap(now(), 3));
        assert_eq!(Schedule::parse(&schedule.to_string()).ok(), Some(schedule));
    }
    if let Ok(since) = text.parse::<Since>() {
        let _ = since.before(now());
    }
    let code = ErrorCode::read(text);
    assert_eq!(ErrorCode::read(&code.text()), code);
    let _ = (text.parse::<SortKey>().is_ok(), text.parse::<Trigger>().is_ok());
    let _ = (template_problem(text), pattern_problem(text));
}

/// Texts of messages to people, and the answers of receivers.
pub fn alerts(data: &[u8]) {
    let answer = crate::web::answer(data);
    for kind in ReceiverKind::ALL {
        let wait = answer.requested_wait();
        let _ = receivers::reply(
            kind,
            answer.status,
            wait,
            &answer.body,
            answer.body.len() % 2 == 0,
        );
    }
    let text = String::from_utf8_lossy(data);
    let cleaned = clean(&text);
    assert!(
        !cleaned.chars().any(char::is_control),
        "one line without control characters"
    );
    for limit in [0, 1, 3, 4, 10, 100] {
        assert!(fit(&cleaned, limit.max(1), Unit::Characters).chars().count() <= limit.max(1));
        assert!(fit(&cleaned, limit.max(3), Unit::Bytes).len() <= limit.max(3));
    }
    let _ = (escape_discord(&text), escape_slack(&text));
    if let Ok(url) = text.parse() {
        let _ = receivers::is_private(&url);
    }
}

/// What the secrets of the target are.
const SECRETS: [&str; 3] = ["hush-0451-Vx9qT2", "p%c3%a4ss/wor+d==7", "correct horse battery"];

/// A foreign text around a secret: what is masked or quoted of it does not contain the secret.
pub fn secrets(data: &[u8]) {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        SECRETS
            .iter()
            .for_each(|secret| bitbrat::secrets::register(secret))
    });
    let text = String::from_utf8_lossy(data);
    let masks = |text: &str| {
        [
            bitbrat::secrets::mask(text).into_owned(),
            bitbrat::secrets::mask_foreign(text).into_owned(),
            bitbrat::secrets::quote(text),
        ]
    };
    for masked in masks(&text) {
        assert!(SECRETS.iter().all(|secret| !masked.contains(secret)), "{masked}");
    }
    let half = (0..=text.len() / 2)
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or_default();
    for secret in SECRETS {
        let around = format!("{}{secret}{}", &text[..half], &text[half..]);
        for masked in masks(&around) {
            assert!(!masked.contains(secret), "{masked}");
        }
    }
    let _ = bitbrat::secrets::without_credentials(&text);
    let _ = bitbrat::secrets::without_credentials_of_servers(&text);
    let _ = (
        bitbrat::secrets::is_suspicious(&text),
        bitbrat::secrets::is_credential(&text),
    );
}
