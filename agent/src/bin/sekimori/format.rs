//! How events are printed for programs.

use sekimori_formats::{ecs, ocsf};
use sekimori_proto::json;
use sekimori_proto::v1::Event;

/// One JSON object a line, in the words of one schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Sekimori's own names
    Json,
    /// Open Cybersecurity Schema Framework
    Ocsf,
    /// Elastic Common Schema
    Ecs,
}

impl Format {
    /// The event as a line without its end.
    pub fn line(self, event: &Event) -> String {
        let value = match self {
            Self::Json => json::event(event),
            Self::Ocsf => ocsf(event),
            Self::Ecs => ecs(event),
        };
        value.to_string()
    }
}

#[derive(Debug, clap::Args)]
pub struct FormatArgs {
    /// Print one JSON object a line, in the words of this schema.
    #[arg(long, value_name = "SCHEMA", value_enum, conflicts_with = "json")]
    format: Option<Format>,
    /// Short for --format json.
    #[arg(long)]
    json: bool,
}

impl FormatArgs {
    /// None: lines for people.
    pub fn chosen(&self) -> Option<Format> {
        self.format.or(self.json.then_some(Format::Json))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use clap::Parser;
    use rstest::rstest;
    use sekimori_proto::v1::Kind;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        format: FormatArgs,
    }

    #[rstest]
    #[case(&[], None)]
    #[case(&["--json"], Some(Format::Json))]
    #[case(&["--format", "json"], Some(Format::Json))]
    #[case(&["--format", "ocsf"], Some(Format::Ocsf))]
    #[case(&["--format=ecs"], Some(Format::Ecs))]
    fn as_typed(#[case] options: &[&str], #[case] expected: Option<Format>) {
        let line = Line::try_parse_from(["sekimori"].iter().chain(options)).unwrap();
        assert_eq!(line.format.chosen(), expected);
    }

    #[test]
    fn two_formats_at_once_are_refused() {
        Line::try_parse_from(["sekimori", "--json", "--format", "ecs"]).unwrap_err();
    }

    #[test]
    fn each_is_one_line_in_its_own_words() {
        let message = "一行目\n二行目".to_owned();
        let event = Event { kind: Kind::Agent.into(), message, ..Event::default() };
        let words = [
            (Format::Json, "\"seq\":"),
            (Format::Ocsf, "\"class_uid\":0"),
            (Format::Ecs, "\"@timestamp\":"),
        ];
        for (format, word) in words {
            let line = format.line(&event);
            assert!(line.contains(word) && line.contains("一行目\\n二行目"), "{line}");
            assert!(!line.contains('\n'));
        }
    }
}
