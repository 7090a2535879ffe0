//! Every value of an event is in its other forms, somewhere.

use std::collections::BTreeSet;

use sekimori_formats::{ecs, ocsf};
use sekimori_proto::json;
use serde_json::Value;

use crate::events;

fn leaves(value: &Value, path: &str, found: &mut Vec<(String, String)>) {
    match value {
        Value::Null => {}
        Value::Object(object) => {
            for (name, inner) in object {
                leaves(inner, &format!("{path}.{name}"), found);
            }
        }
        Value::Array(list) => list.iter().for_each(|inner| leaves(inner, path, found)),
        Value::String(text) => found.push((path.to_owned(), text.clone())),
        other => found.push((path.to_owned(), other.to_string())),
    }
}

fn texts(value: &Value) -> BTreeSet<String> {
    let mut found = Vec::new();
    leaves(value, "", &mut found);
    found.into_iter().map(|(_, text)| text).collect()
}

/// Parts of a text that may be in fields of their own.
fn parts<'a>(path: &str, text: &'a str) -> Vec<&'a str> {
    if path.ends_with(".address") {
        let parts = text.rsplit_once(':').map(|(ip, port)| vec![ip.trim_matches(['[', ']']), port]);
        return parts.unwrap_or_else(|| vec![text]);
    }
    if path.ends_with(".environment") {
        return text.splitn(2, '=').collect();
    }
    vec![text]
}

#[test]
fn nothing_is_lost() {
    let all = events::golden().into_iter().map(|(_, event)| event).chain(events::every());
    for event in all {
        let mut own = Vec::new();
        leaves(&json::event(&event), "", &mut own);
        for form in [ocsf(&event), ecs(&event)] {
            let texts = texts(&form);
            for (path, text) in &own {
                let whole = texts.contains(text);
                let there = whole || parts(path, text).iter().all(|part| texts.contains(*part));
                assert!(there, "{path} = {text} is lost in\n{form:#}");
            }
        }
    }
}
