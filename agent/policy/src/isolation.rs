//! A host that is cut off: a policy, and in front of it a rule that refuses every peer but this
//! machine itself and the collector.
//!
//! The rule refuses, and of all actions a refusal is the strongest, so no rule of the policy takes
//! it back; all that the policy refuses stays refused.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::{
    check::LOOPBACK_BLOCKS,
    finding::Position,
    model::{
        Action, AlertLevel, Asked, Cidr, Conditions, Destination, Located, Mode, Policy, RESERVED,
        Rule, Subject, Word,
    },
};

/// Whom an isolated host may still talk to, besides itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Isolation {
    /// Addresses of the collector.
    pub collector: Vec<SocketAddr>,
}

/// Puts the rules in.
pub(crate) fn isolate(policy: &mut Policy, isolation: &Isolation) {
    let name = |what: &str| located(format!("{RESERVED}{what}"));
    let mut open = vec![Destination {
        name: name("isolated-itself"),
        cidrs: Some(LOOPBACK_BLOCKS.to_vec()),
        ports: None,
    }];
    // Each address with its own port: an address and a port of two different ones are no pair.
    for (number, peer) in isolation.collector.iter().enumerate() {
        let address = peer.ip().to_canonical();
        let bits = if address.is_ipv4() { 32 } else { 128 };
        open.push(Destination {
            name: name(&format!("isolated-collector-{number}")),
            cidrs: Some(vec![Cidr { address, bits }]),
            ports: Some(vec![(peer.port(), peer.port())]),
        });
    }
    let names = open.iter().map(|it| it.name.clone()).collect();
    let unless: Conditions =
        BTreeMap::from([(Subject::Destination, Asked { at: Position::default(), names })]);
    policy.destinations.extend(open);
    let rule = |what: &str, on: &[Word], unless: Conditions| Rule {
        id: name(what),
        on: on.iter().map(|word| located(*word)).collect(),
        when: Conditions::new(),
        unless,
        action: Action::Deny,
        tell_user: Some(
            "This computer was cut off from the network by its administrator.".to_owned(),
        ),
        tell_admin: None::<AlertLevel>,
        mode: Mode::Enforce,
    };
    policy.rules.push(rule("isolated", &[Word::NetConnect, Word::NetUpload], unless));
    policy.rules.push(rule("isolated-socket", &[Word::NetSocket], Conditions::new()));
}

fn located<T>(value: T) -> Located<T> {
    Located { value, at: Position::default() }
}
