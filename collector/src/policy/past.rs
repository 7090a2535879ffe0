//! What a policy would have said of stored events.
//!
//! An operation is counted once, by the record that was written when it was decided: the sums and
//! receipts that follow it say the same again.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use sekimori_abi::event::{device_class, verdict};
use sekimori_policy::{Judged, Peer, PluggedDevice, Replay, Seen, Unknown, Word};
use sekimori_proto::v1::{
    Device, Event, Kind, Operation, Process, ReplayAnswer, ReplayGroup, ReplayUnknown, Verdict,
};

use crate::limits::{REPLAY_GROUPS_MAX, REPLAY_GROUPS_SHOWN_MAX, REPLAY_SAMPLES};

/// The policy, and what it has said so far.
#[derive(Debug)]
pub struct Past {
    replay: Replay,
    answer: ReplayAnswer,
    unknown: BTreeMap<Unknown, u64>,
    groups: BTreeMap<Group, (u64, Vec<u64>)>,
    looked_at: u64,
    full: bool,
}

/// User, what is decided now and by which rule, and the same for then.
type Group = (String, (i32, String), (i32, String));

impl Past {
    /// Nothing was looked at yet.
    pub fn new(replay: Replay) -> Past {
        let answer = ReplayAnswer { name: replay.name().to_owned(), ..ReplayAnswer::default() };
        let (unknown, groups) = (BTreeMap::new(), BTreeMap::new());
        Past { replay, answer, unknown, groups, looked_at: 0, full: false }
    }

    /// Events that were looked at.
    pub fn looked_at(&self) -> u64 {
        self.looked_at
    }

    /// There are more groups than are counted.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// How many groups there are.
    pub fn groups(&self) -> u64 {
        self.groups.len() as u64
    }

    /// One more event.
    pub fn look(&mut self, event: &Event) {
        self.looked_at = self.looked_at.saturating_add(1);
        let Some(seen) = seen(event) else { return };
        let answer = &mut self.answer;
        answer.events += 1;
        let then = event.verdict();
        answer.stopped_then += u64::from(then == Verdict::Denied);
        answer.alerted_then += u64::from(matches!(then, Verdict::Alerted | Verdict::WouldDeny));
        let (now, rule) = match self.replay.judge(&seen) {
            Judged::Unknown(what) => {
                *self.unknown.entry(what).or_default() += 1;
                return;
            }
            Judged::Known(now, rule) => (verdict_of(now), rule.unwrap_or_default()),
        };
        answer.stopped += u64::from(now == Verdict::Denied);
        answer.alerted += u64::from(matches!(now, Verdict::Alerted | Verdict::WouldDeny));
        if is_nothing(now) && is_nothing(then) {
            return;
        }
        let by = |verdict: Verdict, rule: &str| match is_nothing(verdict) {
            true => (Verdict::Allowed.into(), String::new()),
            false => (verdict.into(), rule.to_owned()),
        };
        let user = event.process.as_ref().map(user).unwrap_or_default();
        let group = (user, by(now, &rule), by(then, &event.rule));
        let count = self.groups.len();
        match self.groups.entry(group) {
            Entry::Vacant(_) if count >= REPLAY_GROUPS_MAX => self.full = true,
            entry => {
                let (count, cursors) = entry.or_default();
                *count += 1;
                if cursors.len() < REPLAY_SAMPLES {
                    cursors.push(event.cursor);
                }
            }
        }
    }

    /// What it said of all of them.
    pub fn answer(self) -> ReplayAnswer {
        let shown = |((user, now, then), (count, cursors)): (Group, (u64, Vec<u64>))| ReplayGroup {
            user,
            verdict: now.0,
            rule: now.1,
            verdict_then: then.0,
            rule_then: then.1,
            count,
            cursors,
        };
        let mut groups: Vec<ReplayGroup> = self.groups.into_iter().map(shown).collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.count));
        let more = groups.len().saturating_sub(REPLAY_GROUPS_SHOWN_MAX);
        groups.truncate(REPLAY_GROUPS_SHOWN_MAX);
        let unknown = self.unknown.into_iter();
        let unknown =
            unknown.map(|(what, count)| ReplayUnknown { what: what.text().into(), count });
        let unknown = unknown.collect();
        ReplayAnswer { groups, more_groups: more as u64, unknown, ..self.answer }
    }
}

fn is_nothing(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Allowed | Verdict::Unspecified)
}

fn verdict_of(number: u8) -> Verdict {
    match number {
        verdict::DENIED => Verdict::Denied,
        verdict::WOULD_DENY => Verdict::WouldDeny,
        verdict::ALERTED => Verdict::Alerted,
        _ => Verdict::Allowed,
    }
}

fn user(process: &Process) -> String {
    let named = [&process.login_user, &process.user].into_iter().find(|name| !name.is_empty());
    match named {
        Some(name) => name.clone(),
        None => process.login_uid.unwrap_or(process.uid).to_string(),
    }
}

/// What a record says of an operation that a rule can decide; `None` when it is of none.
fn seen(event: &Event) -> Option<Seen> {
    let word = Word::from_kind(u8::try_from(event.kind).ok()?)?;
    let operation = event.operation();
    let decided = match event.kind() {
        Kind::UsbWrite | Kind::ShareWrite => {
            !matches!(operation, Operation::Write | Operation::Close | Operation::Receipt)
        }
        Kind::UsbMount => operation != Operation::Unmount,
        _ => operation != Operation::Close,
    };
    let destination = event.destination.as_ref();
    // Local sockets are never refused.
    if !decided || destination.is_some_and(|it| it.protocol == "unix") {
        return None;
    }
    let process = event.process.clone().unwrap_or_default();
    let whole = |path: &Vec<u8>| path.first() == Some(&b'/');
    let file = event.file.as_ref();
    let path = file.map(|file| file.path.clone()).filter(whole);
    let path = match word {
        // A launch that was not refused is told by its process.
        Word::Exec => path.or_else(|| Some(process.exe.clone()).filter(whole)),
        // Which text is not whole is not said.
        _ => path.filter(|_| !event.truncated),
    };
    let uid = process.login_uid.unwrap_or(process.uid);
    let name = if process.login_uid.is_some() { process.login_user } else { process.user };
    let address = destination.and_then(|it| it.ip.parse().ok());
    let port = destination.and_then(|it| u16::try_from(it.port).ok()).unwrap_or_default();
    Some(Seen {
        kind: word,
        connects: operation == Operation::Connect,
        path,
        exe: Some(process.exe).filter(whole),
        user: (uid, name),
        device: file.and_then(|file| file.device.as_ref()).and_then(device),
        peer: address.map(|address| Peer { address, port }),
    })
}

fn device(device: &Device) -> Option<PluggedDevice> {
    let class = match device.class.as_str() {
        "usb" => device_class::USB,
        "sd" => device_class::SD,
        "thunderbolt" => device_class::THUNDERBOLT,
        "optical" => device_class::OPTICAL,
        "network" => device_class::NETWORK,
        "fuse" => device_class::FUSE,
        "fixed" => device_class::FIXED,
        "virtual" => device_class::VIRTUAL,
        _ => return None,
    };
    let number = |text: &str| u16::from_str_radix(text, 16).unwrap_or_default();
    let (vendor, product) = (number(&device.vendor), number(&device.product));
    Some(PluggedDevice { class, vendor, product, serial: device.serial.clone() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use sekimori_proto::v1::{Destination, File};

    use super::*;

    const POLICY: &str = "\
apiVersion: sekimori/v1
kind: Policy
metadata: { name: candidate }
mode: enforce
users:
  - { name: contractors, groups: [contractors] }
devices:
  - { name: ours, usb: { vendor: '0951', product: '1666', serials: [S1] } }
rules:
  - { id: usb, on: usb.write, action: deny, unless: { device: ours } }
  - { id: watched, on: net.connect, action: alert, unless: { destination: loopback } }
  - { id: hired, on: exec, when: { user: contractors }, action: deny }
";

    fn written(cursor: u64, user: &str, serial: &str, operation: Operation) -> Event {
        let device = Device {
            class: "usb".into(),
            vendor: "0951".into(),
            product: "1666".into(),
            serial: serial.into(),
            ..Device::default()
        };
        let file = File { path: b"/media/x".into(), device: Some(device), ..File::default() };
        Event {
            cursor,
            kind: Kind::UsbWrite.into(),
            operation: operation.into(),
            verdict: Verdict::Allowed.into(),
            process: Some(Process {
                login_uid: Some(1000),
                login_user: user.into(),
                ..Process::default()
            }),
            file: Some(file),
            ..Event::default()
        }
    }

    fn group(group: &ReplayGroup) -> (&str, Verdict, &str, Verdict, &str, u64, &[u64]) {
        let ReplayGroup { user, rule, rule_then, count, cursors, .. } = group;
        (user, group.verdict(), rule, group.verdict_then(), rule_then, *count, cursors)
    }

    #[test]
    fn operations_are_counted_once_and_compared_with_what_was_decided() {
        let (replay, _) = Replay::new(POLICY.as_bytes()).unwrap();
        let mut past = Past::new(replay);
        for cursor in 1..=7 {
            past.look(&written(cursor, "taro", "S2", Operation::Open));
            past.look(&written(cursor + 100, "taro", "S2", Operation::Write));
            past.look(&written(cursor + 200, "taro", "S2", Operation::Close));
        }
        past.look(&written(8, "hanako", "S1", Operation::Open));
        let denied = Event {
            verdict: Verdict::Denied.into(),
            rule: "no-usb".into(),
            ..written(9, "hanako", "S1", Operation::Open)
        };
        past.look(&denied);
        let launch = Event {
            kind: Kind::Exec.into(),
            operation: Operation::Exec.into(),
            file: None,
            ..denied
        };
        let process = Process { exe: b"/bin/ls".into(), ..Process::default() };
        past.look(&Event { process: Some(process), ..launch });
        let to = |ip: &str| Event {
            kind: Kind::NetConnect.into(),
            operation: Operation::Connect.into(),
            destination: Some(Destination { ip: ip.into(), port: 443, ..Destination::default() }),
            verdict: Verdict::Alerted.into(),
            rule: "watched".into(),
            ..written(11, "taro", "", Operation::Open)
        };
        past.look(&to("192.0.2.1"));
        past.look(&to("127.0.0.1"));
        past.look(&Event { kind: Kind::Agent.into(), ..Event::default() });
        assert_eq!((past.looked_at(), past.is_full()), (27, false));
        let answer = past.answer();
        assert_eq!((answer.events, answer.stopped, answer.alerted), (12, 7, 1));
        assert_eq!((answer.stopped_then, answer.alerted_then), (2, 2));
        let unknown: Vec<_> =
            answer.unknown.iter().map(|it| (it.what.as_str(), it.count)).collect();
        assert_eq!(unknown, [(Unknown::Group.text(), 1)]);
        let groups: Vec<_> = answer.groups.iter().map(group).collect();
        let expected = [
            ("taro", Verdict::Denied, "usb", Verdict::Allowed, "", 7, &[1, 2, 3, 4, 5][..]),
            ("hanako", Verdict::Allowed, "", Verdict::Denied, "no-usb", 1, &[9][..]),
            ("taro", Verdict::Allowed, "", Verdict::Alerted, "watched", 1, &[11][..]),
            ("taro", Verdict::Alerted, "watched", Verdict::Alerted, "watched", 1, &[11][..]),
        ];
        assert_eq!(groups, expected);
    }
}
