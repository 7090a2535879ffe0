//! Enrolment by token, renewal, and what a stranger may not do.

use std::path::Path;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384};
use sekimori_collector::identity::{Rank, Role};
use sekimori_collector::pki::{self, Offer};
use sekimori_proto::token::Token;
use sekimori_proto::v1::enroll_service_client::EnrollServiceClient;
use sekimori_proto::v1::query_service_client::QueryServiceClient;
use sekimori_proto::v1::{
    EnrollRequest, EnrollResponse, Event, Filter, HostTurn, Kind, RenewRequest, StatusRequest,
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use tonic::{Code, Status};

use crate::support::{AgentStream, Server, connect, events, read, search_all};

fn bare(server: &Server) -> ClientTlsConfig {
    ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read(server.pki.dir.join("ca.pem"))))
        .domain_name("localhost")
}

pub async fn stranger(server: &Server) -> Channel {
    connect(server.address, bare(server)).await.unwrap()
}

fn token(dir: &Path, name: &str, role: Role) -> Token {
    let valid = Duration::from_secs(60);
    pki::issue_token(dir, &Offer { name, role, valid, days: 30, by: "uid 0" }).unwrap()
}

/// A key and a request for it. What stands in the request beside the key is a lie.
fn request() -> (KeyPair, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    let uri = "sekimori:admin:mallory".try_into().unwrap();
    params.subject_alt_names.push(rcgen::SanType::URI(uri));
    let csr = params.serialize_request(&key).unwrap().der().to_vec();
    (key, csr)
}

async fn enroll(server: &Server, token: &Token) -> Result<(KeyPair, EnrollResponse), Status> {
    let (key, csr) = request();
    let mut client = EnrollServiceClient::new(stranger(server).await);
    let answer = client.enroll(EnrollRequest { token: token.to_string(), csr }).await?;
    Ok((key, answer.into_inner()))
}

async fn as_holder(server: &Server, key: &KeyPair, certificate: &str) -> Channel {
    let tls = bare(server).identity(Identity::from_pem(certificate, key.serialize_pem()));
    connect(server.address, tls).await.unwrap()
}

async fn delivers(channel: Channel) -> Result<u32, Status> {
    AgentStream::open(channel).await?.deliver(events(1..3)).await
}

async fn changes(server: &Server) -> Vec<Event> {
    let filter = Filter { kinds: vec![Kind::Host.into()], ..Filter::default() };
    search_all(&mut server.query().await, filter, 1000).await
}

#[tokio::test]
async fn a_host_enrols_with_a_token_once() {
    let server = Server::start().await;
    let token = token(&server.pki.dir, "desk-12", Role::Agent);
    let (key, answer) = enroll(&server, &token).await.unwrap();
    assert_eq!((answer.name.as_str(), answer.role.as_str()), ("desk-12", "agent"));
    assert_eq!(answer.ca.as_bytes(), read(server.pki.dir.join("ca.pem")));
    assert_eq!(delivers(as_holder(&server, &key, &answer.certificate).await).await.unwrap(), 2);
    let again = enroll(&server, &token).await.unwrap_err();
    assert_eq!(again.code(), Code::PermissionDenied);
    assert!(again.message().contains("unknown, was used before, or is out of date"), "{again}");

    let changes = changes(&server).await;
    assert_eq!(changes.len(), 1);
    assert!(changes[0].host.starts_with("collector:"));
    let change = changes[0].host_change.clone().unwrap();
    assert_eq!(change.turn(), HostTurn::Enrolled);
    assert_eq!((change.name.as_str(), change.role.as_str()), ("desk-12", "agent"));
    assert!(change.address.starts_with("127.0.0.1:"), "{change:?}");
    assert_eq!((change.token, change.token_by.as_str()), (token.name(), "uid 0"));
    assert!(!change.superseded && change.serial.len() > 20);
}

#[tokio::test]
async fn of_two_at_the_same_time_one_gets_a_certificate() {
    let server = Server::start().await;
    for round in 0..5 {
        let token = token(&server.pki.dir, &format!("desk-{round}"), Role::Agent);
        let tries = (0..6).map(|_| enroll(&server, &token));
        let answers = futures_util::future::join_all(tries).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    }
    assert_eq!(changes(&server).await.len(), 5);
}

#[tokio::test]
async fn a_machine_that_is_installed_again_takes_the_place_of_the_old_one() {
    let server = Server::start().await;
    let first = token(&server.pki.dir, "desk-12", Role::Agent);
    let (old_key, old) = enroll(&server, &first).await.unwrap();
    let mut open =
        AgentStream::open(as_holder(&server, &old_key, &old.certificate).await).await.unwrap();
    open.deliver(events(1..3)).await.unwrap();
    let second = token(&server.pki.dir, "desk-12", Role::Agent);
    let (key, new) = enroll(&server, &second).await.unwrap();
    // The stream of the old one ends; the new one gets in.
    let ended = tokio::time::timeout(Duration::from_secs(30), open.acknowledged()).await.unwrap();
    assert!(ended.is_err());
    assert_eq!(delivers(as_holder(&server, &key, &new.certificate).await).await.unwrap(), 0);
    let last = changes(&server).await.pop().unwrap().host_change.unwrap();
    assert!(last.superseded, "{last:?}");
    // One that was enrolled here and never seen is replaced as well.
    let third = token(&server.pki.dir, "pc-2", Role::Agent);
    enroll(&server, &third).await.unwrap();
    assert!(changes(&server).await.pop().unwrap().host_change.unwrap().superseded);
}

#[tokio::test]
async fn an_operator_enrols_for_their_rank_and_no_other() {
    let server = Server::start().await;
    let token = token(&server.pki.dir, "saburo", Role::Operator(Rank::Viewer));
    let (key, answer) = enroll(&server, &token).await.unwrap();
    assert_eq!(answer.role, "viewer");
    let channel = as_holder(&server, &key, &answer.certificate).await;
    let mut query = QueryServiceClient::new(channel.clone());
    query.status(StatusRequest {}).await.unwrap();
    let refused = query.search(sekimori_proto::v1::SearchRequest::default()).await.unwrap_err();
    assert!(refused.message().starts_with("viewer saburo may not read"), "{refused}");
    let refused = AgentStream::open(channel).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_bad_request_does_not_use_the_token_up() {
    let server = Server::start().await;
    let token = token(&server.pki.dir, "desk-12", Role::Agent);
    let mut client = EnrollServiceClient::new(stranger(&server).await);
    let other = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let other = CertificateParams::default().serialize_request(&other).unwrap();
    let (_, mut forged) = request();
    let end = forged.len() - 1;
    forged[end] ^= 1;
    for csr in [Vec::new(), vec![0x30; 5000], other.der().to_vec(), forged] {
        let request = EnrollRequest { token: token.to_string(), csr };
        let refused = client.enroll(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(!refused.message().contains(&token.to_string()), "no secret in an error");
    }
    enroll(&server, &token).await.unwrap();
}

#[tokio::test]
async fn without_the_key_of_the_authority_nothing_is_used_up_and_nothing_is_told() {
    let server = Server::start().await;
    let (key, away) = (server.pki.dir.join("ca.key"), server.pki.dir.join("away.key"));
    std::fs::rename(&key, &away).unwrap();
    let token = token(&server.pki.dir, "desk-12", Role::Agent);
    let refused = enroll(&server, &token).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(!refused.message().contains(server.pki.dir.to_str().unwrap()), "{refused}");
    std::fs::rename(&away, &key).unwrap();
    enroll(&server, &token).await.unwrap();
}

#[tokio::test]
async fn too_many_attempts_are_refused_and_good_ones_do_not_count() {
    let server = Server::start().await;
    for number in 0..30 {
        let token = token(&server.pki.dir, &format!("desk-{number}"), Role::Agent);
        enroll(&server, &token).await.unwrap();
    }
    let good = token(&server.pki.dir, "desk-99", Role::Agent);
    let wrong = Token { secret: [0; 32], ..good.clone() };
    let mut client = EnrollServiceClient::new(stranger(&server).await);
    let mut codes = Vec::new();
    for _ in 0..25 {
        let (_, csr) = request();
        let request = EnrollRequest { token: wrong.to_string(), csr };
        codes.push(client.enroll(request).await.unwrap_err().code());
    }
    assert_eq!(codes.iter().filter(|code| **code == Code::PermissionDenied).count(), 20);
    assert_eq!(codes.last(), Some(&Code::ResourceExhausted));
    // Nobody's agent is disturbed.
    assert_eq!(server.agent("pc-1").await.deliver(events(1..3)).await.unwrap(), 2);
}

#[tokio::test]
async fn a_certificate_is_renewed_under_the_same_name_and_role() {
    let server = Server::start().await;
    let token = token(&server.pki.dir, "desk-12", Role::Agent);
    let (key, answer) = enroll(&server, &token).await.unwrap();
    let channel = as_holder(&server, &key, &answer.certificate).await;
    let (new_key, csr) = request();
    let mut client = EnrollServiceClient::new(channel.clone());
    let renewed = client.renew(RenewRequest { csr }).await.unwrap().into_inner();
    let stored = delivers(as_holder(&server, &new_key, &renewed.certificate).await).await;
    assert_eq!(stored.unwrap(), 2);
    let life = |pem: &str| {
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        let validity = certificate.validity();
        validity.not_after.timestamp() - validity.not_before.timestamp()
    };
    assert_eq!(life(&answer.certificate), 31 * 86_400);
    assert!((life(&renewed.certificate) - 31 * 86_400).abs() <= 1);
    let change = changes(&server).await.pop().unwrap().host_change.unwrap();
    assert_eq!((change.turn(), change.name.as_str()), (HostTurn::Renewed, "desk-12"));
    assert!(change.serial != change.serial_before && !change.serial_before.is_empty());
    // Whoever is revoked cannot renew, not even on the connection that is open.
    pki::revoke(&server.pki.dir, "desk-12", Role::Agent, "stolen").unwrap();
    let (_, csr) = request();
    client.renew(RenewRequest { csr }).await.unwrap_err();
    let refused = EnrollServiceClient::new(stranger(&server).await);
    let (_, csr) = request();
    let refused = { refused }.renew(RenewRequest { csr }).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn renewals_without_end_are_refused() {
    let server = Server::start().await;
    let mut client = EnrollServiceClient::new(server.agent_channel("pc-1").await);
    let mut codes = Vec::new();
    for _ in 0..12 {
        let (_, csr) = request();
        codes.push(
            client.renew(RenewRequest { csr }).await.map_or_else(|it| it.code(), |_| Code::Ok),
        );
    }
    assert_eq!(codes.iter().filter(|code| **code == Code::Ok).count(), 10);
    assert_eq!(codes.last(), Some(&Code::ResourceExhausted));
}

#[tokio::test]
async fn whoever_has_a_certificate_does_not_enrol() {
    let server = Server::start().await;
    let token = token(&server.pki.dir, "desk-12", Role::Operator(Rank::Admin));
    let (_, csr) = request();
    let mut client = EnrollServiceClient::new(server.agent_channel("pc-1").await);
    let refused = client.enroll(EnrollRequest { token: token.to_string(), csr }).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

/// Every call that there is, as the descriptions of the services have it.
fn all_calls() -> Vec<String> {
    use prost::Message as _;
    let sets = [
        sekimori_proto::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let files =
        sets.iter().flat_map(|set| prost_types::FileDescriptorSet::decode(*set).unwrap().file);
    let calls = files.flat_map(|file| {
        let package = file.package.unwrap_or_default();
        file.service.into_iter().flat_map(move |service| {
            let name = format!("/{package}.{}", service.name());
            service.method.into_iter().map(move |method| format!("{name}/{}", method.name()))
        })
    });
    calls.collect()
}

/// What becomes of a call with these messages.
async fn code_of(
    client: &mut tonic::client::Grpc<Channel>,
    call: &str,
    messages: impl tokio_stream::Stream<Item = ()> + Send + 'static,
) -> Code {
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let path = call.parse().unwrap();
    let answered = client.streaming(tonic::Request::new(messages), path, codec).await;
    let answered = match answered {
        Ok(answer) => answer.into_inner().message().await.map(|_| ()),
        Err(status) => Err(status),
    };
    answered.unwrap_err().code()
}

#[tokio::test]
async fn a_stranger_may_call_nothing_but_enroll() {
    let server = Server::start().await;
    let calls = all_calls();
    assert!(calls.len() >= 11, "{calls:?}");
    let mut client = tonic::client::Grpc::new(stranger(&server).await);
    for call in calls {
        let code = code_of(&mut client, &call, tokio_stream::once(())).await;
        if call.ends_with("EnrollService/Enroll") {
            assert_eq!(code, Code::InvalidArgument, "{call}: no token was sent");
        } else {
            assert_eq!(code, Code::Unauthenticated, "{call}");
        }
    }
}

#[tokio::test]
async fn an_agent_is_turned_away_from_all_that_is_not_for_agents_before_it_has_said_anything() {
    let server = Server::start().await;
    let mut client = tonic::client::Grpc::new(server.agent_channel("pc-1").await);
    for call in all_calls() {
        let own = ["IngestService/Stream", "EnrollService/Enroll", "EnrollService/Renew"];
        if !own.iter().any(|own| call.ends_with(own)) {
            // No message ever comes.
            let code = code_of(&mut client, &call, tokio_stream::pending()).await;
            assert_eq!(code, Code::PermissionDenied, "{call}");
        }
    }
    assert_eq!(server.agent("pc-1").await.deliver(events(1..=3)).await.unwrap(), 3);
}

#[tokio::test]
async fn strangers_take_few_places_and_agents_come_in_beside_them() {
    let server = Server::start().await;
    let mut kept = Vec::new();
    for _ in 0..16 {
        let mut client = EnrollServiceClient::new(stranger(&server).await);
        let refused = client.enroll(EnrollRequest::default()).await.unwrap_err();
        assert!(matches!(refused.code(), Code::InvalidArgument | Code::ResourceExhausted));
        kept.push(client);
    }
    let one_more = match connect(server.address, bare(&server)).await {
        Ok(channel) => EnrollServiceClient::new(channel).enroll(EnrollRequest::default()).await,
        Err(_) => Err(Status::unavailable("not let in")),
    };
    let code = one_more.unwrap_err().code();
    assert!(matches!(code, Code::Unavailable | Code::Unknown), "{code:?}");
    assert_eq!(server.agent("pc-1").await.deliver(events(1..3)).await.unwrap(), 2);
}
