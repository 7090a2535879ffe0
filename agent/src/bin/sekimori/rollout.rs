//! `sekimori policy put`, `rollout` and `rollback`.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use comfy_table::{Table, presets::NOTHING};
use jiff::tz::TimeZone;
use prost::Message as _;
use sekimori_agent::decode::printable;
use sekimori_policy::limits::BUNDLE_BYTES_MAX;
use sekimori_proto::json::time as json_time;
use sekimori_proto::v1::policy_service_client::PolicyServiceClient;
use sekimori_proto::v1::{
    ListPoliciesRequest, PolicyBundle, PolicyFinding, PolicyTurn, PolicyVersion,
    PromotePolicyRequest, PutPolicyRequest, PutPolicyResponse, RollbackPolicyRequest,
};
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::collector::CollectorArgs;
use crate::failure::{FINDING, Failure};
use crate::policy::read;
use crate::time;

/// Bytes of one answer.
const ANSWER_BYTES_MAX: usize = 16 << 20;

const PUT_EXAMPLES: &str = "\
For admins. Who and why is a record (`sekimori search --kind operator`). Hosts take it only with
`policy_from: collector` in their configuration; a host that is away takes it when it comes.

Examples:
  sekimori policy put office.yaml --reason 'ticket 4711' --canary 10
  sekimori policy put office.yaml --reason 'ticket 4711' --hosts 'desk-*' --hosts lab-1
  sekimori policy rollout --percent 50 --reason 'no complaints in a week'";

const ROLLOUT_EXAMPLES: &str = "\
Without an epoch: every version. With one: also each of its hosts. With --percent: more of its hosts,
among them all that had it; for admins.

Examples:
  sekimori policy rollout
  sekimori policy rollout 7 --json
  sekimori policy rollout 7 --percent 100 --reason 'ticket 4711'";

/// What goes to whom, and why.
#[derive(Debug, clap::Args)]
#[command(after_help = PUT_EXAMPLES)]
pub struct PutArgs {
    /// Policy, or - for standard input.
    #[arg(required_unless_present = "signed")]
    file: Option<PathBuf>,
    /// What `sekimori-collector policy sign` made, where the key is not at the collector.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "hosts", "canary"])]
    signed: Option<PathBuf>,
    /// Only hosts with such a name; `*` is any text. May be repeated.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    hosts: Vec<String>,
    /// So many of a hundred of them. The same ones are among those of a higher percentage.
    #[arg(
        long, value_name = "PERCENT", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=100)
    )]
    canary: u32,
    /// Why; it is recorded together with who, and told to the hosts.
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    reason: String,
    /// One JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    collector: CollectorArgs,
}

/// Which version.
#[derive(Debug, clap::Args)]
#[command(after_help = ROLLOUT_EXAMPLES)]
pub struct RolloutArgs {
    /// Its epoch; with --percent the last one when it is not said.
    epoch: Option<u64>,
    /// Give it to so many of a hundred of its hosts.
    #[arg(
        long, value_name = "PERCENT", requires = "reason",
        value_parser = clap::value_parser!(u32).range(1..=100)
    )]
    percent: Option<u32>,
    /// Why; it is recorded together with who.
    #[arg(
        long, value_name = "TEXT", requires = "percent",
        value_parser = NonEmptyStringValueParser::new()
    )]
    reason: Option<String>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    collector: CollectorArgs,
}

/// Whose text, to whom, and why.
#[derive(Debug, clap::Args)]
pub struct RollbackArgs {
    /// Epoch of the version whose text it is to be.
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    epoch: u64,
    /// Only hosts with such a name [default: those of that version].
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    hosts: Vec<String>,
    /// Every host, although that version was for some.
    #[arg(long, conflicts_with = "hosts")]
    all_hosts: bool,
    /// Why; it is recorded together with who, and told to the hosts.
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    reason: String,
    /// One JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    collector: CollectorArgs,
}

async fn connect(collector: &CollectorArgs) -> Result<PolicyServiceClient<Channel>, Failure> {
    let client = PolicyServiceClient::new(collector.connect().await?);
    Ok(client.max_decoding_message_size(ANSWER_BYTES_MAX))
}

pub async fn put(args: PutArgs) -> Result<(), Failure> {
    let PutArgs { file, signed, hosts, canary, reason, json, collector } = args;
    let (name, request) = match (file, signed) {
        (_, Some(path)) => {
            let signed = Some(bundle(&path)?);
            (path, PutPolicyRequest { signed, reason, ..PutPolicyRequest::default() })
        }
        (file, None) => {
            let path = file.unwrap_or_default();
            let (text, percent) = (read(&path)?, canary);
            (path, PutPolicyRequest { text, hosts, percent, reason, signed: None })
        }
    };
    let answer = connect(&collector).await?.put(request).await;
    let answer = answer.map_err(|status| collector.refused(&status))?.into_inner();
    tell(&name.display().to_string(), &answer, json)
}

pub async fn rollback(args: RollbackArgs) -> Result<(), Failure> {
    let RollbackArgs { epoch, hosts, all_hosts, reason, json, collector } = args;
    let request = RollbackPolicyRequest { epoch, hosts, all_hosts, reason };
    let answer = connect(&collector).await?.rollback(request).await;
    let answer = answer.map_err(|status| collector.refused(&status))?.into_inner();
    tell(&format!("epoch {epoch}"), &answer, json)
}

fn bundle(path: &PathBuf) -> Result<PolicyBundle, Failure> {
    let mut bytes = Vec::new();
    let most = BUNDLE_BYTES_MAX as u64 + 1024;
    std::fs::File::open(path)
        .and_then(|file| file.take(most).read_to_end(&mut bytes))
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
    PolicyBundle::decode(bytes.as_slice()).map_err(|_| {
        let path = path.display();
        Failure::usage(format!("{path} is nothing that `sekimori-collector policy sign` made"))
    })
}

/// What is wrong goes to stderr, as `lint` tells it.
fn tell(name: &str, answer: &PutPolicyResponse, json: bool) -> Result<(), Failure> {
    let PutPolicyResponse { epoch, name: policy, sha256, findings, hosts } = answer;
    let mut out = anstream::stdout().lock();
    if json {
        let line = json!({
            "epoch": (*epoch != 0).then_some(epoch),
            "name": policy,
            "sha256": hex(sha256),
            "hosts": hosts,
            "findings": findings.iter().map(finding_json).collect::<Vec<_>>(),
        });
        writeln!(out, "{line}")?;
    } else {
        warn(name, findings);
        if *epoch != 0 {
            let policy = printable(policy.as_bytes());
            writeln!(
                out,
                "policy {policy} is epoch {epoch}, for {hosts} of the hosts that are known now; \
                 `sekimori policy rollout {epoch}` says which run it"
            )?;
        }
    }
    if *epoch == 0 { Err(Failure::told(FINDING)) } else { Ok(()) }
}

/// Findings as `lint` tells them, on stderr.
pub fn warn(name: &str, findings: &[PolicyFinding]) {
    for finding in findings {
        let PolicyFinding { error, line, column, message, hint } = finding;
        let severity = if *error { "error" } else { "warning" };
        let hint = if hint.is_empty() { String::new() } else { format!("; {hint}") };
        let text = format!("{name}:{line}:{column}: {severity}: {message}{hint}");
        anstream::eprintln!("{}", printable(text.as_bytes()));
    }
}

pub fn finding_json(finding: &PolicyFinding) -> Value {
    json!({
        "severity": if finding.error { "error" } else { "warning" },
        "line": finding.line,
        "column": finding.column,
        "message": finding.message,
        "hint": (!finding.hint.is_empty()).then_some(&finding.hint),
    })
}

pub async fn rollout(args: RolloutArgs) -> Result<(), Failure> {
    let RolloutArgs { epoch, percent, reason, json, collector } = args;
    let mut client = connect(&collector).await?;
    let mut epoch = epoch.unwrap_or_default();
    if let Some(percent) = percent {
        let reason = reason.unwrap_or_default();
        let answer = client.promote(PromotePolicyRequest { epoch, percent, reason }).await;
        epoch = answer.map_err(|status| collector.refused(&status))?.into_inner().epoch;
    }
    let answer = client.list(ListPoliciesRequest { epoch }).await;
    let answer = answer.map_err(|status| collector.refused(&status))?.into_inner();
    let mut out = anstream::stdout().lock();
    if json {
        for version in &answer.versions {
            writeln!(out, "{}", as_json(version))?;
        }
        return Ok(());
    }
    if answer.versions.is_empty() {
        writeln!(out, "no policy was given to the hosts yet")?;
        return Ok(());
    }
    writeln!(out, "{}", table(&answer.versions, &TimeZone::system()))?;
    for host in answer.versions.iter().flat_map(|version| &version.each) {
        let refusal = printable(host.refusal.as_bytes());
        let colon = if refusal.is_empty() { "" } else { ": " };
        let name = printable(host.host.as_bytes());
        writeln!(out, "  {name} {}{colon}{refusal}", turn(host.turn()))?;
    }
    if answer.signed_elsewhere {
        writeln!(out, "policies are signed elsewhere: the key is not at this collector")?;
    }
    Ok(())
}

const fn turn(turn: PolicyTurn) -> &'static str {
    match turn {
        PolicyTurn::Running => "running",
        PolicyTurn::Refused => "REFUSED",
        PolicyTurn::Waiting | PolicyTurn::Unspecified => "waiting",
    }
}

fn table(versions: &[PolicyVersion], zone: &TimeZone) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header([
        "epoch",
        "policy",
        "sha256",
        "put",
        "by",
        "hosts",
        "percent",
        "to run it",
        "running",
        "refused",
        "waiting",
        "reason",
    ]);
    for version in versions {
        let text = |text: &str| printable(text.as_bytes());
        let hosts = match version.hosts.as_slice() {
            [] => "all".to_owned(),
            hosts => text(&hosts.join(",")),
        };
        let also = match version.also_running {
            0 => String::new(),
            count => format!(" (+{count} others)"),
        };
        table.add_row([
            version.epoch.to_string(),
            text(&version.name),
            hex(&version.sha256).chars().take(12).collect(),
            time::show(version.time_ns, true, zone),
            text(&version.by),
            hosts,
            version.percent.to_string(),
            version.wanted.to_string(),
            format!("{}{also}", version.running),
            version.refused.to_string(),
            version.waiting.to_string(),
            text(&version.reason),
        ]);
    }
    table
}

fn as_json(version: &PolicyVersion) -> Value {
    let each = version.each.iter().map(|host| {
        json!({
            "host": host.host,
            "turn": turn(host.turn()).to_lowercase(),
            "refusal": (!host.refusal.is_empty()).then_some(&host.refusal),
        })
    });
    json!({
        "epoch": version.epoch,
        "name": version.name,
        "sha256": hex(&version.sha256),
        "by": version.by,
        "put": json_time(version.time_ns),
        "reason": version.reason,
        "hosts": version.hosts,
        "percent": version.percent,
        "wanted": version.wanted,
        "running": version.running,
        "refused": version.refused,
        "waiting": version.waiting,
        "also_running": version.also_running,
        "each": each.collect::<Vec<_>>(),
    })
}

fn hex(bytes: &[u8]) -> String {
    sekimori_evidence::hex(bytes)
}

#[cfg(test)]
mod tests {
    use sekimori_proto::v1::PolicyHost;

    use super::*;

    fn version() -> PolicyVersion {
        PolicyVersion {
            epoch: 7,
            name: "持出し禁止\u{1b}[2J".to_owned(),
            sha256: vec![0xab; 32],
            by: "admin jiro".to_owned(),
            reason: "ticket 4711".to_owned(),
            percent: 10,
            wanted: 4,
            running: 2,
            refused: 1,
            waiting: 1,
            also_running: 3,
            each: vec![PolicyHost {
                host: "desk-1".to_owned(),
                turn: PolicyTurn::Refused.into(),
                refusal: "it has errors".to_owned(),
            }],
            ..PolicyVersion::default()
        }
    }

    #[test]
    fn a_row_says_it_all_and_no_control_character() {
        let text = table(&[version()], &TimeZone::UTC).to_string();
        for part in ["7", "持出し禁止", "abababababab", "admin jiro", "all", "2 (+3 others)"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn its_json_has_every_part() {
        let json = as_json(&version());
        assert_eq!(json["wanted"], 4);
        assert_eq!(json["each"][0]["turn"], "refused");
        assert_eq!(json["each"][0]["refusal"], "it has errors");
    }
}
