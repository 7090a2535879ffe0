#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use proptest::prelude::*;
use rstest::rstest;
use sekimori_proto::v1::{
    Destination, Device, File, Kind, Loss, Name, NameSource, Operation, Process, SmtpEnvelope,
    Verdict,
};

use super::view::{Field, Shape, Type};
use super::*;
use crate::store::Condition;

/// 2026-11-27T12:30:00Z.
const TIME_NS: i64 = 1_795_782_600_000_000_000;

fn event() -> Event {
    Event {
        host: "desk-12".into(),
        kind: Kind::UsbWrite.into(),
        operation: Operation::Close.into(),
        verdict: Verdict::Denied.into(),
        rule: "no-usb".into(),
        time_ns: TIME_NS,
        bytes: Some(7_000_000),
        process: Some(Process {
            pid: 77,
            exe: b"/bin/\xfecp".to_vec(),
            argv: vec!["cp".into(), "-r".into(), "/srv/顧客".into()],
            user: "root".into(),
            login_user: "花子".into(),
            login_uid: Some(1000),
            parent: Some(Box::new(Process { exe: "/bin/bash".into(), ..Process::default() })),
            ..Process::default()
        }),
        file: Some(File {
            path: "/mnt/usb/顧客 台帳.xlsx".into(),
            device: Some(Device {
                class: "usb".into(),
                serial: "SEKI0001".into(),
                ..Device::default()
            }),
            ..File::default()
        }),
        sources: vec![
            File { path: "/srv/顧客/a.txt".into(), ..File::default() },
            File { path: "/home/b".into(), ..File::default() },
        ],
        destination: Some(Destination {
            ip: "203.0.113.9".into(),
            port: 443,
            names: vec![Name { name: "files.example".into(), source: NameSource::Tls.into() }],
            smtp: Some(SmtpEnvelope { to: vec!["b@c".into()], ..SmtpEnvelope::default() }),
            ..Destination::default()
        }),
        ..Event::default()
    }
}

fn says(text: &str) -> bool {
    Expression::new(text).unwrap().matches(&event()).unwrap()
}

#[rstest]
#[case("kind == 'usb.write' && verdict == 'denied'")]
#[case("kind in ['usb.write', 'share.write']")]
#[case("operation == 'close'")]
#[case("bytes > 5000000 && process.login_user == '花子'")]
#[case("process.login_uid == 1000 && process.parent.login_uid == -1")]
#[case("process.exe == '/bin/\\\\xfecp'")]
#[case("process.parent.exe.endsWith('/bash')")]
#[case("file.path.startsWith('/mnt/usb/') && file.path.contains('顧客')")]
#[case("file.path.matches('顧客.*[.]xlsx$')")]
#[case("file.path.lowerAscii().endsWith('.xlsx')")]
#[case("file.device.serial == 'SEKI0001' && device.serial == ''")]
#[case("sources.exists(x, x.path.startsWith('/srv/顧客/'))")]
#[case("sources.filter(x, x.path.startsWith('/home/')).size() == 1")]
#[case("size(sources) == 2 && sources[1].path == '/home/b'")]
#[case("destination.names.exists(n, n.name == 'files.example' && n.source == 'tls')")]
#[case("destination.smtp.to.exists(to, to.endsWith('@c'))")]
#[case("'-r' in process.argv")]
#[case("process.argv.exists(x, x == '-r')")]
#[case("time > timestamp('2026-11-27T12:00:00Z') && time <= timestamp('2026-11-27T12:30:00Z')")]
#[case("time.getHours('Asia/Tokyo') == 21 && time.getHours() == 12")]
#[case("time - timestamp('2026-11-27T12:00:00Z') > duration('29m')")]
#[case("host == 'desk-12' || file.size > 1 / 1")]
#[case("loss.count == 0 && loss.kind == '' && message == ''")]
#[case("!(rule == 'other') && (bytes > 1 ? true : false)")]
#[case("bytes / 1000 * 1000 + 1 > 6999000 && -bytes < 0")]
fn what_is_true(#[case] text: &str) {
    assert!(says(text), "{text}");
    assert!(!says(&format!("!({text})")), "{text}");
}

/// Texts that would end a text, a statement or an expression elsewhere are compared as they are.
#[rstest]
#[case(r#"file.path == "'; DROP TABLE blocks; --""#)]
#[case(r#"file.path == "' OR '1'='1""#)]
#[case(r#"process.login_user == "花子' || true || '""#)]
#[case("file.path.contains('%') || file.path.contains('_x')")]
fn nothing_breaks_out_of_a_text(#[case] text: &str) {
    assert!(!says(text), "{text}");
}

#[rstest]
#[case("bytes", "it is a number, and must be true or false")]
#[case("file.pth == ''", "there is no pth here; did you mean path?")]
#[case("zzz == 1", "there is no zzz here, only time, host")]
#[case("kind == 'usb.wirte'", "\"usb.wirte\" is no kind: there are file.open")]
#[case("kind in ['exec', 'nope']", "\"nope\" is no kind")]
#[case("'deny' == verdict", "\"deny\" is no verdict")]
#[case("bytes == '7'", "a number is compared with a text, which is never equal")]
#[case("bytes > 'x'", "a number is compared with a text")]
#[case("'x' in bytes", "in: a number is no list")]
#[case("1 in process.argv", "in: a number is in no list of this type")]
#[case("has(file.path)", "every name has a value")]
#[case("sources.path == ''", "ask of its elements")]
#[case("file.path.startsWith(1)", "startsWith: a number is no text")]
#[case("file.path.matches('(')", "matches(\"(\")")]
#[case("file.path.matches('a{1000}{1000}')", "Compiled regex exceeds size limit")]
#[case("file.path.matches(rule)", "the pattern is written out")]
#[case("timestamp('yesterday') < time", "timestamp(\"yesterday\")")]
#[case("sources.exists(x, sources.exists(y, x.path == y.path))", "a list within a list")]
#[case("sources.exists(host, true)", "host is a name of the event")]
#[case("bytes && true", "a number is neither true nor false")]
#[case("file.path.replace('a', 'b') == ''", "replace is not known here")]
#[case("{'a': 1}.a == 1", "{…} is not known here")]
#[case("sekimori.Event{} == 1", "is not known here")]
#[case("null == null", "null: what an event does not have")]
#[case("b'x' == b'x'", "paths are texts here")]
#[case("kind ==", "")]
#[case("kind == 'exec", "")]
#[case("", "")]
#[case("file.path == '' ; true", "")]
fn what_is_refused(#[case] text: &str, #[case] why: &str) {
    let error = Expression::new(text).unwrap_err().to_string();
    assert!(error.contains(why) && !error.is_empty(), "{text}: {error}");
}

#[test]
fn what_is_too_much_is_refused() {
    let deep = |part: &str, close: &str| format!("{}true{}", part.repeat(1000), close.repeat(1000));
    let chain = |first: &str, part: &str| format!("{first}{} == ''", part.repeat(200));
    for text in [
        deep("(", ")"),
        deep("!", ""),
        deep("true ? (", ") : false"),
        deep("[", "]"),
        format!("1{} > 0", "+1".repeat(2000)),
        chain("process", ".parent"),
        chain("rule", ".lowerAscii()"),
    ] {
        let error = Expression::new(&text).unwrap_err();
        assert!(matches!(error, ExpressionError::TooDeep | ExpressionError::TooLong(_)), "{error}");
    }
    let long = format!("rule == '{}'", "x".repeat(5000));
    assert_eq!(Expression::new(&long).unwrap_err(), ExpressionError::TooLong(long.len()));
    // A chain of || is balanced when it is parsed.
    assert!(says(&format!("{}true", "false||".repeat(550))));
}

#[test]
fn what_has_no_answer_is_no_answer() {
    // Nothing of an empty event is divided.
    let expression = Expression::new("kind == 'usb.write' && 1 / file.size > 0").unwrap();
    let error = expression.matches(&event()).unwrap_err();
    assert!(matches!(&error, ExpressionError::Failed(why) if why.contains("Division by zero")));
    assert!(Expression::new("sources[0].path == ''").is_err());
}

/// What each name gives is what it is said to give, for an event with everything and for one with
/// nothing.
#[test]
fn every_name_has_a_value() {
    fn look(node: Node<'_>, depth: usize) {
        for (name, what) in node.shape().fields() {
            let field = node.field(name).unwrap_or_else(|| panic!("{name}"));
            match (what, field) {
                (
                    Type::Text | Type::Made | Type::Kind | Type::Verdict | Type::Operation,
                    Field::Text(_),
                )
                | (Type::Int, Field::Int(_))
                | (Type::Bool, Field::Bool(_))
                | (Type::Time, Field::Time(_))
                | (Type::Texts, Field::Texts(_)) => {}
                (Type::Is(shape), Field::Node(below)) => {
                    assert_eq!(*shape, below.shape(), "{name}");
                    if depth < 4 {
                        look(below, depth + 1);
                    }
                }
                (Type::Many(shape), Field::Nodes(nodes)) => {
                    assert!(nodes.iter().all(|node| node.shape() == *shape), "{name}");
                    nodes.into_iter().for_each(|node| look(node, depth + 1));
                }
                (what, _) => panic!("{name} is no {what:?}"),
            }
        }
        assert!(node.field("no such name").is_none());
    }
    let full = Event { loss: Some(Loss::default()), ..event() };
    look(Node::Event(&full), 0);
    look(Node::Event(&Event::default()), 0);
}

/// Names that the JSON form has at its top, and no others but those that are said to be left out.
#[test]
fn names_are_those_of_the_json_form() {
    let json = sekimori_proto::json::event(&Event {
        boot: vec![1],
        lane: 1,
        cursor: 1,
        sha256: vec![1],
        bytes_in: Some(1),
        late: true,
        ..event()
    });
    let left_out = ["boot", "lane"];
    for name in json.as_object().unwrap().keys() {
        let known = Shape::Event.field(name).is_some();
        assert_eq!(known, !left_out.contains(&name.as_str()), "{name}");
    }
}

#[test]
fn what_must_hold_is_taken_from_it() {
    let narrow = |text: &str| Expression::new(text).unwrap().narrow().clone();
    let text = "kind in ['usb.write', 'exec'] && 'denied' == verdict && host == 'a' \
                && process.login_user == '花子' && file.device.serial in ['S1', 'S2'] \
                && file.path.contains('顧客') && time >= timestamp('1970-01-01T00:00:01Z') \
                && timestamp('1970-01-01T00:00:02Z') > time && (rule == 'x' || rule == 'y')";
    let texts = |all: &[&str]| vec![all.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>()];
    assert_eq!(
        narrow(text),
        Narrow {
            kinds: vec![vec![2, 6]],
            verdicts: vec![vec![3]],
            hosts: texts(&["a"]),
            users: texts(&["花子"]),
            serials: texts(&["S1", "S2"]),
            verbatim: [texts(&["花子"]), texts(&["S1", "S2"]), texts(&["顧客"])].concat(),
            times: Some((1_000_000_000, 2_000_000_000)),
            ..Narrow::default()
        }
    );
    for text in [
        "rule != 'x'",
        "!(rule == 'x')",
        "rule == 'x' || true",
        "rule == ''",
        "process.exe == '\\\\xff'",
        "sources.exists(x, x.path == 'a')",
        "file.path.lowerAscii() == 'a'",
    ] {
        assert_eq!(narrow(text), Narrow::default(), "{text}");
    }
}

/// Values of a few fields, so that expressions about them are often true.
fn some_event() -> impl Strategy<Value = Event> {
    let word = || prop::sample::select(vec!["", "a", "b", "ab", "a\\b", "花"]);
    let kind = prop::sample::select(vec![Kind::UsbWrite, Kind::Exec, Kind::FileOpen]);
    (kind, word(), word(), word(), word(), word(), 0..4_i64).prop_map(
        |(kind, host, rule, user, exe, path, second)| Event {
            kind: kind.into(),
            host: host.into(),
            rule: rule.into(),
            time_ns: second * 1_000_000_000,
            process: Some(Process {
                login_user: user.into(),
                exe: exe.into(),
                ..Process::default()
            }),
            file: Some(File { path: path.into(), ..File::default() }),
            ..Event::default()
        },
    )
}

fn some_expression() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec!["''", "'a'", "'b'", "'ab'", "'a\\\\\\\\b'", "'花'"]);
    let name = prop::sample::select(vec![
        "host",
        "rule",
        "process.login_user",
        "process.exe",
        "file.path",
    ]);
    let leaf = prop_oneof![
        (name.clone(), word.clone()).prop_map(|(name, word)| format!("{name} == {word}")),
        (word.clone(), name.clone()).prop_map(|(word, name)| format!("{word} == {name}")),
        (name.clone(), word.clone(), word.clone())
            .prop_map(|(name, one, other)| format!("{name} in [{one}, {other}]")),
        (name.clone(), word.clone()).prop_map(|(name, word)| format!("{name} != {word}")),
        (name, word).prop_map(|(name, word)| format!("{name}.contains({word})")),
        Just("kind == 'exec'".to_owned()),
        Just("kind in ['exec', 'usb.write']".to_owned()),
        (0..4).prop_map(|it| format!("time >= timestamp('1970-01-01T00:00:0{it}Z')")),
        (0..4).prop_map(|it| format!("timestamp('1970-01-01T00:00:0{it}Z') > time")),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(one, other)| format!("({one} && {other})")),
            (inner.clone(), inner.clone()).prop_map(|(one, other)| format!("({one} || {other})")),
            inner.prop_map(|it| format!("!({it})")),
        ]
    })
}

proptest! {
    /// Whatever is written, it is an expression or an error, and no panic.
    #[test]
    fn any_text_is_taken_or_refused(text in "[a-z0-9_.'\"()\\[\\]{}&|!=<>?:,+*/%\\\\ -]{0,80}") {
        let _ = Expression::new(&text);
    }

    /// What must hold of every event that matches does hold of it.
    #[test]
    fn nothing_that_matches_is_left_out(text in some_expression(), event in some_event()) {
        let expression = Expression::new(&text).unwrap();
        let filter = sekimori_proto::v1::Filter { expression: text, ..Default::default() };
        let condition = Condition::new(Some(&filter)).unwrap();
        let (may_be, matches) = condition.asked_of(&event);
        prop_assert!(may_be || !matches, "{:?}", expression.narrow());
        prop_assert_eq!(matches, expression.matches(&event).unwrap());
    }
}
