//! Which format a client of `/metrics` prefers.

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

use super::exposition::Format;

/// Returns the format with the greater quality, and the text format where both have the same or none is named: browsers and people
/// can read it. Unknown parameters of a media type are ignored; another version of a format is another format.
pub(super) fn format(headers: &HeaderMap) -> Format {
    let accepted = headers.get_all(ACCEPT).iter();
    let accepted: Vec<&str> = accepted.filter_map(|value| value.to_str().ok()).collect();
    let ranges: Vec<&str> = accepted.iter().flat_map(|value| value.split(',')).collect();
    let open_metrics = quality(&ranges, "application/openmetrics-text", "1.0.0");
    let text = quality(&ranges, "text/plain", "0.0.4");
    let text = text.or(any(&ranges, "text/*")).or(any(&ranges, "*/*"));
    match open_metrics {
        Some(quality) if quality > text.unwrap_or(0) => Format::OpenMetrics,
        _ => Format::Text,
    }
}

/// Returns the quality of a media type in thousandths, if it is named with this version or with none.
fn quality(ranges: &[&str], media_type: &str, version: &str) -> Option<u16> {
    let matching = ranges.iter().filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        if !parts.next()?.eq_ignore_ascii_case(media_type) {
            return None;
        }
        let mut quality = Some(1_000);
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "version" if value != version => return None,
                "q" => quality = thousandths(value),
                _ => {}
            }
        }
        quality
    });
    matching.max()
}

fn any(ranges: &[&str], range: &str) -> Option<u16> {
    quality(ranges, range, "")
}

/// Parses a quality between 0 and 1; `None` for anything else.
fn thousandths(text: &str) -> Option<u16> {
    let quality: f32 = text.parse().ok()?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is between 0 and 1,000"
    )]
    (0.0..=1.0)
        .contains(&quality)
        .then(|| (quality * 1_000.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_of_greater_quality_is_chosen() {
        use Format::{OpenMetrics, Text};
        for (accept, expected) in [
            ("", Text),
            ("*/*", Text),
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                Text,
            ),
            ("application/openmetrics-text", OpenMetrics),
            ("Application/OpenMetrics-Text; Version=\"1.0.0\"", OpenMetrics),
            ("application/openmetrics-text;version=0.0.1", Text),
            ("application/openmetrics-text;q=0", Text),
            ("application/openmetrics-text;q=0.5,text/plain;q=0.5", Text),
            ("application/openmetrics-text;q=0.5,*/*", Text),
            ("application/openmetrics-text;q=2,text/plain;q=x", Text),
            // Prometheus 2.42.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                OpenMetrics,
            ),
            // Prometheus 3.
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                 text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                OpenMetrics,
            ),
            (
                "text/plain;version=0.0.4;q=0.5,application/openmetrics-text;q=0.1",
                Text,
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            assert_eq!(format(&headers), expected, "{accept}");
        }
        assert_eq!(format(&HeaderMap::new()), Text);
    }
}
