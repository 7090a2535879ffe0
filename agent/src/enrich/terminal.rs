//! Names of terminals.

/// The kernel's name of a terminal (`pts0`, `tty1`, zero-padded) as `/dev` has it (`pts/0`,
/// `tty1`). Empty when there is none, or when it is no name a terminal can have.
#[must_use]
pub fn terminal(name: &[u8]) -> String {
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    if !name.iter().all(u8::is_ascii_alphanumeric) {
        return String::new();
    }
    let name = String::from_utf8_lossy(name);
    match name.strip_prefix("pts") {
        Some(number) if number.bytes().all(|byte| byte.is_ascii_digit()) && !number.is_empty() => {
            format!("pts/{number}")
        }
        _ => name.into_owned(),
    }
}
