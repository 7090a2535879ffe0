//! What a stock client needs: reflection, both versions, and health.

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};

use crate::support::Server;

const SERVICES: [&str; 5] = [
    "sekimori.v1.IngestService",
    "sekimori.v1.QueryService",
    "sekimori.v1.WatchService",
    "sekimori.v1.EnrollService",
    "sekimori.v1.FleetService",
];

#[tokio::test]
async fn reflection_lists_and_describes_the_services() {
    use v1::server_reflection_client::ServerReflectionClient;
    use v1::server_reflection_request::MessageRequest;
    use v1::server_reflection_response::MessageResponse;
    let server = Server::start().await;
    let mut client = ServerReflectionClient::new(server.analyst_channel().await);
    let ask = |request| v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(request),
    };
    let requests = tokio_stream::iter([
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("sekimori.v1.QueryService.Search".into())),
        ask(MessageRequest::FileContainingSymbol("sekimori.v1.Event".into())),
    ]);
    let mut answers = client.server_reflection_info(requests).await.unwrap().into_inner();
    let mut next = async || answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = next().await else {
        panic!("expected a list");
    };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    for name in SERVICES.into_iter().chain(["grpc.health.v1.Health"]) {
        assert!(names.iter().any(|known| known == name), "{name} is not in {names:?}");
    }
    for _ in 0..2 {
        let MessageResponse::FileDescriptorResponse(files) = next().await else {
            panic!("expected a file");
        };
        assert_eq!(files.file_descriptor_proto.len(), 1);
    }
}

#[tokio::test]
async fn older_clients_find_reflection_too() {
    use v1alpha::server_reflection_client::ServerReflectionClient;
    use v1alpha::server_reflection_request::MessageRequest;
    use v1alpha::server_reflection_response::MessageResponse;
    let server = Server::start().await;
    let mut client = ServerReflectionClient::new(server.analyst_channel().await);
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else {
        panic!("expected a list");
    };
    for name in SERVICES {
        assert!(list.service.iter().any(|known| known.name == name), "{name}");
    }
}

#[tokio::test]
async fn health_is_serving() {
    let server = Server::start().await;
    let mut client = HealthClient::new(server.analyst_channel().await);
    for service in SERVICES.into_iter().chain([""]) {
        let request = HealthCheckRequest { service: service.into() };
        let status = client.check(request).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service}");
    }
}
