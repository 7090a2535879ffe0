//! Ring records, from bytes that are not trusted to [`Raw`].
//!
//! Every length, kind and version is checked before it is used; a record that does not hold
//! together is an error with the reason, never a panic and never half a record.

mod error;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
mod text;

pub(crate) use self::text::CUT;
pub use self::{error::DecodeError, text::printable};

use sekimori_abi::event::{ABI_VERSION, EVENT_BYTES, Event, flag, kind, operation, verdict};
use sekimori_abi::limits::{ENVIRONMENT_BYTES_MAX, TEXT_BYTES_MAX, VARIABLE_BYTES_MAX};
use zerocopy::FromBytes;

/// One checked record. Its texts stay where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw<'a> {
    /// The fixed part. `kind`, `operation` and `verdict` are known values.
    pub event: Event,
    path: &'a [u8],
    second_path: &'a [u8],
    /// Third text as it came: arguments, socket path, link target, name of an attribute, or the
    /// name given to open.
    pub third: &'a [u8],
    environment: &'a [u8],
}

impl Raw<'_> {
    /// Path of the file, `/a/b`; `.../b` when the walk stopped before the root; empty when the
    /// record has none.
    #[must_use]
    pub fn path(&self) -> Vec<u8> {
        if self.has(flag::PATH_WHOLE) {
            text::whole_path(self.path)
        } else {
            text::path(self.path, self.has(flag::PATH_TRUNCATED))
        }
    }

    /// Second path: the new name, or for `exec` the working directory.
    #[must_use]
    pub fn second_path(&self) -> Vec<u8> {
        text::path(self.second_path, self.has(flag::SECOND_PATH_TRUNCATED))
    }

    /// The third text as an argument list: split at NULs, at most as many as the kernel counted.
    #[must_use]
    pub fn arguments(&self) -> Vec<Vec<u8>> {
        let counted = usize::try_from(self.event.size).unwrap_or(usize::MAX);
        text::arguments(self.third, if counted == 0 { usize::MAX } else { counted })
    }

    /// Variables of the new program's environment that tell the loader what else to load.
    #[must_use]
    pub fn environment(&self) -> Vec<Vec<u8>> {
        text::arguments(self.environment, usize::MAX)
    }

    /// Whether this bit of [`flag`] is set.
    #[must_use]
    pub const fn has(&self, bit: u16) -> bool {
        self.event.flags & bit != 0
    }
}

/// Reads one record.
///
/// # Errors
/// When the bytes are shorter than they say, or name a version, kind, operation or verdict that
/// this build does not know.
pub fn decode(bytes: &[u8]) -> Result<Raw<'_>, DecodeError> {
    let (event, _) = Event::read_from_prefix(bytes)
        .map_err(|_| DecodeError::Short { bytes: bytes.len(), needed: EVENT_BYTES })?;
    if event.abi != ABI_VERSION {
        return Err(DecodeError::Version { found: event.abi });
    }
    check_words(&event)?;
    let record_bytes = usize::try_from(event.record_bytes).unwrap_or(usize::MAX);
    let texts = bytes
        .get(EVENT_BYTES..record_bytes)
        .ok_or(DecodeError::Length { said: event.record_bytes, bytes: bytes.len() })?;
    let said: usize = event.text_bytes.iter().map(|length| usize::from(*length)).sum();
    if said != texts.len() || said > TEXT_BYTES_MAX {
        return Err(DecodeError::Texts { said, bytes: texts.len() });
    }
    let [first, second, third, fourth] = event.text_bytes.map(usize::from);
    if fourth > ENVIRONMENT_BYTES_MAX + VARIABLE_BYTES_MAX {
        return Err(DecodeError::Environment { said: fourth });
    }
    let (path, rest) = texts.split_at_checked(first).unwrap_or((texts, &[]));
    let (second_path, rest) = rest.split_at_checked(second).unwrap_or((rest, &[]));
    let (third, environment) = rest.split_at_checked(third).unwrap_or((rest, &[]));
    Ok(Raw { event, path, second_path, third, environment })
}

fn check_words(event: &Event) -> Result<(), DecodeError> {
    if !(kind::FILE_OPEN..=kind::SHARE_WRITE).contains(&event.kind) {
        return Err(DecodeError::Kind { found: event.kind });
    }
    if !matches!(
        event.operation,
        operation::OPEN..=operation::SOURCE | operation::PAYLOAD..=operation::LIMIT
    ) {
        return Err(DecodeError::Operation { found: event.operation, kind: event.kind });
    }
    if event.verdict > verdict::WOULD_DENY {
        return Err(DecodeError::Verdict { found: event.verdict });
    }
    if event.ring > 1 {
        return Err(DecodeError::Ring { found: event.ring });
    }
    Ok(())
}
