//! What is known of the hosts.

use std::time::Duration;

use sekimori_proto::v1::fleet_service_client::FleetServiceClient;
use sekimori_proto::v1::{
    Filter, FleetHost, HostChange, HostState, HostTurn, IsolateRequest, Kind, ListHostsRequest,
    ReleaseRequest,
};
use tonic::Code;

use crate::support::{Pki, Server, events, search_all};

async fn hosts(server: &Server) -> Vec<FleetHost> {
    let mut fleet = FleetServiceClient::new(server.channel(server.pki.viewer()).await);
    fleet.list(ListHostsRequest::default()).await.unwrap().into_inner().hosts
}

async fn changes(server: &Server) -> Vec<HostChange> {
    let filter = Filter { kinds: vec![Kind::Host.into()], ..Filter::default() };
    let events = search_all(&mut server.query().await, filter, 1000).await;
    events.into_iter().filter_map(|event| event.host_change).collect()
}

fn state(policy: &str) -> HostState {
    HostState {
        version: "0.1.0".to_owned(),
        kernel: "6.12.1".to_owned(),
        policy: policy.to_owned(),
        ..HostState::default()
    }
}

#[tokio::test]
async fn what_an_agent_says_is_shown_and_survives_a_restart() {
    let server = Server::start().await;
    let mut agent = server.agent("pc-1").await;
    agent.say(state("持出し禁止")).await;
    // An acknowledgement of what came behind it says that it was read.
    assert_eq!(agent.deliver(events(1..3)).await.unwrap(), 2);
    let shown = hosts(&server).await;
    assert_eq!(shown.len(), 1);
    let host = &shown[0];
    assert_eq!((host.host.as_str(), host.connected, host.silent), ("pc-1", true, false));
    assert_eq!(host.state.as_ref().unwrap().policy, "持出し禁止");
    assert_eq!(host.address, "127.0.0.1");
    assert!(host.certificate_end_ns > host.last_seen_ns && !host.certificate_serial.is_empty());
    drop(agent);
    let pki = server.stop().await;
    let server = Server::start_with(pki, |config| config).await;
    let again = hosts(&server).await;
    assert_eq!(again.len(), 1);
    assert!(!again[0].connected);
    assert_eq!(again[0].state, host.state);
    assert_eq!(again[0].first_seen_ns, host.first_seen_ns);
}

#[tokio::test]
async fn too_long_a_state_is_not_kept_and_the_events_are() {
    let server = Server::start().await;
    let mut agent = server.agent("pc-1").await;
    agent.say(state(&"長".repeat(10_000))).await;
    assert_eq!(agent.deliver(events(1..3)).await.unwrap(), 2);
    assert_eq!(hosts(&server).await[0].state, None);
}

#[tokio::test]
async fn who_is_silent_is_said_once_and_so_is_the_return() {
    let server = Server::start_with(Pki::new(), |mut config| {
        config.silent_after = Duration::from_secs(1);
        config
    })
    .await;
    let mut agent = server.agent("pc-1").await;
    agent.say(state("p")).await;
    agent.deliver(events(1..3)).await.unwrap();
    drop(agent);
    tokio::time::sleep(Duration::from_secs(12)).await;
    let said = changes(&server).await;
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!((said[0].turn(), said[0].name.as_str()), (HostTurn::Silent, "pc-1"));
    assert!(hosts(&server).await[0].silent);
    // Another collector on the same store says it neither again nor the opposite.
    let pki = server.stop().await;
    let server = Server::start_with(pki, |mut config| {
        config.silent_after = Duration::from_secs(20);
        config
    })
    .await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(changes(&server).await.len(), 1);
    let mut agent = server.agent("pc-1").await;
    agent.deliver(events(3..5)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let said = changes(&server).await;
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(said[1].turn(), HostTurn::Returned);
    assert!(!hosts(&server).await[0].silent);
}

#[tokio::test]
async fn an_order_waits_for_the_host_and_is_kept_over_restarts() {
    let server = Server::start().await;
    server.agent("pc-1").await.deliver(events(1..3)).await.unwrap();
    let ask = || IsolateRequest { host: "pc-1".into(), reason: "マルウェアの疑い".into() };
    let mut viewer = FleetServiceClient::new(server.channel(server.pki.viewer()).await);
    assert_eq!(viewer.isolate(ask()).await.unwrap_err().code(), Code::PermissionDenied);
    let mut admin = FleetServiceClient::new(server.channel(server.pki.admin()).await);
    let nobody = IsolateRequest { host: "pc-9".into(), ..ask() };
    assert_eq!(admin.isolate(nobody).await.unwrap_err().code(), Code::NotFound);
    let silent = IsolateRequest { reason: " ".into(), ..ask() };
    assert_eq!(admin.isolate(silent).await.unwrap_err().code(), Code::InvalidArgument);
    admin.isolate(ask()).await.unwrap();
    drop((viewer, admin));
    // The collector is killed, as far as the order is concerned: it was kept before the answer.
    let pki = server.stop().await;
    let server = Server::start_with(pki, |config| config).await;
    for _ in 0..2 {
        let mut agent = server.agent("pc-1").await;
        agent.say(state("p")).await;
        let order = agent.acknowledged().await.unwrap().unwrap().isolation.unwrap();
        assert!(order.isolated);
        assert_eq!((order.reason.as_str(), order.by.as_str()), ("マルウェアの疑い", "admin jiro"));
    }
    let mut agent = server.agent("pc-1").await;
    let order = agent.acknowledged().await.unwrap().unwrap().isolation.unwrap();
    agent.say(HostState { isolation_order: order.order, isolated: true, ..state("p") }).await;
    // Done: it does not come again, and batches are acknowledged as ever.
    assert_eq!(agent.deliver(events(3..5)).await.unwrap(), 2);
    let mut again = server.agent("pc-1").await;
    assert_eq!(again.deliver(events(5..7)).await.unwrap(), 2);
    // While the stream is open the next order comes at once.
    let mut admin = FleetServiceClient::new(server.channel(server.pki.admin()).await);
    let release = ReleaseRequest { host: "pc-1".into(), reason: "clean".into() };
    admin.release(release).await.unwrap();
    let next = agent.acknowledged().await.unwrap().unwrap().isolation.unwrap();
    assert!(!next.isolated && next.order > order.order);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let said = changes(&server).await;
    assert_eq!(said.len(), 1, "the release is not done: {said:?}");
    assert_eq!((said[0].turn(), said[0].ordered_by.as_str()), (HostTurn::Isolated, "admin jiro"));
    let filter = Filter { kinds: vec![Kind::Operator.into()], ..Filter::default() };
    let acts = search_all(&mut server.query().await, filter, 1000).await;
    let acts = acts.into_iter().filter_map(|event| event.act);
    let orders: Vec<String> = acts
        .filter(|act| act.role == "admin")
        .map(|act| format!("{} {}", act.method, act.question))
        .collect();
    assert_eq!(
        orders,
        ["Isolate pc-1 --reason \"マルウェアの疑い\"", "Release pc-1 --reason \"clean\""]
    );
}

#[tokio::test]
async fn agents_and_strangers_do_not_see_the_fleet() {
    let server = Server::start().await;
    let mut fleet = FleetServiceClient::new(server.agent_channel("pc-1").await);
    let refused = fleet.list(ListHostsRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let mut fleet = FleetServiceClient::new(server.channel(server.pki.viewer()).await);
    let request = ListHostsRequest { limit: 1001, ..ListHostsRequest::default() };
    assert_eq!(fleet.list(request).await.unwrap_err().code(), Code::InvalidArgument);
}
