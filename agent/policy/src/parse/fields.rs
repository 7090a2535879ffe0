//! Checked access to the nodes of the tree.

use std::collections::HashSet;

use crate::{
    finding::{Findings, Position, one_of, shown},
    limits::LIST_MAX,
    model::Located,
    yaml::{Node, Value},
};

/// The fields of one kind of mapping.
pub(super) struct Known {
    /// Whose fields they are, for messages.
    pub what: &'static str,
    /// Fields that can be given.
    pub fields: &'static [&'static str],
    /// Fields that the language has and this version does not do yet.
    pub later: &'static [&'static str],
}

/// The fields that a mapping has, each once, each known.
pub(super) struct Fields<'a> {
    pub at: Position,
    what: &'static str,
    written: usize,
    entries: Vec<(&'a str, Position, &'a Node)>,
}

impl<'a> Fields<'a> {
    /// Reads a mapping; unknown, unsupported and repeated fields are reported and left out.
    pub fn of(node: &'a Node, known: &Known, findings: &mut Findings) -> Option<Self> {
        let Value::Mapping(mapping) = &node.value else {
            let message =
                format!("expected a mapping for {}, found {}", known.what, node.describe());
            let hint = format!("with the fields {}", one_of(known.fields));
            findings.error_hint(node.at, message, hint);
            return None;
        };
        let mut seen = HashSet::new();
        let mut entries = Vec::new();
        for (key, value) in mapping {
            let Value::Scalar { text, .. } = &key.value else {
                let message =
                    format!("expected a field of {}, found {}", known.what, key.describe());
                findings.error(key.at, message);
                continue;
            };
            if !seen.insert(text.as_str()) {
                findings.error(key.at, format!("`{}` is given twice", shown(text)));
            } else if known.fields.contains(&text.as_str()) {
                entries.push((text.as_str(), key.at, value));
            } else if known.later.contains(&text.as_str()) {
                let message = format!("`{text}` is not supported by this version");
                findings.error_hint(key.at, message, "remove it");
            } else {
                unknown(text, key.at, known, findings);
            }
        }
        Some(Self { at: node.at, what: known.what, written: mapping.len(), entries })
    }

    /// Whether nothing was written, not even an unknown field.
    pub fn is_empty_mapping(&self) -> bool {
        self.written == 0
    }

    /// A field's value.
    pub fn get(&self, field: &str) -> Option<&'a Node> {
        self.entries.iter().find(|(name, ..)| *name == field).map(|(.., node)| *node)
    }

    /// A field's value; its absence is an error.
    pub fn required(&self, field: &str, findings: &mut Findings) -> Option<&'a Node> {
        let node = self.get(field);
        if node.is_none() {
            findings.error(self.at, format!("{} has no `{field}`", self.what));
        }
        node
    }

    /// The fields in the order of the text: name, where the name stands, value.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Position, &'a Node)> {
        self.entries.iter().copied()
    }
}

fn unknown(text: &str, at: Position, known: &Known, findings: &mut Findings) {
    let message = format!(
        "unknown field `{}` in {}, expected {}",
        shown(text),
        known.what,
        one_of(known.fields)
    );
    let all = known.fields.iter().chain(known.later).copied();
    match findings.suggest(text, all) {
        Some(hint) => findings.error_hint(at, message, hint),
        None => findings.error(at, message),
    }
}

/// A text that is not empty.
pub(super) fn text(node: &Node, what: &str, findings: &mut Findings) -> Option<Located<String>> {
    match &node.value {
        Value::Scalar { text, .. } if !node.is_null() => {
            if text.trim().is_empty() {
                findings.error(node.at, format!("{what} is empty"));
                return None;
            }
            Some(Located { value: text.clone(), at: node.at })
        }
        _ => {
            let message = format!("expected a text for {what}, found {}", node.describe());
            findings.error(node.at, message);
            None
        }
    }
}

/// The entries of a list.
pub(super) fn sequence<'a>(
    node: &'a Node,
    what: &str,
    findings: &mut Findings,
) -> Option<&'a [Node]> {
    let Value::Sequence(nodes) = &node.value else {
        let message = format!("expected a list for {what}, found {}", node.describe());
        findings.error(node.at, message);
        return None;
    };
    if nodes.len() > LIST_MAX {
        let message = format!("{what} has {} entries; at most {LIST_MAX}", nodes.len());
        findings.error(node.at, message);
        return None;
    }
    Some(nodes)
}

/// The entries of a list of texts; one text stands for a list of one. Never empty.
pub(super) fn items<'a>(node: &'a Node, what: &str, findings: &mut Findings) -> Option<&'a [Node]> {
    if matches!(node.value, Value::Scalar { .. }) && !node.is_null() {
        return Some(std::slice::from_ref(node));
    }
    let nodes = sequence(node, what, findings)?;
    if nodes.is_empty() {
        findings.error(node.at, format!("{what} is an empty list"));
        return None;
    }
    Some(nodes)
}

/// One of a few words.
pub(super) fn choice<T: Copy>(
    node: &Node,
    field: &str,
    words: &[(&'static str, T)],
    later: &[&'static str],
    findings: &mut Findings,
) -> Option<Located<T>> {
    let given = text(node, &format!("`{field}`"), findings)?;
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == given.value) {
        return Some(Located { value: *value, at: given.at });
    }
    if later.contains(&given.value.as_str()) {
        let message = format!("`{}` is not supported by this version", given.value);
        let supported: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        findings.error_hint(given.at, message, format!("supported: {}", one_of(&supported)));
        return None;
    }
    let names: Vec<&'static str> = words.iter().map(|(word, _)| *word).collect();
    let message =
        format!("unknown `{field}` `{}`, expected {}", shown(&given.value), one_of(&names));
    match findings.suggest(&given.value, names.iter().chain(later).copied()) {
        Some(hint) => findings.error_hint(given.at, message, hint),
        None => findings.error(given.at, message),
    }
    None
}
