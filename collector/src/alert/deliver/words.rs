//! Text of notices and of servers' answers, made harmless: whoever chose it can neither begin a new
//! line nor a new header or record, nor steer a terminal, nor turn the order of what is read.

use std::fmt::Write as _;

/// One line of at most about `bytes_max` bytes.
pub(crate) fn one_line(text: &str, bytes_max: usize) -> String {
    plain(text, bytes_max, |_| false)
}

/// Lines with tabs, of at most about `bytes_max` bytes.
pub(super) fn lines(text: &str, bytes_max: usize) -> String {
    plain(&text.replace("\r\n", "\n"), bytes_max, |character| matches!(character, '\n' | '\t'))
}

/// At most `bytes_max` bytes, cut between two characters.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or_default()
}

fn plain(text: &str, bytes_max: usize, stays: impl Fn(char) -> bool) -> String {
    let kept = cut(text, bytes_max);
    let mut plain = String::with_capacity(kept.len());
    for character in kept.chars() {
        match character {
            _ if stays(character) || !steers(character) => plain.push(character),
            '\n' => plain.push_str("\\n"),
            '\r' => plain.push_str("\\r"),
            '\t' => plain.push_str("\\t"),
            // Writing to a String cannot fail.
            _ => drop(write!(plain, "{}", character.escape_unicode())),
        }
    }
    if kept.len() < text.len() {
        plain.push('…');
    }
    plain
}

/// Control characters, the separators of lines and paragraphs, and what changes the direction.
fn steers(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
                | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("機密.xlsx を開いた", 100, "機密.xlsx を開いた")]
    #[case("a\r\nBcc: x", 100, "a\\r\\nBcc: x")]
    #[case("a\u{1b}[2J\u{85}b\u{2028}c", 100, "a\\u{1b}[2J\\u{85}b\\u{2028}c")]
    #[case("gnp.\u{202e}exe", 100, "gnp.\\u{202e}exe")]
    #[case("機密", 4, "機…")]
    #[case("a\\b", 100, "a\\b")]
    fn a_line_is_one_line(#[case] text: &str, #[case] bytes_max: usize, #[case] line: &str) {
        assert_eq!(one_line(text, bytes_max), line);
    }

    #[test]
    fn lines_stay_lines() {
        assert_eq!(lines("a\r\n\tb\rc\u{0}", 100), "a\n\tb\\rc\\u{0}");
    }
}
