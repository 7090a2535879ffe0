//! The words for kinds, verdicts and operations: one table each, used by policies, the command line
//! and the JSON form.

use crate::v1::{ActPhase, Field, HostTurn, Kind, NameSource, Operation, Order, Verdict};

/// A number of the wire that people know by a word.
pub trait Word: Copy + PartialEq + 'static {
    /// Every value and its word, in the order of the numbers.
    const WORDS: &'static [(Self, &'static str)];

    /// The word; `unspecified` for the value 0.
    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(value, _)| *value == self).map_or("unspecified", |(_, word)| word)
    }

    /// The value of a word, spelled exactly so. `unspecified` is not a word one can ask for.
    fn from_word(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(_, known)| *known == word).map(|(value, _)| *value)
    }

    /// All words with a comma between, for messages that say what was expected.
    fn all_words() -> String {
        let words: Vec<&str> = Self::WORDS.iter().map(|(_, word)| *word).collect();
        words.join(", ")
    }
}

impl Word for Kind {
    const WORDS: &'static [(Kind, &'static str)] = &[
        (Kind::FileOpen, "file.open"),
        (Kind::UsbWrite, "usb.write"),
        (Kind::UsbMount, "usb.mount"),
        (Kind::NetConnect, "net.connect"),
        (Kind::NetUpload, "net.upload"),
        (Kind::Exec, "exec"),
        (Kind::Exit, "exit"),
        (Kind::Tamper, "tamper"),
        (Kind::NetSocket, "net.socket"),
        (Kind::ShareWrite, "share.write"),
        (Kind::Loss, "loss"),
        (Kind::Agent, "agent"),
        (Kind::Device, "device"),
        (Kind::Operator, "operator"),
        (Kind::Checkpoint, "checkpoint"),
        (Kind::Custody, "custody"),
        (Kind::Host, "host"),
        (Kind::Alert, "alert"),
    ];
}

impl Word for Field {
    const WORDS: &'static [(Field, &'static str)] = &[
        (Field::Host, "host"),
        (Field::User, "user"),
        (Field::Device, "device"),
        (Field::Destination, "destination"),
        (Field::Program, "program"),
        (Field::Rule, "rule"),
        (Field::Kind, "kind"),
        (Field::Verdict, "verdict"),
        (Field::Hour, "hour"),
        (Field::Day, "day"),
        (Field::File, "file"),
    ];
}

impl Word for Order {
    const WORDS: &'static [(Order, &'static str)] = &[
        (Order::Count, "count"),
        (Order::Bytes, "bytes"),
        (Order::Distinct, "distinct"),
        (Order::Values, "values"),
    ];
}

impl Word for ActPhase {
    const WORDS: &'static [(ActPhase, &'static str)] =
        &[(ActPhase::Begin, "begin"), (ActPhase::End, "end"), (ActPhase::Continued, "continued")];
}

impl Word for HostTurn {
    const WORDS: &'static [(HostTurn, &'static str)] = &[
        (HostTurn::Enrolled, "enrolled"),
        (HostTurn::Renewed, "renewed"),
        (HostTurn::Silent, "silent"),
        (HostTurn::Returned, "returned"),
        (HostTurn::Isolated, "isolated"),
        (HostTurn::Released, "released"),
    ];
}

impl Word for NameSource {
    const WORDS: &'static [(NameSource, &'static str)] = &[
        (NameSource::Dns, "dns"),
        (NameSource::Tls, "tls"),
        (NameSource::Quic, "quic"),
        (NameSource::Http, "http"),
        (NameSource::TlsOuter, "tls-outer"),
        (NameSource::QuicOuter, "quic-outer"),
    ];
}

impl Word for Verdict {
    const WORDS: &'static [(Verdict, &'static str)] = &[
        (Verdict::Allowed, "allowed"),
        (Verdict::Alerted, "alerted"),
        (Verdict::Denied, "denied"),
        (Verdict::WouldDeny, "would-deny"),
    ];
}

impl Word for Operation {
    const WORDS: &'static [(Operation, &'static str)] = &[
        (Operation::Open, "open"),
        (Operation::Create, "create"),
        (Operation::Rename, "rename"),
        (Operation::Link, "link"),
        (Operation::Unlink, "unlink"),
        (Operation::Mkdir, "mkdir"),
        (Operation::Rmdir, "rmdir"),
        (Operation::Symlink, "symlink"),
        (Operation::Mknod, "mknod"),
        (Operation::Truncate, "truncate"),
        (Operation::Write, "write"),
        (Operation::Close, "close"),
        (Operation::Connect, "connect"),
        (Operation::Exec, "exec"),
        (Operation::Mount, "mount"),
        (Operation::Exit, "exit"),
        (Operation::Signal, "signal"),
        (Operation::Trace, "trace"),
        (Operation::MapOpen, "map-open"),
        (Operation::Unpin, "unpin"),
        (Operation::Unmount, "unmount"),
        (Operation::HooksOff, "hooks-off"),
        (Operation::Receipt, "receipt"),
        (Operation::Plug, "plug"),
        (Operation::Unplug, "unplug"),
        (Operation::Setxattr, "setxattr"),
        (Operation::Removexattr, "removexattr"),
        (Operation::Command, "command"),
        (Operation::Load, "load"),
        (Operation::Replace, "replace"),
        (Operation::Freeze, "freeze"),
        (Operation::Limit, "limit"),
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every number of the wire up to 200 that decodes has a word of its own and comes back.
    fn complete<T: Word + TryFrom<i32> + std::fmt::Debug>(expected: usize) {
        let mut seen = Vec::new();
        for value in (1..200).filter_map(|number| T::try_from(number).ok()) {
            let word = value.word();
            assert_ne!(word, "unspecified", "{value:?} has no word");
            assert_eq!(T::from_word(word), Some(value));
            seen.push(word);
        }
        assert_eq!(seen.len(), expected);
        assert_eq!(T::all_words(), seen.join(", "));
    }

    #[test]
    fn every_value_has_one_word() {
        complete::<Kind>(18);
        complete::<HostTurn>(6);
        complete::<Verdict>(4);
        complete::<Operation>(32);
        complete::<NameSource>(6);
        complete::<ActPhase>(3);
        complete::<Field>(11);
        complete::<Order>(4);
    }

    #[test]
    fn what_is_no_word_is_refused() {
        assert_eq!(Kind::from_word("unspecified"), None);
        assert_eq!(Kind::from_word("File.Open"), None);
        assert_eq!(Verdict::from_word(""), None);
        assert_eq!(Kind::Unspecified.word(), "unspecified");
    }
}
