//! Tests of reports: at several widths, with and without color, for people and for programs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::cli::output::{Format, Report, Style, notes, render};
use crate::cli::reports::history::HistoryReport;
use crate::cli::reports::predicate::AnswerReport;
use crate::cli::reports::source::SourceReport;
use crate::cli::reports::sources::{Choice, Show, SourcesReport};
use crate::core::code::Code;
use crate::core::document::SourceDocument;
use crate::core::freshness::Intervals;
use crate::core::observation::{AuthResult, ErrorInfo, Fact, Grants, LinkState, Transport};
use crate::core::source::SourceKey;
use crate::view::answer::{Answer, AnswerItem};
use crate::view::detail::SourceInFull;
use crate::view::envelope::{UnusableItem, UnusableKind};
use crate::view::found::Found;
use crate::view::tests::{Story, gone, guild, now, old_knowledge, ratcaster, revoked};

const RICH: Style = Style {
    width: Some(120),
    color: false,
    unicode: true,
};

fn world() -> SourcesReport {
    let mut rows: Vec<_> = [ratcaster(), revoked(), gone(), old_knowledge(), guild()]
        .iter()
        .map(Story::row)
        .collect();
    let mut never = Story::of("twitch:900210").row();
    never.stored = false;
    never.configured = Some("bitbrat.toml".into());
    rows.push(never);
    rows.sort_by(|a, b| a.summary.key.cmp(&b.summary.key));
    SourcesReport {
        as_of: now(),
        rows,
        unusable: vec![UnusableItem {
            what: UnusableKind::Document,
            id: "twitch:40900001".into(),
            reason: "it is keyed by a stream's id; the source is `twitch:900200`".into(),
        }],
        problems: Vec::new(),
        show: Show::Status,
        choice: Choice::default(),
    }
}

fn shown(report: &impl Report, format: Format, style: Style) -> String {
    let text = render(report, format, style).unwrap();
    let notes = notes(&report.notes(), style);
    if notes.is_empty() {
        text
    } else {
        text + "--- stderr ---" + &notes
    }
}

#[test]
fn status_at_every_width() {
    for width in [160, 120, 100, 80, 60] {
        let style = Style {
            width: Some(width),
            ..RICH
        };
        insta::assert_snapshot!(
            format!("status_{width}"),
            render(&world(), Format::Table, style).unwrap()
        );
    }
}

#[test]
fn status_never_exceeds_a_narrow_screen() {
    for width in [30, 40, 50, 60, 70] {
        for color in [false, true] {
            let style = Style {
                width: Some(width),
                color,
                ..RICH
            };
            let text = render(&world(), Format::Table, style).unwrap();
            for line in text.lines() {
                let plain = crate::cli::output::wrap::width(&strip(line));
                assert!(plain <= usize::from(width), "{width}: {line:?}");
            }
            assert!(
                text.contains("SOURCE") && text.contains("STATUS"),
                "{width}:\n{text}"
            );
        }
    }
}

/// Returns a line without its colors.
fn strip(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    let rest = parts.map(|part| part.split_once('m').map_or("", |(_, text)| text));
    rest.fold(first, |text, part| text + part)
}

#[test]
fn piped_status_has_no_limit_color_or_symbols() {
    insta::assert_snapshot!(shown(&world(), Format::Table, Style::PLAIN));
}

#[test]
fn status_in_color_with_summary_and_hints() {
    let style = Style { color: true, ..RICH };
    let escaped = shown(&world(), Format::Table, style).replace('\u{1b}', "^");
    insta::assert_snapshot!(escaped);
}

#[test]
fn status_wide_drops_nothing() {
    insta::assert_snapshot!(render(&world(), Format::Wide, RICH).unwrap());
}

#[test]
fn status_for_programs() {
    for (name, format) in [
        ("json", Format::Json),
        ("yaml", Format::Yaml),
        ("csv", Format::Csv),
        ("name", Format::Name),
    ] {
        insta::assert_snapshot!(format!("status_{name}"), render(&world(), format, RICH).unwrap());
    }
    let lines = render(&world(), Format::Ndjson, RICH).unwrap();
    let keys: Vec<_> = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["key"].clone())
        .collect();
    assert_eq!(keys.len(), world().rows.len());
    assert_eq!(keys[0], "twitch:900200");
}

#[test]
fn list_shows_origin_of_each_source() {
    let report = SourcesReport {
        show: Show::List,
        ..world()
    };
    insta::assert_snapshot!(shown(&report, Format::Table, RICH));
}

#[test]
fn nothing_configured_is_answered_with_a_way_to_begin() {
    let report = SourcesReport {
        rows: Vec::new(),
        unusable: Vec::new(),
        ..world()
    };
    insta::assert_snapshot!(shown(&report, Format::Table, RICH));
}

fn described(story: &Story) -> SourceReport {
    let source = SourceInFull {
        listening: None,
        as_of: now(),
        row: story.row(),
        document: story.document(),
        history: story.history(),
    };
    SourceReport {
        as_of: source.as_of,
        sources: vec![source],
        unusable: Vec::new(),
        total: 1,
        notes: Vec::new(),
    }
}

#[test]
fn a_method_that_was_not_asked_is_not_credited() {
    let badges = Fact::Permissions {
        method: "twitch.badges".into(),
        grants: Grants {
            granted: BTreeSet::from(["MODERATOR".to_owned()]),
            ..Grants::default()
        }
        .into(),
    };
    let missing = [("MODERATOR", "missing scope user:read:moderated_channels")];
    let story = Story::of("twitch:900200")
        .may(&[], &[], &missing)
        .fact(300, badges);
    let report = described(&story);
    let shown = shown(&report, Format::Json, RICH);
    let item: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let holdings = item["items"][0]["holdings"].as_array().unwrap();
    let moderator = holdings
        .iter()
        .find(|holding| holding["permission"] == "MODERATOR")
        .unwrap();
    assert_eq!(moderator["held"], "yes", "{moderator}");
    assert_eq!(moderator["methods"], serde_json::json!(["twitch.badges"]));
}

#[test]
fn heading_of_permissions_counts_scopes_without_a_role() {
    let unknown = [("MODERATOR", "only a message in the chat shows this")];
    for (granted, unknown, expected) in [
        (&["scope:chat:write", "scope:user:read"][..], &[][..], "2 scopes"),
        (&["scope:chat:write"], &unknown, "1 scope "),
        (&[], &unknown, "? unknown"),
        (&["MODERATOR", "scope:chat:write"], &[], "MODERATOR"),
        (&[], &[], "none"),
    ] {
        let story = Story::of("kick:1").may(granted, &["scope:moderation:ban"], unknown);
        let shown = shown(&described(&story), Format::Table, RICH);
        let heading = format!("PERMISSIONS  {expected}");
        assert!(
            shown.lines().any(|line| line.starts_with(&heading)),
            "{heading}\n{shown}"
        );
    }
}

#[test]
fn a_description_gives_each_verdict_with_its_evidence_and_rule() {
    for (name, story) in [
        ("live", ratcaster()),
        ("revoked", revoked()),
        ("gone", gone()),
        ("old", old_knowledge()),
    ] {
        insta::assert_snapshot!(
            format!("describe_{name}"),
            shown(&described(&story), Format::Table, RICH)
        );
    }
    insta::assert_snapshot!(
        "describe_unknown",
        shown(
            &described(&Story::of("kick:1")),
            Format::Table,
            Style {
                width: Some(60),
                ..RICH
            }
        )
    );
    insta::assert_snapshot!(
        "describe_json",
        render(&described(&ratcaster()), Format::Json, RICH).unwrap()
    );
}

#[test]
fn history_shows_duration_of_each_state() {
    let story = Story::of("twitch:900200")
        .up(9000)
        .live(9000, "1", 9000, 3)
        .link(
            5000,
            Transport::Api,
            LinkState::Down {
                error: ErrorInfo::new(Code::NetworkTimeout, "no answer"),
            },
        )
        .up(4940)
        .fact(
            1800,
            Fact::StreamPush {
                live: false,
                stream_id: Some("1".into()),
                started_at: None,
            },
        );
    let key: SourceKey = story.key.parse().unwrap();
    let entries = story.history().into_iter();
    let report = HistoryReport {
        as_of: now(),
        entries: entries.map(|entry| (key.clone(), entry)).collect(),
        keys: vec![key],
        unusable: Vec::new(),
        since: None,
    };
    insta::assert_snapshot!(shown(&report, Format::Table, RICH));
    insta::assert_snapshot!(shown(&report, Format::Csv, RICH));
    let empty = HistoryReport {
        entries: Vec::new(),
        ..report
    };
    insta::assert_snapshot!(shown(&empty, Format::Table, RICH));
}

#[test]
fn an_answer_is_one_line_with_its_reason() {
    let mut text = String::new();
    for (answer, because, missing) in [
        (Answer::Yes, "the newest poll listed the stream", vec![]),
        (
            Answer::No,
            "the role of the bot lacks it",
            vec!["MANAGE_MESSAGES".to_owned()],
        ),
        (Answer::Unknown, "nothing was ever proven about a stream", vec![]),
    ] {
        let report = AnswerReport {
            as_of: now(),
            answers: vec![AnswerItem {
                key: "twitch:900200".into(),
                display_name: Some("RatCaster".into()),
                question: "live".into(),
                answer,
                because: because.into(),
                rule: None,
                age_ms: Some(12_000),
                missing,
                not_covered: Vec::new(),
                fix: None,
            }],
            unusable: Vec::new(),
            hints: Vec::new(),
        };
        let _ = write!(text, "{}", shown(&report, Format::Table, RICH));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn a_hint_for_many_is_given_once() {
    let rows: Vec<_> = (0..40)
        .map(|_| {
            Story::of("twitch:1")
                .up(5)
                .auth(5, "twitch/bot", AuthResult::Expired, None)
                .row()
        })
        .collect();
    let report = SourcesReport {
        rows,
        unusable: Vec::new(),
        ..world()
    };
    insta::assert_snapshot!(notes(&report.notes(), RICH));
}

#[test]
fn stored_fields_of_others_show_up_in_json() {
    let stored =
        serde_json::json!({"displayName": "RatCaster", "metadata": {"joinedChannels": ["#ratcaster"]}});
    let document = SourceDocument::from_stored("twitch:1".parse().unwrap(), stored).unwrap();
    let row = Found::new(document, &Intervals::default(), now()).row;
    let report = SourcesReport {
        rows: vec![row],
        unusable: Vec::new(),
        ..world()
    };
    let json: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(&render(&report, Format::Json, RICH).unwrap()).unwrap();
    assert_eq!(json["items"][0]["metadata"]["joinedChannels"][0], "#ratcaster");
    assert_eq!(json["items"][0]["health"], "unknown");
}
