use rstest::rstest;
use sekimori_proto::v1::{
    AggregateRequest, Destination, Event, Field, File, Filter, Kind, Loss, Order, Process,
    SearchRequest, StatusRequest, Verdict,
};
use tonic::Code;

use crate::support::{Server, event, events, search_all, sequences};

fn person(user: &str, login_user: &str) -> Option<Process> {
    Some(Process {
        user: user.into(),
        login_user: login_user.into(),
        exe: b"/usr/bin/cp".to_vec(),
        ..Process::default()
    })
}

fn file(path: &[u8], new_path: &[u8]) -> Option<File> {
    Some(File { path: path.to_vec(), new_path: new_path.to_vec(), ..File::default() })
}

/// Eight events of two hosts; the number of each is its time.
async fn filled() -> Server {
    let server = Server::start().await;
    let denied = Verdict::Denied.into();
    let address = Destination { ip: "192.0.2.7".into(), port: 443, ..Destination::default() };
    let first = vec![
        Event { file: file("/srv/顧客/名簿.xlsx".as_bytes(), b""), ..event(1) },
        Event { process: person("花子", ""), verdict: denied, ..event(2) },
        Event { file: file(b"/a/100%_sure", b""), rule: "no-usb".into(), ..event(3) },
        Event { kind: Kind::NetUpload.into(), destination: Some(address), ..event(4) },
    ];
    let second = vec![
        Event { process: person("root", "花子"), kind: Kind::Exec.into(), ..event(5) },
        Event { file: file(b"/a/100x5sure", b"/mnt/usb/B"), ..event(6) },
        Event { file: file(b"/bytes/\xff\xfe", b""), verdict: denied, ..event(7) },
        event(8),
    ];
    assert_eq!(server.agent("pc-1").await.deliver(first).await.unwrap(), 4);
    assert_eq!(server.agent("pc-2").await.deliver(second).await.unwrap(), 4);
    server
}

#[tokio::test]
async fn filters() {
    let server = filled().await;
    let mut client = server.query().await;
    let none = Filter::default();
    let denied: i32 = Verdict::Denied.into();
    let (exec, upload): (i32, i32) = (Kind::Exec.into(), Kind::NetUpload.into());
    let text = |text: &str| Filter { text: text.into(), ..Filter::default() };
    let cases: Vec<(Filter, &[u64])> = vec![
        (none.clone(), &[1, 2, 3, 4, 5, 6, 7, 8]),
        (Filter { since_ns: Some(3), until_ns: Some(6), ..none.clone() }, &[3, 4, 5]),
        (Filter { until_ns: Some(1), ..none.clone() }, &[]),
        (Filter { kinds: vec![exec], ..none.clone() }, &[5]),
        (Filter { kinds: vec![upload, exec], ..none.clone() }, &[4, 5]),
        (Filter { hosts: vec!["pc-2".into()], ..none.clone() }, &[5, 6, 7, 8]),
        (Filter { hosts: vec!["pc-1".into(), "pc-9".into()], ..none.clone() }, &[1, 2, 3, 4]),
        (Filter { hosts: vec!["pc".into()], ..none.clone() }, &[]),
        (Filter { users: vec!["花子".into()], ..none.clone() }, &[2, 5]),
        (Filter { users: vec!["root".into(), "花子".into()], ..none.clone() }, &[2, 5]),
        (Filter { verdicts: vec![denied], ..none.clone() }, &[2, 7]),
        (Filter { rules: vec!["no-usb".into()], ..none.clone() }, &[3]),
        (Filter { verdicts: vec![denied], hosts: vec!["pc-2".into()], ..none.clone() }, &[7]),
        (text("顧客/名"), &[1]),
        (text("客"), &[1]),
        (text("100%_s"), &[3]),
        (text("100"), &[3, 6]),
        (text("%"), &[3]),
        (text("_"), &[3]),
        (text("mnt/usb/B"), &[6]),
        (text("mnt/usb/b"), &[]),
        (text("/usr/bin/cp"), &[2, 5]),
        (text("192.0.2.7:443"), &[4]),
        (text("/bytes/"), &[7]),
        (text("' OR 1=1 --"), &[]),
    ];
    for (filter, expected) in cases {
        for limit in [1000, 3] {
            let found = search_all(&mut client, filter.clone(), limit).await;
            assert_eq!(sequences(&found), expected, "{filter:?} by {limit}");
        }
    }
}

#[rstest]
#[case::oldest_first(false)]
#[case::newest_first(true)]
#[tokio::test]
async fn pages_stay_as_they_are_while_events_arrive(#[case] newest_first: bool) {
    let server = Server::start().await;
    let mut agent = server.agent("pc-1").await;
    // All of one time, so that only the cursor tells them apart.
    let at_once = |sequence| Event { time_ns: 50, ..event(sequence) };
    agent.deliver((1..=25).map(at_once).collect()).await.unwrap();
    let mut client = server.query().await;
    let (mut found, mut page, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let request = SearchRequest { filter: None, limit: 10, page, newest_first };
        let answer = client.search(request).await.unwrap().into_inner();
        found.extend(sequences(&answer.events));
        pages += 1;
        if answer.next_page.is_empty() {
            break;
        }
        page = answer.next_page;
        // Before, among and after the ones that are being paged through.
        let more = [(0, 10), (1, 50), (2, 90)]
            .map(|(offset, time_ns)| Event { time_ns, ..event(100 + 3 * pages + offset) });
        assert_eq!(agent.deliver(more.to_vec()).await.unwrap(), 3);
    }
    let mut expected: Vec<u64> = (1..=25).collect();
    if newest_first {
        expected.reverse();
    }
    assert_eq!((found, pages), (expected, 3));
}

#[tokio::test]
async fn by_time_and_not_by_arrival() {
    let server = Server::start().await;
    server.agent("pc-1").await.deliver(events([5, 1])).await.unwrap();
    server.agent("pc-2").await.deliver(events([3])).await.unwrap();
    let found = search_all(&mut server.query().await, Filter::default(), 1).await;
    assert_eq!(sequences(&found), [1, 3, 5]);
}

#[tokio::test]
async fn a_page_fits_into_an_answer() {
    let server = Server::start().await;
    let mut agent = server.agent("pc-1").await;
    let argv = vec![vec![0xff; 60_000]];
    let big = |sequence| Event {
        process: Some(Process { argv: argv.clone(), ..Process::default() }),
        ..event(sequence)
    };
    for start in [1, 51, 101] {
        agent.deliver((start..start + 50).map(big).collect()).await.unwrap();
    }
    let mut client = server.query().await;
    let request = SearchRequest { limit: 1000, ..SearchRequest::default() };
    let answer = client.search(request).await.unwrap().into_inner();
    assert_eq!(answer.events.len(), 52, "3 MiB of them");
    assert!(!answer.next_page.is_empty());
    let found = search_all(&mut client, Filter::default(), 1000).await;
    assert_eq!(sequences(&found), (1..=150).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let server = filled().await;
    let mut client = server.query().await;
    let limit = SearchRequest { limit: 1001, ..SearchRequest::default() };
    let page = SearchRequest { page: "nonsense".into(), ..SearchRequest::default() };
    let kind = Filter { kinds: vec![0], ..Filter::default() };
    let kind = SearchRequest { filter: Some(kind), ..SearchRequest::default() };
    let two = SearchRequest { limit: 2, ..SearchRequest::default() };
    let next_page = client.search(two).await.unwrap().into_inner().next_page;
    let turned = SearchRequest { page: next_page, newest_first: true, ..SearchRequest::default() };
    for (request, reason) in [
        (limit, "limit 1001: at most 1000 events a page"),
        (page, "page: not a next_page of this collector; leave it empty to begin"),
        (kind, "filter.kinds: 0 is not a known value"),
        (turned, "page: newest_first differs from that of the page before"),
    ] {
        let status = client.search(request).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, reason));
    }
}

#[tokio::test]
async fn status_tells_hosts_counts_losses_and_who_is_there() {
    let server = filled().await;
    let mut agent = server.agent("pc-2").await;
    let loss = Loss { count: 40, ..Loss::default() };
    let lost = Event { kind: Kind::Loss.into(), loss: Some(loss), time_ns: 2, ..event(9) };
    let lost = vec![lost.clone(), Event { sequence: 10, ..lost.clone() }];
    assert_eq!(agent.deliver(lost.clone()).await.unwrap(), 2);
    assert_eq!(agent.deliver(lost).await.unwrap(), 0, "sent again it is not counted again");
    let mut client = server.query().await;
    // The streams that `filled` opened close some time after their client has gone.
    let status = loop {
        let status = client.status(StatusRequest {}).await.unwrap().into_inner();
        if status.hosts.iter().filter(|host| host.connected).count() == 1 {
            break status;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    assert_eq!(status.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(status.events, 10);
    assert!(status.last_cursor >= 10);
    let hosts: Vec<_> = status
        .hosts
        .iter()
        .map(|host| {
            (host.host.as_str(), host.events, host.last_event_ns, host.lost, host.connected)
        })
        .collect();
    assert_eq!(hosts, [("pc-1", 4, 4, 0, false), ("pc-2", 6, 8, 80, true)]);
}

#[tokio::test]
async fn groups_of_what_matches() {
    let server = filled().await;
    let mut client = server.query().await;
    let ask = |by: &[Field], filter: Filter, order: Order| AggregateRequest {
        filter: Some(filter),
        by: by.iter().map(|field| (*field).into()).collect(),
        order: order.into(),
        ..AggregateRequest::default()
    };
    let request = ask(&[Field::Host, Field::Verdict], Filter::default(), Order::Count);
    let answer = client.aggregate(request).await.unwrap().into_inner();
    let groups: Vec<_> = answer
        .groups
        .iter()
        .map(|it| (it.values.join("/"), it.count, it.first_ns, it.last_ns))
        .collect();
    let expected = [
        ("pc-1/allowed", 3, 1, 4),
        ("pc-2/allowed", 3, 5, 8),
        ("pc-1/denied", 1, 2, 2),
        ("pc-2/denied", 1, 7, 7),
    ];
    let expected =
        expected.map(|(values, count, first, last)| (values.to_owned(), count, first, last));
    assert_eq!(groups, expected);
    assert_eq!((answer.events, answer.all_groups), (8, 4));

    let hanako = Filter { users: vec!["花子".into()], ..Filter::default() };
    let request = ask(&[Field::User, Field::Kind], hanako, Order::Values);
    let answer = client.aggregate(request).await.unwrap().into_inner();
    let values: Vec<_> = answer.groups.iter().map(|it| it.values.join("/")).collect();
    assert_eq!(values, ["花子/exec", "花子/file.open"]);
}

#[rstest]
#[case(AggregateRequest::default(), "by: 0 fields, expected 1 to 4")]
#[case(AggregateRequest { by: vec![1], limit: 1001, ..AggregateRequest::default() }, "at most 1000 groups")]
#[case(AggregateRequest { by: vec![1], order: 77, ..AggregateRequest::default() }, "order: 77")]
#[case(AggregateRequest { by: vec![77], ..AggregateRequest::default() }, "by: 77")]
#[tokio::test]
async fn groups_that_cannot_be(#[case] request: AggregateRequest, #[case] text: &str) {
    let server = Server::start().await;
    let status = server.query().await.aggregate(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains(text), "{}", status.message());
}
