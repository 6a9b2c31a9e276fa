//! Twitch's JSON, read tolerantly: unknown fields and values pass, `null` stands for nothing.
//!
//! Strict only where a wrong guess would become a false statement: an answer without its `data` list, or a row without
//! the id that it is about, is not an answer.

use serde::{Deserialize, Deserializer};

use crate::core::time::Timestamp;
use crate::platforms::lenient;

/// A Helix list.
#[derive(Debug, Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
pub(super) struct List<T> {
    pub(super) data: Vec<T>,
    #[serde(default, deserialize_with = "nothing_for_null")]
    pagination: Pagination,
}

#[derive(Debug, Default, Deserialize)]
struct Pagination {
    cursor: Option<String>,
}

impl<T> List<T> {
    /// Returns where the next page starts; `None` on the last one, which Twitch writes in three ways.
    pub(super) fn cursor(&self) -> Option<&str> {
        self.pagination
            .cursor
            .as_deref()
            .filter(|cursor| !cursor.is_empty())
    }
}

/// A row of `GET /users`.
#[derive(Debug, Deserialize)]
pub(super) struct User {
    pub(super) id: String,
    #[serde(default, deserialize_with = "nothing_for_null")]
    pub(super) login: String,
    #[serde(default, deserialize_with = "nothing_for_null")]
    pub(super) display_name: String,
}

/// A row of `GET /streams`.
#[derive(Debug, Deserialize)]
pub(super) struct Stream {
    pub(super) id: String,
    pub(super) user_id: String,
    #[serde(default, deserialize_with = "nothing_for_null")]
    pub(super) user_login: String,
    #[serde(default, deserialize_with = "nothing_for_null")]
    pub(super) user_name: String,
    /// `live`; the empty text is documented as an error of Twitch's.
    #[serde(default, rename = "type", deserialize_with = "nothing_for_null")]
    pub(super) kind: String,
    #[serde(default, deserialize_with = "nothing_for_null")]
    pub(super) title: String,
    #[serde(default, deserialize_with = "nothing_for_null")]
    pub(super) game_name: String,
    #[serde(default, deserialize_with = "nothing_for_odd")]
    pub(super) viewer_count: Option<u64>,
    #[serde(default, deserialize_with = "nothing_for_odd")]
    pub(super) started_at: Option<Timestamp>,
}

/// A row of `GET /channels`.
#[derive(Debug, Deserialize)]
pub(super) struct Channel {
    pub(super) broadcaster_id: String,
    #[serde(default, deserialize_with = "nothing_for_null")]
    pub(super) title: String,
    #[serde(default, deserialize_with = "nothing_for_null")]
    pub(super) game_name: String,
}

/// A row of `GET /moderation/channels`, or of a subscription: a channel by its broadcaster.
#[derive(Debug, Deserialize)]
pub(super) struct OfBroadcaster {
    pub(super) broadcaster_id: String,
}

/// A row of a list of people: moderators, VIPs, editors, subscribers.
#[derive(Debug, Deserialize)]
pub(super) struct Member {
    pub(super) user_id: String,
}

/// A row that we only count.
#[derive(Debug, Deserialize)]
pub(super) struct Anything {}

/// The answer of `GET /validate`.
#[derive(Debug, Deserialize)]
pub(super) struct Validated {
    pub(super) client_id: String,
    /// Absent for an app token.
    #[serde(default)]
    pub(super) user_id: Option<String>,
    #[serde(default)]
    pub(super) login: Option<String>,
    #[serde(default, deserialize_with = "lenient::words")]
    pub(super) scopes: Option<Vec<String>>,
    /// Seconds; 0 stands for never on very old tokens.
    #[serde(default, deserialize_with = "nothing_for_odd")]
    pub(super) expires_in: Option<i64>,
}

/// The answer of `POST /token`. A grant cannot be asked for twice, so only the token itself must be as documented.
#[derive(Deserialize)]
pub(super) struct Granted {
    pub(super) access_token: String,
    /// Empty or absent where there is none.
    #[serde(default, deserialize_with = "lenient::text")]
    pub(super) refresh_token: String,
    #[serde(default, deserialize_with = "nothing_for_odd")]
    pub(super) expires_in: Option<i64>,
    #[serde(default, deserialize_with = "lenient::words")]
    pub(super) scope: Option<Vec<String>>,
}

/// Reads `null` as the type's nothing.
fn nothing_for_null<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a value that we can do without: anything unexpected is nothing.
fn nothing_for_odd<'de, D: Deserializer<'de>, T: serde::de::DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_page_is_recognised_in_all_its_forms() {
        for (pagination, cursor) in [
            (r#","pagination":{"cursor":"eyJ"}"#, Some("eyJ")),
            (r#","pagination":{"cursor":""}"#, None),
            (r#","pagination":{"cursor":null}"#, None),
            (r#","pagination":{}"#, None),
            (r#","pagination":null"#, None),
            ("", None),
        ] {
            let list: List<User> = serde_json::from_str(&format!(r#"{{"data":[]{pagination}}}"#)).unwrap();
            assert_eq!(list.cursor(), cursor, "{pagination}");
        }
    }

    #[test]
    fn a_grant_is_not_lost_for_a_field_that_only_decorates() {
        let two = || Some(vec!["a:b".to_owned(), "c:d".to_owned()]);
        for (rest, refresh, scope) in [
            (r#""refresh_token":"r","scope":["a:b","c:d"]"#, "r", two()),
            (r#""refresh_token":"r","scope":"a:b c:d""#, "r", two()),
            (r#""refresh_token":null,"scope":null"#, "", None),
            (r#""scope":{},"expires_in":"soon","token_type":7"#, "", None),
        ] {
            let body = format!(r#"{{"access_token":"t",{rest}}}"#);
            let granted: Granted = serde_json::from_str(&body).unwrap();
            assert_eq!(granted.access_token, "t");
            assert_eq!(
                (granted.refresh_token.as_str(), granted.scope),
                (refresh, scope),
                "{body}"
            );
        }
        assert!(serde_json::from_str::<Granted>(r#"{"access_token":7}"#).is_err());
    }

    #[test]
    fn an_answer_without_its_list_or_a_row_without_its_id_is_no_answer() {
        for body in [
            "{}",
            r#"{"data":null}"#,
            r#"{"data":{}}"#,
            "[]",
            r#"{"data":[{"id":"1"}]}"#,
        ] {
            assert!(serde_json::from_str::<List<Stream>>(body).is_err(), "{body}");
        }
    }

    #[test]
    fn unknown_fields_null_texts_and_odd_values_pass() {
        let body = r#"{"data":[{"id":"1","user_id":"2","type":"hologram","title":null,"tags":null,
            "viewer_count":-1,"started_at":"yesterday","novelty":{"a":[]}}],"total":3}"#;
        let list: List<Stream> = serde_json::from_str(body).unwrap();
        let stream = &list.data[0];
        assert_eq!((stream.kind.as_str(), stream.title.as_str()), ("hologram", ""));
        assert_eq!((stream.viewer_count, stream.started_at), (None, None));
    }

    #[test]
    fn token_answers_of_both_kinds_are_read() {
        let app: Validated =
            serde_json::from_str(r#"{"client_id":"c","scopes":null,"expires_in":5000000}"#).unwrap();
        assert_eq!((app.user_id, app.scopes), (None, None));
        let granted: Granted = serde_json::from_str(
            r#"{"access_token":"a","refresh_token":null,"expires_in":"soon","scope":null}"#,
        )
        .unwrap();
        assert_eq!((granted.refresh_token.as_str(), granted.expires_in), ("", None));
    }
}
