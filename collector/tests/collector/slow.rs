//! Whoever is silent, or says one byte at a time: their own connections end, and nobody waits.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use sekimori_collector::limits::{HANDSHAKES_MAX, HOST_STREAMS_MAX, PEER_CONNECTIONS_MAX};
use sekimori_proto::v1::Filter;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::{Service as _, ServiceExt as _};

use crate::metrics::{get, value};
use crate::support::{Server, events, search_all, sequences};

/// The beginning of HTTP/2, with settings that ask for nothing.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Longer than every limit that these tests wait for.
const LONG: Duration = Duration::from_secs(90);

/// A connection from another address of loopback.
async fn from_elsewhere(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    socket.connect(address).await.unwrap()
}

/// TLS with the certificate in `peer`, and nothing behind it.
async fn shaken(server: &Server, peer: &Path) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(server.pki.dir.join("ca.pem")).unwrap()).unwrap();
    let certificate = CertificateDer::from_pem_file(peer.join("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(peer.join("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config =
        config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let mut config = config.with_client_auth_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

/// Waits until the collector ends a connection.
async fn ends(mut stream: impl AsyncRead + Unpin) {
    let _ = timeout(LONG, stream.read_to_end(&mut Vec::new())).await.expect("it is cut");
}

/// One byte a second, until the collector ends the connection.
async fn says_slowly(mut stream: TlsStream<TcpStream>, text: &[u8]) {
    let mut said = 0;
    for byte in text.iter().cycle() {
        let mut answer = [0; 64];
        let told = stream.write_all(&[*byte]).await.and(stream.flush().await);
        let read = timeout(Duration::from_secs(1), stream.read(&mut answer)).await;
        if told.is_err() || matches!(read, Ok(Ok(0) | Err(_))) {
            return;
        }
        said += 1;
        assert!(said < LONG.as_secs(), "it is cut");
    }
}

/// An agent and an operator are served.
async fn others_are_served(server: &Server, sequence: u64) {
    let mut agent = server.agent("pc-1").await;
    assert_eq!(agent.deliver(events([sequence])).await.unwrap(), 1);
    let filter = Filter { hosts: vec!["pc-1".into()], ..Filter::default() };
    let stored = search_all(&mut server.query().await, filter, 100).await;
    assert_eq!(sequences(&stored), (1..=sequence).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_and_single_bytes_before_http_end_and_hold_up_nobody() {
    let server = Server::start().await;
    let peer = server.pki.agent("pc-2");
    let mut silent = Vec::new();
    for _ in 0..HANDSHAKES_MAX / 2 + 40 {
        silent.push(from_elsewhere(server.address).await);
    }
    others_are_served(&server, 1).await;
    let mut half = from_elsewhere(server.address).await;
    half.write_all(&[0x16, 0x03, 0x01]).await.unwrap();
    let (mute, slow) = (shaken(&server, &peer).await, shaken(&server, &peer).await);
    let slow = tokio::spawn(async move { says_slowly(slow, &PREFACE[..24]).await });
    others_are_served(&server, 2).await;
    for stream in silent {
        ends(stream).await;
    }
    ends(half).await;
    ends(mute).await;
    slow.await.unwrap();
    others_are_served(&server, 3).await;
}

/// Whether the collector speaks HTTP/2 with it.
async fn is_let_in(stream: &mut TlsStream<TcpStream>) -> bool {
    let told = stream.write_all(PREFACE).await.and(stream.flush().await);
    told.is_ok() && matches!(stream.read(&mut [0; 9]).await, Ok(1..))
}

#[tokio::test]
async fn one_certificate_has_so_many_connections_and_others_have_theirs() {
    let server = Server::start().await;
    let peer = server.pki.agent("pc-2");
    let mut streams = Vec::new();
    for _ in 0..PEER_CONNECTIONS_MAX {
        let mut stream = shaken(&server, &peer).await;
        assert!(is_let_in(&mut stream).await);
        streams.push(stream);
    }
    assert!(!is_let_in(&mut shaken(&server, &peer).await).await);
    others_are_served(&server, 1).await;
    let viewer = server.channel(server.pki.viewer()).await;
    let (_, text) = get(&viewer, "/metrics").await;
    let refused = "sekimori_collector_connections_refused_total{reason=\"room\"}";
    assert_eq!(value(&text, refused), 1.0, "{text}");
    streams.pop();
    let again = async {
        while !is_let_in(&mut shaken(&server, &peer).await).await {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, again).await.expect("there is room again");
}

/// A stream of events, which is sent as it is.
async fn raw_stream(channel: &Channel) -> (mpsc::Sender<Bytes>, Response<Body>) {
    let (sender, receiver) = mpsc::channel(8);
    let frames = ReceiverStream::new(receiver).map(|it| Ok::<_, Status>(Frame::data(it)));
    let request = Request::post("https://localhost/sekimori.v1.IngestService/Stream")
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let request = request.body(Body::new(StreamBody::new(frames))).unwrap();
    let mut channel = channel.clone();
    let response = channel.ready().await.unwrap().call(request).await.unwrap();
    (sender, response)
}

fn refusal(response: &Response<Body>) -> Option<Code> {
    Status::from_header_map(response.headers()).map(|status| status.code())
}

#[tokio::test]
async fn messages_that_do_not_end_take_the_room_of_their_own_host() {
    let server = Server::start().await;
    let channel = server.agent_channel("pc-2").await;
    let mut streams = Vec::new();
    for number in 0..HOST_STREAMS_MAX {
        let (sender, response) = raw_stream(&channel).await;
        assert_eq!(refusal(&response), None);
        // The beginning of a message of a megabyte, and of none.
        let begun = [&[0, 0, 16, 0, 0][..], &[7; 1000]].concat();
        sender.send(begun[..number * 60].to_vec().into()).await.unwrap();
        streams.push((sender, response));
    }
    let (_, response) = raw_stream(&channel).await;
    assert_eq!(refusal(&response), Some(Code::ResourceExhausted));
    others_are_served(&server, 1).await;
    for (sender, _) in &streams {
        sender.send(Bytes::from_static(b"\0")).await.unwrap();
    }
    others_are_served(&server, 2).await;
    streams.pop();
    let again = async {
        while refusal(&raw_stream(&channel).await.1).is_some() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, again).await.expect("there is room again");
}
