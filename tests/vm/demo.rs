//! The demonstration: a leak that is seen, stopped, explained and recorded.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::daemons::Daemons;
use crate::guest::{self, OTHER_SERIAL, USB, USB_SERIAL};
use crate::records::{self, Records};
use crate::sink::Sink;
use crate::{check, limits};

const POLICY: &str = include_str!("../../agent/dist/policies/demo.yaml");
const DIRECTORY: &str = "/run/sekimori-demo";
const UNKNOWN: &str = "/mnt/unknown";
const REPORT: &str = "/home/suzuki/報告書.txt";
const SALARIES: &str = "/srv/confidential/給与一覧.csv";
const TOOL: &str = "/opt/forbidden/uploader";
const PORT: u16 = 8080;

/// Runs the demonstration and prints its sums.
pub fn main() -> ExitCode {
    let mut show = Show::default();
    if let Err(error) = steps(&mut show) {
        show.result("the demonstration goes on to its end", Err(error));
    }
    println!("\ndemo: {} passed, {} failed", show.passed, show.failed);
    ExitCode::from(u8::from(show.failed > 0))
}

#[derive(Debug, Default)]
struct Show {
    passed: usize,
    failed: usize,
    step: usize,
}

impl Show {
    fn step(&mut self, text: &str) {
        self.step += 1;
        println!("\n── {}. {text}", self.step);
    }

    fn result(&mut self, what: &str, result: Result<()>) {
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("demo: PASS {what}");
            }
            Err(error) => {
                self.failed += 1;
                let why = format!("{error:#}").replace('\n', " / ");
                println!("demo: FAIL {what}: {why}");
            }
        }
    }
}

fn steps(show: &mut Show) -> Result<()> {
    show.step("A collector and an agent start; the policy forbids four things");
    prepare()?;
    let mut daemons = Daemons::prepare(Path::new(DIRECTORY))?;
    daemons.write_policy(POLICY)?;
    daemons.start_collector()?;
    let ordinary = daemons.ordinary();
    daemons.start_agent(&ordinary)?;
    for line in POLICY.lines().filter_map(|line| line.trim().strip_prefix("- id: ")) {
        println!("   rule {line}");
    }
    let mut records = Records::of(daemons.collector_address());
    records.forget()?;
    show.result("collector and agent run", Ok(()));
    let demo = Demo { records, address: daemons.collector_address() };

    show.step("The company's USB memory is plugged, and a report is copied to it");
    guest::mount(USB_SERIAL, USB)?;
    let outcome = demo.copy();
    show.result("the copy is allowed, and its receipt is on record", outcome);

    show.step("Somebody reads a confidential file");
    let outcome = demo.confidential();
    show.result("the file is refused, and the terminal says why", outcome);

    show.step("Somebody starts a forbidden program");
    let outcome = demo.program();
    show.result("the program does not start", outcome);

    show.step("Somebody uploads the report, first to a forbidden address, then to a permitted one");
    let outcome = demo.upload_refused();
    show.result("the forbidden upload is refused", outcome);
    let outcome = demo.upload_allowed();
    show.result("the permitted upload is on record with its bytes", outcome);

    show.step("A USB memory that is on no list is plugged");
    guest::mount(OTHER_SERIAL, UNKNOWN)?;
    let outcome = demo.unknown_stick();
    show.result("nothing can be written to it", outcome);

    show.step("The collector is asked what happened");
    daemons.settle(&demo.records)?;
    let outcome = demo.ask();
    show.result("it answers with exactly these events", outcome);
    Ok(())
}

fn prepare() -> Result<()> {
    let line = "四半期報告 quarterly report\n";
    guest::write(REPORT, line.repeat(4000))?;
    guest::write(SALARIES, "name,salary\n")?;
    std::fs::create_dir_all("/opt/forbidden")?;
    std::fs::copy("/bin/true", TOOL).context("cannot make the forbidden program")?;
    Ok(())
}

struct Demo {
    records: Records,
    address: String,
}

impl Demo {
    fn copy(&self) -> Result<()> {
        let copied = typed(&format!("cp {REPORT} {USB}/"))?;
        check::ok(&copied)?;
        let to = format!("{USB}/報告書.txt");
        let size = std::fs::metadata(&to)?.len();
        let fields = [
            ("/operation", json!("close")),
            ("/file/path", json!(to)),
            ("/bytes", json!(size)),
            ("/file/device/serial", json!(USB_SERIAL)),
            ("/process/user", json!("root")),
            ("/process/exe", json!("/usr/bin/cp")),
            ("/verdict", json!("allowed")),
        ];
        let receipt = self.records.expect("usb.write", &fields)?;
        say(&format!(
            "receipt: {} bytes to {to} on USB {}, by {}, with {}",
            records::number(&receipt, "/bytes"),
            records::text(&receipt, "/file/device/serial"),
            records::text(&receipt, "/process/user"),
            records::text(&receipt, "/process/exe"),
        ));
        Ok(())
    }

    fn confidential(&self) -> Result<()> {
        let command = format!("cat {SALARIES}");
        println!("   $ {command}");
        // A terminal, as a person has one; it stays open until the message is there.
        let inside = format!("{command}; sleep 5");
        let output = guest::run("script", &["-qec", &inside, "/dev/null"])?;
        indented(&output.text());
        check::that(!output.text().contains("name,salary"), "the file was read")?;
        check::that(output.text().contains(check::REFUSED), "cat was not refused")?;
        for text in ["This file is confidential", "このファイルは機密です"] {
            check::that(output.text().contains(text), format!("the terminal lacks {text:?}"))?;
        }
        self.denied("file.open", "/file/path", SALARIES, "confidential-no-open")
    }

    fn program(&self) -> Result<()> {
        check::refused(&typed(TOOL)?)?;
        self.denied("exec", "/file/path", TOOL, "no-forbidden-tools")
    }

    fn upload_refused(&self) -> Result<()> {
        let sink = Sink::start("http", "127.0.0.2", PORT)?;
        let output = typed(&upload("127.0.0.2"))?;
        check::that(output.status != 0, "curl succeeded")?;
        check::equal("bytes that arrived", sink.received()?, Vec::new())?;
        self.denied("net.connect", "/destination/ip", "127.0.0.2", "no-upload-there")
    }

    fn upload_allowed(&self) -> Result<()> {
        let sink = Sink::start("http", "127.0.0.3", PORT)?;
        check::ok(&typed(&upload("127.0.0.3"))?)?;
        let received = sink.first()?;
        let fields = [
            ("/operation", json!("close")),
            ("/destination/ip", json!("127.0.0.3")),
            ("/destination/port", json!(PORT)),
            ("/bytes", json!(received)),
            ("/process/comm", json!("curl")),
        ];
        let record = self.records.expect("net.upload", &fields)?;
        check::that(received >= std::fs::metadata(REPORT)?.len(), "bytes are missing")?;
        say(&format!(
            "{} bytes to {}:{PORT} by {}",
            records::number(&record, "/bytes"),
            records::text(&record, "/destination/ip"),
            records::text(&record, "/process/user"),
        ));
        Ok(())
    }

    fn unknown_stick(&self) -> Result<()> {
        check::refused(&typed(&format!("cp {REPORT} {UNKNOWN}/report.txt"))?)?;
        let listed = typed(&format!("ls {UNKNOWN}"))?;
        check::that(!listed.text().contains("report.txt"), "the file is on the stick")?;
        let path = format!("{UNKNOWN}/report.txt");
        self.denied("usb.write", "/file/path", &path, "usb-only-company")
    }

    /// The refusal is stored; says it in one line.
    fn denied(&self, kind: &str, field: &str, value: &str, rule: &str) -> Result<()> {
        let fields = [(field, json!(value)), ("/verdict", json!("denied")), ("/rule", json!(rule))];
        let record = self.records.expect(kind, &fields)?;
        let who = records::text(&record, "/process/user");
        say(&format!("denied: {kind} {value} by {who} (rule {rule})"));
        Ok(())
    }

    fn ask(&self) -> Result<()> {
        let collector = format!("--collector {}", self.address);
        for question in [
            "--verdict denied",
            "--kind usb.mount,usb.write --text /mnt/usb",
            "--kind net.upload --text 127.0.0.3",
        ] {
            println!("   $ sekimori search {question}");
            let output = guest::bash(&format!("sekimori search {collector} {question}"), &[])?;
            check::ok(&output)?;
            indented(&output.text());
        }
        let subject = |it: &Value| {
            let place = [records::text(it, "/file/path"), records::text(it, "/destination/ip")];
            format!("{} {}", records::text(it, "/kind"), place.concat())
        };
        let mut denied: Vec<_> =
            self.records.search(&["--verdict", "denied"])?.iter().map(subject).collect();
        denied.sort();
        let expected = [
            format!("exec {TOOL}"),
            format!("file.open {SALARIES}"),
            "net.connect 127.0.0.2".to_owned(),
            format!("usb.write {UNKNOWN}/report.txt"),
        ];
        check::equal("what was denied", denied.as_slice(), &expected)?;
        let written = self.operations("usb.write", "/mnt/usb")?;
        let expected = "create open write close receipt".to_owned();
        check::equal("what was done on the stick", written, expected)?;
        check::equal("mounts", self.operations("usb.mount", USB)?, "mount".to_owned())?;
        let sent = self.operations("net.upload", "127.0.0.3")?;
        check::equal("uploads", sent, "write close".to_owned())?;
        let losses = self.records.search(&["--kind", "loss"])?;
        let losses: Vec<_> = losses.iter().filter_map(|it| it.get("loss")).collect();
        check::equal("losses", losses, Vec::new())
    }

    fn operations(&self, kind: &str, text: &str) -> Result<String> {
        let found = self.records.search(&["--kind", kind, "--text", text])?;
        let words: Vec<_> = found.iter().map(|it| records::text(it, "/operation")).collect();
        Ok(words.join(" "))
    }
}

fn upload(address: &str) -> String {
    format!("curl -sS -T {REPORT} http://{address}:{PORT}/")
}

/// Runs a command as if somebody had typed it.
fn typed(command: &str) -> Result<guest::Output> {
    println!("   $ {command}");
    let output = guest::bash(command, &[])?;
    indented(&output.text());
    indented(&output.errors());
    Ok(output)
}

fn indented(text: &str) {
    let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    for line in lines.take(limits::SHOWN_BYTES_MAX) {
        println!("     {line}");
    }
}

fn say(text: &str) {
    println!("   Sekimori: {text}");
}
