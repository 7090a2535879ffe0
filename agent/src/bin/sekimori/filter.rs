//! The filter flags of `watch`, `search` and `top`.

use sekimori_proto::v1::{Event, Filter, Gap, Kind, Verdict};
use sekimori_proto::words::Word;

/// Which events. Different flags must all hold; a flag given twice holds for either value.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Which events")]
pub struct FilterArgs {
    /// Kind, as in a policy's `on:`, or exit, tamper, device, loss, agent, operator, host, alert,
    /// checkpoint, custody; may be repeated or listed with commas.
    #[arg(long = "kind", value_name = "KIND", value_parser = word::<Kind>, value_delimiter = ',')]
    kinds: Vec<Kind>,
    /// Host, as the collector knows it.
    #[arg(long = "host", value_name = "HOST", value_delimiter = ',')]
    hosts: Vec<String>,
    /// User or login user.
    #[arg(long = "user", value_name = "USER", value_delimiter = ',')]
    users: Vec<String>,
    /// allowed, alerted, denied or would-deny.
    #[arg(
        long = "verdict", value_name = "VERDICT", value_parser = word::<Verdict>,
        value_delimiter = ','
    )]
    verdicts: Vec<Verdict>,
    /// A part of a path, the program, the destination or its name, a serial, a source or a mail address.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    text: String,
    /// Rule that decided.
    #[arg(long = "rule", value_name = "ID", value_delimiter = ',')]
    rules: Vec<String>,
    /// Serial of a device that came, went, or holds the file.
    #[arg(long = "serial", value_name = "SERIAL", value_delimiter = ',')]
    serials: Vec<String>,
    /// Address or name of the destination, whole.
    #[arg(long = "destination", value_name = "NAME_OR_IP", value_delimiter = ',')]
    destinations: Vec<String>,
    /// Executable, its whole path.
    #[arg(long = "program", value_name = "PATH")]
    programs: Vec<String>,
    /// An expression in CEL over the names of --json, as in 'file.size > 1000000 && bytes > 0'; see
    /// the README.
    #[arg(long = "where", value_name = "CEL", default_value = "", hide_default_value = true)]
    expression: String,
    /// Not before this time: RFC 3339, a local date or time, today, -10m, '2 hours ago'.
    #[arg(long, value_name = "TIME", value_parser = crate::time::parse, allow_hyphen_values = true)]
    since: Option<i64>,
    /// Before this time.
    #[arg(long, value_name = "TIME", value_parser = crate::time::parse, allow_hyphen_values = true)]
    until: Option<i64>,
}

impl FilterArgs {
    pub fn filter(&self) -> Filter {
        Filter {
            kinds: self.kinds.iter().map(|kind| (*kind).into()).collect(),
            hosts: self.hosts.clone(),
            users: self.users.clone(),
            verdicts: self.verdicts.iter().map(|verdict| (*verdict).into()).collect(),
            text: self.text.clone(),
            since_ns: self.since,
            until_ns: self.until,
            rules: self.rules.clone(),
            serials: self.serials.clone(),
            destinations: self.destinations.clone(),
            programs: self.programs.clone(),
            expression: self.expression.clone(),
        }
    }
}

impl FilterArgs {
    /// Whether an event is one for people who read lines: signatures are not, unless they are asked
    /// for.
    pub fn shows(&self, event: &Event) -> bool {
        !self.kinds.is_empty() || !matches!(event.kind(), Kind::Checkpoint | Kind::Custody)
    }
}

/// Says on the terminal what the collector could not read.
pub fn warn_of_gaps(gaps: &[Gap]) {
    for Gap { first, last, reason } in gaps {
        anstream::eprintln!(
            "sekimori: the collector cannot read its events {first} to {last}, so that some may be \
             missing here: {reason}"
        );
    }
}

/// A value by its word, for clap.
pub fn word<T: Word>(text: &str) -> Result<T, String> {
    T::from_word(text).ok_or_else(|| format!("expected one of {}", T::all_words()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use clap::Parser as _;
    use rstest::rstest;

    use super::*;

    #[derive(clap::Parser)]
    struct Only {
        #[command(flatten)]
        filter: FilterArgs,
    }

    fn parse(line: &str) -> Result<Filter, clap::Error> {
        let words = std::iter::once("x").chain(line.split_whitespace());
        Only::try_parse_from(words).map(|only| only.filter.filter())
    }

    #[test]
    fn flags_become_the_filter() {
        let line = "--kind usb.write,exec --kind loss --host a --user alice,花子 \
            --verdict would-deny --text 顧客 --rule r1 --since 1970-01-01T00:00:01Z \
            --until 1970-01-01T00:00:02Z --serial S1 --destination a.example,::1 --program /bin/a,b \
            --where file.size>0";
        let expected = Filter {
            kinds: [Kind::UsbWrite, Kind::Exec, Kind::Loss].map(i32::from).to_vec(),
            hosts: vec!["a".into()],
            users: vec!["alice".into(), "花子".into()],
            verdicts: vec![Verdict::WouldDeny.into()],
            text: "顧客".into(),
            since_ns: Some(1_000_000_000),
            until_ns: Some(2_000_000_000),
            rules: vec!["r1".into()],
            serials: vec!["S1".into()],
            destinations: vec!["a.example".into(), "::1".into()],
            programs: vec!["/bin/a,b".into()],
            expression: "file.size>0".into(),
        };
        assert_eq!(parse(line).unwrap(), expected);
        assert_eq!(parse("").unwrap(), Filter::default());
    }

    #[rstest]
    #[case("--kind usb.wrote", "file.open, usb.write")]
    #[case("--verdict deny", "allowed, alerted, denied, would-deny")]
    #[case("--since soon", "is no time")]
    fn a_wrong_word_says_what_was_expected(#[case] line: &str, #[case] text: &str) {
        let message = parse(line).unwrap_err().to_string();
        assert!(message.contains(text), "{message}");
    }

    #[test]
    fn a_distance_with_a_hyphen_is_a_value() {
        assert!(parse("--since -10m").unwrap().since_ns.is_some());
    }
}
