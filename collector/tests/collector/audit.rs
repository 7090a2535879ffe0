//! What operators read is a record.

use std::time::Duration;

use sekimori_proto::v1::query_service_client::QueryServiceClient;
use sekimori_proto::v1::watch_service_client::WatchServiceClient;
use sekimori_proto::v1::{
    ActPhase, AggregateRequest, Event, Field, Filter, Kind, OperatorAct, SearchRequest,
    StatusRequest, SubscribeRequest, Verdict,
};
use tokio::time::{sleep, timeout};

use crate::support::{Server, events, search_all, sequences};

const WAIT: Duration = Duration::from_secs(20);

/// The records of what hanako did, asked for by somebody else.
async fn records(server: &Server) -> Vec<Event> {
    let filter = Filter { kinds: vec![Kind::Operator.into()], ..Filter::default() };
    let channel = server.channel(server.pki.admin()).await;
    let mut found = search_all(&mut QueryServiceClient::new(channel), filter, 1000).await;
    found.retain(|event| event.act.as_ref().unwrap().name == "hanako");
    found
}

fn told(event: &Event) -> (String, String, u64, ActPhase) {
    let act = event.act.clone().unwrap();
    (act.method.clone(), act.question.clone(), act.answered, act.phase())
}

fn expected(
    method: &str,
    question: &str,
    answered: u64,
    phase: ActPhase,
) -> (String, String, u64, ActPhase) {
    (method.to_owned(), question.to_owned(), answered, phase)
}

#[tokio::test]
async fn each_read_is_a_record_with_who_what_and_how_much() {
    let server = Server::start().await;
    server.agent("pc-1").await.deliver(events(1..=25)).await.unwrap();
    let mut client = server.query().await;
    let filter = Filter { hosts: vec!["pc-1".into()], since_ns: Some(0), ..Filter::default() };
    let found = search_all(&mut client, filter.clone(), 10).await;
    assert_eq!(found.len(), 25);
    let by = vec![Field::Host.into(), Field::Verdict.into()];
    let request = AggregateRequest { by, filter: Some(filter), ..AggregateRequest::default() };
    client.aggregate(request).await.unwrap();
    client.status(StatusRequest {}).await.unwrap();
    let records = records(&server).await;
    let question = "--host pc-1 --since 1970-01-01T00:00:00Z";
    let whole = ActPhase::Unspecified;
    assert_eq!(
        records.iter().map(told).collect::<Vec<_>>(),
        [
            expected("Search", question, 10, whole),
            expected("Search", question, 10, ActPhase::Continued),
            expected("Search", question, 5, ActPhase::Continued),
            expected("Aggregate", &format!("--by host,verdict {question}"), 1, whole),
        ]
    );
    assert_eq!(sequences(&records), [1, 2, 3, 4]);
    for record in records {
        assert!(record.host.starts_with("collector:"), "{}", record.host);
        assert_eq!((record.boot.len(), record.verdict()), (16, Verdict::Allowed));
        let OperatorAct { name, role, address, .. } = record.act.unwrap();
        assert_eq!((name.as_str(), role.as_str()), ("hanako", "analyst"));
        assert!(address.starts_with("127.0.0.1:"), "{address}");
    }
    let status = client.status(StatusRequest {}).await.unwrap().into_inner();
    let own = status.hosts.iter().find(|host| host.host.starts_with("collector:")).unwrap();
    assert!(own.connected);
}

/// Commands that work on the collector's directory, without a call to it.
#[tokio::test]
async fn what_is_done_on_the_machine_is_a_record() {
    let server = Server::start().await;
    let dir = &server.pki.dir;
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sekimori-collector"));
        let output = command.args(arguments).arg("--dir").arg(dir).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(&["token", "pc-7"]);
    run(&["enroll", "yuki", "--role", "viewer", "--days", "30"]);
    run(&["revoke", "yuki", "--role", "viewer", "--reason", "left; 退職"]);
    let to = dir.join("archive").display().to_string();
    run(&["archive", "--to", &to]);
    // What is no note is put aside, and holds up nothing.
    std::fs::write(dir.join("desk/0"), "{}").unwrap();
    let mut found = Vec::new();
    for _ in 0..100 {
        let filter = Filter { kinds: vec![Kind::Operator.into()], ..Filter::default() };
        found = search_all(&mut server.query().await, filter, 1000).await;
        found.retain(|event| event.act.as_ref().unwrap().name.starts_with("uid "));
        if found.len() == 5 && dir.join("desk/0.unread").exists() {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    let whole = ActPhase::Unspecified;
    assert_eq!(
        found.iter().map(told).collect::<Vec<_>>(),
        [
            expected("Token", "pc-7 --role agent --days 825 --valid 3600s", 0, whole),
            expected("Enroll", "yuki --role viewer --days 30", 0, whole),
            expected("Revoke", "yuki --role viewer --reason 'left; 退職'", 0, whole),
            expected("Archive", &format!("--to {to}"), 0, ActPhase::Begin),
            expected("Archive", &format!("--to {to}"), 0, ActPhase::End),
        ]
    );
    assert!(found.iter().all(|it| it.message.starts_with("on the collector's machine, at 20")));
    let left: Vec<_> = std::fs::read_dir(dir.join("desk")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test]
async fn what_was_refused_or_failed_gave_nothing_and_is_no_record() {
    let server = Server::start().await;
    let mut client = server.query().await;
    let limit = SearchRequest { limit: 5000, ..SearchRequest::default() };
    client.search(limit).await.unwrap_err();
    let long = Filter { users: vec!["u".repeat(4000); 20], ..Filter::default() };
    let long = SearchRequest { filter: Some(long), ..SearchRequest::default() };
    let refused = client.search(long).await.unwrap_err();
    assert!(refused.message().contains("ask in parts"), "{refused}");
    assert_eq!(records(&server).await, []);
}

#[tokio::test]
async fn a_stream_is_recorded_at_its_beginning_and_at_its_end() {
    let server = Server::start().await;
    let mut agent = server.agent("pc-1").await;
    agent.deliver(events(1..=5)).await.unwrap();
    let filter = Some(Filter { hosts: vec!["pc-1".into()], ..Filter::default() });
    let mut client = server.watch().await;
    let request = SubscribeRequest { filter, cursor: Some(0) };
    let mut stream = client.subscribe(request.clone()).await.unwrap().into_inner();
    let question = "--host pc-1 --from-start";
    let begin = expected("Subscribe", question, 0, ActPhase::Begin);
    assert_eq!(
        records(&server).await.iter().map(told).collect::<Vec<_>>(),
        std::slice::from_ref(&begin)
    );
    for _ in 0..5 {
        timeout(WAIT, stream.message()).await.unwrap().unwrap().unwrap();
    }
    drop(stream);
    let end = expected("Subscribe", question, 5, ActPhase::End);
    let both = timeout(WAIT, async {
        loop {
            let found: Vec<_> = records(&server).await.iter().map(told).collect();
            if found.len() > 1 {
                break found;
            }
            sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(both.await.unwrap(), [begin.clone(), end.clone()]);
    // A stop ends streams, and is no way around their record.
    let mut stream = client.subscribe(request).await.unwrap().into_inner();
    timeout(WAIT, stream.message()).await.unwrap().unwrap().unwrap();
    server.ask_to_stop();
    while let Ok(Some(_)) = timeout(WAIT, stream.message()).await.unwrap() {}
    let server = Server::start_with(server.stop().await, |config| config).await;
    let found: Vec<_> = records(&server).await.iter().map(told).collect();
    assert_eq!(found, [begin.clone(), end.clone(), begin, end]);
}

#[tokio::test]
async fn a_stream_that_shows_records_of_reads_does_not_feed_itself() {
    let server = Server::start().await;
    let filter = Some(Filter { kinds: vec![Kind::Operator.into()], ..Filter::default() });
    let channel = server.channel(server.pki.admin()).await;
    let request = SubscribeRequest { filter, cursor: None };
    let stream = WatchServiceClient::new(channel).subscribe(request).await;
    let mut stream = stream.unwrap().into_inner();
    let mut client = server.query().await;
    client.search(SearchRequest::default()).await.unwrap();
    let shown = timeout(WAIT, stream.message()).await.unwrap().unwrap().unwrap().event.unwrap();
    assert_eq!(told(&shown), expected("Search", "", 1, ActPhase::Unspecified));
    let more = timeout(Duration::from_millis(500), stream.message()).await;
    assert!(more.is_err(), "{more:?}");
    // The beginning of the stream, and the search.
    assert_eq!(client.status(StatusRequest {}).await.unwrap().into_inner().events, 2);
}
