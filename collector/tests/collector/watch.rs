use std::time::Duration;

use sekimori_collector::limits::SUBSCRIBERS_OF_ONE_MAX;
use sekimori_proto::v1::watch_service_client::WatchServiceClient;
use sekimori_proto::v1::{Event, Filter, Kind, SubscribeRequest, SubscribeResponse};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::support::{Server, event, events, sequences};

async fn subscribe(
    client: &mut WatchServiceClient<Channel>,
    filter: Filter,
    cursor: Option<u64>,
) -> Streaming<SubscribeResponse> {
    let request = SubscribeRequest { filter: Some(filter), cursor };
    client.subscribe(request).await.unwrap().into_inner()
}

/// The next event that is not the record of a stream.
async fn next(stream: &mut Streaming<SubscribeResponse>) -> Result<Event, Status> {
    loop {
        let answer = timeout(Duration::from_secs(20), stream.message()).await.expect("in time")?;
        let event = answer.expect("the stream goes on").event.expect("an event");
        if event.kind() != Kind::Operator {
            return Ok(event);
        }
    }
}

#[tokio::test]
async fn a_stream_that_breaks_again_and_again_has_no_gap_and_no_repeat() {
    const EVENTS: u64 = 4000;
    let server = Server::start().await;
    let mut agents = [server.agent("pc-1").await, server.agent("pc-2").await];
    let writer = tokio::spawn(async move {
        for start in (1..=EVENTS).step_by(40) {
            for agent in &mut agents {
                assert_eq!(agent.deliver(events(start..start + 40)).await.unwrap(), 40);
            }
        }
    });
    let mut client = server.watch().await;
    let mut seen: Vec<Event> = Vec::new();
    let mut breaks = 0;
    while seen.len() < 2 * usize::try_from(EVENTS).unwrap() {
        let cursor = seen.last().map_or(0, |event| event.cursor);
        let mut stream = subscribe(&mut client, Filter::default(), Some(cursor)).await;
        // A different number each time, also none at all.
        for _ in 0..(breaks * 37) % 500 {
            if seen.len() == 2 * usize::try_from(EVENTS).unwrap() {
                break;
            }
            seen.push(next(&mut stream).await.unwrap());
        }
        breaks += 1;
    }
    writer.await.unwrap();
    assert!(breaks > 10);
    assert!(seen.is_sorted_by(|first, second| first.cursor < second.cursor));
    for host in ["pc-1", "pc-2"] {
        let of_host: Vec<Event> = seen.iter().filter(|event| event.host == host).cloned().collect();
        assert_eq!(sequences(&of_host), (1..=EVENTS).collect::<Vec<_>>(), "{host}");
    }
}

#[tokio::test]
async fn without_a_cursor_only_what_comes_from_now_on() {
    let server = Server::start().await;
    let mut agent = server.agent("pc-1").await;
    agent.deliver(events(1..=5)).await.unwrap();
    let mut client = server.watch().await;
    let wanted = Filter { kinds: vec![Kind::Exec.into()], ..Filter::default() };
    let mut now = subscribe(&mut client, Filter::default(), None).await;
    let mut launches = subscribe(&mut client, wanted.clone(), None).await;
    let launch = Event { kind: Kind::Exec.into(), ..event(7) };
    agent.deliver(vec![event(6), launch, event(8)]).await.unwrap();
    assert_eq!(next(&mut now).await.unwrap().sequence, 6);
    assert_eq!(next(&mut now).await.unwrap().sequence, 7);
    assert_eq!(next(&mut launches).await.unwrap().sequence, 7);
    let mut all = subscribe(&mut client, Filter::default(), Some(0)).await;
    assert_eq!(next(&mut all).await.unwrap().sequence, 1);
    let mut behind = subscribe(&mut client, wanted, Some(6)).await;
    assert_eq!(next(&mut behind).await.unwrap().sequence, 7);
}

#[tokio::test]
async fn a_rare_event_far_behind_is_found() {
    let server = Server::start().await;
    let mut agent = server.agent("pc-1").await;
    // More than one window of the subscriber's task lies before it.
    for start in (1..=25_000).step_by(1000) {
        agent.deliver(events(start..start + 1000)).await.unwrap();
    }
    agent.deliver(vec![Event { kind: Kind::UsbWrite.into(), ..event(25_001) }]).await.unwrap();
    let wanted = Filter { kinds: vec![Kind::UsbWrite.into()], ..Filter::default() };
    let mut stream = subscribe(&mut server.watch().await, wanted, Some(0)).await;
    assert_eq!(next(&mut stream).await.unwrap().sequence, 25_001);
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_holds_up_nobody() {
    let server = Server::start().await;
    let mut agent = server.agent("pc-1").await;
    let mut client = server.watch().await;
    let mut slow = subscribe(&mut client, Filter::default(), Some(0)).await;
    let long = |sequence| Event { message: "x".repeat(4000), ..event(sequence) };
    // 12 MB: more than windows and queues hold.
    for start in (1..=3000).step_by(500) {
        let batch = (start..start + 500).map(long).collect();
        let stored = timeout(Duration::from_secs(20), agent.deliver(batch)).await;
        assert_eq!(stored.expect("in time").unwrap(), 500);
    }
    for sequence in 1..=3000 {
        assert_eq!(next(&mut slow).await.unwrap().sequence, sequence);
    }
}

#[tokio::test]
async fn nobody_takes_all_live_streams() {
    let server = Server::start().await;
    let mut client = server.watch().await;
    let mut open = Vec::new();
    for _ in 0..SUBSCRIBERS_OF_ONE_MAX {
        open.push(subscribe(&mut client, Filter::default(), None).await);
    }
    let refused = client.subscribe(SubscribeRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().starts_with("analyst hanako has 16 live streams"), "{refused}");
    let mut other = WatchServiceClient::new(server.channel(server.pki.admin()).await);
    let _other = subscribe(&mut other, Filter::default(), None).await;
    drop(open);
    timeout(Duration::from_secs(20), async {
        while client.subscribe(SubscribeRequest::default()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("a closed stream gives its place back");
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_a_stop_is_told() {
    let server = Server::start().await;
    server.agent("pc-1").await.deliver(events(1..=3)).await.unwrap();
    let mut client = server.watch().await;
    let beyond = SubscribeRequest { filter: None, cursor: Some(4) };
    let status = client.subscribe(beyond).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    let unknown = Filter { kinds: vec![55], ..Filter::default() };
    let unknown = SubscribeRequest { filter: Some(unknown), cursor: None };
    let status = client.subscribe(unknown).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "filter.kinds: 55 is not a known value");
    let mut stream = subscribe(&mut client, Filter::default(), Some(0)).await;
    assert_eq!(next(&mut stream).await.unwrap().sequence, 1);
    server.ask_to_stop();
    let end = loop {
        match next(&mut stream).await {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::Unavailable, "{end}");
    server.stop().await;
}
