//! Assertions with messages that say what was got.

use std::fmt::Debug;

use anyhow::{Result, bail};

use crate::guest::Output;
use crate::limits::SHOWN_BYTES_MAX;

/// What the system says when a rule refuses.
pub const REFUSED: &str = "Operation not permitted";

/// The program ended well.
///
/// # Errors
/// When it did not.
pub fn ok(output: &Output) -> Result<()> {
    if output.status != 0 {
        bail!("`{}` should succeed: {}", output.command, shown(output));
    }
    Ok(())
}

/// The program ended badly and said `text`.
///
/// # Errors
/// When it did not.
pub fn fails_with(output: &Output, text: &str) -> Result<()> {
    let said = output.errors().contains(text) || output.text().contains(text);
    if output.status == 0 || !said {
        bail!("`{}` should fail with {text:?}: {}", output.command, shown(output));
    }
    Ok(())
}

/// The program was refused by a rule.
///
/// # Errors
/// When it was not.
pub fn refused(output: &Output) -> Result<()> {
    fails_with(output, REFUSED)
}

/// Two values are equal.
///
/// # Errors
/// When they are not.
pub fn equal<T: PartialEq + Debug>(what: &str, got: T, expected: T) -> Result<()> {
    if got != expected {
        bail!("{what}: expected {expected:?}, got {got:?}");
    }
    Ok(())
}

/// Something holds.
///
/// # Errors
/// When it does not; the message is `what`.
pub fn that(holds: bool, what: impl Into<String>) -> Result<()> {
    if !holds {
        bail!("{}", what.into());
    }
    Ok(())
}

fn shown(output: &Output) -> String {
    let cut = |text: String| text.chars().take(SHOWN_BYTES_MAX).collect::<String>();
    format!(
        "status {}, output {:?}, errors {:?}",
        output.status,
        cut(output.text()),
        cut(output.errors())
    )
}
