//! YAML text to a tree in which every node knows its place.
//!
//! Deserialising straight into types stops at the first mistake; lint shows all of them, so the
//! checks walk this tree. Scalars stay text: `0951` is the four characters that were written.
//! Refused: anchors, aliases and tags (they can make a short text mean a huge one, and a reader
//! cannot see what is meant), more than one document, and anything beyond the limits.

use granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, options};

use crate::{
    finding::{Findings, Position},
    limits::{DEPTH_MAX, DOCUMENT_BYTES_MAX},
};

/// A node and where it starts.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub at: Position,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Text as written; `plain` when it was not quoted.
    Scalar {
        text: String,
        plain: bool,
    },
    Sequence(Vec<Node>),
    /// Keys and values in the order of the text; a key is any node.
    Mapping(Vec<(Node, Node)>),
}

impl Node {
    /// What it is, for "expected a list, found …".
    pub fn describe(&self) -> &'static str {
        match &self.value {
            Value::Scalar { .. } if self.is_null() => "nothing",
            Value::Scalar { .. } => "a text",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }

    /// An unquoted empty value, `~` or `null`.
    pub fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar { text, plain } => {
                *plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            _ => false,
        }
    }
}

/// The document's root, or `None` when the text is not one YAML document within the limits.
pub(crate) fn parse(source: &str, findings: &mut Findings) -> Option<Node> {
    if source.len() > DOCUMENT_BYTES_MAX {
        let message = format!(
            "the policy is {} bytes long; at most {DOCUMENT_BYTES_MAX} are read",
            source.len()
        );
        findings.error(Position { line: 1, column: 1 }, message);
        return None;
    }
    let mut builder = Builder::default();
    let options = options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
        flow_nesting_limit: DEPTH_MAX + 1,
        block_nesting_limit: DEPTH_MAX + 1,
    };
    for next in Parser::new_from_str_with_options(source, options) {
        match next {
            Ok((event, span)) => builder.take(event, position(&span.start), findings)?,
            Err(error) => {
                report(&error, findings);
                return None;
            }
        }
    }
    if builder.refused {
        return None;
    }
    if builder.root.is_none() {
        findings.error_hint(
            Position { line: 1, column: 1 },
            "the policy is empty",
            "begin with `apiVersion: sekimori/v1`",
        );
    }
    builder.root
}

fn report(error: &ScanError, findings: &mut Findings) {
    let message = format!("this is not YAML: {}", error.info());
    findings.error(position(error.marker()), message);
}

fn position(marker: &Marker) -> Position {
    Position { line: marker.line(), column: marker.col() + 1 }
}

/// An open mapping or sequence.
enum Open {
    Sequence(Position, Vec<Node>),
    Mapping(Position, Vec<(Node, Node)>, Option<Node>),
}

#[derive(Default)]
struct Builder {
    stack: Vec<Open>,
    root: Option<Node>,
    documents: usize,
    refused: bool,
}

impl Builder {
    /// `None` ends the reading: what follows could only repeat the finding.
    fn take(&mut self, event: Event<'_>, at: Position, findings: &mut Findings) -> Option<()> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    findings.error_hint(
                        at,
                        "a second document begins here",
                        "one file holds one policy: remove `---`",
                    );
                    return None;
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_extras(anchor, tag.is_some(), at, findings);
                let plain = style == ScalarStyle::Plain;
                self.put(Node { at, value: Value::Scalar { text: text.into_owned(), plain } });
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                findings.error_hint(
                    at,
                    "aliases (`*name`) are not allowed in a policy",
                    "write the value out, or quote it",
                );
                self.refused = true;
                self.put(Node { at, value: Value::Scalar { text: String::new(), plain: true } });
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_extras(anchor, tag.is_some(), at, findings);
                self.open(Open::Sequence(at, Vec::new()), findings)?;
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_extras(anchor, tag.is_some(), at, findings);
                self.open(Open::Mapping(at, Vec::new(), None), findings)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            _ => {}
        }
        Some(())
    }

    fn refuse_extras(&mut self, anchor: usize, tag: bool, at: Position, findings: &mut Findings) {
        if anchor != 0 {
            findings.error_hint(
                at,
                "anchors (`&name`) are not allowed in a policy",
                "write the value where it is used, or quote it",
            );
            self.refused = true;
        }
        if tag {
            findings.error_hint(
                at,
                "tags (`!name`) are not allowed in a policy",
                "remove the tag, or quote the value",
            );
            self.refused = true;
        }
    }

    fn open(&mut self, open: Open, findings: &mut Findings) -> Option<()> {
        let (Open::Sequence(at, _) | Open::Mapping(at, ..)) = &open;
        if self.stack.len() >= DEPTH_MAX {
            let message = format!("nested more than {DEPTH_MAX} levels deep");
            findings.error(*at, message);
            return None;
        }
        self.stack.push(open);
        Some(())
    }

    fn close(&mut self) {
        let node = match self.stack.pop() {
            Some(Open::Sequence(at, items)) => Node { at, value: Value::Sequence(items) },
            Some(Open::Mapping(at, entries, _)) => Node { at, value: Value::Mapping(entries) },
            None => return,
        };
        self.put(node);
    }

    fn put(&mut self, node: Node) {
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Open::Sequence(_, items)) => items.push(node),
            Some(Open::Mapping(_, entries, key)) => match key.take() {
                None => *key = Some(node),
                Some(key) => entries.push((key, node)),
            },
        }
    }
}
