//! Single tables: networks, ports, devices, heads, directories that hold mixed labels.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use rstest::rstest;
use sekimori_abi::event::device_class;
use sekimori_abi::{
    event::kind,
    table::{DEVICE_ANY, SET_NONE, action},
};
use sekimori_decide::Facts;
use sekimori_policy::{Action, AlertLevel, Compiled, Mode, NoDirectory, load};

fn compiled(text: &str) -> Compiled {
    let source = format!("apiVersion: sekimori/v1\nkind: Policy\nmetadata: {{ name: t }}\n{text}");
    match load(&source, &NoDirectory, 9) {
        Ok((compiled, _)) => compiled,
        Err(findings) => panic!("{findings:#?}"),
    }
}

/// Destinations `a`, `b`, `c` have the bits 1, 2, 4.
fn destinations(a: &str, b: &str, c: &str) -> Compiled {
    compiled(&format!(
        "destinations:\n  - {{ name: a, {a} }}\n  - {{ name: b, {b} }}\n  - {{ name: c, {c} }}\n\
         rules:\n  - {{ id: r, on: net.connect, when: {{ destination: [a, b, c] }}, action: deny }}\n"
    ))
}

#[rstest]
#[case("10.1.2.3", 1, 0b111)]
#[case("10.1.9.9", 1, 0b011)]
#[case("10.9.9.9", 1, 0b001)]
#[case("11.0.0.1", 1, 0)]
#[case("::ffff:10.1.2.3", 1, 0b111)]
fn blocks_carry_the_groups_around_them(#[case] ip: &str, #[case] port: u16, #[case] mask: u64) {
    let compiled = destinations("cidrs: 10.0.0.0/8", "cidrs: 10.1.0.0/16", "cidrs: 10.1.2.3");
    assert_eq!(compiled.tables.destinations_of(ip.parse().unwrap(), port), mask);
    assert_eq!(compiled.tables.networks.len(), 3);
    let bits: Vec<u32> = compiled.tables.networks.iter().map(|(_, bits, _)| *bits).collect();
    assert_eq!(bits, [96 + 8, 96 + 16, 128]);
}

#[rstest]
#[case("10.1.2.3", 443, 0b011)]
#[case("10.1.2.3", 80, 0b010)]
#[case("2001:db8::1", 443, 0b101)]
#[case("2001:db8::1", 80, 0b100)]
#[case("2001:db8::1", 8100, 0b101)]
#[case("2001:db8::1", 8101, 0b100)]
fn ipv6_blocks_do_not_speak_of_ipv4(#[case] ip: &str, #[case] port: u16, #[case] mask: u64) {
    let compiled =
        destinations("ports: [443, 8000-8100]", "cidrs: [0.0.0.0/0]", "cidrs: [\"::/0\"]");
    assert_eq!(compiled.tables.destinations_of(ip.parse().unwrap(), port), mask);
    assert_eq!(compiled.tables.head.any_port, 0b110);
    assert_eq!(compiled.tables.ports.len(), 102);
}

#[test]
fn a_destination_without_addresses_is_every_address() {
    let compiled = destinations("ports: 25", "cidrs: 10.0.0.0/8, ports: 25", "ports: 26");
    let everywhere = ([0u8; 16], 0u32, 0b101u64);
    assert_eq!(compiled.tables.networks[0], everywhere);
    assert_eq!(compiled.tables.destinations_of("192.0.2.1".parse().unwrap(), 25), 0b001);
    assert_eq!(compiled.tables.destinations_of("10.0.2.1".parse().unwrap(), 25), 0b011);
}

#[rstest]
#[case("", "127.1.2.3", 1)]
#[case("", "::1", 1)]
#[case("", "128.0.0.1", 0)]
#[case("destinations: [{ name: loopback, cidrs: [127.0.0.1] }]\n", "127.0.0.1", 1)]
#[case("destinations: [{ name: loopback, cidrs: [127.0.0.1] }]\n", "127.1.2.3", 0)]
fn loopback_is_built_in(#[case] defined: &str, #[case] ip: &str, #[case] mask: u64) {
    let compiled = compiled(&format!(
        "{defined}rules:\n  \
         - {{ id: r, on: net.upload, unless: {{ destination: loopback }}, action: alert }}\n"
    ));
    assert_eq!(compiled.tables.destinations_of(ip.parse().unwrap(), 1), mask);
}

#[test]
fn device_patterns_join_over_all_combinations() {
    let compiled = compiled(
        "devices:\n  - { name: a, usb: { vendor: \"0951\" } }\n  \
         - { name: b, usb: { vendor: \"0951\", product: \"1666\", serials: [X, Y] } }\n  \
         - { name: c, usb: { serials: [X] } }\n\
         rules:\n  - { id: r, on: usb.mount, when: { device: [a, b, c] }, action: deny }\n",
    );
    let of = |vendor, product, serial: &str| {
        compiled.tables.devices_of(device_class::USB, vendor, product, serial.as_bytes())
    };
    assert_eq!(of(0x0951, 0x1666, "X"), 0b111);
    assert_eq!(of(0x0951, 0x1666, "Y"), 0b011);
    assert_eq!(of(0x0951, 0x1666, "XX"), 0b001);
    assert_eq!(of(0x0951, 0x1666, ""), 0b001);
    assert_eq!(of(0x0952, 0x1666, "X"), 0b100);
    assert_eq!(of(0, 0, ""), 0);
    assert_eq!(compiled.tables.devices.len(), 4);
    let any_product = compiled.tables.devices.iter().filter(|it| it.0.product == DEVICE_ANY);
    assert_eq!(any_product.count(), 2);
}

#[test]
fn rules_keep_what_user_space_tells() {
    let compiled = compiled(
        "rules:\n  - id: 持出し禁止\n    on: [usb.write, usb.mount]\n    action: deny\n    \
         mode: observe\n    tell:\n      user: |\n        禁止です。\n        Not here.\n      \
         admin: high\n",
    );
    let rule = &compiled.rules[0];
    assert_eq!(rule.id, "持出し禁止");
    assert_eq!(rule.on, [kind::USB_WRITE, kind::USB_MOUNT]);
    assert_eq!(rule.tell_user.as_deref(), Some("禁止です。\nNot here."));
    assert_eq!(rule.tell_admin, Some(AlertLevel::High));
    assert_eq!((rule.action, rule.mode), (Action::Deny, Mode::Observe));
    assert_eq!(compiled.tables.rules[0].action, action::WOULD_DENY);
    let head = compiled.tables.head;
    assert_eq!((head.generation, compiled.tables.generation), (9, 9));
    assert_eq!(head.judged_kinds, 1 << kind::USB_WRITE | 1 << kind::USB_MOUNT);
    let recorded = [
        kind::EXEC,
        kind::EXIT,
        kind::USB_WRITE,
        kind::USB_MOUNT,
        kind::SHARE_WRITE,
        kind::NET_CONNECT,
        kind::NET_UPLOAD,
        kind::NET_SOCKET,
    ];
    assert_eq!(head.recorded_kinds, recorded.iter().map(|kind| 1 << kind).sum::<u32>());
    assert_eq!(head.failed_opens, 0);
}

/// What lies below a directory may carry a label in part only: its `unless` must not excuse the rest.
#[rstest]
#[case("/media", action::DENY, action::DENY)]
#[case("/media/public", 0, 0)]
#[case("/media/public/a", 0, 0)]
#[case("/media/public/inner", action::DENY, action::DENY)]
#[case("/media/half", action::DENY, action::DENY)]
#[case("/media/half/public", 0, 0)]
#[case("/srv", action::DENY, action::DENY)]
fn an_exception_by_label_does_not_excuse_mixed_directories(
    #[case] path: &str,
    #[case] own: u32,
    #[case] below: u32,
) {
    let compiled = compiled(
        "labels:\n  - { name: public, paths: [/media/public/**, /media/half/public/**] }\n  \
         - { name: secret, paths: [/media/public/inner/**] }\n\
         rules:\n  - { id: a, on: usb.write, unless: { label: public }, action: deny }\n  \
         - { id: b, on: usb.write, when: { label: secret }, action: deny }\n",
    );
    let judge = |set| compiled.tables.judge(kind::USB_WRITE, set, &Facts::default()).action;
    assert_eq!(judge(compiled.tables.set_of(path.as_bytes())), own);
    if path != "/media/public" {
        assert_eq!(judge(compiled.tables.below_of(path.as_bytes())), below);
    }
    // `secret` lies somewhere below.
    assert_eq!(judge(compiled.tables.below_of(b"/media/public")), action::DENY);
}

#[test]
fn sets_without_rules_of_their_own_have_no_bucket() {
    let compiled = compiled(
        "labels:\n  - { name: a, paths: [/a/**] }\n  - { name: b, paths: [/b/**] }\n\
         rules:\n  - { id: all, on: [file.open, usb.write], action: record }\n  \
         - { id: a, on: file.open, when: { label: a }, action: alert }\n  \
         - { id: b, on: exec, when: { label: b }, action: alert }\n",
    );
    let own = |path: &str| {
        compiled.tables.sets[compiled.tables.set_of(path.as_bytes()) as usize].own_buckets
    };
    assert_eq!(own("/a/x"), 1 << kind::FILE_OPEN);
    assert_eq!(own("/b/x"), 1 << kind::EXEC);
    assert_eq!(own("/c/x"), 0);
    let buckets: Vec<(u8, u32)> =
        compiled.tables.buckets.iter().map(|(kind, set, _)| (*kind, *set)).collect();
    let (a, b) = (compiled.tables.set_of(b"/a"), compiled.tables.set_of(b"/b"));
    // The fifth is of directories above both, such as `/`.
    let root = compiled.tables.below_of(b"/");
    assert_eq!(
        buckets,
        [
            (kind::FILE_OPEN, SET_NONE),
            (kind::FILE_OPEN, a),
            (kind::FILE_OPEN, root),
            (kind::USB_WRITE, SET_NONE),
            (kind::EXEC, b),
        ]
    );
    let alert = compiled.tables.judge(kind::FILE_OPEN, a, &Facts::default());
    assert_eq!(alert.action, action::ALERT);
    assert_eq!(compiled.tables.judge(kind::FILE_OPEN, b, &Facts::default()).action, action::RECORD);
}

#[rstest]
#[case("/srv/顧客/**", "/srv/顧客")]
#[case("/home/*/x", "/home")]
#[case("/**/x", "")]
#[case("/a/b", "/a/b")]
fn places_are_the_literal_beginnings(#[case] pattern: &str, #[case] beginning: &str) {
    let compiled = compiled(&format!(
        "labels: [{{ name: l, paths: [\"{pattern}\"] }}, {{ name: m, paths: [/m] }}]\nrules:\n  \
         - {{ id: r, on: file.open, when: {{ label: l }}, action: deny }}\n  \
         - {{ id: s, on: usb.write, when: {{ label: m }}, action: deny }}\n"
    ));
    let [(bytes, bits)] = compiled.tables.places.as_slice() else {
        panic!("{:?}", compiled.tables.places);
    };
    assert_eq!(*bits as usize, beginning.len() * 8);
    assert_eq!(&bytes[..beginning.len()], beginning.as_bytes());
    assert!(bytes[beginning.len()..].iter().all(|byte| *byte == 0));
}

#[test]
fn classes_of_devices_are_groups() {
    let compiled = compiled(
        r#"devices:
  - { name: cards, class: [sd, thunderbolt] }
  - { name: sticks, class: [usb] }
  - { name: nas, class: [network] }
rules:
  - { id: nas, on: share.write, unless: { device: nas }, action: deny }
  - { id: no-cards, on: usb.write, when: { device: cards }, action: deny }
  - { id: sticks, on: usb.write, when: { device: sticks }, action: record }
"#,
    );
    let groups = |class| compiled.tables.devices_of(class, 0, 0, b"");
    let (cards, sticks) = (groups(device_class::SD), groups(device_class::USB));
    assert_ne!(cards, 0);
    assert_ne!(sticks, 0);
    assert_ne!(cards, sticks);
    assert_eq!(groups(device_class::THUNDERBOLT), cards);
    let nas = groups(device_class::NETWORK);
    assert!(nas != 0 && nas != cards && nas != sticks, "{nas}");
    assert_eq!(groups(device_class::FUSE), 0);
    assert_eq!(groups(device_class::FIXED), 0);
    let judge = |devices| {
        let facts = Facts { devices, ..Facts::default() };
        compiled.tables.judge(kind::SHARE_WRITE, SET_NONE, &facts).action
    };
    assert_eq!((judge(nas), judge(cards)), (0, action::DENY));
}

/// Only what a rule on `exec` names by itself is judged when it is loaded: an allow list names what
/// may be launched, and libraries are not on it.
#[rstest]
#[case("{ id: r, on: exec, when: { program: b }, action: deny }", 0b1, 1)]
#[case("{ id: r, on: exec, unless: { program: b }, action: deny }", 0, 0)]
#[case("{ id: r, on: exec, when: { user: root }, action: alert }", 0, 0)]
#[case("{ id: r, on: exec, when: { label: l }, action: alert }", 0, 1)]
#[case("{ id: r, on: file.open, when: { label: l, program: b }, action: deny }", 0, 0)]
fn loads_are_judged_by_rules_that_name_them(
    #[case] rule: &str,
    #[case] programs: u64,
    #[case] judged: u32,
) {
    let compiled = compiled(&format!(
        "labels: [{{ name: l, paths: [\"/srv/**\"] }}]\n\
         programs: [{{ name: b, exe: [\"/opt/b/**\"] }}]\nrules:\n  - {rule}\n"
    ));
    let head = &compiled.tables.head;
    assert_eq!((head.load_programs, head.judges_loads), (programs, judged));
}
