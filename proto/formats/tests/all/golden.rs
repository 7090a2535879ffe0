//! Every kind as a file that was read by a person. `SEKIMORI_GOLDEN=write` writes them anew.

use std::path::Path;

use sekimori_formats::{ecs, ocsf};
use sekimori_proto::v1::Kind;
use sekimori_proto::words::Word as _;
use serde_json::Value;

use crate::events;

fn compare(schema: &str, name: &str, value: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(schema);
    let path = path.join(format!("{name}.json"));
    let shown = format!("{value:#}\n");
    if std::env::var_os("SEKIMORI_GOLDEN").is_some_and(|it| it == "write") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &shown).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == shown, "{} differs from\n{shown}", path.display());
}

#[test]
fn ocsf_of_every_kind() {
    for (name, event) in events::golden() {
        compare("ocsf", name, &ocsf(&event));
    }
}

#[test]
fn ecs_of_every_kind() {
    for (name, event) in events::golden() {
        compare("ecs", name, &ecs(&event));
    }
}

#[test]
fn no_kind_is_forgotten() {
    let seen: Vec<Kind> = events::golden().iter().map(|(_, event)| event.kind()).collect();
    for (kind, word) in Kind::WORDS {
        assert!(seen.contains(kind), "no golden file for {word}");
    }
}
