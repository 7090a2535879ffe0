//! What Prometheus is told, and who is told it.

use sekimori_proto::v1::watch_service_client::WatchServiceClient;
use sekimori_proto::v1::{AggregateRequest, Field, SearchRequest, SubscribeRequest};
use tonic::codegen::http::{Request, StatusCode};
use tonic::transport::Channel;
use tower::{Service as _, ServiceExt as _};

use crate::enroll::stranger;
use crate::support::{Server, events};

/// What a GET of `path` answers over this channel, as HTTP and not as gRPC.
pub async fn get(channel: &Channel, path: &str) -> (StatusCode, String) {
    let mut channel = channel.clone();
    let request = Request::get(path).body(tonic::body::Body::empty()).unwrap();
    let response = channel.ready().await.unwrap().call(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(axum::body::Body::new(body), 1 << 20).await.unwrap();
    (parts.status, String::from_utf8(body.to_vec()).unwrap())
}

pub fn value(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_operator_sees_how_the_collector_does() {
    let server = Server::start().await;
    let mut agent = server.agent("pc-1").await;
    agent.deliver(events(1..=25)).await.unwrap();
    let mut watch = WatchServiceClient::new(server.analyst_channel().await);
    let _stream = watch.subscribe(SubscribeRequest::default()).await.unwrap();
    let viewer = server.channel(server.pki.viewer()).await;
    let (status, text) = get(&viewer, "/metrics").await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let value = |name: &str| value(&text, name);
    let of = |kind| value(&format!("sekimori_collector_events_stored_total{{kind=\"{kind}\"}}"));
    assert_eq!(of("file.open"), 25.0);
    // The record of the live stream.
    assert_eq!(of("operator"), 1.0);
    let sent: usize = events(1..=25).iter().map(prost::Message::encoded_len).sum();
    assert_eq!(value("sekimori_collector_received_bytes_total"), sent as f64);
    assert!(!text.contains("sekimori_collector_batches_invalid_total{"), "{text}");
    assert_eq!(value("sekimori_collector_store_events"), 26.0);
    assert_eq!(value("sekimori_collector_agents_connected"), 1.0);
    assert_eq!(value("sekimori_collector_live_streams"), 1.0);
    assert_eq!(value("sekimori_collector_hosts_silent"), 0.0);
    assert!(value("sekimori_collector_commit_seconds_count") >= 2.0, "{text}");
    assert!(value("sekimori_collector_store_bytes") > 0.0, "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
    assert!(!text.contains("pc-1"), "a host is named: {text}");
}

#[tokio::test]
async fn nobody_else_does() {
    let server = Server::start().await;
    let (status, text) = get(&server.agent_channel("pc-1").await, "/metrics").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(!text.contains("sekimori_collector_"), "{text}");
    let viewer = server.channel(server.pki.viewer()).await;
    let (_, text) = get(&viewer, "/metrics/../state").await;
    assert!(!text.contains("sekimori_collector_"), "{text}");
}

#[tokio::test]
async fn a_stranger_is_told_in_http() {
    let server = Server::start().await;
    let (status, text) = get(&stranger(&server).await, "/metrics").await;
    assert_eq!((status, text.as_str()), (StatusCode::UNAUTHORIZED, ""));
}

#[tokio::test]
async fn a_batch_that_cannot_be_true_is_counted() {
    let server = Server::start().await;
    let mut agent = server.agent("pc-1").await;
    agent.deliver(events([0])).await.unwrap_err();
    let viewer = server.channel(server.pki.viewer()).await;
    let (_, text) = get(&viewer, "/metrics").await;
    let name = "sekimori_collector_batches_invalid_total{reason=\"sequence\"}";
    assert_eq!(value(&text, name), 1.0, "{text}");
    assert!(value(&text, "sekimori_collector_received_bytes_total") > 0.0, "{text}");
}

#[tokio::test]
async fn the_time_of_questions_is_told_by_method() {
    let server = Server::start().await;
    let mut query = server.query().await;
    for _ in 0..2 {
        query.search(SearchRequest::default()).await.unwrap();
    }
    let by = vec![Field::Host.into()];
    query.aggregate(AggregateRequest { by, ..AggregateRequest::default() }).await.unwrap();
    let viewer = server.channel(server.pki.viewer()).await;
    let (_, text) = get(&viewer, "/metrics").await;
    let of = |method| {
        value(&text, &format!("sekimori_collector_question_seconds_count{{method=\"{method}\"}}"))
    };
    assert_eq!((of("Search"), of("Aggregate")), (2.0, 1.0), "{text}");
}
