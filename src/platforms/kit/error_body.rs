//! What descriptors of platforms judge of an answer: the members that report errors.

use serde_json::{Map, Value};

/// What an answer with the status of a success says in the members of errors.
#[derive(Debug, Clone, Copy)]
pub struct Reported {
    /// Whether there is a message, other than that of a success.
    pub has_message: bool,
    /// The member `status`, if it is a number.
    pub status: Option<f64>,
    /// The member `code`, if it is a number.
    pub code: Option<f64>,
}

/// The members of an error answer.
#[derive(Debug)]
pub struct ErrorBody(pub(super) Map<String, Value>);

impl ErrorBody {
    /// Returns a member.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field)
    }

    /// Returns a member that is a text and not empty.
    pub fn text(&self, field: &str) -> Option<&str> {
        let text = self.get(field).and_then(Value::as_str);
        text.filter(|text| !text.is_empty())
    }

    /// Returns whether there are no members but these.
    pub fn has_only(&self, members: &[&str]) -> bool {
        self.0.keys().all(|name| members.contains(&name.as_str()))
    }

    /// Returns whether there are members of web frameworks and gateways, other than `own`.
    pub fn has_foreign(&self, own: &[&str]) -> bool {
        let mut foreign = FOREIGN_MEMBERS.iter().filter(|name| !own.contains(name));
        foreign.any(|name| self.0.contains_key(*name))
    }
}

/// Members in the errors of web frameworks and gateways that neither Discord nor Kick's OAuth host sends.
pub(in crate::platforms) const FOREIGN_MEMBERS: [&str; 8] = [
    "error",
    "exception",
    "path",
    "request_id",
    "requestId",
    "status",
    "statusCode",
    "timestamp",
];
