//! `sekimori verify`.

use std::fs::File;
use std::io::{BufRead as _, BufReader, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anstyle::{AnsiColor, Style};
use sekimori_agent::decode::printable;
use sekimori_evidence::case::{self, Manifest};
use sekimori_evidence::{hex, unhex};
use sekimori_proto::v1::evidence_service_client::EvidenceServiceClient;
use sekimori_proto::v1::verify_response::Part;
use sekimori_proto::v1::{EvidenceSummary, Finding, Head, HostEvidence, VerifyRequest};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::collector::CollectorArgs;
use crate::failure::{FINDING, Failure};

/// Bytes of a file with links that were noted before.
const HEADS_BYTES_MAX: u64 = 16 << 20;

const EXAMPLES: &str = "\
Examples:
  sekimori verify                                 everything that the collector has
  sekimori verify --note heads.jsonl              and keep the ends of the chains elsewhere
  sekimori verify --expect heads.jsonl            the ends that were kept are still there
  sekimori verify case.zip --collector-key 6f1d…  a case, without any collector

Exit codes: 0 all is as it was signed, 2 something is not, 1 it could not be verified.";

/// Say whether records are what their hosts signed.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A case that `sekimori case` made. Without it the collector's store is verified.
    case: Option<PathBuf>,
    /// Only this host.
    #[arg(long = "host", value_name = "HOST", value_delimiter = ',', conflicts_with = "case")]
    hosts: Vec<String>,
    /// Write the last link of each host's chain to this file, one JSON object a line. Kept where the
    /// collector's administrators cannot change it, it shows whether the end was cut off.
    #[arg(long, value_name = "FILE", conflicts_with = "case")]
    note: Option<PathBuf>,
    /// The links in this file, which --note has written, must still be there.
    #[arg(long, value_name = "FILE", conflicts_with = "case")]
    expect: Option<PathBuf>,
    /// The collector's public key, hexadecimal, which must be the one that the case names.
    #[arg(long, value_name = "KEY", requires = "case", value_parser = key)]
    collector_key: Option<String>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    collector: CollectorArgs,
}

fn key(text: &str) -> Result<String, String> {
    match unhex(text).filter(|key| key.len() == 32) {
        Some(key) => Ok(hex(&key)),
        None => Err("expected 64 hexadecimal digits".to_owned()),
    }
}

/// What is told, from wherever it comes.
#[derive(Default)]
struct Report {
    findings: Vec<Finding>,
    hosts: Vec<HostEvidence>,
    summary: EvidenceSummary,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let report = match &args.case {
        Some(path) => of_case(&args, path)?,
        None => of_collector(&args).await?,
    };
    show(&args, &report)?;
    if let Some(path) = &args.note {
        note(path, &report.hosts)?;
    }
    if report.summary.problems > 0 { Err(Failure::told(FINDING)) } else { Ok(()) }
}

fn of_case(args: &Args, path: &Path) -> Result<Report, Failure> {
    let file = File::open(path)
        .map_err(|error| Failure::usage(format!("cannot open {}: {error}", path.display())))?;
    let case::Opened { manifest, outcome } = case::open(file)
        .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
    if let Some(expected) = args.collector_key.as_ref()
        && *expected != manifest.collector_key
    {
        return Err(Failure::failed(format!(
            "{}: the case is signed by another key, {}: it is not of that collector",
            path.display(),
            printable(manifest.collector_key.as_bytes())
        )));
    }
    show_manifest(args, &manifest)?;
    Ok(Report { findings: outcome.findings, hosts: outcome.hosts, summary: outcome.summary })
}

async fn of_collector(args: &Args) -> Result<Report, Failure> {
    let expected = args.expect.as_deref().map(noted).transpose()?.unwrap_or_default();
    let channel = args.collector.connect().await?;
    let request = VerifyRequest { hosts: args.hosts.clone(), expected };
    let refused = |status: tonic::Status| args.collector.refused(&status);
    let answers = EvidenceServiceClient::new(channel).verify(request).await.map_err(refused)?;
    let mut answers = answers.into_inner();
    let mut report = Report::default();
    let mut whole = false;
    let progress = std::io::stderr().is_terminal();
    while let Some(answer) = answers.message().await.map_err(refused)? {
        match answer.part {
            Some(Part::LookedAt(count)) if progress => {
                anstream::eprint!("\r{count} records looked at");
            }
            Some(Part::LookedAt(_)) | None => {}
            Some(Part::Finding(finding)) => report.findings.push(finding),
            Some(Part::Host(host)) => report.hosts.push(host),
            Some(Part::Summary(summary)) => {
                report.summary = summary;
                whole = true;
            }
        }
    }
    if progress {
        anstream::eprint!("\r\x1b[K");
    }
    if !whole {
        return Err(Failure::failed("the collector ended the verification before it was done"));
    }
    Ok(report)
}

fn show_manifest(args: &Args, manifest: &Manifest) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    if args.json {
        writeln!(out, "{}", json!({ "case": manifest }))?;
        return Ok(());
    }
    let text = |text: &str| printable(text.as_bytes());
    let from = match manifest.exported_from.as_str() {
        "" => String::new(),
        address => format!(" from {}", text(address)),
    };
    let by = text(&manifest.exported_by);
    writeln!(out, "case of {}, made {}", text(&manifest.collector), text(&manifest.made))?;
    writeln!(out, "  by          {by}{from}")?;
    writeln!(out, "  because     {}", text(&manifest.reason))?;
    let question = match manifest.question.as_str() {
        "" => "everything".to_owned(),
        question => text(question),
    };
    writeln!(out, "  asked for   {question}")?;
    writeln!(out, "  records     {}", manifest.records)?;
    let compared = if args.collector_key.is_some() { "as expected" } else { "compare it" };
    writeln!(out, "  signed by   {} ({compared})", text(&manifest.collector_key))?;
    for reason in &manifest.unreadable {
        writeln!(out, "  not in it   {}", text(reason))?;
    }
    Ok(())
}

const RED: Style = AnsiColor::Red.on_default().bold();
const DIM: Style = Style::new().dimmed();

fn show(args: &Args, report: &Report) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    let EvidenceSummary { records, proven, problems } = report.summary;
    if args.json {
        for finding in &report.findings {
            writeln!(out, "{}", json!({ "finding": finding_json(finding) }))?;
        }
        for host in &report.hosts {
            writeln!(out, "{}", json!({ "host": host_json(host) }))?;
        }
        let summary = json!({ "records": records, "proven": proven, "problems": problems });
        writeln!(out, "{}", json!({ "summary": summary }))?;
        return Ok(());
    }
    for host in &report.hosts {
        let name = printable(host.host.as_bytes());
        let keys: Vec<String> = host.keys.iter().map(|key| hex(key)).collect();
        let keys = if keys.is_empty() { "never signed".to_owned() } else { keys.join(", ") };
        let HostEvidence { records, proven, .. } = host;
        writeln!(out, "{name}  {proven} of {records} records proven  {DIM}{keys}{DIM:#}")?;
    }
    for finding in &report.findings {
        let (mark, style) = if finding.problem { ("✗", RED) } else { ("·", Style::new()) };
        let place = match (finding.host.as_str(), finding.cursor) {
            ("", _) => String::new(),
            (host, 0) => format!("{}: ", printable(host.as_bytes())),
            (host, cursor) => format!("{} (cursor {cursor}): ", printable(host.as_bytes())),
        };
        let text = printable(finding.text.as_bytes());
        let boot: String = hex(&finding.boot).chars().take(8).collect();
        let boot = if boot.is_empty() { boot } else { format!("  boot {boot}…") };
        writeln!(out, "{style}{mark} {place}{text}{style:#}{DIM}{boot}{DIM:#}")?;
    }
    let verdict = match problems {
        0 => "nothing was changed, removed or inserted".to_owned(),
        1 => "1 problem".to_owned(),
        count => format!("{count} problems"),
    };
    let style = if problems > 0 { RED } else { Style::new() };
    writeln!(out, "{style}{proven} of {records} records are proven; {verdict}{style:#}")?;
    Ok(())
}

fn finding_json(finding: &Finding) -> Value {
    // As the .proto file has it.
    let kind = finding.kind().as_str_name().trim_start_matches("FINDING_KIND_").to_lowercase();
    json!({
        "kind": kind, "problem": finding.problem, "host": finding.host,
        "boot": hex(&finding.boot), "first": finding.first, "last": finding.last,
        "cursor": finding.cursor, "text": finding.text,
    })
}

fn host_json(host: &HostEvidence) -> Value {
    let keys: Vec<String> = host.keys.iter().map(|key| hex(key)).collect();
    json!({
        "host": host.host, "records": host.records, "proven": host.proven, "keys": keys,
        "head": { "number": host.head_number, "sha256": hex(&host.head_sha256) },
    })
}

/// A link as a line of a file.
#[derive(Debug, Serialize, Deserialize)]
struct Noted {
    host: String,
    number: u64,
    sha256: String,
}

fn note(path: &Path, hosts: &[HostEvidence]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::failed(format!("cannot write {}: {error}", path.display()))
    };
    let mut file = File::create(path).map_err(failed)?;
    for host in hosts.iter().filter(|host| host.head_number > 0) {
        let noted = Noted {
            host: host.host.clone(),
            number: host.head_number,
            sha256: hex(&host.head_sha256),
        };
        writeln!(file, "{}", json!(noted)).map_err(failed)?;
    }
    file.sync_all().map_err(failed)
}

fn noted(path: &Path) -> Result<Vec<Head>, Failure> {
    let wrong = |error: &dyn std::fmt::Display| {
        Failure::usage(format!("{}: {error}; `sekimori verify --note` makes it", path.display()))
    };
    let file = File::open(path).map_err(|error| wrong(&error))?;
    let lines = BufReader::new(file.take(HEADS_BYTES_MAX)).lines();
    lines
        .map(|line| {
            let line = line.map_err(|error| wrong(&error))?;
            let Noted { host, number, sha256 } =
                serde_json::from_str(&line).map_err(|error| wrong(&error))?;
            let sha256 = unhex(&sha256).ok_or_else(|| wrong(&"a hash is none"))?;
            Ok(Head { host, number, sha256 })
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("heads.jsonl");
        let host = |host: &str, head_number| HostEvidence {
            host: host.into(),
            head_number,
            head_sha256: vec![7; 32],
            ..HostEvidence::default()
        };
        note(&path, &[host("営業-01", 3), host("never-signed", 0)]).unwrap();
        let expected = Head { host: "営業-01".into(), number: 3, sha256: vec![7; 32] };
        assert_eq!(noted(&path).unwrap(), [expected]);
        std::fs::write(&path, "no json\n").unwrap();
        assert_eq!(noted(&path).unwrap_err().code(), crate::failure::USAGE);
    }

    #[test]
    fn a_key_is_64_digits() {
        assert_eq!(key(&"AB".repeat(32)).unwrap(), "ab".repeat(32));
        key("ab").unwrap_err();
        key(&"zz".repeat(32)).unwrap_err();
    }
}
