//! The commands as people run them: what they print and how they end.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use rstest::rstest;

const SEKIMORI: &str = env!("CARGO_BIN_EXE_sekimori");
const AGENT: &str = env!("CARGO_BIN_EXE_sekimori-agent");

const GOOD: &str = "\
apiVersion: sekimori/v1
kind: Policy
metadata: { name: head-office }
mode: enforce
devices:
  - { name: company-usb, usb: { vendor: '0951', product: '1666', serials: [E0D55] } }
rules:
  - id: usb-only-company
    on: usb.write
    unless: { device: company-usb }
    action: deny
    tell: { user: USBメモリは使えません。 }
";

struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

fn run(program: &str, directory: &Path, line: &[&str]) -> Ended {
    let output: Output = Command::new(program)
        .args(line)
        .current_dir(directory)
        .env_remove("SEKIMORI_COLLECTOR")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn policies() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("good.yaml"), GOOD).unwrap();
    let bad = GOOD.replace("usb.write", "usb.wrote").replace("action: deny", "action: refuse");
    std::fs::write(directory.path().join("bad.yaml"), bad).unwrap();
    let config = "policy: good.yaml\ncollector: { address: 'unix:/nonexistent/collector.sock' }\n";
    std::fs::write(directory.path().join("agent.yaml"), config).unwrap();
    std::fs::write(directory.path().join("wrong.yaml"), "policy: good.yaml\ncolector: {}\n")
        .unwrap();
    directory
}

#[test]
fn lint_gives_every_error_its_place() {
    let directory = policies();
    let good = run(SEKIMORI, directory.path(), &["policy", "lint", "good.yaml"]);
    assert_eq!((good.code, good.out.as_str()), (Some(0), "good.yaml: no errors\n"));
    let bad = run(SEKIMORI, directory.path(), &["policy", "lint", "bad.yaml"]);
    assert_eq!(bad.code, Some(2));
    let errors = bad.out.lines().filter_map(|line| line.split_once(": error: "));
    let places: Vec<&str> = errors.map(|(place, _)| place).collect();
    assert_eq!(places, ["bad.yaml:9:9", "bad.yaml:11:13"], "{}", bad.out);
}

#[test]
fn lint_in_json_is_one_object_a_line() {
    let directory = policies();
    let bad = run(SEKIMORI, directory.path(), &["policy", "lint", "--json", "bad.yaml"]);
    assert_eq!(bad.code, Some(2));
    let lines = bad.out.lines().map(|line| serde_json::from_str(line).unwrap());
    let mut errors = lines.filter(|line: &serde_json::Value| line["severity"] == "error");
    let first = errors.next().unwrap();
    assert_eq!(first["file"], "bad.yaml");
    assert_eq!((&first["line"], &first["column"]), (&9.into(), &9.into()));
    assert_eq!(errors.count(), 1);
}

#[rstest]
#[case::another_stick("0951:1666:OTHER", "denied")]
#[case::the_company_stick("0951:1666:E0D55", "allowed")]
fn explain_says_what_happens_to_a_stick(#[case] device: &str, #[case] verdict: &str) {
    let directory = policies();
    let line = ["policy", "explain", "good.yaml", "--on", "usb.write", "--path", "/mnt/x"];
    let line = [&line[..], &["--device", device, "--json"]].concat();
    let ended = run(SEKIMORI, directory.path(), &line);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let answer: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(answer["verdict"], verdict);
    if verdict == "denied" {
        assert_eq!(answer["tell"], "USBメモリは使えません。");
    }
}

#[rstest]
#[case::no_command(&[], 64, "Usage")]
#[case::unknown_command(&["wach"], 64, "unrecognized subcommand 'wach'")]
#[case::unknown_kind(&["search", "--kind", "usb.wrote"], 64, "file.open, usb.write")]
#[case::unknown_time(&["search", "--since", "soon"], 64, "is no time")]
#[case::no_file(&["policy", "lint", "missing.yaml"], 64, "missing.yaml: No such file")]
#[case::relative(
    &["policy", "explain", "good.yaml", "--on", "exec", "--path", "x"], 64, "not an absolute path"
)]
#[case::bad_policy(&["policy", "explain", "bad.yaml", "--on", "exec"], 2, "bad.yaml:9:9: error: ")]
#[case::no_certificates(&["search", "--collector", "https://localhost:1"], 64, "--ca, --cert and")]
#[case::no_collector(&["search", "--collector", "unix:/nonexistent/s"], 1, "is it running")]
#[case::no_agent(&["policy", "reload", "--socket", "/nonexistent/s"], 1, "no agent answers")]
fn mistakes_end_with_their_code_and_the_next_step(
    #[case] line: &[&str],
    #[case] code: i32,
    #[case] text: &str,
) {
    let directory = policies();
    let ended = run(SEKIMORI, directory.path(), line);
    assert_eq!(ended.code, Some(code), "{}", ended.err);
    assert!(ended.err.contains(text), "{}", ended.err);
    assert_eq!(ended.out, "");
}

#[test]
fn status_without_anyone_says_so_twice_and_fails() {
    let directory = policies();
    let line = ["status", "--socket", "/nonexistent/a", "--collector", "unix:/nonexistent/c"];
    let ended = run(SEKIMORI, directory.path(), &line);
    assert_eq!(ended.code, Some(1));
    assert!(ended.out.contains("no agent answers on /nonexistent/a"), "{}", ended.out);
    assert!(ended.out.contains("no collector answers on unix:/nonexistent/c"), "{}", ended.out);
    let json = run(SEKIMORI, directory.path(), &[&line[..], &["--json"]].concat());
    let answer: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert!(answer["agent"].is_null() && answer["agent_error"].is_string());
}

#[test]
fn a_reader_that_stops_early_is_no_error() {
    let directory = policies();
    let bad = GOOD.replace("rules:\n", &format!("rules:\n{}", "  - { id: x, on: y }\n".repeat(90)));
    std::fs::write(directory.path().join("many.yaml"), bad).unwrap();
    // Gone before the program writes, which may otherwise be done first.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(SEKIMORI)
        .args(["policy", "lint", "many.yaml"])
        .current_dir(directory.path())
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[rstest]
#[case::good(&["check", "--config", "agent.yaml"], 0, "policy head-office")]
#[case::bad_policy(&["check", "--config", "agent.yaml", "--policy", "bad.yaml"], 2, ".yaml:9:9:")]
#[case::no_policy(&["check", "--config", "agent.yaml", "--policy", "x.yaml"], 64, "give its path")]
#[case::bad_config(&["run", "--config", "wrong.yaml"], 64, "wrong.yaml:2:")]
#[case::no_config(&["run", "--config", "x.yaml"], 64, "give its path with --config")]
#[case::bad_log(&["--log", "=[", "check"], 64, "--log")]
fn the_agent_checks_before_it_does_anything(
    #[case] line: &[&str],
    #[case] code: i32,
    #[case] text: &str,
) {
    let directory = policies();
    let ended = run(AGENT, directory.path(), line);
    assert_eq!(ended.code, Some(code), "{}{}", ended.out, ended.err);
    assert!(format!("{}{}", ended.out, ended.err).contains(text), "{}{}", ended.out, ended.err);
}

#[rstest]
#[case(&["--help"])]
#[case(&["watch", "--help"])]
#[case(&["search", "--help"])]
#[case(&["status", "--help"])]
#[case(&["doctor", "--help"])]
#[case(&["policy", "explain", "--help"])]
fn help_is_no_error_and_shows_examples_or_codes(#[case] line: &[&str]) {
    let ended = run(SEKIMORI, Path::new("/"), line);
    assert_eq!(ended.code, Some(0));
    assert!(ended.out.contains("Examples:") || ended.out.contains("Exit codes:"), "{}", ended.out);
}
