//! `sekimori policy replay`.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use comfy_table::{Table, presets::NOTHING};
use sekimori_agent::decode::printable;
use sekimori_proto::v1::policy_service_client::PolicyServiceClient;
use sekimori_proto::v1::replay_response::Part;
use sekimori_proto::v1::{ReplayAnswer, ReplayGroup, ReplayRequest, Verdict};
use sekimori_proto::words::Word as _;
use serde_json::{Value, json};

use crate::collector::CollectorArgs;
use crate::failure::{FINDING, Failure};
use crate::filter::{FilterArgs, warn_of_gaps};
use crate::policy::read;
use crate::rollout::{finding_json, warn};

/// Bytes of the answer.
const ANSWER_BYTES_MAX: usize = 16 << 20;

const EXAMPLES: &str = "\
For analysts and admins; it is a record, as a search is. Only what is stored can be asked: what was
neither refused nor recorded then is not there. Where a record does not say what a rule asks (who was
in a group of the system's user database, for one), the event counts as unknown.

Examples:
  sekimori policy replay office.yaml --since '7 days ago'
  sekimori policy replay office.yaml --since yesterday --host desk-12 --kind usb.write --json";

/// Which policy, and which events.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Policy, or - for standard input.
    file: PathBuf,
    #[command(flatten)]
    filter: FilterArgs,
    /// One JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    collector: CollectorArgs,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let text = read(&args.file)?;
    let client = PolicyServiceClient::new(args.collector.connect().await?);
    let mut client = client.max_decoding_message_size(ANSWER_BYTES_MAX);
    let request = ReplayRequest { text, filter: Some(args.filter.filter()) };
    let refused = |status: tonic::Status| args.collector.refused(&status);
    let mut answers = client.replay(request).await.map_err(refused)?.into_inner();
    let progress = !args.json && std::io::stderr().is_terminal();
    while let Some(answer) = answers.message().await.map_err(refused)? {
        match answer.part {
            Some(Part::LookedAt(events)) if progress => {
                anstream::eprint!("\r{events} events looked at");
            }
            Some(Part::Answer(answer)) => {
                if progress {
                    anstream::eprint!("\r\x1b[K");
                }
                return tell(&args, &answer);
            }
            _ => {}
        }
    }
    Err(Failure::failed("the collector ended the replay without an answer"))
}

fn tell(args: &Args, answer: &ReplayAnswer) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    if args.json {
        writeln!(out, "{}", as_json(answer))?;
    } else {
        warn(&args.file.display().to_string(), &answer.findings);
        warn_of_gaps(&answer.gaps);
    }
    if answer.findings.iter().any(|finding| finding.error) {
        return Err(Failure::told(FINDING));
    }
    if args.json {
        return Ok(());
    }
    let ReplayAnswer { events, stopped, alerted, stopped_then, alerted_then, .. } = answer;
    writeln!(out, "{events} stored operations that a rule can decide")?;
    writeln!(out, "  refused   {stopped}, then {stopped_then}")?;
    writeln!(out, "  alerted   {alerted}, then {alerted_then}")?;
    for unknown in &answer.unknown {
        writeln!(out, "  unknown   {}: not on record is {}", unknown.count, unknown.what)?;
    }
    if !answer.groups.is_empty() {
        writeln!(out, "{}", table(&answer.groups))?;
    }
    if answer.more_groups > 0 {
        writeln!(out, "and {} more users and rules", answer.more_groups)?;
    }
    Ok(())
}

/// What a policy said, in one word or two.
fn said(verdict: Verdict, rule: &str) -> String {
    match (verdict, rule) {
        (Verdict::Unspecified | Verdict::Allowed, _) => "-".to_owned(),
        (verdict, rule) => format!("{} {}", verdict.word(), printable(rule.as_bytes())),
    }
}

fn table(groups: &[ReplayGroup]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["count", "user", "this policy", "then", "cursors"]);
    for group in groups {
        let cursors: Vec<String> = group.cursors.iter().map(u64::to_string).collect();
        table.add_row([
            group.count.to_string(),
            printable(group.user.as_bytes()),
            said(group.verdict(), &group.rule),
            said(group.verdict_then(), &group.rule_then),
            cursors.join(" "),
        ]);
    }
    table
}

fn as_json(answer: &ReplayAnswer) -> Value {
    let group = |group: &ReplayGroup| {
        json!({
            "user": group.user,
            "verdict": group.verdict().word(),
            "rule": group.rule,
            "verdict_then": group.verdict_then().word(),
            "rule_then": group.rule_then,
            "count": group.count,
            "cursors": group.cursors,
        })
    };
    let unknown =
        |it: &sekimori_proto::v1::ReplayUnknown| json!({ "what": it.what, "count": it.count });
    let gap = |it: &sekimori_proto::v1::Gap| json!({ "first": it.first, "last": it.last, "reason": it.reason });
    json!({
        "name": answer.name,
        "findings": answer.findings.iter().map(finding_json).collect::<Vec<_>>(),
        "events": answer.events,
        "stopped": answer.stopped,
        "alerted": answer.alerted,
        "stopped_then": answer.stopped_then,
        "alerted_then": answer.alerted_then,
        "unknown": answer.unknown.iter().map(unknown).collect::<Vec<_>>(),
        "groups": answer.groups.iter().map(group).collect::<Vec<_>>(),
        "more_groups": answer.more_groups,
        "gaps": answer.gaps.iter().map(gap).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_shown_with_its_cursors() {
        let group = ReplayGroup {
            user: "花子".to_owned(),
            rule: "usb-only-company".to_owned(),
            verdict: Verdict::Denied.into(),
            verdict_then: Verdict::Allowed.into(),
            count: 12,
            cursors: vec![7, 8],
            ..ReplayGroup::default()
        };
        let text = table(std::slice::from_ref(&group)).to_string();
        for part in ["12", "花子", "denied usb-only-company", "-", "7 8"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        let answer = ReplayAnswer { groups: vec![group], stopped: 12, ..ReplayAnswer::default() };
        let json = as_json(&answer);
        assert_eq!(json["groups"][0]["verdict"], "denied");
        assert_eq!(json["groups"][0]["verdict_then"], "allowed");
        assert_eq!(json["stopped"], 12);
    }
}
