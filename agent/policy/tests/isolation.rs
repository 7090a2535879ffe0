//! What an isolated host may still do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::net::IpAddr;

use rstest::rstest;
use sekimori_policy::{
    Compiled, Isolation, NoDirectory, Peer, Question, Word, explain, load_isolated,
};

const OPEN: &str = "\
apiVersion: sekimori/v1
kind: Policy
metadata: { name: t }
mode: observe
labels: [{ name: secret, paths: [/秘密/**] }]
destinations: [{ name: web, ports: [443] }]
rules:
  - { id: web, on: net.connect, when: { destination: web }, action: alert }
  - { id: secrets, on: file.open, when: { label: secret }, action: deny }
";

fn compiled(text: &str) -> Compiled {
    let collector = ["192.0.2.7:7443", "[2001:db8::7]:7444"].map(|it| it.parse().unwrap()).to_vec();
    let isolation = Isolation { collector };
    load_isolated(text.as_bytes(), &NoDirectory, 1, Some(&isolation)).unwrap().0
}

fn verdict(compiled: &Compiled, kind: Word, peer: Option<(&str, u16)>) -> &'static str {
    let peer =
        peer.map(|(address, port)| Peer { address: address.parse::<IpAddr>().unwrap(), port });
    let question = Question { kind, path: None, exe: None, user: None, device: None, peer };
    explain(compiled, &question).verdict
}

#[rstest]
#[case::collector(("192.0.2.7", 7443), true)]
#[case::its_other_port(("192.0.2.7", 22), false)]
#[case::port_of_the_other(("192.0.2.7", 7444), false)]
#[case::collector_over_ipv6(("2001:db8::7", 7444), true)]
#[case::neighbour(("192.0.2.8", 7443), false)]
#[case::itself(("127.0.0.53", 53), true)]
#[case::itself_over_ipv6(("::1", 8080), true)]
#[case::resolver(("192.0.2.1", 53), false)]
#[case::web(("198.51.100.1", 443), false)]
#[case::link(("fe80::1", 443), false)]
fn only_itself_and_the_collector(#[case] peer: (&str, u16), #[case] may: bool) {
    let compiled = compiled(OPEN);
    for kind in [Word::NetConnect, Word::NetUpload] {
        let denied = verdict(&compiled, kind, Some(peer)) == "denied";
        assert_eq!(!denied, may, "{kind:?} to {peer:?}");
    }
}

#[test]
fn other_families_are_refused_and_the_policy_goes_on() {
    let compiled = compiled(OPEN);
    assert_eq!(verdict(&compiled, Word::NetSocket, None), "denied");
    let path = Some("/秘密/a".as_bytes().to_vec());
    let open = Word::FileOpen;
    let question = Question { kind: open, path, exe: None, user: None, device: None, peer: None };
    // In a policy that only observes, the isolation is real.
    let explained = explain(&compiled, &question);
    assert_eq!((explained.rule.as_deref(), explained.verdict), (Some("secrets"), "would-deny"));
    assert_eq!(verdict(&compiled, Word::Exec, None), "allowed");
}

#[test]
fn a_policy_without_rules_isolates_too() {
    let text = "apiVersion: sekimori/v1\nkind: Policy\nmetadata: { name: t }\nrules: []\n";
    let found = load_isolated(text.as_bytes(), &NoDirectory, 1, Some(&Isolation::default()));
    if let Ok((compiled, _)) = found {
        assert_eq!(verdict(&compiled, Word::NetConnect, Some(("192.0.2.7", 7443))), "denied");
    }
}
