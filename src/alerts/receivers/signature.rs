//! Signatures of Standard Webhooks: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Returns the value of the header `webhook-signature`.
pub fn sign(key: &[u8], id: &str, timestamp: i64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let signed = format!("{id}.{timestamp}.{body}");
    let tag = hmac::sign(&key, signed.as_bytes());
    format!("v1,{}", STANDARD.encode(tag.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_equals_that_of_other_implementations() {
        let signature = sign(b"key", "msg_1", 1_674_087_231, "{}");
        assert_eq!(signature, "v1,uJRqrsVdxSA6rVfjmEImCxf3zzM+BfFD1xgW/wMdTPw=");
    }
}
