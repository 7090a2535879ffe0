//! Regular expressions of `matches`, compiled once and bounded.

use std::cell::RefCell;
use std::num::NonZeroUsize;

use cel::ExecutionError;
use cel::common::types::{CelBool, CelString};
use cel::common::value::CowVal;
use lru::LruCache;
use regex::{Regex, RegexBuilder};

/// Bytes that a compiled one may take.
const PATTERN_BYTES_MAX: usize = 256 << 10;
/// Compiled ones that each thread keeps.
const PATTERNS_KEPT: usize = 32;

thread_local! {
    static KEPT: RefCell<LruCache<String, Regex>> = RefCell::new(LruCache::new(
        NonZeroUsize::new(PATTERNS_KEPT).unwrap_or(NonZeroUsize::MIN),
    ));
}

/// Whether it is one that may be asked.
///
/// # Errors
/// A sentence for whoever wrote it.
pub fn check(pattern: &str) -> Result<(), String> {
    compile(pattern).map(|_| ()).map_err(|error| format!("matches({pattern:?}): {error}"))
}

/// `matches` of CEL: whether the pattern is found anywhere in the text.
pub fn matches<'b, 'v>(given: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let text = |place: usize| given.get(place).and_then(|it| it.downcast_ref::<CelString<'_>>());
    let (Some(text), Some(pattern)) = (text(0), text(1)) else {
        return Err(ExecutionError::missing_argument_or_target());
    };
    let found = KEPT.with_borrow_mut(|kept| {
        if let Some(known) = kept.get(pattern.inner()) {
            return Ok(known.is_match(text.inner()));
        }
        let compiled = compile(pattern.inner())?;
        let found = compiled.is_match(text.inner());
        kept.put(pattern.inner().to_owned(), compiled);
        Ok(found)
    });
    let found =
        found.map_err(|error: regex::Error| ExecutionError::function_error("matches", error))?;
    Ok(CowVal::owned(CelBool::from(found)))
}

fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern)
        .size_limit(PATTERN_BYTES_MAX)
        .dfa_size_limit(PATTERN_BYTES_MAX)
        .nest_limit(32)
        .build()
}
