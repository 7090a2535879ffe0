//! The token of an enrolment, `sekimori-ID-SECRET-AUTHORITY` in hexadecimal digits.
//!
//! Who holds it may enrol once under the name that it was made for. The collector knows only the
//! hash of the secret. The last part is the SHA-256 of the authority's certificate (DER): with it
//! the new host knows the true collector before it has told anything.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

const PREFIX: &str = "sekimori";
/// Bytes of a token's text.
pub const TOKEN_BYTES: usize = PREFIX.len() + 3 + 2 * (ID_BYTES + SECRET_BYTES + HASH_BYTES);
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;
const HASH_BYTES: usize = 32;

/// A token. Its `Debug` form leaves the secret out; only `Display` has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Names it in records and logs. Opens nothing.
    pub id: [u8; ID_BYTES],
    /// Opens one enrolment.
    pub secret: [u8; SECRET_BYTES],
    /// SHA-256 of the authority's certificate, DER.
    pub authority: [u8; HASH_BYTES],
}

/// A text that is no token. It says nothing of the text, which may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "this is no token: expected the whole line that `sekimori-collector token` printed, \
     {PREFIX}-… with {TOKEN_BYTES} characters"
)]
pub struct TokenError;

impl Token {
    /// The identifier, as records have it.
    #[must_use]
    pub fn name(&self) -> String {
        hexadecimal(&self.id)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Token({})", self.name())
    }
}

impl fmt::Display for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [id, secret, authority] =
            [&self.id[..], &self.secret, &self.authority].map(hexadecimal);
        write!(formatter, "{PREFIX}-{id}-{secret}-{authority}")
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Token, TokenError> {
        let mut parts = text.trim().split('-');
        let token = (|| {
            (parts.next()? == PREFIX).then_some(())?;
            let id = bytes(parts.next()?)?;
            let secret = bytes(parts.next()?)?;
            let authority = bytes(parts.next()?)?;
            Some(Token { id, secret, authority })
        })();
        token.filter(|_| parts.next().is_none()).ok_or(TokenError)
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Lower case only: one token, one text.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    (pairs.len() == N && rest.is_empty()).then_some(())?;
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    proptest! {
        #[test]
        fn it_comes_back_as_it_was(id: [u8; 8], secret: [u8; 32], authority: [u8; 32]) {
            let token = Token { id, secret, authority };
            let text = token.to_string();
            prop_assert_eq!(text.len(), TOKEN_BYTES);
            prop_assert_eq!(format!(" {text}\n").parse(), Ok(token));
        }

        #[test]
        fn any_text_is_refused_or_comes_back(text in "\\PC{0,200}") {
            if let Ok(token) = text.parse::<Token>() {
                prop_assert_eq!(token.to_string(), text.trim());
            }
        }
    }

    #[rstest]
    #[case::nothing("")]
    #[case::another("sekimori-00-11-22")]
    #[case::upper_case(&with_id(&"AB".repeat(8), ""))]
    #[case::more(&with_id(&"0".repeat(16), "-"))]
    #[case::japanese(&with_id(&"関".repeat(16), ""))]
    fn no_token(#[case] text: &str) {
        assert_eq!(text.parse::<Token>(), Err(TokenError));
    }

    fn with_id(id: &str, behind: &str) -> String {
        format!("sekimori-{id}-{0}-{0}{behind}", "0".repeat(64))
    }

    #[test]
    fn its_secret_is_not_in_its_debug_form() {
        let token = Token { id: [1; 8], secret: [0xab; 32], authority: [2; 32] };
        assert_eq!(format!("{token:?}"), "Token(0101010101010101)");
    }
}
