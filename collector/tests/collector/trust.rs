//! Who may do what, and who may not even come in.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use sekimori_collector::identity::{Rank, Role};
use sekimori_collector::pki;
use sekimori_collector::server::Collector;
use sekimori_proto::v1::query_service_client::QueryServiceClient;
use sekimori_proto::v1::watch_service_client::WatchServiceClient;
use sekimori_proto::v1::{
    AggregateRequest, Field, Filter, SearchRequest, StatusRequest, SubscribeRequest,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::support::{AgentStream, Pki, Server, connect, events, read, tls};

/// Whether a status can be had over such a connection. TLS 1.3 tells a client of its refusal only
/// when it reads, so the connection alone proves nothing.
async fn gets_in(server: &Server, tls: ClientTlsConfig) -> bool {
    match connect(server.address, tls).await {
        Err(_) => false,
        Ok(channel) => QueryServiceClient::new(channel).status(StatusRequest {}).await.is_ok(),
    }
}

#[tokio::test]
async fn only_certificates_of_the_own_authority_get_in() {
    let server = Server::start().await;
    let own = &server.pki;
    assert!(gets_in(&server, tls(&own.dir, &own.analyst())).await, "the operator");

    let foreign = Pki::new();
    assert!(!gets_in(&server, tls(&own.dir, &foreign.analyst())).await, "another authority");

    let bare = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read(own.dir.join("ca.pem"))))
        .domain_name("localhost");
    assert!(!gets_in(&server, bare.clone()).await, "no certificate");

    let (certificate, key) = (own.dir.join("server.pem"), own.dir.join("server.key"));
    let as_server = bare.identity(Identity::from_pem(read(certificate), read(key)));
    assert!(!gets_in(&server, as_server).await, "the collector's own certificate");

    let plain = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let plain = QueryServiceClient::new(plain.connect_lazy()).status(StatusRequest {}).await;
    assert!(plain.is_err(), "no TLS at all");

    assert!(
        connect(server.address, tls(&foreign.dir, &own.analyst())).await.is_err(),
        "the client does not take a collector of another authority"
    );
}

#[tokio::test]
async fn an_agent_cannot_read_and_an_operator_cannot_write() {
    let server = Server::start().await;
    let channel = server.agent_channel("pc-1").await;
    let mut query = QueryServiceClient::new(channel.clone());
    let search = query.search(SearchRequest::default()).await.unwrap_err();
    let status = query.status(StatusRequest {}).await.unwrap_err();
    let aggregate = query.aggregate(AggregateRequest::default()).await.unwrap_err();
    let subscribe = WatchServiceClient::new(channel).subscribe(SubscribeRequest::default()).await;
    for refused in [search, status, aggregate, subscribe.unwrap_err()] {
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(refused.message().starts_with("agent pc-1 may not"), "{refused}");
    }
    let refused = AgentStream::open(server.analyst_channel().await).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().starts_with("analyst hanako may not deliver"), "{refused}");
}

#[tokio::test]
async fn a_viewer_is_told_how_the_hosts_stand_and_nothing_of_people() {
    let server = Server::start().await;
    server.agent("pc-1").await.deliver(events(1..=3)).await.unwrap();
    let channel = server.channel(server.pki.viewer()).await;
    let mut query = QueryServiceClient::new(channel.clone());
    assert_eq!(query.status(StatusRequest {}).await.unwrap().into_inner().events, 3);
    let by = |field: Field| vec![i32::from(field)];
    let request = AggregateRequest { by: by(Field::Host), ..AggregateRequest::default() };
    let answer = query.aggregate(request.clone()).await.unwrap().into_inner();
    assert_eq!(answer.events, 3);

    let search = query.search(SearchRequest::default()).await.unwrap_err();
    let subscribe = WatchServiceClient::new(channel).subscribe(SubscribeRequest::default()).await;
    for refused in [search, subscribe.unwrap_err()] {
        assert_eq!(refused.code(), Code::PermissionDenied);
        let said = refused.message();
        assert!(said.starts_with("viewer taro may not read records"), "{refused}");
        assert!(said.contains("enroll NAME --role analyst"), "{refused}");
    }
    let users = Filter { users: vec!["suzuki".into()], ..Filter::default() };
    for (personal, reason) in [
        (AggregateRequest { by: by(Field::User), ..request.clone() }, "counts by user tell"),
        (AggregateRequest { distinct: Field::File.into(), ..request.clone() }, "counts by file"),
        (AggregateRequest { filter: Some(users), ..request.clone() }, "a filter by user tells"),
    ] {
        let refused = query.aggregate(personal.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(refused.message().starts_with(reason), "{refused}");
        for peer in [server.pki.analyst(), server.pki.admin()] {
            let mut query = QueryServiceClient::new(server.channel(peer).await);
            query.aggregate(personal.clone()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn garbage_and_silence_on_the_port_disturb_nobody() {
    let server = Server::start().await;
    let silent = TcpStream::connect(server.address).await.unwrap();
    let mut long = vec![0x16, 0x03, 0x01, 0xff, 0xff];
    long.extend([0x5a; 70_000]);
    for garbage in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0xff; 10_000], long, vec![0]] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let _ = stream.write_all(&garbage).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    assert_eq!(server.agent("pc-1").await.deliver(events([1])).await.unwrap(), 1);
    drop(silent);
}

async fn unix_channel(path: std::path::PathBuf) -> Channel {
    let endpoint = Endpoint::from_static("http://localhost");
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new) }
    });
    endpoint.connect_with_connector(connector).await.unwrap()
}

#[tokio::test]
async fn on_the_unix_socket_the_own_user_is_an_admin() {
    let pki = Pki::new();
    let path = pki.dir.join("collector.sock");
    let server = Server::start_with(pki, |mut config| {
        config.socket = Some(path.clone());
        config
    })
    .await;
    assert_eq!(server.agent("pc-1").await.deliver(events(1..=3)).await.unwrap(), 3);
    let channel = unix_channel(path.clone()).await;
    let mut query = QueryServiceClient::new(channel.clone());
    assert_eq!(query.status(StatusRequest {}).await.unwrap().into_inner().events, 3);
    let found = query.search(SearchRequest::default()).await.unwrap().into_inner().events;
    assert_eq!(found.len(), 3);
    let found = query.search(SearchRequest::default()).await.unwrap().into_inner().events;
    let act = found.last().unwrap().act.clone().unwrap();
    let name = format!("uid {}", nix::unistd::geteuid());
    assert_eq!((act.name, act.role.as_str(), act.address.as_str()), (name, "admin", ""));
    // Root may deliver this host's own events; nobody else may.
    match AgentStream::open(channel).await {
        Ok(mut stream) => {
            assert!(nix::unistd::geteuid().is_root());
            assert_eq!(stream.deliver(events(1..=2)).await.unwrap(), 2);
        }
        Err(refused) => {
            assert!(!nix::unistd::geteuid().is_root());
            assert_eq!(refused.code(), Code::PermissionDenied);
        }
    }
    drop(query);
    server.stop().await;
    assert!(!path.exists(), "the socket's file goes with the collector");
}

#[tokio::test]
async fn a_certificate_for_a_second_role_is_a_second_certificate() {
    let pki = Pki::new();
    let operator = pki::enroll(&pki.dir, "pc-1", Role::Operator(Rank::Viewer), None).unwrap();
    let server = Server::start_with(pki, |config| config).await;
    assert!(gets_in(&server, tls(&server.pki.dir, &operator)).await);
    assert!(!gets_in(&server, tls(&server.pki.dir, &server.pki.agent("pc-1"))).await);
}

#[tokio::test]
async fn a_revoked_agent_loses_its_open_stream_and_a_new_certificate_is_let_in() {
    let server = Server::start().await;
    let dir = server.pki.dir.clone();
    let mut revoked = server.agent("pc-1").await;
    let mut other = server.agent("pc-2").await;
    assert_eq!(revoked.deliver(events(1..3)).await.unwrap(), 2);
    pki::revoke(&dir, "pc-1", Role::Agent, "lost on the train").unwrap();
    // The stream that is open ends.
    tokio::time::timeout(Duration::from_secs(30), revoked.acknowledged())
        .await
        .unwrap()
        .unwrap_err();
    // A new one cannot be opened, and others are not disturbed.
    assert!(connect_and_deliver(&server, &server.pki.agent("pc-1")).await.is_err());
    assert_eq!(other.deliver(events(1..3)).await.unwrap(), 2);
    // A certificate that is made later is another one.
    let again = dir.join("again");
    pki::enroll(&dir, "pc-1", Role::Agent, Some(&again)).unwrap();
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    while connect_and_deliver(&server, &again).await.is_err() {
        assert!(tokio::time::Instant::now() < until, "the new certificate is not let in");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(connect_and_deliver(&server, &server.pki.agent("pc-1")).await.is_err());
}

#[tokio::test]
async fn each_role_of_a_name_is_revoked_by_itself() {
    let pki = Pki::new();
    let dir = pki.dir.clone();
    let ranks = Rank::ALL;
    let peers = ranks.map(|rank| pki::enroll(&dir, "saburo", Role::Operator(rank), None).unwrap());
    let server = Server::start_with(pki, |config| config).await;
    for (revoked, rank) in ranks.into_iter().enumerate() {
        pki::revoke(&dir, "saburo", Role::Operator(rank), "left").unwrap();
        let until = tokio::time::Instant::now() + Duration::from_secs(30);
        while gets_in(&server, tls(&dir, &peers[revoked])).await {
            assert!(tokio::time::Instant::now() < until, "{rank} still gets in");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for other in &peers[revoked + 1..] {
            assert!(gets_in(&server, tls(&dir, other)).await, "{}", other.display());
        }
    }
}

async fn connect_and_deliver(server: &Server, peer: &Path) -> Result<u32, String> {
    let channel = connect(server.address, tls(&server.pki.dir, peer)).await;
    let channel = channel.map_err(|error| error.to_string())?;
    let mut stream = AgentStream::open(channel).await.map_err(|status| status.to_string())?;
    stream.deliver(events(3..4)).await.map_err(|status| status.to_string())
}

#[test]
fn a_list_of_revocations_that_is_none_lets_nobody_in() {
    let pki = Pki::new();
    std::fs::write(pki.dir.join(pki::REVOKED_FILE), "{\"revoked\":1}\n").unwrap();
    let error = pki::Revoked::read(&pki.dir).unwrap_err().to_string();
    assert!(error.contains("revoked, line 1"), "{error}");
    let error = pki::revoke(&pki.dir, "pc-1", Role::Agent, "").unwrap_err().to_string();
    assert!(error.contains("line 1"), "{error}");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let started = runtime.block_on(async { Collector::bind(&pki.config()).await.err() });
    assert!(started.unwrap().to_string().contains("line 1"));
}

#[test]
fn a_list_that_root_begins_is_the_collectors() {
    let pki = Pki::new();
    let (user, group) = (Some(4242), Some(4243));
    // Only root can give files away.
    let given = std::os::unix::fs::chown(&pki.dir, user, group).is_ok();
    pki::revoke(&pki.dir, "pc-1", Role::Agent, "").unwrap();
    let list = std::fs::metadata(pki.dir.join(pki::REVOKED_FILE)).unwrap();
    let owner = std::fs::metadata(&pki.dir).unwrap();
    assert_eq!((list.uid(), list.gid()), (owner.uid(), owner.gid()));
    assert_eq!(list.mode() & 0o777, 0o600);
    assert_eq!(given, owner.uid() == 4242);
}
