//! Alerts over a real store.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sekimori_proto::v1::alert_service_client::AlertServiceClient;
use sekimori_proto::v1::{
    AcknowledgeRequest, Alert, AlertRule, Device, Event, File, Filter, Kind, ListAlertsRequest,
    ListAlertsResponse, Operation, Process, SilenceRequest, TestEndpointRequest, UnsilenceRequest,
    Verdict,
};
use tonic::Code;
use tonic::transport::Channel;

use crate::support::{Pki, Server, event, search_all};

const RULES: &str = "
version: sekimori/alerts/v1
alerts:
  - name: denied
    severity: high
    where: verdict == 'denied'
    group_by: [host, user]
  - name: 大量コピー
    where: kind == 'usb.write' && operation == 'close'
    count: 5
    within: 10m
    group_by: [host, user]
  - name: big
    where: kind == 'usb.write' && operation == 'close'
    bytes: 3 kB
    within: 10m
  - name: new-stick
    where: kind == 'usb.mount'
    first_seen: [device]
  - name: read-then-usb
    sequence:
      - { where: \"kind == 'file.open' && file.path.startsWith('/srv/顧客/')\", count: 3 }
      - { where: \"kind == 'usb.write'\" }
    within: 15m
    group_by: [user]
";

type Client = AlertServiceClient<Channel>;

async fn start(pki: Pki) -> Server {
    let path = pki.dir.join("alerts.yaml");
    if !path.exists() {
        std::fs::write(&path, RULES).unwrap();
    }
    Server::start_with(pki, |config| config).await
}

async fn analyst(server: &Server) -> Client {
    AlertServiceClient::new(server.channel(server.pki.analyst()).await)
}

async fn list(client: &mut Client) -> ListAlertsResponse {
    client.list(ListAlertsRequest::default()).await.unwrap().into_inner()
}

/// Alerts as soon as there are as many of them, without their times.
async fn alerts(client: &mut Client, count: usize) -> Vec<Alert> {
    for _ in 0..200 {
        let alerts = list(client).await.alerts;
        if alerts.len() >= count {
            return alerts;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{count} alerts are too many: {:?}", list(client).await);
}

/// When every rule has looked at everything that is stored now.
async fn looked(server: &Server, client: &mut Client) {
    let last = {
        let mut query = server.query().await;
        search_all(&mut query, Filter::default(), 1000).await.iter().map(|it| it.cursor).max()
    };
    for _ in 0..200 {
        let rules = list(client).await.rules;
        if !rules.is_empty() && rules.iter().all(|rule| Some(rule.position) >= last) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{last:?}: {:?}", list(client).await.rules);
}

fn one(sequence: u64, kind: Kind, user: &str) -> Event {
    Event {
        kind: kind.into(),
        process: Some(Process { user: user.to_owned(), ..Process::default() }),
        ..event(sequence)
    }
}

fn copied(sequence: u64, user: &str, bytes: u64) -> Event {
    Event {
        operation: Operation::Close.into(),
        bytes: Some(bytes),
        ..one(sequence, Kind::UsbWrite, user)
    }
}

fn opened(sequence: u64, user: &str) -> Event {
    let file = Some(File { path: "/srv/顧客/台帳".into(), ..File::default() });
    Event { file, ..one(sequence, Kind::FileOpen, user) }
}

fn mounted(sequence: u64, serial: &str) -> Event {
    let device =
        Some(Device { class: "usb".into(), serial: serial.to_owned(), ..Device::default() });
    Event { device, ..one(sequence, Kind::UsbMount, "root") }
}

fn names(alerts: &[Alert]) -> Vec<(&str, Vec<&str>)> {
    let mut names: Vec<(&str, Vec<&str>)> = alerts
        .iter()
        .map(|it| (it.rule.as_str(), it.group.iter().map(|it| it.value.as_str()).collect()))
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_the_rules_say_is_found() {
    let server = start(Pki::new()).await;
    let mut client = analyst(&server).await;
    let mut agent = server.agent("pc-1").await;
    // So that the rules are at work.
    looked(&server, &mut client).await;
    let mut events = vec![
        Event { verdict: Verdict::Denied.into(), ..one(1, Kind::UsbWrite, "花子") },
        Event { verdict: Verdict::Denied.into(), ..one(2, Kind::UsbWrite, "花子") },
        mounted(3, "S1"),
        mounted(4, "S1"),
        mounted(5, "S2"),
    ];
    events.extend((6..10).map(|it| copied(it, "太郎", 500)));
    events.extend((10..13).map(|it| opened(it, "次郎")));
    agent.deliver(events).await.unwrap();
    alerts(&mut client, 3).await;
    looked(&server, &mut client).await;
    let expected = [
        ("denied", vec!["pc-1", "花子"]),
        ("new-stick", vec!["pc-1", "usb S1"]),
        ("new-stick", vec!["pc-1", "usb S2"]),
    ];
    assert_eq!(names(&list(&mut client).await.alerts), expected, "nothing is reached yet");
    // The fifth copy, 3,000 bytes in all of them, and a write after the files were read.
    agent.deliver(vec![copied(13, "太郎", 1000), one(14, Kind::UsbWrite, "次郎")]).await.unwrap();
    let found = alerts(&mut client, 6).await;
    let expected = [
        ("big", vec!["pc-1"]),
        ("denied", vec!["pc-1", "花子"]),
        ("new-stick", vec!["pc-1", "usb S1"]),
        ("new-stick", vec!["pc-1", "usb S2"]),
        ("read-then-usb", vec!["次郎"]),
        ("大量コピー", vec!["pc-1", "太郎"]),
    ];
    assert_eq!(names(&found), expected);
    let of = |rule: &str| found.iter().find(|alert| alert.rule == rule).unwrap();
    let (denied, many) = (of("denied"), of("大量コピー"));
    assert_eq!((denied.count, many.count, many.bytes), (2, 5, 3000));
    assert_eq!(denied.title, "[high] denied: pc-1, 花子: 1 event");
    assert_eq!(many.title, "[medium] 大量コピー: pc-1, 太郎: 5 events, 3000 bytes");
    let filter = Filter { kinds: vec![Kind::Alert.into()], ..Filter::default() };
    let records = search_all(&mut server.query().await, filter, 1000).await;
    let mut recorded: Vec<u64> =
        records.iter().map(|event| event.alert.as_ref().unwrap().id).collect();
    recorded.sort_unstable();
    assert_eq!(recorded, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn what_was_counted_before_a_restart_counts() {
    let server = start(Pki::new()).await;
    looked(&server, &mut analyst(&server).await).await;
    let mut agent = server.agent("pc-1").await;
    agent.deliver((1..4).map(|it| copied(it, "太郎", 0)).collect()).await.unwrap();
    looked(&server, &mut analyst(&server).await).await;
    drop(agent);
    let server = start(server.stop().await).await;
    let mut agent = server.agent("pc-1").await;
    agent.deliver((4..6).map(|it| copied(it, "太郎", 0)).collect()).await.unwrap();
    let mut client = analyst(&server).await;
    let found = alerts(&mut client, 1).await;
    assert_eq!(names(&found), [("大量コピー", vec!["pc-1", "太郎"])]);
    // Nor is it found anew by the next one.
    drop((agent, client));
    let server = start(server.stop().await).await;
    let mut client = analyst(&server).await;
    looked(&server, &mut client).await;
    assert_eq!(list(&mut client).await.alerts.len(), 1);
}

#[tokio::test]
async fn what_came_while_nobody_looked_is_found() {
    let pki = Pki::new();
    let server = start(pki).await;
    looked(&server, &mut analyst(&server).await).await;
    let pki = server.stop().await;
    // No rules: what comes now waits for the next run, whose rules have their places.
    let empty = pki.dir.join("none.yaml");
    let server = Server::start_with(pki, |mut config| {
        config.alerts = empty;
        config
    })
    .await;
    let denied = Event { verdict: Verdict::Denied.into(), ..one(1, Kind::UsbWrite, "花子") };
    server.agent("pc-1").await.deliver(vec![denied]).await.unwrap();
    let server = start(server.stop().await).await;
    let found = alerts(&mut analyst(&server).await, 1).await;
    assert_eq!(names(&found), [("denied", vec!["pc-1", "花子"])]);
}

#[tokio::test]
async fn another_file_is_taken_up_and_a_bad_one_is_told() {
    let server = start(Pki::new()).await;
    let mut client = analyst(&server).await;
    looked(&server, &mut client).await;
    let path = server.pki.dir.join("alerts.yaml");
    let reported = |rules: &[AlertRule], text: &str| rules.iter().any(|it| it.error.contains(text));
    for (text, why) in [
        (
            "version: sekimori/alerts/v1\nalerts: [{ name: x, where: 'kind == \"nope\"' }]",
            "no kind",
        ),
        ("version: sekimori/alerts/v1\nalerts: [{ name: x, wehre: 'true' }]", "wehre"),
    ] {
        std::fs::write(&path, text).unwrap();
        let mut rules = Vec::new();
        for _ in 0..200 {
            rules = list(&mut client).await.rules;
            if reported(&rules, why) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(reported(&rules, why), "{rules:?}");
        assert_eq!(rules.len(), 6, "those before stay: {rules:?}");
    }
    let text = "version: sekimori/alerts/v1\nalerts: [{ name: only, where: 'bytes == 7' }]";
    std::fs::write(&path, text).unwrap();
    for _ in 0..200 {
        if list(&mut client).await.rules.len() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(list(&mut client).await.rules[0].name, "only");
    let mut agent = server.agent("pc-1").await;
    agent.deliver(vec![Event { bytes: Some(7), ..event(1) }]).await.unwrap();
    assert_eq!(alerts(&mut client, 1).await[0].rule, "only");
}

/// One event that a rule has no answer for holds up neither the rule nor another one.
#[tokio::test]
async fn what_has_no_answer_is_told_and_left_out() {
    let server = Server::start_with(Pki::new(), |config| {
        let text = "version: sekimori/alerts/v1\nalerts:\n- { name: ratio, where: \"kind == 'usb.write' \
                    && 100 / bytes > 1\" }";
        std::fs::write(&config.alerts, text).unwrap();
        config
    })
    .await;
    let mut client = analyst(&server).await;
    looked(&server, &mut client).await;
    let mut agent = server.agent("pc-1").await;
    agent.deliver(vec![copied(1, "花子", 0), copied(2, "花子", 7)]).await.unwrap();
    let found = alerts(&mut client, 1).await;
    assert_eq!((found[0].rule.as_str(), found[0].count, found[0].bytes), ("ratio", 1, 7));
    looked(&server, &mut client).await;
    let error = list(&mut client).await.rules[0].error.clone();
    assert!(error.contains("Division by zero"), "{error}");
}

#[tokio::test]
async fn who_may_do_what() {
    let server = start(Pki::new()).await;
    let denied = |status: tonic::Status| assert_eq!(status.code(), Code::PermissionDenied);
    let silence = || SilenceRequest {
        host: "pc-1".into(),
        until_ns: i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap() + 60_000_000_000,
        reason: "保守".into(),
        ..SilenceRequest::default()
    };
    let mut viewer = AlertServiceClient::new(server.channel(server.pki.viewer()).await);
    denied(viewer.list(ListAlertsRequest::default()).await.unwrap_err());
    denied(
        viewer
            .acknowledge(AcknowledgeRequest { ids: vec![1], note: String::new() })
            .await
            .unwrap_err(),
    );
    let mut client = analyst(&server).await;
    denied(client.silence(silence()).await.unwrap_err());
    denied(client.unsilence(UnsilenceRequest { id: 1 }).await.unwrap_err());
    denied(client.test(TestEndpointRequest { endpoint: "x".into() }).await.unwrap_err());
    let mut agent = AlertServiceClient::new(server.agent_channel("pc-1").await);
    denied(agent.list(ListAlertsRequest::default()).await.unwrap_err());

    let mut admin = AlertServiceClient::new(server.channel(server.pki.admin()).await);
    let none = SilenceRequest { host: String::new(), ..silence() };
    assert_eq!(admin.silence(none).await.unwrap_err().code(), Code::InvalidArgument);
    let past = SilenceRequest { until_ns: 1, ..silence() };
    assert_eq!(admin.silence(past).await.unwrap_err().code(), Code::InvalidArgument);
    let id = admin.silence(silence()).await.unwrap().into_inner().id;
    looked(&server, &mut client).await;
    let raised = |sequence| Event {
        verdict: Verdict::Denied.into(),
        ..one(sequence, Kind::UsbWrite, "花子")
    };
    server.agent("pc-1").await.deliver(vec![raised(1)]).await.unwrap();
    let found = alerts(&mut client, 1).await;
    assert!(found[0].silenced && found[0].acknowledged_by.is_empty());
    admin.unsilence(UnsilenceRequest { id }).await.unwrap();
    let note = "確認済み".to_owned();
    let ids = vec![found[0].id];
    client.acknowledge(AcknowledgeRequest { ids, note: note.clone() }).await.unwrap();
    let found = list(&mut client).await;
    assert_eq!((found.alerts[0].note.as_str(), found.silences.len()), (note.as_str(), 0));
    let filter = Filter { kinds: vec![Kind::Operator.into()], ..Filter::default() };
    let acts = search_all(&mut server.query().await, filter, 1000).await;
    let acts: Vec<String> = acts
        .into_iter()
        .filter_map(|event| event.act)
        .filter(|act| !["ListAlerts", "Search"].contains(&act.method.as_str()))
        .map(|act| format!("{} {} {}", act.role, act.method, act.question))
        .collect();
    assert_eq!(acts.len(), 3, "{acts:?}");
    assert!(acts[0].starts_with("admin Silence --host pc-1 --until"), "{acts:?}");
    assert_eq!(acts[1], "admin Unsilence 1");
    assert_eq!(acts[2], "analyst Acknowledge 1 --note \"確認済み\"");
}

/// The ids of what came, and how often each did.
type Delivered = Arc<Mutex<BTreeMap<String, usize>>>;

/// A receiver of notices that takes all.
fn receiver(listener: TcpListener) -> Delivered {
    let delivered = Delivered::default();
    let ids = Arc::clone(&delivered);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(&stream);
            let (mut id, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                // Whoever looks whether somebody listens says nothing.
                if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
                    break;
                }
                let (name, value) = line.split_once(": ").unwrap_or_default();
                match name.to_ascii_lowercase().as_str() {
                    "sekimori-delivery" => value.trim().clone_into(&mut id),
                    "content-length" => length = value.trim().parse().unwrap(),
                    _ => {}
                }
            }
            let mut body = vec![0; length];
            if id.is_empty() || reader.read_exact(&mut body).is_err() {
                continue;
            }
            *ids.lock().unwrap().entry(id).or_default() += 1;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = (&stream).write_all(answer);
        }
    });
    delivered
}

/// As if so much time had passed for the notices that wait.
fn later(pki: &Pki, time: Duration) -> u64 {
    let path = pki.dir.join("store/alerts.db");
    let connection = rusqlite::Connection::open(path).unwrap();
    let ns = i64::try_from(time.as_nanos()).unwrap();
    let sql = "UPDATE notices SET made_ns = made_ns - ?1, due_ns = due_ns - ?1";
    connection.execute(sql, [ns]).unwrap().try_into().unwrap()
}

/// Waits until the only endpoint stands so.
async fn stands(client: &mut Client, what: &str, is: impl Fn(u64, u64, &str) -> bool) {
    let mut last = String::new();
    for _ in 0..300 {
        let endpoints = list(client).await.endpoints;
        last = format!("{endpoints:?}");
        if endpoints.iter().any(|it| is(it.waiting, it.sent, &it.error)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{what}: {last}");
}

#[tokio::test]
async fn an_endpoint_that_is_down_for_an_hour_loses_nothing() {
    const ALERTS: u64 = 12;
    let pki = Pki::new();
    // Nobody listens there from now on.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut secret = std::fs::OpenOptions::new();
    let mut secret =
        secret.write(true).create_new(true).mode(0o600).open(pki.dir.join("hook.secret")).unwrap();
    secret.write_all(b"0123456789abcdef0123456789abcdef").unwrap();
    let rules = format!(
        "version: sekimori/alerts/v1\negress: [\"127.0.0.1:{port}\"]\ndeliver:\n  - name: hook\n    \
         webhook: {{ url: \"http://127.0.0.1:{port}/in\", secret_file: hook.secret }}\nalerts:\n  \
         - name: denied\n    where: verdict == 'denied'\n    group_by: [user]\n    to: [hook]\n"
    );
    std::fs::write(pki.dir.join("alerts.yaml"), rules).unwrap();
    let mut server = start(pki).await;
    let denied = (1..=ALERTS).map(|it| Event {
        verdict: Verdict::Denied.into(),
        ..one(it, Kind::FileOpen, &format!("花子{it}"))
    });
    server.agent("pc-1").await.deliver(denied.collect()).await.unwrap();
    let mut client = analyst(&server).await;
    alerts(&mut client, usize::try_from(ALERTS).unwrap()).await;
    // An hour of tries, each with a collector that was started again.
    for _ in 0..4 {
        let down =
            |waiting, sent, error: &str| (waiting, sent, error.is_empty()) == (ALERTS, 0, false);
        stands(&mut client, "all wait", down).await;
        drop(client);
        let pki = server.stop().await;
        assert_eq!(later(&pki, Duration::from_secs(15 * 60)), ALERTS);
        server = start(pki).await;
        client = analyst(&server).await;
    }
    let delivered = receiver(TcpListener::bind(("127.0.0.1", port)).unwrap());
    drop(client);
    let pki = server.stop().await;
    assert_eq!(later(&pki, Duration::from_secs(15 * 60)), ALERTS);
    let server = start(pki).await;
    let mut client = analyst(&server).await;
    stands(&mut client, "all are told", |waiting, sent, _| (waiting, sent) == (0, ALERTS)).await;
    let delivered = delivered.lock().unwrap();
    assert_eq!(delivered.len() as u64, ALERTS);
    assert!(delivered.values().all(|times| *times == 1), "{delivered:?}");
}
