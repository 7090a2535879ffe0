//! Other certificates while the collector runs.

use std::path::Path;
use std::time::Duration;

use sekimori_collector::identity::Role;
use sekimori_collector::pki;
use sekimori_proto::v1::StatusRequest;
use sekimori_proto::v1::query_service_client::QueryServiceClient;
use tokio::time::{Instant, sleep};

use crate::support::{Pki, Server, connect, events, tls};

async fn gets_in(server: &Server, ca: &Path, peer: &Path) -> bool {
    match connect(server.address, tls(ca, peer)).await {
        Err(_) => false,
        Ok(channel) => QueryServiceClient::new(channel).status(StatusRequest {}).await.is_ok(),
    }
}

async fn until(mut what: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !what().await {
        assert!(Instant::now() < end, "it does not come");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn another_authority_is_taken_up_and_no_stream_is_dropped() {
    let server = Server::start().await;
    let dir = server.pki.dir.clone();
    let mut open = server.agent("pc-1").await;
    open.deliver(events(1..3)).await.unwrap();
    // The new authority makes the collector's certificate, and peers of both are let in.
    let other = Pki::new();
    let bundle =
        [other.dir.join("ca.pem"), dir.join("ca.pem")].map(|it| std::fs::read(it).unwrap());
    std::fs::write(dir.join("ca.pem"), bundle.concat()).unwrap();
    for name in ["server.pem", "server.key"] {
        std::fs::copy(other.dir.join(name), dir.join(name)).unwrap();
    }
    let new = other.analyst();
    until(async || gets_in(&server, &other.dir, &new).await).await;
    assert!(gets_in(&server, &other.dir, &server.pki.analyst()).await, "of the old authority");
    assert_eq!(open.deliver(events(3..5)).await.unwrap(), 2, "the stream goes on");
}

#[tokio::test]
async fn files_that_cannot_be_used_change_nothing() {
    let server = Server::start().await;
    let dir = server.pki.dir.clone();
    let good = std::fs::read(dir.join("server.pem")).unwrap();
    let other = Pki::new();
    for bad in
        [b"-----BEGIN NOTHING".to_vec(), std::fs::read(other.dir.join("server.pem")).unwrap()]
    {
        std::fs::write(dir.join("server.pem"), bad).unwrap();
        sleep(Duration::from_millis(2500)).await;
        assert!(gets_in(&server, &dir, &server.pki.analyst()).await);
    }
    std::fs::write(dir.join("server.pem"), good).unwrap();
    sleep(Duration::from_millis(2500)).await;
    assert!(gets_in(&server, &dir, &server.pki.analyst()).await);
    assert_eq!(server.agent("pc-1").await.deliver(events(1..3)).await.unwrap(), 2);
}

#[tokio::test]
async fn a_connection_ends_with_its_certificate() {
    let pki = Pki::new();
    let out = pki.dir.join("short");
    let life = pki::Life { seconds: 4 };
    pki::enroll_for(&pki.dir, "pc-9", Role::Agent, life, Some(&out)).unwrap();
    let server = Server::start_with(pki, |config| config).await;
    let channel = connect(server.address, tls(&server.pki.dir, &out)).await.unwrap();
    let mut stream = crate::support::AgentStream::open(channel).await.unwrap();
    stream.deliver(events(1..3)).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), stream.acknowledged()).await.unwrap();
    ended.unwrap_err();
}
