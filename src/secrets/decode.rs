//! Undoes the encodings of texts, and records the origin of each byte.

/// Maximum of nested encodings: a URL in a JSON string in a JSON string.
pub(super) const ROUNDS: usize = 4;

/// Bytes, and for each the range of the original text that it was written as.
pub(super) struct Decoded {
    pub(super) bytes: Vec<u8>,
    spans: Vec<(usize, usize)>,
}

impl Decoded {
    /// Returns the range of the original text that `range` was written as.
    pub(super) fn origin(&self, range: (usize, usize)) -> (usize, usize) {
        (self.spans[range.0].0, self.spans[range.1 - 1].1)
    }

    /// Undoes one layer of encoding; `None` when there is none.
    pub(super) fn once(bytes: &[u8], below: Option<&Decoded>) -> Option<Decoded> {
        if !bytes.iter().any(|byte| matches!(byte, b'%' | b'\\' | b'&')) {
            return None;
        }
        let mut decoded = Decoded {
            bytes: Vec::with_capacity(bytes.len()),
            spans: Vec::with_capacity(bytes.len()),
        };
        let mut changed = false;
        let mut at = 0;
        while at < bytes.len() {
            let (letter, width) = match bytes[at] {
                b'%' => percent(&bytes[at..]),
                b'\\' => escape(&bytes[at..]),
                b'&' => entity(&bytes[at..]),
                _ => None,
            }
            .inspect(|_| changed = true)
            .unwrap_or((Letter::Byte(bytes[at]), 1));
            let range = (at, at + width);
            let span = below.map_or(range, |below| below.origin(range));
            match letter {
                Letter::Byte(byte) => {
                    decoded.bytes.push(byte);
                    decoded.spans.push(span);
                }
                Letter::Char(letter) => {
                    let mut room = [0; 4];
                    for byte in letter.encode_utf8(&mut room).bytes() {
                        decoded.bytes.push(byte);
                        decoded.spans.push(span);
                    }
                }
            }
            at += width;
        }
        changed.then_some(decoded)
    }
}

enum Letter {
    Byte(u8),
    Char(char),
}

/// `%2B`
fn percent(text: &[u8]) -> Option<(Letter, usize)> {
    let value = hex(text.get(1..3)?)?;
    Some((Letter::Byte(u8::try_from(value).ok()?), 3))
}

/// `\u002b`, `\x2b`, `\/`, `\"`
fn escape(text: &[u8]) -> Option<(Letter, usize)> {
    match text.get(1)? {
        b'u' => Some((Letter::Char(char::from_u32(hex(text.get(2..6)?)?)?), 6)),
        b'x' => Some((Letter::Byte(u8::try_from(hex(text.get(2..4)?)?).ok()?), 4)),
        b'n' => Some((Letter::Byte(b'\n'), 2)),
        b'r' => Some((Letter::Byte(b'\r'), 2)),
        b't' => Some((Letter::Byte(b'\t'), 2)),
        letter if letter.is_ascii_punctuation() => Some((Letter::Byte(*letter), 2)),
        _ => None,
    }
}

/// `&amp;`, `&#43;`, `&#x2B;`
fn entity(text: &[u8]) -> Option<(Letter, usize)> {
    let end = text.iter().take(12).position(|byte| *byte == b';')?;
    let name = std::str::from_utf8(&text[1..end]).ok()?;
    let letter = match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "plus" => '+',
        "sol" => '/',
        "equals" => '=',
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)?
        }
    };
    Some((Letter::Char(letter), end + 1))
}

fn hex(digits: &[u8]) -> Option<u32> {
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}
