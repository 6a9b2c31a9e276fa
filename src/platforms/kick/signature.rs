//! Verifies that Kick has signed a delivery: RSA PKCS#1 v1.5 with SHA-256 over `message id . timestamp . body`. Pure.
//!
//! The bytes are those received: a header that is parsed and formatted again, or a body that is decoded and encoded again,
//! would not match. <https://docs.kick.com/events/webhook-security>

use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The key that Kick has published. The endpoint that serves it has required a browser challenge before, so a copy is
/// built in; a key fetched later replaces it.
pub const PUBLISHED: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAq/+l1WnlRrGSolDMA+A8
6rAhMbQGmQ2SapVcGM3zq8ANXjnhDWocMqfWcTd95btDydITa10kDvHzw9WQOqp2
MZI7ZyrfzJuz5nhTPCiJwTwnEtWft7nV14BYRDHvlfqPUaZ+1KR4OCaO/wWIk/rQ
L/TjY0M70gse8rlBkbo2a8rKhu69RQTRsoaf4DVhDPEeSeI5jVrRDGAMGL3cGuyY
6CLKGdjVEM78g3JfYOvDU/RvfqD7L89TZ3iN94jrmWdGz34JNlEI5hqK8dd7C5EF
BEbZ5jgB8s8ReQV8H+MkuffjdAj3ajDDX3DOJMIut1lBrUVD1AaSrGCKHooWoL2e
twIDAQAB
-----END PUBLIC KEY-----";

/// A key that deliveries can be checked with.
#[derive(Debug, Clone)]
pub struct PublicKey(ParsedPublicKey);

/// The text is not an RSA key in PEM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the public key is not an RSA key in PEM")]
pub struct InvalidPublicKey;

impl PublicKey {
    /// Returns the key that is built in.
    pub fn published() -> Self {
        Self::from_pem(PUBLISHED).expect("the built-in key is well-formed")
    }

    /// Parses a `PUBLIC KEY` in PEM, or an `RSA PUBLIC KEY`, which is the same without the algorithm identifier. Line breaks may
    /// be written as `\n`.
    pub fn from_pem(text: &str) -> Result<Self, InvalidPublicKey> {
        let text = text.replace("\\n", "\n");
        let between = |kind: &str| {
            text.trim()
                .strip_prefix(&format!("-----BEGIN {kind}-----"))
                .and_then(|rest| rest.strip_suffix(&format!("-----END {kind}-----")))
        };
        let inner = between("PUBLIC KEY")
            .or_else(|| between("RSA PUBLIC KEY"))
            .ok_or(InvalidPublicKey)?;
        let letters: String = inner.split_whitespace().collect();
        let der = STANDARD.decode(letters).map_err(|_| InvalidPublicKey)?;
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der)
            .parse()
            .map(Self)
            .map_err(|_| InvalidPublicKey)
    }

    /// Returns whether `signature` is this key's over the three parts, each exactly as received.
    pub fn verifies(&self, message_id: &str, timestamp: &str, body: &[u8], signature: &[u8]) -> bool {
        let parts = [message_id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
        self.0.verify_sig(&parts.concat(), signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};

    use super::*;

    #[test]
    fn the_built_in_key_is_one() {
        let _ = PublicKey::published();
        for text in [
            "",
            "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----",
            "<html>",
            "MIIB",
        ] {
            assert!(PublicKey::from_pem(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_the_very_bytes_that_were_signed_verify() {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der = pair.public_key().as_der().unwrap();
        let pem = format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            STANDARD.encode(der.as_ref())
        );
        let key = PublicKey::from_pem(&pem).unwrap();
        let on_one_line = pem.replace('\n', "\\n");
        assert!(
            PublicKey::from_pem(&on_one_line).is_ok(),
            "as it stands in badly unpacked JSON"
        );
        let mut signature = vec![0; pair.public_modulus_len()];
        let message = b"ID.2026-06-01T11:00:00Z.{\"a\": 1}";
        pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
            .unwrap();
        let stamp = "2026-06-01T11:00:00Z";
        assert!(key.verifies("ID", stamp, b"{\"a\": 1}", &signature));
        for (id, stamp, body) in [
            ("ID", stamp, &b"{\"a\":1}"[..]),
            ("ID", "2026-06-01T11:00:00.000Z", b"{\"a\": 1}"),
            ("ID", "2026-06-01T13:00:00+02:00", b"{\"a\": 1}"),
            ("id", stamp, b"{\"a\": 1}"),
            ("", stamp, b"{\"a\": 1}"),
        ] {
            assert!(!key.verifies(id, stamp, body, &signature), "{id} {stamp}");
        }
        assert!(!key.verifies("ID", stamp, b"{\"a\": 1}", &signature[1..]));
        assert!(!key.verifies("ID", stamp, b"{\"a\": 1}", &[]));
        assert!(!PublicKey::published().verifies("ID", stamp, b"{\"a\": 1}", &signature));
    }
}
