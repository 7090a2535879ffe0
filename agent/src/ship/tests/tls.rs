use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use super::collector::{Fake, Manner};
use super::*;
use crate::config::Tls;

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    Authority { pem, issuer: Issuer::new(params, key) }
}

impl Authority {
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        (cert.pem(), key.serialize_pem())
    }
}

/// A collector on loopback that asks for certificates of `authority`; its address.
async fn serve(collector: &Fake, authority: &Authority) -> String {
    let (cert, key) = authority.sign("collector.test");
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(cert, key))
        .client_ca_root(Certificate::from_pem(&authority.pem));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = Server::builder()
        .tls_config(tls)
        .unwrap()
        .add_service(collector.service())
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(async move { server.await.unwrap() });
    format!("https://127.0.0.1:{port}")
}

/// Writes the agent's files, its certificate signed by `own`, trusting `trusted`.
fn files(directory: &Path, own: &Authority, trusted: &Authority, mode: u32) -> Tls {
    let (cert, key) = own.sign("agent.test");
    let path = |name: &str| directory.join(name);
    fs::write(path("ca.pem"), &trusted.pem).unwrap();
    fs::write(path("agent.pem"), cert).unwrap();
    fs::write(path("agent.key"), key).unwrap();
    fs::set_permissions(path("agent.key"), fs::Permissions::from_mode(mode)).unwrap();
    Tls {
        ca: path("ca.pem"),
        cert: path("agent.pem"),
        key: path("agent.key"),
        server_name: Some("collector.test".into()),
    }
}

fn https(address: String, tls: Tls) -> Collector {
    Collector { address: Address::Https(address), tls: Some(tls) }
}

async fn first_error(collector: Collector, directory: &Path) -> String {
    let spool = spool(&directory.join("spool"));
    fill(&spool, 1..11);
    let shipper = Shipper::start(collector, spool, News::default());
    let status = until(&shipper, |status| matches!(status.state, ShipState::Retrying { .. })).await;
    let ShipState::Retrying { error, .. } = status.state else { panic!() };
    assert_eq!(status.acknowledged, 0);
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn mutual_tls_delivers() {
    let directory = tempfile::tempdir().unwrap();
    let authority = authority("関守 test");
    let collector = Fake::new(Manner::default());
    let address = serve(&collector, &authority).await;
    let tls = files(directory.path(), &authority, &authority, 0o600);
    let spool = spool(&directory.path().join("spool"));
    fill(&spool, 1..101);
    let shipper = Shipper::start(https(address, tls), spool, News::default());
    assert_eq!(shipper.drain(PATIENCE).await.acknowledged, 100);
    assert_eq!(collector.times(), (1..=100).collect::<Vec<i64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_someone_else_is_refused_on_both_sides() {
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let collector = Fake::new(Manner::default());
    let address = serve(&collector, &ours).await;
    let directory = tempfile::tempdir().unwrap();
    let tls = files(directory.path(), &ours, &theirs, 0o600);
    let error = first_error(https(address.clone(), tls), directory.path()).await;
    assert!(error.contains("certificate") && error.contains(&address), "{error}");
    let directory = tempfile::tempdir().unwrap();
    let tls = files(directory.path(), &theirs, &ours, 0o600);
    first_error(https(address.clone(), tls), directory.path()).await;
    let directory = tempfile::tempdir().unwrap();
    let tls = files(directory.path(), &ours, &ours, 0o600);
    let wrong = Tls { server_name: Some("other.test".into()), ..tls };
    let error = first_error(https(address, wrong), directory.path()).await;
    assert!(error.contains("certificate"), "{error}");
    assert_eq!(collector.times(), Vec::<i64>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_others_may_read_is_refused() {
    let authority = authority("ours");
    let collector = Fake::new(Manner::default());
    let address = serve(&collector, &authority).await;
    let directory = tempfile::tempdir().unwrap();
    let tls = files(directory.path(), &authority, &authority, 0o640);
    let error = first_error(https(address, tls), directory.path()).await;
    assert!(error.contains("agent.key") && error.contains("640"), "{error}");
    assert!(error.contains("chmod 600"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_file_is_named() {
    let authority = authority("ours");
    let directory = tempfile::tempdir().unwrap();
    let tls = files(directory.path(), &authority, &authority, 0o600);
    fs::remove_file(&tls.cert).unwrap();
    let error = first_error(https("https://127.0.0.1:1".into(), tls), directory.path()).await;
    assert!(error.contains("agent.pem") && error.contains("enroll"), "{error}");
}
