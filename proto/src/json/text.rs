//! Bytes as text and back, without loss.

use std::fmt::Write as _;

/// Bytes as a string: valid UTF-8 as it is, a backslash as `\\`, every other byte as `\xNN`.
/// [`unescape`] gives the same bytes again.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                _ => text.push(character),
            }
        }
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// The text is not what [`escape`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnescapeError {
    /// Byte offset of the backslash that begins no known sequence.
    pub offset: usize,
}

impl std::fmt::Display for UnescapeError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "byte {}: a backslash must be followed by another one or by `x` and two hexadecimal \
             digits",
            self.offset
        )
    }
}

impl std::error::Error for UnescapeError {}

/// The bytes that [`escape`] made `text` of. Digits of either case are taken.
///
/// # Errors
/// A backslash that is followed by neither another one nor `x` and two hexadecimal digits.
pub fn unescape(text: &str) -> Result<Vec<u8>, UnescapeError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let error = UnescapeError { offset: text.len() - rest.len() };
        rest = match (first, behind) {
            (b'\\', [b'\\', behind @ ..]) => {
                bytes.push(b'\\');
                behind
            }
            (b'\\', [b'x', high, low, behind @ ..]) => {
                let high = digit(*high).ok_or(error)?;
                let low = digit(*low).ok_or(error)?;
                bytes.push(high << 4 | low);
                behind
            }
            (b'\\', _) => return Err(error),
            _ => {
                bytes.push(first);
                behind
            }
        };
    }
    Ok(bytes)
}

fn digit(character: u8) -> Option<u8> {
    char::from(character).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}
