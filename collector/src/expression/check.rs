//! What an expression may be, found out before it is asked of any event.
//!
//! An unknown name, a word that no event can have, a text that is compared with a number: CEL itself
//! would say false or fail in the middle of a search; here whoever asks is told first. What it costs
//! is bounded too: no function that is not listed, no list within a list.

use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, operators};
use sekimori_proto::v1::{Kind, Operation, Verdict};
use sekimori_proto::words::Word;

use super::patterns;
use super::view::{Shape, Type};

/// What a part of an expression gives, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gives {
    Of(Type),
    Duration,
    /// A list of such.
    List(Option<Type>),
    /// Not known before it is asked.
    Something,
}

const TEXT: Gives = Gives::Of(Type::Made);
const INT: Gives = Gives::Of(Type::Int);
const BOOL: Gives = Gives::Of(Type::Bool);
const TIME: Gives = Gives::Of(Type::Time);

/// Names that a macro bound, the innermost last.
type Scope<'a> = Vec<(&'a str, Gives)>;

/// Whether it may be asked.
///
/// # Errors
/// A sentence for whoever wrote it.
pub fn check(expression: &IdedExpr) -> Result<(), String> {
    let gives = walk(expression, &mut Vec::new())?;
    match gives {
        Gives::Something | BOOL => Ok(()),
        _ => Err(format!("it is {}, and must be true or false: compare it", gives.name())),
    }
}

impl Gives {
    fn name(self) -> &'static str {
        match self {
            Gives::Of(Type::Text | Type::Made | Type::Kind | Type::Verdict | Type::Operation) => {
                "a text"
            }
            Gives::Of(Type::Int) => "a number",
            Gives::Of(Type::Bool) => "true or false",
            Gives::Of(Type::Time) => "a time",
            Gives::Duration => "a duration",
            Gives::Of(Type::Is(_)) => "something with fields of its own",
            Gives::Of(Type::Texts | Type::Many(_)) | Gives::List(_) => "a list",
            Gives::Something => "something",
        }
    }

    /// Of its elements.
    fn element(self) -> Option<Gives> {
        match self {
            Gives::Of(Type::Texts) => Some(Gives::Of(Type::Text)),
            Gives::Of(Type::Many(shape)) => Some(Gives::Of(Type::Is(shape))),
            Gives::List(element) => Some(element.map_or(Gives::Something, Gives::Of)),
            Gives::Something => Some(Gives::Something),
            _ => None,
        }
    }

    fn may_be(self, other: Gives) -> bool {
        self == Gives::Something || other == Gives::Something || self.name() == other.name()
    }
}

fn walk<'a>(expression: &'a IdedExpr, scope: &mut Scope<'a>) -> Result<Gives, String> {
    match &expression.expr {
        Expr::Ident(name) => ident(name, scope),
        Expr::Select(select) => {
            if select.test {
                return Err(format!(
                    "has(….{0}): every name has a value; what an event does not have is \"\", 0 or \
                     false: compare {0} with that",
                    select.field
                ));
            }
            match walk(&select.operand, scope)? {
                Gives::Of(Type::Is(shape)) => match shape.field(&select.field) {
                    Some(field) => Ok(Gives::Of(field)),
                    None => Err(unknown(&select.field, shape)),
                },
                Gives::Something => Ok(Gives::Something),
                Gives::Of(Type::Many(_) | Type::Texts) | Gives::List(_) => Err(format!(
                    ".{0} of a list: ask of its elements, as in LIST.exists(x, x.{0} == \"…\")",
                    select.field
                )),
                other => Err(format!(".{}: {} has no fields", select.field, other.name())),
            }
        }
        Expr::Literal(literal) => match literal {
            LiteralValue::Boolean(_) => Ok(BOOL),
            LiteralValue::Int(_) => Ok(INT),
            LiteralValue::String(_) => Ok(TEXT),
            LiteralValue::Double(_) => Ok(Gives::Something),
            LiteralValue::UInt(_) => Err("numbers are written without u".to_owned()),
            LiteralValue::Bytes(_) => {
                Err("b\"…\": paths are texts here; bytes that are no UTF-8 are \\\\xNN".to_owned())
            }
            LiteralValue::Null => {
                Err("null: what an event does not have is \"\", 0 or false".to_owned())
            }
        },
        Expr::List(list) => {
            let mut element = None;
            for it in &list.elements {
                match (walk(it, scope)?, element) {
                    (Gives::Of(gives), None) => element = Some(gives),
                    (gives, Some(first)) if !gives.may_be(Gives::Of(first)) => {
                        return Err("a list has elements of one type".to_owned());
                    }
                    _ => {}
                }
            }
            Ok(Gives::List(element))
        }
        Expr::Call(call) => self::call(call, scope),
        Expr::Comprehension(comprehension) => loops(comprehension, scope),
        Expr::Map(_) | Expr::Struct(_) => Err("{…} is not known here".to_owned()),
        Expr::Unspecified => Err("it is empty".to_owned()),
    }
}

fn ident(name: &str, scope: &Scope<'_>) -> Result<Gives, String> {
    if let Some((_, gives)) = scope.iter().rev().find(|(bound, _)| *bound == name) {
        return Ok(*gives);
    }
    Shape::Event.field(name).map(Gives::Of).ok_or_else(|| unknown(name, Shape::Event))
}

fn unknown(name: &str, shape: Shape) -> String {
    let near = shape.fields().iter().map(|(known, _)| (strsim::jaro_winkler(name, known), *known));
    let best = near.max_by(|one, other| one.0.total_cmp(&other.0));
    match best {
        Some((likeness, known)) if likeness > 0.8 => {
            format!("there is no {name} here; did you mean {known}?")
        }
        _ => {
            let known: Vec<&str> = shape.fields().iter().map(|(known, _)| *known).collect();
            format!("there is no {name} here, only {}", known.join(", "))
        }
    }
}

fn loops<'a>(it: &'a ComprehensionExpr, scope: &mut Scope<'a>) -> Result<Gives, String> {
    if scope.iter().any(|(name, _)| name.starts_with('@')) {
        return Err("a list within a list is not looked through: it could take too long".to_owned());
    }
    let element = walk(&it.iter_range, scope)?;
    let Some(element) = element.element() else {
        return Err(format!("{} has no elements to look through", element.name()));
    };
    if it.iter_var2.is_some() {
        return Err("a list has one name for its elements".to_owned());
    }
    if Shape::Event.field(&it.iter_var).is_some() {
        return Err(format!("{} is a name of the event: call the elements x", it.iter_var));
    }
    let result = walk(&it.accu_init, scope)?;
    let depth = scope.len();
    scope.push((&it.accu_var, result));
    scope.push((&it.iter_var, element));
    let steps = walk(&it.loop_cond, scope).and_then(|_| walk(&it.loop_step, scope));
    scope.truncate(depth.saturating_add(1));
    let result = steps.and_then(|_| walk(&it.result, scope));
    scope.truncate(depth);
    result
}

fn call<'a>(call: &'a CallExpr, scope: &mut Scope<'a>) -> Result<Gives, String> {
    let CallExpr { func_name, target, args } = call;
    let mut given = Vec::with_capacity(args.len().saturating_add(1));
    for part in target.iter().map(AsRef::as_ref).chain(args) {
        given.push(walk(part, scope)?);
    }
    match (func_name.as_str(), target.is_some(), given.as_slice()) {
        (operators::EQUALS | operators::NOT_EQUALS, false, [left, right]) => {
            if !left.may_be(*right) {
                return Err(format!(
                    "{} is compared with {}, which is never equal",
                    left.name(),
                    right.name()
                ));
            }
            for (side, other) in [(left, args.get(1)), (right, args.first())] {
                words(*side, other)?;
            }
            Ok(BOOL)
        }
        (operators::IN, false, [left, right]) => {
            let Some(element) = right.element() else {
                return Err(format!("in: {} is no list", right.name()));
            };
            if !left.may_be(element) {
                return Err(format!("in: {} is in no list of this type", left.name()));
            }
            if let Some(IdedExpr { expr: Expr::List(list), .. }) = args.get(1) {
                list.elements.iter().try_for_each(|it| words(*left, Some(it)))?;
            }
            Ok(BOOL)
        }
        (
            operators::LESS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS,
            false,
            [left, right],
        ) => match left.may_be(*right) {
            true => Ok(BOOL),
            false => Err(format!("{} is compared with {}", left.name(), right.name())),
        },
        (operators::LOGICAL_AND | operators::LOGICAL_OR, false, [left, right]) => {
            truth(*left).and_then(|()| truth(*right)).map(|()| BOOL)
        }
        (operators::LOGICAL_NOT | operators::NOT_STRICTLY_FALSE, false, [it]) => {
            truth(*it).map(|()| BOOL)
        }
        (operators::CONDITIONAL, false, [condition, one, other]) => {
            truth(*condition)?;
            match one.may_be(*other) {
                true => Ok(*one),
                false => Err("? : gives the same type either way".to_owned()),
            }
        }
        (operators::ADD | operators::SUBSTRACT, false, [left, right]) => sum(*left, *right),
        (operators::MULTIPLY | operators::DIVIDE | operators::MODULO, false, [left, right]) => {
            number(*left).and_then(|()| number(*right)).map(|()| Gives::Something)
        }
        (operators::NEGATE, false, [it]) => number(*it).map(|()| *it),
        (operators::INDEX, false, [list, place]) => {
            number(*place)?;
            list.element().ok_or_else(|| format!("{} has no elements", list.name()))
        }
        ("startsWith" | "endsWith" | "contains", true, [text, part]) => {
            texts(func_name, &[*text, *part]).map(|()| BOOL)
        }
        ("matches", true, [text, pattern]) => {
            texts(func_name, &[*text, *pattern])?;
            match args.first().map(|it| &it.expr) {
                Some(Expr::Literal(LiteralValue::String(pattern))) => {
                    patterns::check(pattern.inner()).map(|()| BOOL)
                }
                _ => Err("matches: the pattern is written out".to_owned()),
            }
        }
        ("lowerAscii", true, [text]) => texts(func_name, &[*text]).map(|()| TEXT),
        ("size", _, [Gives::Something | TEXT | Gives::Of(Type::Text)]) => Ok(INT),
        ("size", _, [list]) if list.element().is_some() => Ok(INT),
        ("timestamp", false, [text]) => {
            texts(func_name, &[*text])?;
            let written = written(func_name, args.first())?;
            match written.parse::<jiff::Timestamp>() {
                Ok(_) => Ok(TIME),
                Err(error) => Err(format!("timestamp({written:?}): {error}")),
            }
        }
        ("duration", false, [text]) => {
            texts(func_name, &[*text])?;
            written(func_name, args.first()).map(|_| Gives::Duration)
        }
        ("string", false, [it]) if it.element().is_none() || *it == Gives::Something => Ok(TEXT),
        (
            "getFullYear" | "getMonth" | "getDate" | "getDayOfMonth" | "getDayOfWeek"
            | "getDayOfYear" | "getHours" | "getMinutes" | "getSeconds" | "getMilliseconds",
            true,
            [Gives::Of(Type::Time) | Gives::Something, zone @ ..],
        ) if zone.len() <= 1 => texts(func_name, zone).map(|()| INT),
        (name, ..) => Err(format!(
            "{} is not known here, or not of these; there are startsWith, endsWith, contains, \
             matches, lowerAscii, size, exists, exists_one, all, filter, map, timestamp, duration, \
             string, getHours and its like",
            operators::find_operator(name).unwrap_or(name)
        )),
    }
}

fn truth(gives: Gives) -> Result<(), String> {
    match gives {
        BOOL | Gives::Something => Ok(()),
        other => Err(format!("{} is neither true nor false: compare it", other.name())),
    }
}

fn number(gives: Gives) -> Result<(), String> {
    match gives {
        INT | Gives::Something => Ok(()),
        other => Err(format!("{} is no number", other.name())),
    }
}

fn texts(function: &str, all: &[Gives]) -> Result<(), String> {
    match all.iter().find(|it| !it.may_be(TEXT)) {
        Some(other) => Err(format!("{function}: {} is no text", other.name())),
        None => Ok(()),
    }
}

fn written<'a>(function: &str, argument: Option<&'a IdedExpr>) -> Result<&'a str, String> {
    match argument.map(|it| &it.expr) {
        Some(Expr::Literal(LiteralValue::String(text))) => Ok(text.inner()),
        _ => Err(format!("{function}: its text is written out")),
    }
}

fn sum(left: Gives, right: Gives) -> Result<Gives, String> {
    match (left, right) {
        (TIME, TIME) => Ok(Gives::Duration),
        (TIME | Gives::Duration, Gives::Duration) => Ok(left),
        (Gives::Duration, TIME) => Ok(TIME),
        // What filter and map gather.
        (Gives::List(_), Gives::List(element)) => Ok(Gives::List(element)),
        (Gives::Something, other) | (other, Gives::Something) => Ok(other),
        (left, right) if left == INT && right == INT => Ok(INT),
        (left, right) if left.may_be(TEXT) && right.may_be(TEXT) => Ok(TEXT),
        _ => Err(format!("{} and {} do not go together", left.name(), right.name())),
    }
}

/// A word that is compared with what has words must be one of them.
fn words(of: Gives, other: Option<&IdedExpr>) -> Result<(), String> {
    let Some(IdedExpr { expr: Expr::Literal(LiteralValue::String(word)), .. }) = other else {
        return Ok(());
    };
    fn known<W: Word>(what: &str, word: &str) -> Result<(), String> {
        match W::from_word(word) {
            Some(_) => Ok(()),
            None => Err(format!("{word:?} is no {what}: there are {}", W::all_words())),
        }
    }
    match of {
        Gives::Of(Type::Kind) => known::<Kind>("kind", word.inner()),
        Gives::Of(Type::Verdict) => known::<Verdict>("verdict", word.inner()),
        Gives::Of(Type::Operation) if word.inner().is_empty() => Ok(()),
        Gives::Of(Type::Operation) => known::<Operation>("operation", word.inner()),
        _ => Ok(()),
    }
}
