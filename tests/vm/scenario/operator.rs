//! The commands of the operator.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Run;
use crate::guest::{USB, USB_SERIAL};
use crate::run::World;
use crate::{check, guest, limits, records};

pub const ALL: &[(&str, Run)] = &[
    ("doctor", doctor),
    ("status", status),
    ("watch-and-resume", watch),
    ("search-filters", search),
    ("counts-in-groups", top),
    ("reads-are-recorded", reads),
    ("viewer-reads-nothing-of-people", viewer),
    ("stock-client-in-python", stock_client),
    ("where-in-cel", expression),
    ("alerts-are-told", alerts),
];

/// The most instructions that the verifier may look at in one program: a fifth of what it takes, so
/// that a kernel to come has room.
const VERIFIED_MAX: u64 = 200_000;

fn doctor(world: &mut World) -> Result<()> {
    let output = guest::run("sekimori", &["doctor", "--json"])?;
    check::ok(&output)?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    check::equal("ok", report.get("ok"), Some(&json!(true)))?;
    let features = report.get("features").and_then(Value::as_array).context("no features")?;
    check::that(features.len() > 20, format!("{} features", features.len()))?;
    // Where the kernel has the hook of a security module, the program fits it.
    let must = |it: &&Value| {
        it.get("required") == Some(&json!(true)) || records::text(it, "/hook").starts_with("Lsm ")
    };
    for feature in features.iter().filter(must) {
        check::equal("attached", feature.get("attached"), Some(&json!(true)))
            .with_context(|| feature.to_string())?;
    }
    for feature in features {
        let detail = records::text(feature, "/detail");
        let verified = detail.split_whitespace().find_map(|word| word.parse::<u64>().ok());
        let few = verified.is_none_or(|it| it <= VERIFIED_MAX);
        check::that(few, format!("the verifier looks at too much: {feature}"))?;
    }
    // The agent beside it still refuses.
    check::refused(&guest::run("cat", &["/srv/secret/plan.txt"])?)?;
    check::that(world.daemons.agent_lives(), "the agent ended")
}

/// Two programs write to a stick, and the collector counts.
fn top(world: &mut World) -> Result<()> {
    let (first, second) = (format!("{USB}/counted-1.bin"), format!("{USB}/counted-2.bin"));
    let script = "head -c 30000 /dev/zero >/srv/outside/counted; cp /srv/outside/counted \"$1\"; \
                  dd if=/srv/outside/counted of=\"$2\" bs=10000 count=2 status=none";
    check::ok(&guest::bash(script, &[&first, &second])?)?;
    for (path, bytes) in [(&first, 30_000), (&second, 20_000)] {
        let close =
            [("/operation", json!("close")), ("/file/path", json!(path)), ("/bytes", json!(bytes))];
        world.records.expect("usb.write", &close)?;
    }
    let collector = world.daemons.collector_address();
    let arguments = [
        "top",
        "--by",
        "program,device",
        "--kind",
        "usb.write",
        "--text",
        "counted-",
        "--order",
        "bytes",
        "--json",
        "--collector",
        &collector,
    ];
    let output = guest::run("sekimori", &arguments)?;
    check::ok(&output)?;
    let text = output.text();
    let groups: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let shown: Vec<_> = groups
        .iter()
        .map(|it| (records::text(it, "/program"), records::number(it, "/bytes")))
        .collect();
    check::equal("groups", shown, vec![("/usr/bin/cp", 30_000), ("/usr/bin/dd", 20_000)])?;
    let device = groups.first().map(|it| records::text(it, "/device").to_owned());
    let known =
        device.as_ref().is_some_and(|it| it.starts_with("usb ") && it.ends_with(USB_SERIAL));
    check::that(known, format!("the device is {device:?}"))
}

/// The options by which the program shows the certificate of `name`, who has this role.
fn certificate(world: &World, name: &str, role: &str) -> Result<Vec<String>> {
    let directory = world.daemons.path(name);
    let state = world.daemons.path("collector");
    if !directory.exists() {
        let (state, to) = (state.to_string_lossy(), directory.to_string_lossy());
        let enroll = ["enroll", name, "--role", role, "--dir", &state, "--out", &to];
        check::ok(&guest::run("sekimori-collector", &enroll)?)?;
    }
    let mut options = vec!["--collector".to_owned(), "https://localhost:7443".to_owned()];
    for (option, file) in [("--ca", "ca.pem"), ("--cert", "cert.pem"), ("--key", "key.pem")] {
        options.push(option.to_owned());
        options.push(directory.join(file).to_string_lossy().into_owned());
    }
    Ok(options)
}

/// What a client in another language is made from.
const PROTO: [(&str, &str); 3] = [
    ("event.proto", include_str!("../../../proto/sekimori/v1/event.proto")),
    ("query.proto", include_str!("../../../proto/sekimori/v1/query.proto")),
    ("watch.proto", include_str!("../../../proto/sekimori/v1/watch.proto")),
];

/// A client that knows nothing but the .proto files.
fn stock_client(world: &mut World) -> Result<()> {
    let directory = world.daemons.path("stock-client-files");
    let sources = directory.join("sekimori/v1");
    std::fs::create_dir_all(&sources)?;
    for (name, text) in PROTO {
        std::fs::write(sources.join(name), text)?;
    }
    let directory = directory.to_string_lossy().into_owned();
    let files = "cd \"$1\" && protoc -I . --python_out . sekimori/v1/*.proto";
    check::ok(&guest::bash(files, &[&directory])?)?;
    certificate(world, "stock-client", "analyst")?;
    let certificates = world.daemons.path("stock-client").to_string_lossy().into_owned();
    // Debian's own: the packages of the client are Debian's too.
    let script = include_str!("../client.py");
    let arguments = ["-c", script, &directory, &certificates, "localhost:7443", "/bin/true"];
    let output = guest::run("/usr/bin/python3", &arguments)?;
    check::ok(&output)?;
    let told: Value = serde_json::from_slice(&output.stdout)?;
    check::equal("what it was shown", told, json!({ "ordered": true, "times": [1, 1] }))
}

/// What `--where` finds of a real copy, and what it says of a word that cannot be.
fn expression(world: &mut World) -> Result<()> {
    let path = format!("{USB}/式 '顧客'.txt");
    check::ok(&guest::bash("head -c 20000 /dev/zero >\"$1\"", &[&path])?)?;
    world
        .records
        .expect("usb.write", &[("/operation", json!("close")), ("/file/path", json!(path))])?;
    let collector = world.daemons.collector_address();
    let ask = |text: &str| {
        let arguments = ["search", "--json", "--collector", &collector, "--where", text];
        guest::run("sekimori", &arguments)
    };
    let found =
        ask("kind == 'usb.write' && operation == 'close' && bytes >= 20000 && bytes < 21000 \
         && file.path.endsWith(\"式 '顧客'.txt\") && process.parent.exe != '' \
         && file.device.class == 'usb' && process.argv.exists(x, x == '-c')")?;
    check::ok(&found)?;
    let found: Vec<Value> =
        found.text().lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let paths: Vec<&str> = found.iter().map(|it| records::text(it, "/file/path")).collect();
    check::equal("found", paths, vec![path.as_str()])?;
    let refused = ask("kind == 'usb.wirte'")?;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    check::that(told.contains("\"usb.wirte\" is no kind"), told)
}

/// Where the alerts of the scenario are told.
const SYSLOG: &str = "127.0.0.1:5514";

/// A refusal and three copies to a stick are alerts, and arrive as syslog.
fn alerts(world: &mut World) -> Result<()> {
    let rules = format!(
        "version: sekimori/alerts/v1\negress: ['{SYSLOG}']\n\
         deliver:\n- {{ name: siem, syslog: {{ server: '{SYSLOG}', transport: udp }} }}\nalerts:\n\
         - {{ name: refused, severity: high, to: [siem], group_by: [user, program],\n\
         \x20   where: \"kind == 'file.open' && verdict == 'denied'\" }}\n\
         - {{ name: 大量コピー, to: [siem], count: 3, within: 10m, group_by: [user, device],\n\
         \x20   where: \"kind == 'usb.write' && operation == 'close' && file.path.contains('警報')\" }}\n"
    );
    let socket = std::net::UdpSocket::bind(SYSLOG)?;
    socket.set_read_timeout(Some(limits::RECORD_TIMEOUT))?;
    std::fs::write(world.daemons.path("collector").join("alerts.yaml"), rules)?;
    let collector = world.daemons.collector_address();
    let standing = || -> Result<Value> {
        let output =
            guest::run("sekimori", &["alerts", "rules", "--json", "--collector", &collector])?;
        check::ok(&output)?;
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    guest::until("the rules are taken up", limits::RECORD_TIMEOUT, || {
        Ok(standing()?.pointer("/rules").and_then(Value::as_array).is_some_and(|it| it.len() == 2))
    })?;
    check::refused(&guest::run("cat", &["/srv/secret/plan.txt"])?)?;
    for number in 1..=3 {
        let path = format!("{USB}/警報-{number}.txt");
        check::ok(&guest::bash("head -c 5000 /dev/zero >\"$1\"", &[&path])?)?;
    }
    let (mut told, mut buffer) = (String::new(), [0; 4096]);
    while !(told.contains("rule=\"refused\"") && told.contains("rule=\"大量コピー\"")) {
        let length = socket.recv(&mut buffer).with_context(|| format!("told so far: {told}"))?;
        told.push_str(&String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()));
        told.push('\n');
    }
    check::that(told.contains("/srv/secret/plan.txt"), told.clone())?;
    let output = guest::run("sekimori", &["alerts", "--json", "--collector", &collector])?;
    check::ok(&output)?;
    let text = output.text();
    let shown: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let copies = shown.iter().find(|it| records::text(it, "/rule") == "大量コピー");
    let copies = copies.with_context(|| text.clone())?;
    check::equal("count", copies.pointer("/count"), Some(&json!(3)))?;
    check::equal("bytes", copies.pointer("/bytes"), Some(&json!(15_000)))?;
    let device = records::text(copies, "/group/device");
    check::that(device.contains(USB_SERIAL), format!("{copies}"))?;
    world.records.expect("alert", &[("/alert/rule", json!("refused"))])?;
    std::fs::remove_file(world.daemons.path("collector").join("alerts.yaml"))?;
    Ok(())
}

/// An analyst looks for what somebody did, and it is found who looked for what.
fn reads(world: &mut World) -> Result<()> {
    for _ in 0..3 {
        check::ok(&guest::run("/bin/true", &["reads-marker"])?)?;
    }
    world.records.wait("three launches", &["--kind", "exec"], |found| {
        let marked =
            found.iter().filter(|it| records::text(it, "/process/argv/1") == "reads-marker");
        marked.count() == 3
    })?;
    let options = certificate(world, "reads-analyst", "analyst")?;
    let search = [
        "search", "--json", "--kind", "exec", "--user", "root", "--text", "bin/true", "--limit",
        "2",
    ];
    let arguments: Vec<&str> =
        search.into_iter().chain(options.iter().map(String::as_str)).collect();
    let output = guest::run("sekimori", &arguments)?;
    check::ok(&output)?;
    check::equal("records found", output.text().lines().count(), 2)?;
    let fields = [
        ("/act/name", json!("reads-analyst")),
        ("/act/role", json!("analyst")),
        ("/act/method", json!("Search")),
        ("/act/question", json!("--kind exec --user root --text bin/true")),
        ("/act/answered", json!(2)),
        ("/act/phase", Value::Null),
    ];
    let record = world.records.expect("operator", &fields)?;
    let (host, address) = (records::text(&record, "/host"), records::text(&record, "/act/address"));
    check::that(host.starts_with("collector:"), format!("the host is {host:?}"))?;
    check::that(address.contains("127.0.0.1:") || address.contains("[::1]:"), address)?;
    // For people it is one line.
    let collector = world.daemons.collector_address();
    let search = ["search", "--kind", "operator", "--limit", "0", "--collector", &collector];
    let told = guest::run("sekimori", &search)?.text();
    let line = "Search --kind exec --user root --text bin/true → 2 events";
    check::that(
        told.lines().any(|it| it.contains("analyst reads-analyst from") && it.ends_with(line)),
        format!("{line:?} is not in {told:?}"),
    )
}

/// Counts by host are for everybody, and who did what is not.
fn viewer(world: &mut World) -> Result<()> {
    let options = certificate(world, "counts-viewer", "viewer")?;
    let run = |words: &[&str]| {
        let options = options.iter().map(String::as_str);
        guest::run("sekimori", &words.iter().copied().chain(options).collect::<Vec<_>>())
    };
    check::ok(&run(&["top", "--by", "host,kind"])?)?;
    for words in [
        &["search"][..],
        &["watch"],
        &["top", "--by", "user"],
        &["top", "--by", "host", "--user", "root"],
    ] {
        let output = run(words)?;
        check::equal(&format!("exit code of {}", words.join(" ")), output.status, 77)?;
        check::fails_with(&output, "viewer counts-viewer may not read records")?;
    }
    Ok(())
}

fn status(world: &mut World) -> Result<()> {
    let status = world.daemons.status()?;
    let expected = [
        ("/agent/policy/name", json!("scenarios")),
        ("/agent/collector/connected", json!(true)),
        ("/agent/pid", json!(world.daemons.agent_pid())),
        ("/agent_error", Value::Null),
        ("/collector_error", Value::Null),
    ];
    for (name, value) in expected {
        check::equal(name, status.pointer(name).unwrap_or(&Value::Null), &value)?;
    }
    let boot = records::text(&status, "/agent/boot");
    check::equal("length of the boot's id", boot.len(), 32)?;
    let socket = world.daemons.path("agent.sock");
    let collector = world.daemons.collector_address();
    let socket = socket.to_string_lossy();
    let text = guest::run("sekimori", &["status", "--socket", &socket, "--collector", &collector])?;
    check::ok(&text)?;
    check::that(text.text().contains("scenarios"), format!("status says {:?}", text.text()))
}

struct Watch {
    log: PathBuf,
    _program: guest::Background,
}

impl Watch {
    fn start(world: &World, name: &str, more: &[&str]) -> Result<Self> {
        let log = PathBuf::from(format!("/run/sekimori-watch-{name}.log"));
        let mut command = Command::new("sekimori");
        command.args(["watch", "--json", "--kind", "exec"]).args(more);
        command.args(["--collector", &world.daemons.collector_address()]);
        let program = guest::Background::start(command, &log)?;
        Ok(Self { log, _program: program })
    }

    /// What was shown until a launch with this argument was.
    fn until(&self, argument: &str) -> Result<Vec<Value>> {
        let mut shown = Vec::new();
        guest::until(argument, limits::RECORD_TIMEOUT, || {
            shown = self.shown()?;
            Ok(shown.iter().any(|it| records::text(it, "/process/argv/1") == argument))
        })
        .with_context(|| format!("watch showed {} records", shown.len()))?;
        Ok(shown)
    }

    fn shown(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(&self.log)?;
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }
}

fn watch(world: &mut World) -> Result<()> {
    check::ok(&guest::run("/bin/true", &["watch-marker-1"])?)?;
    let first = Watch::start(world, "first", &["--from-start"])?;
    let mut shown = first.until("watch-marker-1")?;
    check::ok(&guest::run("/bin/true", &["watch-marker-2"])?)?;
    shown.extend(first.until("watch-marker-2")?.into_iter().skip(shown.len()));
    drop(first);
    let cursor = shown.iter().filter_map(records::cursor).max().context("no cursor")?;
    check::ok(&guest::run("/bin/true", &["watch-marker-3"])?)?;
    let second = Watch::start(world, "second", &["--cursor", &cursor.to_string()])?;
    let rest = second.until("watch-marker-3")?;
    let repeated = rest.iter().filter_map(records::cursor).filter(|it| *it <= cursor).count();
    check::equal("records shown again", repeated, 0)?;
    for number in 1..=3 {
        let marker = format!("watch-marker-{number}");
        let of = |it: &&Value| records::text(it, "/process/argv/1") == marker;
        let times = shown.iter().chain(&rest).filter(of).count();
        check::equal(&marker, times, 1)?;
    }
    Ok(())
}

fn search(world: &mut World) -> Result<()> {
    check::that(Path::new("/bin/true").exists(), "no /bin/true")?;
    let script = "setpriv --reuid 65534 --regid 65534 --clear-groups /bin/true search-marker";
    check::ok(&guest::bash(script, &[])?)?;
    let argv = ("/process/argv/1", json!("search-marker"));
    let record = world.records.expect("exec", &[argv, ("/process/uid", json!(65534))])?;
    let cursor = records::cursor(&record);
    for (filters, expected) in [
        (vec!["--user", "nobody", "--kind", "exec"], true),
        (vec!["--user", "daemon", "--kind", "exec"], false),
        (vec!["--text", "bin/true"], true),
        (vec!["--kind", "exit,exec", "--host", "sekimori-guest"], true),
        (vec!["--host", "another-host"], false),
        (vec!["--verdict", "denied"], false),
        (vec!["--until", "2001-01-01"], false),
    ] {
        let found = world.records.printed(&[&filters[..], &["--limit", "0"]].concat())?;
        let there = found.iter().any(|it| records::cursor(it) == cursor);
        check::equal(&format!("found by {}", filters.join(" ")), there, expected)?;
    }
    let two = world.records.printed(&["--limit", "2"])?;
    check::equal("records with --limit 2", two.len(), 2)
}
