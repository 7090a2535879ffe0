//! What an expression says of the fields that blocks are found by.
//!
//! Only what must hold of every event that matches: the parts of a chain of `&&`. Nothing is taken
//! from a part that is not understood, so that this is never more than what the expression says.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators};
use sekimori_proto::v1::{Kind, Verdict};
use sekimori_proto::words::Word as _;

use super::view::{Shape, Type};

/// Conditions that an event must meet to match; each holds when any of its values does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Narrow {
    /// Numbers of kinds.
    pub kinds: Vec<Vec<i32>>,
    /// Numbers of verdicts.
    pub verdicts: Vec<Vec<i32>>,
    /// Names of hosts.
    pub hosts: Vec<Vec<String>>,
    /// Names of users or login users.
    pub users: Vec<Vec<String>>,
    /// Rules.
    pub rules: Vec<Vec<String>>,
    /// Serials of devices.
    pub serials: Vec<Vec<String>>,
    /// Paths of executables.
    pub programs: Vec<Vec<String>>,
    /// Texts of which one lies in the encoded event as it is.
    pub verbatim: Vec<Vec<String>>,
    /// UTC ns since 1970, the first and the last.
    pub times: Option<(i64, i64)>,
}

impl Narrow {
    /// Of a checked expression.
    pub fn of(expression: &IdedExpr) -> Narrow {
        let mut narrow = Narrow::default();
        narrow.all_of(expression);
        narrow
    }

    fn all_of(&mut self, expression: &IdedExpr) {
        let Expr::Call(CallExpr { func_name, target, args }) = &expression.expr else { return };
        match (func_name.as_str(), target.as_deref(), args.as_slice()) {
            (operators::LOGICAL_AND, None, parts) => parts.iter().for_each(|it| self.all_of(it)),
            (operators::EQUALS, None, [left, right]) => {
                if let (Some(path), Some(text)) = (path(left), literal(right)) {
                    self.one_of(&path, &[text]);
                } else if let (Some(text), Some(path)) = (literal(left), path(right)) {
                    self.one_of(&path, &[text]);
                }
            }
            (operators::IN, None, [left, IdedExpr { expr: Expr::List(list), .. }]) => {
                let texts: Option<Vec<&str>> = list.elements.iter().map(literal).collect();
                if let (Some(path), Some(texts)) = (path(left), texts) {
                    self.one_of(&path, &texts);
                }
            }
            ("startsWith" | "endsWith" | "contains", Some(of), [part]) => {
                if let (Some(path), Some(text)) = (path(of), literal(part))
                    && path.what == Type::Text
                {
                    self.lies_in(&[text]);
                }
            }
            (operators::GREATER | operators::GREATER_EQUALS, None, [left, right]) => {
                self.between(left, right, true);
            }
            (operators::LESS | operators::LESS_EQUALS, None, [left, right]) => {
                self.between(left, right, false);
            }
            _ => {}
        }
    }

    fn one_of(&mut self, path: &Path<'_>, texts: &[&str]) {
        let owned = || texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        // An absent text has no tag.
        let named = !texts.contains(&"");
        match path.names.as_slice() {
            ["kind"] => {
                let numbers = texts.iter().filter_map(|word| Kind::from_word(word));
                self.kinds.push(numbers.map(Into::into).collect());
            }
            ["verdict"] => {
                let numbers = texts.iter().filter_map(|word| Verdict::from_word(word));
                self.verdicts.push(numbers.map(Into::into).collect());
            }
            ["host"] if named => self.hosts.push(owned()),
            ["rule"] if named => self.rules.push(owned()),
            ["process", "user" | "login_user"] if named => self.users.push(owned()),
            ["process", "exe"] if named && texts.iter().all(|text| !text.contains('\\')) => {
                self.programs.push(owned());
            }
            ["device", "serial"] | ["file", "device", "serial"] if named => {
                self.serials.push(owned());
            }
            _ => {}
        }
        // The name of the host is not a part of the event that is stored.
        if path.what == Type::Text && path.names != ["host"] {
            self.lies_in(texts);
        }
    }

    /// Bytes that are no UTF-8, and backslashes, do not lie in the record as they are written here.
    fn lies_in(&mut self, texts: &[&str]) {
        if texts.iter().all(|text| !text.is_empty() && !text.contains('\\')) {
            self.verbatim.push(texts.iter().map(|text| (*text).to_owned()).collect());
        }
    }

    fn between(&mut self, left: &IdedExpr, right: &IdedExpr, greater: bool) {
        let (bound, from) = match (path(left), moment(right), moment(left), path(right)) {
            (Some(path), Some(bound), ..) if path.names == ["time"] => (bound, greater),
            (.., Some(bound), Some(path)) if path.names == ["time"] => (bound, !greater),
            _ => return,
        };
        let (first, last) = self.times.unwrap_or((i64::MIN, i64::MAX));
        self.times = Some(match from {
            true => (first.max(bound), last),
            false => (first, last.min(bound)),
        });
    }
}

/// Names from the event on, and what lies there.
struct Path<'a> {
    names: Vec<&'a str>,
    what: Type,
}

fn path(expression: &IdedExpr) -> Option<Path<'_>> {
    match &expression.expr {
        Expr::Ident(name) => Some(Path { names: vec![name], what: Shape::Event.field(name)? }),
        Expr::Select(select) => {
            let Path { mut names, what } = path(&select.operand)?;
            let Type::Is(shape) = what else { return None };
            names.push(&select.field);
            Some(Path { names, what: shape.field(&select.field)? })
        }
        _ => None,
    }
}

fn literal(expression: &IdedExpr) -> Option<&str> {
    match &expression.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

/// UTC ns since 1970 of a `timestamp("…")`.
fn moment(expression: &IdedExpr) -> Option<i64> {
    let Expr::Call(CallExpr { func_name, target: None, args }) = &expression.expr else {
        return None;
    };
    let text = args.first().filter(|_| func_name == "timestamp").and_then(literal)?;
    let time: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok()
}
