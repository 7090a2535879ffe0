//! What a host takes from a collector, and what it does not.
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use prost::Message as _;
use rstest::rstest;
use sekimori_evidence::SigningKey;
use sekimori_policy::bundle::{self, BundleError};
use sekimori_policy::limits::{BUNDLE_BYTES_MAX, DOCUMENT_BYTES_MAX};
use sekimori_proto::v1::{PolicyBundle, PolicyStatement};
use sha2::{Digest as _, Sha256};

const TEXT: &[u8] = "名前: 持出し禁止\n".as_bytes();

fn key() -> SigningKey {
    let dir = tempfile::tempdir().unwrap();
    SigningKey::open(&dir.path().join("policy.key")).unwrap()
}

fn statement() -> PolicyStatement {
    PolicyStatement {
        epoch: 7,
        name: "head-office".to_owned(),
        text_zstd: zstd::encode_all(TEXT, 0).unwrap(),
        sha256: Sha256::digest(TEXT).to_vec(),
        hosts: vec!["desk-*".to_owned()],
        percent: 100,
        reason: "ticket 4711".to_owned(),
        by: "admin jiro".to_owned(),
        time_ns: 1,
    }
}

fn refusal(bundle: &PolicyBundle, key: &SigningKey, host: &str, last: u64) -> BundleError {
    bundle::accept(bundle, &key.public(), host, last).unwrap_err()
}

#[test]
fn a_good_one_is_taken() {
    let key = key();
    let bundle = bundle::sign(&key, &statement());
    let (taken, text) = bundle::accept(&bundle, &key.public(), "desk-12", 6).unwrap();
    assert_eq!((taken, text.as_slice()), (statement(), TEXT));
}

#[test]
fn what_was_changed_on_the_way_is_refused() {
    let key = key();
    let bundle = bundle::sign(&key, &statement());
    for at in 0..bundle.statement.len() {
        let mut changed = bundle.statement.to_vec();
        changed[at] ^= 1;
        let changed = PolicyBundle { statement: changed.into(), ..bundle.clone() };
        assert_eq!(refusal(&changed, &key, "desk-12", 0), BundleError::Signature);
    }
    for at in 0..bundle.signature.len() {
        let mut changed = bundle.clone();
        changed.signature[at] ^= 1;
        assert_eq!(refusal(&changed, &key, "desk-12", 0), BundleError::Signature);
    }
    assert_eq!(refusal(&PolicyBundle::default(), &key, "desk-12", 0), BundleError::Signature);
}

#[test]
fn another_key_signs_nothing() {
    let bundle = bundle::sign(&key(), &statement());
    assert_eq!(refusal(&bundle, &key(), "desk-12", 0), BundleError::Signature);
}

#[test]
fn what_the_key_signs_elsewhere_is_no_policy() {
    let (key, statement) = (key(), statement().encode_to_vec());
    for context in [&b""[..], b"sekimori checkpoint 1\n"] {
        let signature = key.sign(&[context, &statement].concat());
        let bundle = PolicyBundle { statement: statement.clone().into(), signature };
        assert_eq!(refusal(&bundle, &key, "desk-12", 0), BundleError::Signature);
    }
}

#[rstest]
#[case(7)]
#[case(8)]
#[case(u64::MAX)]
fn there_is_no_way_back(#[case] last: u64) {
    let key = key();
    let bundle = bundle::sign(&key, &statement());
    let refused = refusal(&bundle, &key, "desk-12", last);
    assert_eq!(refused, BundleError::Epoch { epoch: 7, last });
}

#[rstest]
#[case("srv-1")]
#[case("a-desk-1")]
#[case("")]
fn what_is_for_others_is_refused(#[case] host: &str) {
    let key = key();
    let bundle = bundle::sign(&key, &statement());
    assert_eq!(refusal(&bundle, &key, host, 0), BundleError::Host(host.to_owned()));
}

#[test]
fn what_is_too_large_is_not_even_hashed() {
    let key = key();
    let bundle =
        PolicyBundle { statement: vec![0; BUNDLE_BYTES_MAX + 1].into(), ..PolicyBundle::default() };
    let refused = refusal(&bundle, &key, "desk-12", 0);
    assert_eq!(refused, BundleError::TooLarge(BUNDLE_BYTES_MAX + 1));
    // A text that is small only as long as it is packed.
    let long = vec![b' '; DOCUMENT_BYTES_MAX + 1];
    let sha256 = Sha256::digest(&long).to_vec();
    let text_zstd = zstd::encode_all(long.as_slice(), 0).unwrap();
    let bundle = bundle::sign(&key, &PolicyStatement { text_zstd, sha256, ..statement() });
    let refused = refusal(&bundle, &key, "desk-12", 0);
    assert_eq!(refused, BundleError::Statement("its text is too long"));
}

#[rstest]
#[case(PolicyStatement { epoch: 0, ..statement() })]
#[case(PolicyStatement { epoch: u64::MAX, ..statement() })]
#[case(PolicyStatement { percent: 0, ..statement() })]
#[case(PolicyStatement { percent: 101, ..statement() })]
#[case(PolicyStatement { hosts: vec!["[".to_owned()], ..statement() })]
#[case(PolicyStatement { hosts: vec![String::new()], ..statement() })]
#[case(PolicyStatement { hosts: vec!["a".to_owned(); 201], ..statement() })]
#[case(PolicyStatement { sha256: vec![0; 32], ..statement() })]
#[case(PolicyStatement { text_zstd: b"no zstd".to_vec(), ..statement() })]
fn what_is_signed_must_make_sense(#[case] statement: PolicyStatement) {
    let key = key();
    let bundle = bundle::sign(&key, &statement);
    let refused = refusal(&bundle, &key, "desk-12", 0);
    let statement = matches!(refused, BundleError::Statement(_) | BundleError::Hosts(_));
    assert!(statement, "{refused:?}");
}

#[test]
fn keys_come_back_from_their_files() {
    let key = key().public();
    assert_eq!(bundle::key_of(&bundle::key_text(&key)), Some(key));
    for text in ["", "ed25519:", "ed25519:00", "rsa:00"] {
        assert_eq!(bundle::key_of(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn a_larger_part_holds_the_smaller_one(host in "[a-z0-9.-]{1,20}", epoch in 1u64.., low in 1u32..=100, high in 1u32..=100) {
        let (low, high) = (low.min(high), low.max(high));
        let of = |percent| PolicyStatement { hosts: Vec::new(), epoch, percent, ..statement() };
        if bundle::is_for(&of(low), &host) {
            prop_assert!(bundle::is_for(&of(high), &host));
        }
        prop_assert!(bundle::is_for(&of(100), &host));
    }
}

#[test]
fn a_tenth_is_about_a_tenth_and_another_one_each_time() {
    let chosen = |epoch| -> Vec<String> {
        let statement = PolicyStatement { hosts: Vec::new(), epoch, percent: 10, ..statement() };
        let hosts = (0..5000).map(|number| format!("desk-{number}"));
        hosts.filter(|host| bundle::is_for(&statement, host)).collect()
    };
    let (first, second) = (chosen(1), chosen(2));
    assert!((400..600).contains(&first.len()), "{}", first.len());
    let both = first.iter().filter(|host| second.contains(host)).count();
    assert!(both < 100, "{both}");
    // What hosts compute today must be what they compute tomorrow.
    assert_eq!(first[..3], chosen(1)[..3]);
}
