//! Random texts: tokens, codes and ids.

use crate::clock::Chance;

/// Lower case letters and digits.
pub const ALPHANUMERIC: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// Returns a text of `length` characters of `alphabet`.
pub fn random(alphabet: &[u8], length: usize, chance: &Chance) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index into a short alphabet"
    )]
    let index = || (chance.fraction() * alphabet.len() as f64) as usize;
    (0..length)
        .map(|_| char::from(alphabet[index().min(alphabet.len() - 1)]))
        .collect()
}
