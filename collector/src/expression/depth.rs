//! How deep the parts of an expression lie in one another, without a call for each.

use cel::common::ast::{EntryExpr, Expr, IdedExpr};

/// Whether some part lies deeper than `most`.
pub fn is_deeper(expression: &IdedExpr, most: usize) -> bool {
    let mut waiting = vec![(expression, 1_usize)];
    while let Some((part, depth)) = waiting.pop() {
        if depth > most {
            return true;
        }
        let mut below = |part| waiting.push((part, depth.saturating_add(1)));
        match &part.expr {
            Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
            Expr::Select(select) => below(&select.operand),
            Expr::Call(call) => {
                call.target.iter().for_each(|target| below(target));
                call.args.iter().for_each(below);
            }
            Expr::List(list) => list.elements.iter().for_each(below),
            Expr::Comprehension(it) => {
                [&it.iter_range, &it.accu_init, &it.loop_cond, &it.loop_step, &it.result]
                    .into_iter()
                    .for_each(below);
            }
            Expr::Map(map) => {
                map.entries.iter().for_each(|entry| entry_parts(&entry.expr, &mut below))
            }
            Expr::Struct(it) => {
                it.entries.iter().for_each(|entry| entry_parts(&entry.expr, &mut below))
            }
        }
    }
    false
}

fn entry_parts<'a>(entry: &'a EntryExpr, below: &mut impl FnMut(&'a IdedExpr)) {
    match entry {
        EntryExpr::StructField(field) => below(&field.value),
        EntryExpr::MapEntry(entry) => {
            below(&entry.key);
            below(&entry.value);
        }
    }
}
