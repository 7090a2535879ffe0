//! The texts behind a record's fixed part.

use std::fmt::Write as _;

/// What a path begins with whose way up to the root is not known. No real path begins so.
pub(crate) const CUT: &[u8] = b"...";

/// Components, leaf first, each ended by NUL → `/a/b`. A walk that stopped early gives `.../a/b`.
/// No bytes: no path. The root's own name (`/` or nothing) counts as no component.
pub(super) fn path(text: &[u8], cut: bool) -> Vec<u8> {
    if text.is_empty() {
        return Vec::new();
    }
    let mut path = Vec::with_capacity(text.len() + CUT.len());
    if cut {
        path.extend_from_slice(CUT);
    }
    let mut rest = text;
    while !rest.is_empty() {
        // Names are short: looking at their bytes one by one is quicker than a search by words.
        let end = rest.iter().rposition(|byte| *byte == 0);
        let (before, behind) = end.and_then(|end| rest.split_at_checked(end)).unwrap_or_default();
        let component = if end.is_some() { behind.get(1..).unwrap_or_default() } else { rest };
        if !component.is_empty() && component != b"/" {
            path.push(b'/');
            path.extend_from_slice(component);
        }
        rest = before;
    }
    if path.is_empty() {
        path.push(b'/');
    }
    path
}

/// A path as the kernel writes it, from the root on; what does not begin there is no path.
pub(super) fn whole_path(text: &[u8]) -> Vec<u8> {
    let path = text.split(|byte| *byte == 0).next().unwrap_or_default();
    if path.first() == Some(&b'/') { path.to_vec() } else { Vec::new() }
}

/// Parts ended by NUL. A last part without its NUL (the copy ended there) is kept.
pub(super) fn arguments(text: &[u8], count_max: usize) -> Vec<Vec<u8>> {
    let text = text.strip_suffix(b"\0").unwrap_or(text);
    if text.is_empty() && count_max == usize::MAX {
        return Vec::new();
    }
    text.split(|byte| *byte == 0).take(count_max).map(<[u8]>::to_vec).collect()
}

/// Bytes as text that is safe on a terminal and loses nothing: control and text-direction
/// characters, and bytes that are not UTF-8, become escapes.
#[must_use]
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                c if c.is_control() || is_directional(c) => {
                    let _ = write!(text, "{}", c.escape_unicode());
                }
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Characters that reorder what stands around them: a name could pass for another.
const fn is_directional(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
