//! Entry points of the fuzz targets in `fuzz/`: webhooks before and after their signature is verified.

use axum::http::HeaderMap;

use super::{CHAT, METADATA, STATUS, delivery, events};

/// Reads the headers of a delivery.
pub fn headers(headers: &HeaderMap) {
    if let Ok(delivery) = delivery::read(headers) {
        assert!(
            !delivery.message_id.contains('.'),
            "a dot separates the signed parts"
        );
        assert!(delivery.is_recent(&[delivery.at]));
    }
}

/// Reads a body that Kick has signed, as each type.
pub fn body(body: &[u8]) {
    for kind in [STATUS, METADATA, CHAT] {
        let first = events::read(kind, body).expect("the type is known");
        assert_eq!(Some(first), events::read(kind, body));
    }
}
