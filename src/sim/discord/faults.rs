//! Predefined faults: error responses of Discord and of the Cloudflare in front of it.

use serde_json::json;

use crate::sim::faults::{Fault, FaultBody};

/// Returns the fault called `name`, or `None` for an unknown name.
pub fn named(name: &str) -> Option<Fault> {
    Some(match name {
        "limited_user" => limited("user", false).header("x-ratelimit-bucket", "feedfacefeedface"),
        "limited_shared" => limited("shared", false).header("x-ratelimit-bucket", "feedfacefeedface"),
        "limited_global" => limited("global", true).header("x-ratelimit-global", "true"),
        "limited_without_headers" => Fault::status(429).with_body(limited_body(0.3, false)),
        "cloudflare_page" => Fault::status(429).with_body(FaultBody::Html),
        "cloudflare_page_retry" => Fault::status(429)
            .with_body(FaultBody::Html)
            .header("retry-after", "2"),
        "cloudflare_text" => Fault::status(429).with_body(FaultBody::Text("error code: 1015".to_owned())),
        "cloudflare_forbidden" => Fault::status(403).with_body(FaultBody::Html),
        "agent_blocked" => Fault::status(403).with_body(FaultBody::Json(
            json!({"message": "internal network error", "code": 40_333}),
        )),
        "overloaded" => Fault::status(503).with_body(FaultBody::Json(
            json!({"message": "API resource is currently overloaded.", "code": 130_000}),
        )),
        "bad_gateway" => Fault::status(502).with_body(FaultBody::Html),
        "portal" => Fault::status(200).with_body(FaultBody::Html),
        "proxy_unauthorized" => Fault::status(401).with_body(FaultBody::Html),
        _ => return None,
    })
}

fn limited(scope: &str, global: bool) -> Fault {
    Fault::status(429)
        .with_body(limited_body(0.3, global))
        .header("retry-after", "1")
        .header("x-ratelimit-scope", scope)
}

fn limited_body(seconds: f64, global: bool) -> FaultBody {
    FaultBody::Json(
        json!({"message": "You are being rate limited.", "retry_after": seconds, "global": global}),
    )
}
