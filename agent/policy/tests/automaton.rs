//! The path automaton against a plain backtracking matcher.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{collections::BTreeSet, fmt::Write as _};

use proptest::prelude::*;
use rstest::rstest;
use sekimori_abi::{
    event::kind,
    table::{SET_NONE, SET_UNKNOWN, STATE_DEAD},
};
use sekimori_policy::{Compiled, Component, NoDirectory, Pattern, load};

/// A policy with one label per list of paths, each used by a rule.
fn compiled(labels: &[Vec<String>]) -> Compiled {
    let mut source = "apiVersion: sekimori/v1\nkind: Policy\nmetadata: { name: t }\n".to_owned();
    source.push_str(if labels.is_empty() { "labels: []\n" } else { "labels:\n" });
    for (number, paths) in labels.iter().enumerate() {
        writeln!(source, "  - {{ name: l{number}, paths: {paths:?} }}").unwrap();
    }
    source.push_str(if labels.is_empty() { "rules: []\n" } else { "rules:\n" });
    for number in 0..labels.len() {
        writeln!(
            source,
            "  - {{ id: r{number}, on: file.open, when: {{ label: l{number} }}, action: record }}"
        )
        .unwrap();
    }
    load(&source, &NoDirectory, 1).unwrap().0
}

fn labels_of(compiled: &Compiled, set: u32) -> BTreeSet<String> {
    let numbers = &compiled.set_labels[set as usize];
    numbers.iter().map(|number| compiled.names.labels[*number as usize].clone()).collect()
}

/// Whether `pattern` matches `names`, one component after the other.
fn matches(pattern: &[Component], names: &[&str]) -> bool {
    match (pattern.split_first(), names.split_first()) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some((Component::Deep, rest)), _) => {
            matches(rest, names) || names.split_first().is_some_and(|(_, it)| matches(pattern, it))
        }
        (Some(_), None) => false,
        (Some((Component::One, rest)), Some((_, names))) => matches(rest, names),
        (Some((Component::Name(name), rest)), Some((first, names))) => {
            name == first && matches(rest, names)
        }
    }
}

/// Whether `pattern` matches `names` or anything below.
fn matches_below(pattern: &[Component], names: &[&str]) -> bool {
    match (pattern.split_first(), names.split_first()) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some((Component::Deep, _)), _) => true,
        (Some((Component::One, rest)), Some((_, names))) => matches_below(rest, names),
        (Some((Component::Name(name), rest)), Some((first, names))) => {
            name == first && matches_below(rest, names)
        }
    }
}

/// Names of the patterns' labels for which `hit` holds.
fn expected(
    labels: &[Vec<String>],
    path: &str,
    hit: fn(&[Component], &[&str]) -> bool,
) -> BTreeSet<String> {
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    let any = |paths: &Vec<String>| {
        paths.iter().any(|path| hit(Pattern::parse(path).unwrap().components(), &names))
    };
    let numbered = labels.iter().enumerate();
    numbered.filter(|(_, paths)| any(paths)).map(|(number, _)| format!("l{number}")).collect()
}

fn pattern() -> impl Strategy<Value = String> {
    let component = prop::sample::select(vec!["a", "b", "顧客", "*", "**"]);
    prop::collection::vec(component, 1..6).prop_map(|it| format!("/{}", it.join("/")))
}

fn path() -> impl Strategy<Value = String> {
    let component = prop::sample::select(vec!["a", "b", "c", "顧客"]);
    prop::collection::vec(component, 0..8).prop_map(|it| format!("/{}", it.join("/")))
}

proptest! {
    #[test]
    fn automaton_is_the_matcher(
        labels in prop::collection::vec(prop::collection::vec(pattern(), 1..4), 1..6),
        paths in prop::collection::vec(path(), 1..20),
    ) {
        let compiled = compiled(&labels);
        for path in &paths {
            let set = compiled.tables.set_of(path.as_bytes());
            prop_assert_eq!(labels_of(&compiled, set), expected(&labels, path, matches));
            let below = compiled.tables.below_of(path.as_bytes());
            prop_assert_eq!(labels_of(&compiled, below), expected(&labels, path, matches_below));
        }
    }
}

#[rstest]
#[case("/srv/customers/**", "/srv/customers", true)]
#[case("/srv/customers/**", "/srv/customers/a/b/c", true)]
#[case("/srv/customers/**", "/srv/customers2", false)]
#[case("/srv/customers/**", "/srv", false)]
#[case("/srv/*/secret", "/srv/a/secret", true)]
#[case("/srv/*/secret", "/srv/secret", false)]
#[case("/srv/*/secret", "/srv/a/b/secret", false)]
#[case("/**/secret", "/secret", true)]
#[case("/**/secret", "/a/b/secret", true)]
#[case("/**/secret", "/a/b/secret/c", false)]
#[case("/a/**/**/b", "/a/b", true)]
#[case("/home/*/機密/**", "/home/花子/機密/給与 一覧.xlsx", true)]
#[case("/home/*/機密/**", "/home/花子/機", false)]
#[case("/a", "//a//", true)]
fn paths(#[case] pattern: &str, #[case] path: &str, #[case] hit: bool) {
    let compiled = compiled(&[vec![pattern.to_owned()]]);
    assert_eq!(compiled.tables.set_of(path.as_bytes()) != SET_NONE, hit);
}

#[test]
fn depth_and_long_names() {
    let compiled = compiled(&[vec!["/**/secret".to_owned()], vec!["/x/**".to_owned()]]);
    let deep = |count: usize| format!("{}/secret", "/d".repeat(count)).into_bytes();
    assert_eq!(labels_of(&compiled, compiled.tables.set_of(&deep(46))).len(), 1);
    assert_eq!(compiled.tables.set_of(&deep(47)), SET_UNKNOWN);
    assert_eq!(compiled.tables.below_of(&deep(47)), SET_UNKNOWN);
    // A name that no file can have is still "any other name".
    let long = [b"/x/", [b'n'; 300].as_slice()].concat();
    assert_eq!(labels_of(&compiled, compiled.tables.set_of(&long)), ["l1".to_owned()].into());
    let other = [b"/y".as_slice(), &[0xff; 255]].concat();
    assert_eq!(compiled.tables.set_of(&other), SET_NONE);
}

#[test]
fn a_policy_without_paths_is_dead_below_the_root() {
    let compiled = compiled(&[]);
    assert_eq!(compiled.tables.states.len(), 2);
    assert_eq!(compiled.tables.state_of(b"/"), 1);
    assert_eq!(compiled.tables.state_of(b"/a"), STATE_DEAD);
    assert_eq!(compiled.tables.sets.len(), 2);
    assert!(compiled.tables.bucket(kind::FILE_OPEN, SET_NONE).is_none());
}

#[test]
fn a_subtree_takes_one_state_of_its_own() {
    let labels: Vec<Vec<String>> = (0..100).map(|at| vec![format!("/srv/d{at}/**")]).collect();
    let compiled = compiled(&labels);
    // Dead, root, /srv and one per directory.
    assert_eq!(compiled.tables.states.len(), 3 + 100);
    // /srv, a name and a loop per directory.
    assert_eq!(compiled.tables.edges.len(), 1 + 200);
}
