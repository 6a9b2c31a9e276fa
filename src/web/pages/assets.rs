//! The style, the script and the icon.

use std::sync::LazyLock;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};

use super::{Site, fingerprint, not_found};

pub(super) const STYLE: &str = include_str!("../assets/app.css");
pub(super) const SCRIPT: &str = include_str!("../assets/app.js");
const ICON: &str = include_str!("../assets/icon.svg");

/// Their names contain a hash of their content, so that browsers may keep them.
static NAMES: LazyLock<(String, String)> = LazyLock::new(|| {
    let name = |ending: &str, content: &str| format!("app.{}.{ending}", fingerprint(content));
    (name("css", STYLE), name("js", SCRIPT))
});

pub(super) fn style() -> &'static str {
    &NAMES.0
}

pub(super) fn script() -> &'static str {
    &NAMES.1
}

pub(super) async fn file(State(site): State<Site>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    match name.as_str() {
        name if name == style() => served(
            STYLE,
            "text/css; charset=utf-8",
            "public, max-age=31536000, immutable",
        ),
        name if name == script() => served(
            SCRIPT,
            "text/javascript; charset=utf-8",
            "public, max-age=31536000, immutable",
        ),
        "icon.svg" => icon().await,
        _ => not_found(&site, &headers),
    }
}

pub(super) async fn icon() -> Response {
    served(ICON, "image/svg+xml", "public, max-age=86400")
}

fn served(content: &'static str, media_type: &'static str, caching: &'static str) -> Response {
    ([(CONTENT_TYPE, media_type), (CACHE_CONTROL, caching)], content).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn style_and_script_stay_small() {
        assert!(STYLE.len() <= 12 * 1024, "{}", STYLE.len());
        assert!(SCRIPT.len() <= 6 * 1024, "{}", SCRIPT.len());
        assert!(SCRIPT.lines().count() <= 60);
    }
}
