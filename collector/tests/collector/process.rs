//! The program itself: commands, exit codes, signals, sudden death.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rstest::rstest;
use sekimori_proto::v1::Filter;
use sekimori_proto::v1::query_service_client::QueryServiceClient;

use crate::support::{AgentStream, Pki, connect, events, search_all, sequences, tls};

const PROGRAM: &str = env!("CARGO_BIN_EXE_sekimori-collector");

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().unwrap()
}

fn error_text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The program, killed when the test ends however it ends.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
}

impl Process {
    /// Starts it, and does not wait until it listens.
    pub fn spawn(dir: &Path) -> Child {
        let mut command = Command::new(PROGRAM);
        command.args(["run", "--listen", "127.0.0.1:0", "--dir"]).arg(dir);
        command.stderr(Stdio::piped()).spawn().unwrap()
    }

    pub fn start(dir: &Path) -> Process {
        let mut child = Process::spawn(dir);
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("it says where it listens").unwrap();
            if let Some((_, address)) = line.split_once("listening on ") {
                break address.parse().unwrap();
            }
        };
        // Someone must read on, or the program stands still when the pipe is full.
        std::thread::spawn(move || lines.for_each(drop));
        Process { child, address }
    }

    pub fn end(mut self, signal: Signal) -> Option<i32> {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn init_and_enroll_say_what_they_made_and_overwrite_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("new");
    let dir = dir.to_str().unwrap();
    assert!(run(&["init", "--dir", dir, "--name", "192.0.2.1"]).status.success());
    let again = run(&["init", "--dir", dir]);
    assert_eq!(again.status.code(), Some(64));
    assert!(error_text(&again).contains("nothing is overwritten"), "{}", error_text(&again));
    let enrolled = run(&["enroll", "pc-1", "--dir", dir]);
    assert_eq!(enrolled.status.code(), Some(0));
    let text = String::from_utf8(enrolled.stdout).unwrap();
    assert_eq!(text, format!("made the certificate of agent pc-1 in {dir}/agents/pc-1\n"));
    for file in ["ca.pem", "cert.pem", "key.pem"] {
        assert!(Path::new(dir).join("agents/pc-1").join(file).exists(), "{file}");
    }
    let enrolled = run(&["enroll", "hanako", "--role", "analyst", "--dir", dir]);
    let text = String::from_utf8(enrolled.stdout).unwrap();
    assert_eq!(text, format!("made the certificate of analyst hanako in {dir}/analysts/hanako\n"));
    let revoked = run(&["revoke", "hanako", "--role", "analyst", "--dir", dir]);
    let text = String::from_utf8(revoked.stdout).unwrap();
    assert!(text.starts_with("the certificates of analyst hanako are refused"), "{text}");
    let again = format!("sekimori-collector token hanako --role analyst --dir {dir}, and there");
    assert!(text.contains(&again), "{text}");
}

#[rstest]
#[case::no_command(&[], 64, "Usage:")]
#[case::bad_option(&["run", "--dirr"], 64, "--dirr")]
#[case::bad_address(&["run", "--dir", "x", "--listen", "nowhere"], 64, "nowhere")]
#[case::bad_name(&["enroll", "端末", "--dir", "/nonexistent"], 64, "a name is 1 to 64 characters")]
#[case::bad_role(&["enroll", "a", "--dir", "x", "--role", "boss"], 64, "viewer, analyst or admin")]
#[case::not_initialised(
    &["run", "--dir", "/nonexistent"], 64, "run `sekimori-collector init --dir /nonexistent` first"
)]
#[case::enroll_first(
    &["enroll", "a", "--dir", "/nonexistent"], 64, "sekimori-collector init --dir /nonexistent"
)]
fn wrong_usage(#[case] arguments: &[&str], #[case] code: i32, #[case] text: &str) {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(code));
    assert!(error_text(&output).contains(text), "{}", error_text(&output));
}

#[test]
fn help_is_no_error() {
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().contains("enroll"));
}

#[test]
fn a_second_collector_on_the_same_store_is_refused() {
    let pki = Pki::new();
    let _first = Process::start(&pki.dir);
    let second = Command::new(PROGRAM)
        .args(["run", "--listen", "127.0.0.1:0", "--dir"])
        .arg(&pki.dir)
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    let text = error_text(&second);
    assert!(text.contains("another collector is using it"), "{text}");
}

#[test]
fn events_go_to_no_other_machine_in_clear() {
    let pki = Pki::new();
    let output = Command::new(PROGRAM)
        .args(["run", "--listen", "127.0.0.1:0", "--otlp", "http://192.0.2.1:4317", "--dir"])
        .arg(&pki.dir)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let text = error_text(&output);
    assert!(text.contains("--otlp http://192.0.2.1:4317: http:// only to 127.0.0.1"), "{text}");
}

#[test]
fn the_service_manager_is_told_when_all_is_ready() {
    let pki = Pki::new();
    let path = pki.dir.join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut child = Command::new(PROGRAM)
        .args(["run", "--listen", "127.0.0.1:0", "--dir"])
        .arg(&pki.dir)
        .env("NOTIFY_SOCKET", &path)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut text = [0; 64];
    let received = socket.recv(&mut text);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(&text[..received.unwrap()], b"READY=1\n");
}

/// Delivers batches of ten from `first` until the connection breaks; the last acknowledged number.
async fn deliver_until_it_breaks(
    address: SocketAddr,
    pki: &Pki,
    first: u64,
    stored: &std::sync::mpsc::Sender<()>,
) -> u64 {
    let channel = connect(address, tls(&pki.dir, &pki.agent("pc-1"))).await.unwrap();
    let mut agent = AgentStream::open(channel).await.unwrap();
    let mut acknowledged = first - 1;
    let mut next = first;
    // Four batches ahead of the acknowledgements, so that death meets some on their way.
    for _ in 0..4 {
        agent.send(events(next..next + 10)).await;
        next += 10;
    }
    while let Ok(Some(_)) = agent.acknowledged().await {
        acknowledged += 10;
        let _ = stored.send(());
        agent.send(events(next..next + 10)).await;
        next += 10;
    }
    acknowledged
}

#[tokio::test]
async fn sudden_death_loses_nothing_that_was_acknowledged_and_doubles_nothing() {
    let pki = Pki::new();
    let mut acknowledged = 0;
    for round in 0..3 {
        let process = Process::start(&pki.dir);
        let address = process.address;
        let (stored, first_stored) = std::sync::mpsc::channel();
        let killer = tokio::task::spawn_blocking(move || {
            let _ = first_stored.recv();
            std::thread::sleep(Duration::from_millis(150 * round));
            process.end(Signal::SIGKILL)
        });
        let before = acknowledged;
        acknowledged = deliver_until_it_breaks(address, &pki, before + 1, &stored).await;
        assert_eq!(killer.await.unwrap(), None, "it died of the signal");
        assert!(acknowledged > before, "round {round}: it was killed before it stored anything");
    }
    let process = Process::start(&pki.dir);
    let channel = connect(process.address, tls(&pki.dir, &pki.analyst())).await.unwrap();
    let mut client = QueryServiceClient::new(channel);
    let stored = sequences(&search_all(&mut client, Filter::default(), 1000).await);
    let count = u64::try_from(stored.len()).unwrap();
    assert_eq!(stored, (1..=count).collect::<Vec<_>>(), "each once");
    assert!(count >= acknowledged, "{count} stored, {acknowledged} acknowledged");
    // What was on its way comes again and is stored once.
    let channel = connect(process.address, tls(&pki.dir, &pki.agent("pc-1"))).await.unwrap();
    let mut agent = AgentStream::open(channel).await.unwrap();
    agent.deliver(events(acknowledged + 1..=acknowledged + 100)).await.unwrap();
    let stored = sequences(&search_all(&mut client, Filter::default(), 1000).await);
    assert_eq!(stored, (1..=acknowledged + 100).collect::<Vec<_>>());
}

#[rstest]
#[case(Signal::SIGTERM)]
#[case(Signal::SIGINT)]
#[tokio::test]
async fn asked_to_end_it_ends_well(#[case] signal: Signal) {
    let pki = Pki::new();
    let process = Process::start(&pki.dir);
    let address = process.address;
    let (stored, first_stored) = std::sync::mpsc::channel();
    let ender = tokio::task::spawn_blocking(move || {
        let _ = first_stored.recv();
        process.end(signal)
    });
    let acknowledged = deliver_until_it_breaks(address, &pki, 1, &stored).await;
    assert_eq!(ender.await.unwrap(), Some(0));
    assert!(acknowledged > 0);
    let files = std::fs::read_dir(pki.dir.join("store")).unwrap();
    let names: Vec<_> =
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!names.iter().any(|name| name.ends_with("-wal")), "whole files: {names:?}");
    let process = Process::start(&pki.dir);
    let channel = connect(process.address, tls(&pki.dir, &pki.analyst())).await.unwrap();
    let mut client = QueryServiceClient::new(channel);
    let stored = sequences(&search_all(&mut client, Filter::default(), 1000).await);
    assert!(stored.len() as u64 >= acknowledged);
    assert_eq!(stored, (1..=stored.len() as u64).collect::<Vec<_>>());
}

#[test]
fn a_token_is_printed_once_alone_on_its_line() {
    let pki = Pki::new();
    let dir = pki.dir.to_str().unwrap();
    let made = run(&["token", "desk-12", "--dir", dir, "--role", "viewer", "--valid", "2d"]);
    assert_eq!(made.status.code(), Some(0), "{}", error_text(&made));
    let text = String::from_utf8(made.stdout.clone()).unwrap();
    let token: sekimori_proto::token::Token = text.parse().unwrap();
    assert_eq!(text, format!("{token}\n"));
    let said = error_text(&made);
    assert!(said.contains("viewer desk-12, good once and for 2880 minutes"), "{said}");
    assert!(!said.contains(text.trim()), "{said}");
    let grant = sekimori_collector::pki::use_up(&pki.dir, &token).unwrap();
    assert_eq!((grant.name.as_str(), grant.role.to_string().as_str()), ("desk-12", "viewer"));
    for (option, value) in [
        ("--valid", "30s"),
        ("--valid", "31d"),
        ("--valid", "soon"),
        ("--days", "0"),
        ("--role", "root"),
    ] {
        let refused = run(&["token", "desk-12", "--dir", dir, option, value]);
        assert_eq!(refused.status.code(), Some(64), "{option} {value}");
    }
    let refused = run(&["token", "端末", "--dir", dir]);
    assert_eq!(refused.status.code(), Some(64), "{}", error_text(&refused));
}
