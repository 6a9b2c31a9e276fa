//! Parses Twitch's JSON tolerantly: unknown fields and values are ignored, `null` counts as empty.
//!
//! Strict only if a wrong guess would lead to a false statement: an answer without its `data` list is invalid, and a row without
//! its id is set aside as unparsable.

use serde::Deserialize;

use crate::core::time::Timestamp;
use crate::platforms::kit::lenient::{self, Rows};

#[derive(Debug, Deserialize)]
#[serde(bound = "T: serde::de::DeserializeOwned")]
pub(super) struct List<T> {
    pub(super) data: Rows<T>,
    #[serde(default, deserialize_with = "lenient::lenient")]
    pagination: Option<Pagination>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Pagination {
    #[serde(default, deserialize_with = "lenient::maybe_id")]
    pub(super) cursor: Option<String>,
}

impl<T> List<T> {
    /// Returns where the next page starts; `None` on the last one, which Twitch writes in three ways.
    pub(super) fn cursor(&self) -> Option<&str> {
        self.pagination.as_ref()?.cursor.as_deref()
    }
}

/// A row of `GET /users`.
#[derive(Debug, Deserialize)]
pub(super) struct User {
    #[serde(deserialize_with = "lenient::account_id")]
    pub(super) id: String,
    #[serde(default, deserialize_with = "lenient::text")]
    pub(super) login: String,
    #[serde(default, deserialize_with = "lenient::text")]
    pub(super) display_name: String,
}

/// A row of `GET /streams`.
#[derive(Debug, Deserialize)]
pub(super) struct Stream {
    #[serde(deserialize_with = "lenient::id_text")]
    pub(super) id: String,
    #[serde(deserialize_with = "lenient::account_id")]
    pub(super) user_id: String,
    #[serde(default, deserialize_with = "lenient::text")]
    pub(super) user_login: String,
    #[serde(default, deserialize_with = "lenient::text")]
    pub(super) user_name: String,
    /// `live`; the empty string is documented as an error of Twitch's.
    #[serde(default, rename = "type", deserialize_with = "lenient::text")]
    pub(super) kind: String,
    #[serde(default, deserialize_with = "lenient::text")]
    pub(super) title: String,
    #[serde(default, deserialize_with = "lenient::text")]
    pub(super) game_name: String,
    #[serde(default, deserialize_with = "lenient::count")]
    pub(super) viewer_count: Option<u64>,
    #[serde(default, deserialize_with = "lenient::lenient")]
    pub(super) started_at: Option<Timestamp>,
}

/// A row of `GET /moderation/channels`: a channel identified by its broadcaster.
#[derive(Debug, Deserialize)]
pub(super) struct OfBroadcaster {
    #[serde(deserialize_with = "lenient::account_id")]
    pub(super) broadcaster_id: String,
}

/// A row of a list of people: moderators, VIPs, editors, subscribers.
#[derive(Debug, Deserialize)]
pub(super) struct Member {
    #[serde(deserialize_with = "lenient::account_id")]
    pub(super) user_id: String,
}

/// A row of the list of banned users.
#[derive(Debug, Deserialize)]
pub(super) struct Ban {
    #[serde(deserialize_with = "lenient::account_id")]
    pub(super) user_id: String,
    /// The end of a timeout; empty for a ban, which has none.
    #[serde(default, deserialize_with = "lenient::lenient")]
    pub(super) expires_at: Option<Timestamp>,
}

/// The answer of `GET /validate`.
#[derive(Debug, Deserialize)]
pub(super) struct Validated {
    #[serde(deserialize_with = "lenient::id_text")]
    pub(super) client_id: String,
    /// Absent for an app token. Whose a token is must not be guessed, so any other odd value makes the answer unreadable.
    #[serde(default, deserialize_with = "lenient::maybe_account_id")]
    pub(super) user_id: Option<String>,
    #[serde(default, deserialize_with = "lenient::maybe_id")]
    pub(super) login: Option<String>,
    /// Absent if they are not specified, as for an app token.
    #[serde(default, deserialize_with = "lenient::texts")]
    pub(super) scopes: Option<Vec<String>>,
    /// Seconds; 0 means never on very old tokens.
    #[serde(default, deserialize_with = "lenient::whole")]
    pub(super) expires_in: Option<i64>,
}

/// The answer of `POST /device`. The address already contains the user's code.
#[derive(Deserialize)]
pub(super) struct StartedDevice {
    pub(super) device_code: String,
    pub(super) user_code: String,
    pub(super) verification_uri: String,
    #[serde(default, deserialize_with = "lenient::whole")]
    pub(super) expires_in: Option<i64>,
    #[serde(default, deserialize_with = "lenient::whole")]
    pub(super) interval: Option<i64>,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::core::json::{read_object, repair};
    use crate::platforms::kit::lenient::odd;
    use crate::platforms::kit::oauth::Granted;

    fn read<T: serde::de::DeserializeOwned>(body: &str) -> serde_json::Result<T> {
        read_object(&repair(body.as_bytes()))
    }

    #[test]
    fn odd_value_costs_at_most_its_row() {
        fn others<T: serde::de::DeserializeOwned>(row: &Value) {
            for odd in odd::variants(row) {
                let body = format!(r#"{{"data":[{odd},{row}],"pagination":{{}}}}"#);
                let list: List<T> = read(&body).unwrap_or_else(|error| panic!("{odd}: {error}"));
                let Rows { read, unread } = list.data;
                assert!(!read.is_empty() && read.len() + unread.len() == 2, "{odd}");
            }
            for odd in odd::variants(&json!({"pagination": {"cursor": "a"}, "total": 7})) {
                let body = odd.replacen('{', &format!(r#"{{"data":[{row}],"#), 1);
                let list: List<T> = read(&body).unwrap_or_else(|error| panic!("{body}: {error}"));
                assert_eq!(list.data.read.len(), 1, "{body}");
            }
        }
        others::<User>(&json!({"id": "1", "login": "a", "display_name": "A"}));
        others::<Stream>(
            &json!({"id": "1", "user_id": "2", "user_login": "a", "user_name": "A", "type": "live",
            "title": "t", "game_name": "g", "viewer_count": 7, "started_at": "2026-05-01T18:00:00Z", "tags": ["x"]}),
        );
        others::<OfBroadcaster>(&json!({"broadcaster_id": "1", "broadcaster_login": "a"}));
        others::<Member>(&json!({"user_id": "1", "user_login": "a"}));
        others::<Ban>(&json!({"user_id": "1", "expires_at": ""}));
        for odd in odd::variants(&json!({"login": "a", "scopes": ["a:b"], "expires_in": 5})) {
            let body = odd.replacen('{', r#"{"client_id":7,"#, 1);
            let validated: Validated = read(&body).unwrap_or_else(|error| panic!("{body}: {error}"));
            assert_eq!(validated.client_id, "7");
        }
        for odd in odd::variants(
            &json!({"refresh_token": "r", "scope": ["a:b"], "expires_in": 5, "token_type": "b"}),
        ) {
            let body = odd.replacen('{', r#"{"access_token":"t","#, 1);
            assert!(read::<Granted>(&body).is_ok(), "{body}");
        }
    }

    #[test]
    fn validation_with_an_impossible_user_id_is_unreadable() {
        let validated = |user_id: Value| {
            let body = json!({"client_id": "c", "user_id": user_id, "expires_in": 5});
            serde_json::from_value::<Validated>(body)
                .ok()
                .map(|validated| validated.user_id)
        };
        assert_eq!(validated(json!("900100")), Some(Some("900100".to_owned())));
        for of_app in [json!(null), json!("")] {
            assert_eq!(validated(of_app.clone()), Some(None), "{of_app}");
        }
        for odd in [
            json!(0),
            json!("0"),
            json!(-7),
            json!(1.5),
            json!(9.87e17),
            json!(true),
            json!([7]),
        ] {
            assert_eq!(validated(odd.clone()), None, "{odd}");
        }
    }

    #[test]
    fn last_page_is_recognized_in_all_forms() {
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
    fn an_answer_without_its_list_is_no_answer() {
        for body in [
            "{}",
            r#"{"data":null}"#,
            r#"{"data":{}}"#,
            "[]",
            "[[]]",
            "[[],{}]",
        ] {
            assert!(read_object::<List<Stream>>(body).is_err(), "{body}");
        }
    }

    #[test]
    fn a_row_without_its_ids_is_set_aside() {
        for row in [
            r#"{"id":"1"}"#,
            r#"{"id":null,"user_id":"2"}"#,
            r#"{"id":"1","user_id":""}"#,
            "[]",
            r#"["1","2","","","live"]"#,
            "null",
        ] {
            let list: List<Stream> =
                serde_json::from_str(&format!(r#"{{"data":[{row},{{"id":7,"user_id":8}}]}}"#)).unwrap();
            assert_eq!((list.data.read.len(), list.data.unread.len()), (1, 1), "{row}");
            assert_eq!(list.data.read[0].user_id, "8");
        }
    }

    #[test]
    fn unknown_fields_null_texts_and_odd_values_pass() {
        let body = r#"{"data":[{"id":"1","user_id":"2","type":"hologram","title":null,"tags":null,
            "viewer_count":-1,"started_at":"yesterday","novelty":{"a":[]}}],"total":3}"#;
        let list: List<Stream> = serde_json::from_str(body).unwrap();
        let stream = &list.data.read[0];
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
