//! Filters in CEL, the Common Expression Language: of questions, streams and alerts alike.
//!
//! Parser and interpreter are the crate `cel`. What it leaves open is closed here: an expression is
//! bounded before it is parsed, checked against the fields of an event before it is asked, and what
//! it says of the fields that blocks are found by is taken from it, so that a search with an
//! expression reads no more of the store than one with the same filter.

mod check;
mod depth;
mod narrow;
mod patterns;
mod view;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::common::ast::IdedExpr;
use cel::common::types::{CelBool, STRING_TYPE};
use cel::parser::PrattParser;
use cel::{Context, Env, Value, extensions};
use sekimori_proto::v1::Event;
use thiserror::Error;

pub use narrow::Narrow;
use view::Node;

use crate::limits::{EXPRESSION_BYTES_MAX, EXPRESSION_DEPTH_MAX, EXPRESSION_NESTING_MAX};

/// An expression that is none, or cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ExpressionError {
    /// More bytes than the limit.
    #[error("{0} bytes, at most {EXPRESSION_BYTES_MAX}")]
    TooLong(usize),
    /// Brackets, signs, names or conditions within one another.
    #[error(
        "its parts lie too deep in one another: at most {EXPRESSION_NESTING_MAX} brackets, and \
         {EXPRESSION_DEPTH_MAX} parts"
    )]
    TooDeep,
    /// Not CEL.
    #[error("{0}")]
    Syntax(String),
    /// CEL that cannot be asked of an event.
    #[error("{0}")]
    Meaning(String),
    /// An event for which it has no answer.
    #[error("of an event it cannot be said: {0}")]
    Failed(String),
}

/// A filter in CEL.
#[derive(Clone)]
pub struct Expression {
    text: Arc<str>,
    parsed: Arc<IdedExpr>,
    narrow: Arc<Narrow>,
}

static ENVIRONMENT: LazyLock<Option<Arc<Env>>> = LazyLock::new(|| environment().map(Arc::new));

fn environment() -> Option<Env> {
    let mut environment = Env::stdlib();
    environment.add_extension(extensions::strings).ok()?;
    environment
        .add_member_overload(
            "matches",
            "matches_string",
            STRING_TYPE,
            vec![STRING_TYPE],
            patterns::matches,
        )
        .ok()?;
    Some(environment)
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Expression").field(&self.text).finish()
    }
}

impl Expression {
    /// Of its text.
    ///
    /// # Errors
    /// When it is too long or too deep, no CEL, or cannot be asked of an event.
    pub fn new(text: &str) -> Result<Expression, ExpressionError> {
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(ExpressionError::TooLong(text.len()));
        }
        if nesting(text) > EXPRESSION_NESTING_MAX {
            return Err(ExpressionError::TooDeep);
        }
        let parser = PrattParser::new()
            .max_recursion_depth(u16::try_from(EXPRESSION_NESTING_MAX).unwrap_or(u16::MAX))
            .error_reporting_limit(1)
            .error_recovery_limit(1);
        let parsed = caught(|| parser.parse(text).map_err(|error| error.to_string()))
            .and_then(|parsed| parsed)
            .map_err(|error| ExpressionError::Syntax(told(&error)))?;
        // Chains of signs and of names are no brackets, and yet lie in one another once parsed.
        if depth::is_deeper(&parsed, EXPRESSION_DEPTH_MAX) {
            return Err(ExpressionError::TooDeep);
        }
        check::check(&parsed).map_err(ExpressionError::Meaning)?;
        let narrow = Arc::new(Narrow::of(&parsed));
        let expression = Expression { text: text.into(), parsed: Arc::new(parsed), narrow };
        // What fails for an event with nothing in it fails for many.
        expression.matches(&Event::default())?;
        Ok(expression)
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What must hold of an event that matches, in terms that blocks are found by.
    pub fn narrow(&self) -> &Narrow {
        &self.narrow
    }

    /// Whether it is true of an event.
    ///
    /// # Errors
    /// [`ExpressionError::Failed`]: a division by zero, an element that is not there.
    pub fn matches(&self, event: &Event) -> Result<bool, ExpressionError> {
        let failed = |why: String| ExpressionError::Failed(why);
        let environment = ENVIRONMENT.as_ref().ok_or_else(|| failed("no environment".into()))?;
        let answer = caught(|| {
            let node = Node::Event(event);
            let mut context = Context::with_env(Arc::clone(environment));
            context.set_variable_resolver(&node);
            match Value::resolve_val(&self.parsed, &context) {
                Ok(value) => match value.downcast_ref::<CelBool>() {
                    Some(truth) => Ok(*truth.inner()),
                    None => Err("it is neither true nor false".to_owned()),
                },
                Err(error) => Err(error.to_string()),
            }
        });
        answer.and_then(|answer| answer).map_err(failed)
    }
}

/// How deep brackets, signs and conditions lie in one another, at most: before a parser that calls
/// itself for each of them sees the text. Texts in quotes count too, which is more careful than
/// needed.
fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest, mut row) = (0_usize, 0_usize, 0_usize);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' | b'?' => depth = depth.saturating_add(1),
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        row = match byte {
            b'!' | b'-' => row.saturating_add(1),
            b' ' | b'\t' | b'\n' | b'\r' => row,
            _ => 0,
        };
        deepest = deepest.max(depth.saturating_add(row));
    }
    deepest
}

/// Without what a panic would take with it: parser and interpreter have some.
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| "it cannot be worked on".to_owned())
}

/// The first line that says something, without the parser's own marks.
fn told(error: &str) -> String {
    let line = error.lines().next().unwrap_or_default();
    line.strip_prefix("ERROR: <input>:").unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests;
