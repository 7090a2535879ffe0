//! Records that hold together, and every way in which they may not.
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use rstest::rstest;
use sekimori_abi::event::{EVENT_BYTES, Event, flag, kind, operation};
use sekimori_abi::limits::{ENVIRONMENT_BYTES_MAX, VARIABLE_BYTES_MAX};

use super::{
    DecodeError, decode, printable,
    sample::{components, event, launch, record},
};

fn open_record() -> Vec<u8> {
    record(event(kind::FILE_OPEN, operation::OPEN), [&components("/srv/顧客/a b"), b"", b""])
}

#[test]
fn a_record_gives_back_what_was_put_in() {
    let mut made = event(kind::EXEC, operation::EXEC);
    made.size = 3;
    made.sequence = 7;
    let bytes = record(made, [&components("/usr/bin/cp"), &components("/"), b"cp\0\0x\0"]);
    let raw = decode(&bytes).unwrap();
    assert_eq!(raw.path(), b"/usr/bin/cp");
    assert_eq!(raw.second_path(), b"/");
    assert_eq!(raw.arguments(), [b"cp".to_vec(), b"".to_vec(), b"x".to_vec()]);
    assert_eq!(raw.event.sequence, 7);
}

#[rstest]
#[case::more_than_counted(b"a\0b\0PATH=/bin\0", 2, &["a", "b"])]
#[case::cut_in_the_middle(b"a\0bcd", 9, &["a", "bcd"])]
#[case::one_empty(b"\0", 1, &[""])]
#[case::none(b"", 0, &[])]
fn arguments_are_split(#[case] text: &[u8], #[case] count: u64, #[case] parts: &[&str]) {
    let mut made = event(kind::EXEC, operation::EXEC);
    made.size = count;
    let bytes = record(made, [b"", b"", text]);
    let raw = decode(&bytes).unwrap();
    let expected: Vec<Vec<u8>> = parts.iter().map(|part| part.as_bytes().to_vec()).collect();
    assert_eq!(raw.arguments(), expected);
}

#[rstest]
#[case::two(b"LD_PRELOAD=/x.so\0LD_AUDIT=\0", &["LD_PRELOAD=/x.so", "LD_AUDIT="])]
#[case::none(b"", &[])]
fn the_environment_is_split(#[case] text: &[u8], #[case] parts: &[&str]) {
    let bytes = launch(event(kind::EXEC, operation::EXEC), [b"", b"", b"ls\0", text]);
    let raw = decode(&bytes).unwrap();
    let expected: Vec<Vec<u8>> = parts.iter().map(|part| part.as_bytes().to_vec()).collect();
    assert_eq!(raw.environment(), expected);
    assert_eq!(raw.arguments(), [b"ls".to_vec()]);
}

#[test]
fn an_environment_is_not_longer_than_it_can_be() {
    let text = vec![b'x'; ENVIRONMENT_BYTES_MAX + VARIABLE_BYTES_MAX + 1];
    let bytes = launch(event(kind::EXEC, operation::EXEC), [b"", b"", b"", &text]);
    assert_eq!(decode(&bytes), Err(DecodeError::Environment { said: text.len() }));
}

#[rstest]
#[case::whole(0, b"/srv/x")]
#[case::cut(flag::PATH_TRUNCATED, b".../srv/x")]
fn a_cut_path_never_looks_whole(#[case] flags: u16, #[case] path: &[u8]) {
    let mut made = event(kind::FILE_OPEN, operation::OPEN);
    made.flags = flags;
    assert_eq!(decode(&record(made, [&components("/srv/x"), b"", b""])).unwrap().path(), path);
}

#[rstest]
#[case::whole(b"/srv/\xe6\xa9\x9f\xe5\xaf\x86/x\0", b"/srv/\xe6\xa9\x9f\xe5\xaf\x86/x")]
#[case::without_its_end(b"/srv/x", b"/srv/x")]
#[case::not_from_the_root(b"srv/x\0", b"")]
#[case::nothing(b"\0", b"")]
fn a_path_in_the_kernels_own_words(#[case] text: &[u8], #[case] path: &[u8]) {
    let mut made = event(kind::FILE_OPEN, operation::OPEN);
    made.flags = flag::PATH_WHOLE;
    assert_eq!(decode(&record(made, [text, b"", b""])).unwrap().path(), path);
}

#[test]
fn lengths_are_not_trusted() {
    let whole = open_record();
    let expected = DecodeError::Short { bytes: 10, needed: EVENT_BYTES };
    assert_eq!(decode(&whole[..10]), Err(expected));
    let cut = &whole[..whole.len() - 1];
    let said = u32::try_from(whole.len()).unwrap();
    assert_eq!(decode(cut), Err(DecodeError::Length { said, bytes: cut.len() }));
    let mut small = whole.clone();
    small[..4].copy_from_slice(&3u32.to_ne_bytes());
    assert_eq!(decode(&small), Err(DecodeError::Length { said: 3, bytes: whole.len() }));
    let mut fixed_only = whole.clone();
    let fixed = u32::try_from(EVENT_BYTES).unwrap();
    fixed_only[..4].copy_from_slice(&fixed.to_ne_bytes());
    assert!(matches!(decode(&fixed_only), Err(DecodeError::Texts { bytes: 0, .. })));
}

#[rstest]
#[case::version(|e: &mut Event| e.abi = 9, DecodeError::Version { found: 9 })]
#[case::kind_zero(|e: &mut Event| e.kind = 0, DecodeError::Kind { found: 0 })]
#[case::kind_high(|e: &mut Event| e.kind = 13, DecodeError::Kind { found: 13 })]
#[case::operation(|e: &mut Event| e.operation = 99, DecodeError::Operation { found: 99, kind: 1 })]
#[case::verdict(|e: &mut Event| e.verdict = 4, DecodeError::Verdict { found: 4 })]
#[case::ring(|e: &mut Event| e.ring = 2, DecodeError::Ring { found: 2 })]
fn unknown_words_are_refused(#[case] change: fn(&mut Event), #[case] error: DecodeError) {
    let mut made = event(kind::FILE_OPEN, operation::OPEN);
    change(&mut made);
    assert_eq!(decode(&record(made, [b"", b"", b""])), Err(error));
}

#[rstest]
#[case::japanese("顧客.xlsx".as_bytes(), "顧客.xlsx")]
#[case::escape_sequence(b"a\x1b[31m", "a\\u{1b}[31m")]
#[case::c1_control("\u{9b}2J".as_bytes(), "\\u{9b}2J")]
#[case::not_utf8(b"a\xff\xfe", "a\\xff\\xfe")]
#[case::backslash(b"a\\x41", "a\\\\x41")]
#[case::text_direction("a\u{202e}b".as_bytes(), "a\\u{202e}b")]
fn names_are_safe_on_a_terminal(#[case] bytes: &[u8], #[case] text: &str) {
    assert_eq!(printable(bytes), text);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let _ = decode(&bytes).map(|raw| raw.arguments());
    }

    #[test]
    fn a_damaged_record_never_panics(at in 0..EVENT_BYTES + 20, with in any::<u8>()) {
        let mut bytes = open_record();
        if let Some(byte) = bytes.get_mut(at) {
            *byte = with;
        }
        let _ = decode(&bytes).map(|raw| raw.arguments());
    }

    #[test]
    fn any_path_comes_back(names in proptest::collection::vec("[^/\0]{1,80}", 1..20)) {
        let path = format!("/{}", names.join("/"));
        let bytes = record(event(kind::FILE_OPEN, operation::OPEN), [&components(&path), b"", b""]);
        prop_assert_eq!(decode(&bytes).unwrap().path(), path.into_bytes());
    }
}
