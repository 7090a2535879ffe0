use sekimori_proto::v1::{
    AggregateRequest, Event, Field, Filter, IngestResponse, Kind, Process, SearchRequest,
};
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic::codegen::http::uri::PathAndQuery;

use crate::support::{AgentStream, Server, event, events, search_all, sequences};

#[tokio::test]
async fn what_is_acknowledged_is_there_after_a_restart_and_once() {
    let server = Server::start().await;
    let mut agent = server.agent("pc-1").await;
    assert_eq!(agent.deliver(events(1..=10)).await.unwrap(), 10);
    assert_eq!(agent.deliver(events(1..=10)).await.unwrap(), 0, "a batch again");
    assert_eq!(agent.deliver(events([9, 10, 11, 11])).await.unwrap(), 1, "an overlap");
    assert_eq!(agent.deliver(Vec::new()).await.unwrap(), 0, "an empty batch");
    drop(agent);
    let server = Server::start_with(server.stop().await, |config| config).await;
    let mut agent = server.agent("pc-1").await;
    assert_eq!(agent.deliver(events(10..=12)).await.unwrap(), 1, "after a restart");
    let stored = search_all(&mut server.query().await, Filter::default(), 1000).await;
    assert_eq!(sequences(&stored), (1..=12).collect::<Vec<_>>());
    let mut expected = event(4);
    expected.host = "pc-1".into();
    expected.cursor = stored[3].cursor;
    assert_eq!(stored[3], expected, "nothing but host and cursor is changed");
}

#[tokio::test]
async fn the_host_is_the_certificates_name_whatever_the_event_says() {
    let server = Server::start().await;
    let lie = Event { host: "pc-1".into(), cursor: 99, ..event(1) };
    assert_eq!(server.agent("pc-1").await.deliver(vec![lie.clone()]).await.unwrap(), 1);
    assert_eq!(server.agent("pc-2").await.deliver(vec![lie]).await.unwrap(), 1);
    let stored = search_all(&mut server.query().await, Filter::default(), 10).await;
    let hosts: Vec<_> = stored.iter().map(|event| (event.cursor, event.host.as_str())).collect();
    assert_eq!(hosts, [(1, "pc-1"), (2, "pc-2")]);
}

#[tokio::test]
async fn acknowledgements_come_in_order_when_many_batches_are_on_their_way() {
    let server = Server::start().await;
    let mut agent = server.agent("pc-1").await;
    let mut sent = Vec::new();
    for start in 0..6 {
        sent.push(agent.send(events(start * 100 + 1..=start * 100 + 100)).await);
    }
    for batch in sent {
        let answer = agent.acknowledged().await.unwrap().unwrap();
        assert_eq!(answer, IngestResponse { batch, stored: 100, ..IngestResponse::default() });
    }
}

#[tokio::test]
async fn a_bad_batch_ends_the_stream_with_the_reason_and_stores_nothing_of_it() {
    let server = Server::start().await;
    let mut agent = server.agent("pc-1").await;
    agent.send(events([1])).await;
    agent.send(vec![event(2), Event { boot: Vec::new(), ..event(3) }]).await;
    assert_eq!(agent.acknowledged().await.unwrap().unwrap().stored, 1, "the one before");
    let status = agent.acknowledged().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let reason = "batch 2, event 1 (sequence 3): boot has 0 bytes, expected exactly 16";
    assert_eq!(status.message(), reason);
    let mut agent = server.agent("pc-1").await;
    let status = agent.deliver(events(1..=1001)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let stored = search_all(&mut server.query().await, Filter::default(), 10).await;
    assert_eq!(sequences(&stored), [1]);
}

#[tokio::test]
async fn an_oversized_message_is_refused_and_the_next_one_taken() {
    let server = Server::start().await;
    let mut agent = server.agent("pc-1").await;
    let argv = vec![vec![b'x'; 60_000]];
    let big = |sequence| Event {
        process: Some(Process { argv: argv.clone(), ..Process::default() }),
        ..event(sequence)
    };
    let status = agent.deliver((1..=80).map(big).collect()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("4194304"), "{status}");
    let mut agent = server.agent("pc-1").await;
    assert_eq!(agent.deliver((1..=60).map(big).collect()).await.unwrap(), 60, "3.6 MB fit");
}

#[tokio::test]
async fn what_is_no_batch_is_refused() {
    let server = Server::start().await;
    let mut client = tonic::client::Grpc::new(server.agent_channel("pc-1").await);
    client.ready().await.unwrap();
    // Where a batch has a number this has a message.
    let wrong = SearchRequest { filter: Some(Filter::default()), ..SearchRequest::default() };
    let codec = tonic_prost::ProstCodec::<SearchRequest, IngestResponse>::default();
    let path = PathAndQuery::from_static("/sekimori.v1.IngestService/Stream");
    let request = tonic::Request::new(tokio_stream::once(wrong));
    let mut answers = client.streaming(request, path, codec).await.unwrap().into_inner();
    let status = answers.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert_eq!(server.agent("pc-1").await.deliver(events([1])).await.unwrap(), 1);
}

#[tokio::test]
async fn a_stopping_collector_says_so_and_loses_nothing() {
    let server = Server::start().await;
    let channel = server.agent_channel("pc-1").await;
    let mut agent = AgentStream::open(channel).await.unwrap();
    assert_eq!(agent.deliver(events(1..=500)).await.unwrap(), 500);
    server.ask_to_stop();
    assert_eq!(agent.acknowledged().await.unwrap_err().code(), Code::Unavailable);
    let server = Server::start_with(server.stop().await, |config| config).await;
    let stored = search_all(&mut server.query().await, Filter::default(), 1000).await;
    assert_eq!(stored.len(), 500);
}

#[tokio::test]
async fn events_of_a_clock_that_is_wrong_are_kept_found_and_counted() {
    const NOW_NS: i64 = 1_795_782_600_000_000_000;
    let server = Server::start().await;
    let times = [NOW_NS, i64::MAX, NOW_NS + 1, i64::MIN, 0, -1, NOW_NS - 1];
    let at = |(sequence, time_ns)| Event { time_ns, ..event(sequence) };
    let sent: Vec<Event> = (1..).zip(times).map(at).collect();
    assert_eq!(server.agent("pc-1").await.deliver(sent).await.unwrap(), 7);
    let server = Server::start_with(server.stop().await, |config| config).await;
    let mut client = server.query().await;
    let stored = search_all(&mut client, Filter::default(), 2).await;
    assert_eq!(sequences(&stored), [4, 6, 5, 7, 1, 3, 2], "by time");
    assert!(stored.iter().all(|it| it.cursor == it.sequence), "and by cursor as they came");
    for (since, until, expected) in [
        (Some(NOW_NS), None, vec![1, 3, 2]),
        (None, Some(NOW_NS), vec![4, 6, 5, 7]),
        (Some(i64::MIN), Some(i64::MIN + 1), vec![4]),
        (Some(i64::MAX), None, vec![2]),
    ] {
        let filter = Filter { since_ns: since, until_ns: until, ..Filter::default() };
        let kinds = vec![Kind::FileOpen.into()];
        let found = search_all(&mut client, Filter { kinds, ..filter }, 100).await;
        assert_eq!(sequences(&found), expected, "{since:?} to {until:?}");
    }
    for by in [Field::Day, Field::Hour] {
        let filter = Filter { kinds: vec![Kind::FileOpen.into()], ..Filter::default() };
        let by = vec![by.into()];
        let request = AggregateRequest { filter: Some(filter), by, ..AggregateRequest::default() };
        let answer = client.aggregate(request).await.unwrap().into_inner();
        assert_eq!((answer.events, answer.groups.iter().map(|it| it.count).sum()), (7, 7_u64));
    }
}
