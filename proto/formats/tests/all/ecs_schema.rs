//! ECS, checked against the list of fields that the makers of the schema publish.

use sekimori_formats::{ECS_VERSION, ecs};
use serde_json::{Value, json};

use crate::{cache, events};

/// Everything that is wrong with a document.
fn problems(fields: &Value, document: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(fields, document, "", &mut found);
    let event = &document["event"];
    let categories = fields["event.category"]["allowed_values"].as_array().unwrap();
    let expected: Vec<&Value> = categories
        .iter()
        .filter(|it| event["category"].as_array().unwrap().contains(&it["name"]))
        .flat_map(|it| it["expected_event_types"].as_array().unwrap())
        .collect();
    for kind_of in event["type"].as_array().unwrap() {
        if !expected.contains(&kind_of) {
            found.push(format!("event.type {kind_of} with {}", event["category"]));
        }
    }
    found
}

fn walk(fields: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    for (name, inner) in value.as_object().unwrap() {
        if path.is_empty() && name == "sekimori" {
            continue;
        }
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if inner.is_object() {
            walk(fields, inner, &path, found);
            continue;
        }
        let field = &fields[&path];
        let list = field["normalize"].as_array().is_some_and(|it| it.contains(&json!("array")));
        let values = inner.as_array().cloned().unwrap_or_else(|| vec![inner.clone()]);
        let known: Vec<&Value> = field["allowed_values"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|it| &it["name"])
            .collect();
        let fits = |value: &Value| match field["type"].as_str() {
            Some("keyword" | "wildcard" | "match_only_text" | "constant_keyword") => {
                value.is_string()
            }
            Some("long") => value.is_i64() || value.is_u64(),
            Some("date") => value.as_str().is_some_and(is_time),
            Some("ip") => value.as_str().is_some_and(|it| it.parse::<std::net::IpAddr>().is_ok()),
            _ => false,
        };
        if list && !inner.is_array() {
            found.push(format!("{path} must be a list"));
        }
        if !values.iter().all(fits) {
            found.push(format!("{path} = {inner}: the schema has {}", field["type"]));
        }
        if !known.is_empty() && !values.iter().all(|value| known.contains(&value)) {
            found.push(format!("{path} = {inner} is not one of its values"));
        }
    }
}

fn is_time(text: &str) -> bool {
    text.len() == 30 && text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok()
}

fn fields() -> Value {
    let list = std::fs::read(cache("ecs/fields.json")).unwrap();
    let fields: Value = serde_json::from_slice(&list).unwrap();
    assert!(fields.as_object().unwrap().len() > 1000);
    fields
}

#[test]
fn every_document_has_fields_of_the_schema_only() {
    let fields = fields();
    let golden = events::golden().into_iter().map(|(_, event)| event);
    for event in golden.chain(events::every()) {
        let document = ecs(&event);
        let found = problems(&fields, &document);
        assert!(found.is_empty(), "{found:#?}\n{document:#}");
        assert_eq!(document["ecs"]["version"], ECS_VERSION);
    }
}

#[test]
fn what_is_wrong_is_found() {
    let fields = fields();
    let good = ecs(&events::golden()[0].1);
    for (pointer, value) in [
        ("/@timestamp", json!(12)),
        ("/event/kind", json!("alarm")),
        ("/event/category", json!(["host"])),
        ("/event/type", json!("access")),
        ("/process/pid", json!("7")),
        ("/process/shoe_size", json!(7)),
        ("/process/parent/parent", json!({ "pid": 7 })),
    ] {
        let mut bad = good.clone();
        let (object, name) = pointer.rsplit_once('/').unwrap();
        let object = bad.pointer_mut(object).unwrap().as_object_mut().unwrap();
        object.insert(name.to_owned(), value);
        let found = std::panic::catch_unwind(|| problems(&fields, &bad));
        assert!(found.map_or(true, |found| !found.is_empty()), "{pointer} passed");
    }
}
