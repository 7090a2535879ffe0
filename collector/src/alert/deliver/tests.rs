#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use ring::hmac;
use rstest::rstest;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_rustls::TlsAcceptor;

use super::*;

const SECRET: &str = "a secret of enough bytes";

/// A directory with an authority and secrets, and what a server needs.
struct World {
    dir: tempfile::TempDir,
    acceptor: TlsAcceptor,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let authority_key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&authority_key).unwrap();
        std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
        let issuer = Issuer::new(params, authority_key);
        let key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let server = server.signed_by(&key, &issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from(server.der().to_vec())],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let world = World { dir, acceptor: TlsAcceptor::from(Arc::new(config)) };
        world.secret("secret", SECRET, 0o600);
        world.secret("password", "合言葉", 0o600);
        world
    }

    fn secret(&self, name: &str, text: &str, mode: u32) {
        let path = self.dir.path().join(name);
        std::fs::write(&path, format!("{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn endpoint(&self, egress: &[String], text: &str) -> Result<Endpoint, EndpointError> {
        let config: EndpointConfig = serde_saphyr::from_str(text).unwrap();
        let egress = Egress::try_from(egress.to_vec()).unwrap();
        Endpoint::new(&config, &egress, self.dir.path())
    }
}

fn notice() -> Notice {
    Notice {
        id: "17-4".to_owned(),
        severity: Severity::High,
        rule: "大量コピー".to_owned(),
        title: "[high] 大量コピー: pc-1, 花子\r\nBcc: evil@example.com".to_owned(),
        text: "host: pc-1\nuser: 花子\n<134>1 forged\n".to_owned(),
        json: serde_json::json!({ "alert": 4, "group": { "user": "花子" } }),
        time_ns: 1_795_782_600_000_000_000,
    }
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Head and body of one request; `answer` goes back.
async fn http(
    stream: impl AsyncRead + tokio::io::AsyncWrite + Unpin,
    answer: &str,
) -> (String, String) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).await.unwrap() > 0, "{head}");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    (head, String::from_utf8(body).unwrap())
}

fn webhook(world: &World, port: u16) -> Endpoint {
    let text = format!(
        "name: w\nwebhook: {{ url: 'https://localhost:{port}/hook?k=v', secret_file: secret, \
         ca_file: ca.pem }}"
    );
    world.endpoint(&[format!("localhost:{port}")], &text).unwrap()
}

#[tokio::test]
async fn a_webhook_is_signed() {
    let (world, (listener, port)) = (World::new(), listener().await);
    let endpoint = webhook(&world, port);
    let served = async {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = world.acceptor.accept(stream).await.unwrap();
        http(stream, "HTTP/1.1 204 No Content\r\n\r\n").await
    };
    let given = notice();
    let ((head, body), sent) = tokio::join!(served, endpoint.send(&given));
    sent.unwrap();
    assert!(head.starts_with("POST /hook?k=v HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("sekimori-delivery: 17-4\r\n") && !head.contains("evil"), "{head}");
    let signature = head.lines().find_map(|it| it.strip_prefix("sekimori-signature: t=")).unwrap();
    let (time, tag) = signature.split_once(",v1=").unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let tag = sekimori_evidence::unhex(tag).unwrap();
    hmac::verify(&key, format!("{time}.{body}").as_bytes(), &tag).unwrap();
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["title"], given.title);
    assert_eq!(
        (&body["alert"], &body["time"]),
        (&4.into(), &"2026-11-27T12:30:00.000000000Z".into())
    );
}

#[rstest]
#[case(
    "HTTP/1.1 302 Found\r\nlocation: https://localhost/other\r\ncontent-length: 0\r\n\r\n",
    false,
    None
)]
#[case("HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\nno", true, None)]
#[case("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", false, None)]
#[case("HTTP/1.1 429 Slow\r\nretry-after: 90\r\ncontent-length: 0\r\n\r\n", false, Some(90))]
#[case("HTTP/1.1 500 Broken\r\ncontent-length: 0\r\n\r\n", false, None)]
#[case("nonsense\r\n\r\n", false, None)]
#[tokio::test]
async fn a_webhook_that_does_not_take_it(
    #[case] answer: &str,
    #[case] is_final: bool,
    #[case] after: Option<u64>,
) {
    let (world, (listener, port)) = (World::new(), listener().await);
    let endpoint = webhook(&world, port);
    let served = async {
        let (stream, _) = listener.accept().await.unwrap();
        http(world.acceptor.accept(stream).await.unwrap(), answer).await
    };
    let given = notice();
    let (_, sent) = tokio::join!(served, endpoint.send(&given));
    let error = sent.unwrap_err();
    assert_eq!(error.is_final(), is_final, "{error}");
    assert_eq!(error.retry_after(), after.map(Duration::from_secs));
}

#[tokio::test]
async fn a_server_of_another_authority_is_told_nothing() {
    let (world, other, (listener, port)) = (World::new(), World::new(), listener().await);
    let endpoint = webhook(&world, port);
    let served = async {
        let (stream, _) = listener.accept().await.unwrap();
        other.acceptor.accept(stream).await.is_err()
    };
    let given = notice();
    let (refused, sent) = tokio::join!(served, endpoint.send(&given));
    assert!(refused && sent.unwrap_err().to_string().contains("TLS"));
}

/// What a client says in a dialog of SMTP, from its EHLO on.
async fn smtp<S: AsyncRead + tokio::io::AsyncWrite + Unpin>(
    stream: S,
    greet: bool,
) -> (String, Option<S>) {
    let mut stream = BufReader::new(stream);
    let (mut said, mut in_data) = (String::new(), false);
    if greet {
        stream.write_all(b"220 localhost\r\n").await.unwrap();
        stream.flush().await.unwrap();
    }
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return (said, None);
        }
        said.push_str(&line);
        let answer = match line.trim_end() {
            "." if in_data => {
                in_data = false;
                "250 taken\r\n"
            }
            _ if in_data => continue,
            "DATA" => {
                in_data = true;
                "354 go on\r\n"
            }
            "STARTTLS" => {
                stream.write_all(b"220 go on\r\n").await.unwrap();
                stream.flush().await.unwrap();
                return (said, Some(stream.into_inner()));
            }
            line if line.starts_with("EHLO") && greet => {
                "250-localhost\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n"
            }
            line if line.starts_with("EHLO") => "250-localhost\r\n250 AUTH PLAIN\r\n",
            line if line.starts_with("AUTH") => "235 welcome\r\n",
            _ => "250 ok\r\n",
        };
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
    }
}

fn mail(world: &World, port: u16, tls: &str) -> Endpoint {
    let text = format!(
        "name: m\nmail: {{ server: 'localhost:{port}', tls: {tls}, from: 'Sekimori <s@example.jp>', \
         to: ['関守 <soc@example.jp>', 'a@example.jp'], user: s, password_file: password, \
         ca_file: ca.pem }}"
    );
    world.endpoint(&[format!("localhost:{port}")], &text).unwrap()
}

fn is_the_mail(said: &str) {
    // "\0s\0合言葉" in base64.
    assert!(said.contains("AUTH PLAIN AHMA5ZCI6KiA6JGJ\r\n"), "{said}");
    assert!(said.contains("RCPT TO:<soc@example.jp>\r\n"), "{said}");
    assert!(said.contains("RCPT TO:<a@example.jp>\r\n"), "{said}");
    assert!(said.contains("Message-ID: <17-4@example.jp>\r\n"), "{said}");
    assert!(said.contains("Auto-Submitted: auto-generated\r\n"), "{said}");
    assert!(!said.lines().any(|line| line.starts_with("Bcc:")), "{said}");
    assert!(said.contains("Subject: ") && said.contains("=?utf-8?b?"), "{said}");
}

#[tokio::test]
async fn a_mail_over_tls() {
    let (world, (listener, port)) = (World::new(), listener().await);
    let endpoint = mail(&world, port, "implicit");
    let served = async {
        let (stream, _) = listener.accept().await.unwrap();
        smtp(world.acceptor.accept(stream).await.unwrap(), true).await.0
    };
    let given = notice();
    let (said, sent) = tokio::join!(served, endpoint.send(&given));
    sent.unwrap();
    is_the_mail(&said);
}

#[tokio::test]
async fn a_mail_over_starttls() {
    let (world, (listener, port)) = (World::new(), listener().await);
    let endpoint = mail(&world, port, "starttls");
    let served = async {
        let (stream, _) = listener.accept().await.unwrap();
        let (plain, stream) = smtp::<TcpStream>(stream, true).await;
        assert!(!plain.contains("AUTH") && !plain.contains("MAIL"), "{plain}");
        smtp(world.acceptor.accept(stream.unwrap()).await.unwrap(), false).await.0
    };
    let given = notice();
    let (said, sent) = tokio::join!(served, endpoint.send(&given));
    sent.unwrap();
    is_the_mail(&said);
}

#[tokio::test]
async fn a_server_without_starttls_is_told_nothing() {
    let (world, (listener, port)) = (World::new(), listener().await);
    let endpoint = mail(&world, port, "starttls");
    let served = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        stream.write_all(b"220 localhost\r\n").await.unwrap();
        let (mut line, mut said) = (String::new(), String::new());
        while stream.read_line(&mut line).await.unwrap_or(0) > 0 {
            said.push_str(&line);
            line.clear();
            if stream.write_all(b"250 AUTH PLAIN\r\n").await.is_err() {
                break;
            }
        }
        said
    };
    let given = notice();
    let (said, sent) = tokio::join!(served, endpoint.send(&given));
    assert!(sent.unwrap_err().to_string().contains("STARTTLS"));
    assert!(!said.contains("AUTH") && !said.contains("MAIL") && !said.contains("DATA"), "{said}");
}

fn syslog(world: &World, port: u16, protocol: &str) -> Endpoint {
    let text = format!(
        "name: s\nsyslog: {{ server: 'localhost:{port}', protocol: {protocol}, facility: local4, \
         ca_file: ca.pem }}"
    );
    world.endpoint(&[format!("localhost:{port}")], &text).unwrap()
}

fn is_the_record(record: &str) {
    assert!(record.starts_with("<163>1 2026-11-27T12:30:00.000000Z "), "{record}");
    assert!(
        record.contains(
            " sekimori - 17-4 [sekimori@32473 rule=\"大量コピー\" severity=\"high\"] \u{feff}[high]"
        ),
        "{record}"
    );
    assert!(!record.contains(['\n', '\r']), "{record}");
    assert!(record.contains(" | user: 花子 | <134>1 forged"), "{record}");
}

#[tokio::test]
async fn syslog_over_udp() {
    let world = World::new();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let endpoint = syslog(&world, socket.local_addr().unwrap().port(), "udp");
    let long = Notice { text: "長い ".repeat(2000), ..notice() };
    endpoint.send(&notice()).await.unwrap();
    endpoint.send(&long).await.unwrap();
    let mut buffer = [0; 9000];
    let length = socket.recv(&mut buffer).await.unwrap();
    is_the_record(std::str::from_utf8(&buffer[..length]).unwrap());
    let length = socket.recv(&mut buffer).await.unwrap();
    assert!((2040..=2048).contains(&length));
    std::str::from_utf8(&buffer[..length]).unwrap();
}

#[rstest]
#[case("tcp")]
#[case("tls")]
#[tokio::test]
async fn syslog_over_a_stream(#[case] protocol: &str) {
    let (world, (listener, port)) = (World::new(), listener().await);
    let endpoint = syslog(&world, port, protocol);
    let served = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut text = String::new();
        match protocol {
            "tcp" => stream.read_to_string(&mut text).await.unwrap(),
            _ => {
                let mut stream = world.acceptor.accept(stream).await.unwrap();
                stream.read_to_string(&mut text).await.unwrap()
            }
        };
        text
    };
    let given = notice();
    let (text, sent) = tokio::join!(served, endpoint.send(&given));
    sent.unwrap();
    let (length, record) = text.split_once(' ').unwrap();
    assert_eq!(length.parse::<usize>().unwrap(), record.len());
    is_the_record(record);
}

#[test]
fn nothing_closes_the_data_of_a_record() {
    let world = World::new();
    let endpoint = syslog(&world, 514, "udp");
    let Way::Syslog(_) = &endpoint.way else { panic!() };
    assert_eq!(one_line("a\r\nb\u{85}c"), "a  b c");
}

#[rstest]
#[case("hooks.example:443", "hooks.example", 443, true)]
#[case("hooks.example:443", "HOOKS.example.", 443, true)]
#[case("hooks.example:443", "hooks.example", 444, false)]
#[case("hooks.example:443", "evilhooks.example", 443, false)]
#[case("*.example.com:443", "a.b.example.com", 443, true)]
#[case("*.example.com:443", "example.com", 443, false)]
#[case("*.example.com:443", "notexample.com", 443, false)]
#[case("10.0.0.0/8:514", "10.1.2.3", 514, true)]
#[case("10.0.0.0/8:514", "11.1.2.3", 514, false)]
#[case("[2001:db8::1]:6514", "2001:db8::1", 6514, true)]
#[case("[2001:db8::1]:6514", "2001:db8::2", 6514, false)]
fn where_notices_may_go(
    #[case] entry: &str,
    #[case] host: &str,
    #[case] port: u16,
    #[case] expected: bool,
) {
    let egress = Egress::try_from(vec![entry.to_owned()]).unwrap();
    assert_eq!(egress.allows(host, port).is_ok(), expected);
}

#[rstest]
#[case("hooks.example:443", "127.0.0.1", false)]
#[case("hooks.example:443", "169.254.169.254", false)]
#[case("hooks.example:443", "::ffff:127.0.0.1", false)]
#[case("hooks.example:443", "fe80::1", false)]
#[case("hooks.example:443", "0.0.0.0", false)]
#[case("hooks.example:443", "203.0.113.9", true)]
#[case("127.0.0.0/8:443", "127.0.0.1", true)]
#[case("127.0.0.0/8:444", "127.0.0.1", false)]
fn a_name_does_not_lead_to_this_machine(
    #[case] entry: &str,
    #[case] address: &str,
    #[case] expected: bool,
) {
    let egress = Egress::try_from(vec![entry.to_owned()]).unwrap();
    let address = address.parse().unwrap();
    assert_eq!(egress.allows_address("hooks.example", address, 443), expected);
}

#[rstest]
#[case("")]
#[case("x")]
#[case("x:0")]
#[case("x:99999")]
#[case("*:443")]
#[case("a b:1")]
fn bad_entries(#[case] entry: &str) {
    assert!(Egress::try_from(vec![entry.to_owned()]).is_err());
}

#[rstest]
#[case("name: x", "one of mail, webhook and syslog")]
#[case("name: x\nsyslog: { server: 'other:514', protocol: udp }", "not in `egress`")]
#[case("name: x\nsyslog: { server: 'a', protocol: udp }", "expected HOST:PORT")]
#[case(
    "name: x\nwebhook: { url: 'http://a:1/', secret_file: secret, ca_file: ca.pem }",
    "expected https"
)]
#[case(
    "name: x\nwebhook: { url: 'https://u:p@a:1/', secret_file: secret, ca_file: ca.pem }",
    "without a user"
)]
#[case(
    "name: x\nwebhook: { url: 'https://a:1/', secret_file: open, ca_file: ca.pem }",
    "others may read it"
)]
#[case(
    "name: x\nwebhook: { url: 'https://a:1/', secret_file: short, ca_file: ca.pem }",
    "at least 16 bytes"
)]
#[case(
    "name: x\nwebhook: { url: 'https://a:1/', secret_file: none, ca_file: ca.pem }",
    "No such file"
)]
#[case(
    "name: x\nwebhook: { url: 'https://a:1/', secret_file: secret, ca_file: secret }",
    "no certificate in it"
)]
#[case("name: x\nmail: { server: 'a:1', from: x, to: [a@b], ca_file: ca.pem }", "no mail address")]
#[case("name: x\nmail: { server: 'a:1', from: a@b, to: [], ca_file: ca.pem }", "1 to 50")]
#[case(
    "name: x\nmail: { server: 'a:1', from: a@b, to: [a@b], user: x, ca_file: ca.pem }",
    "belong together"
)]
fn bad_endpoints(#[case] text: &str, #[case] why: &str) {
    let world = World::new();
    world.secret("open", SECRET, 0o644);
    world.secret("short", "short", 0o600);
    let error = world.endpoint(&["a:1".to_owned()], text).unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
}

#[test]
fn no_secret_is_shown() {
    let world = World::new();
    let shown = format!("{:?}{:?}", webhook(&world, 1), mail(&world, 1, "implicit"));
    assert!(
        !shown.contains(SECRET) && !shown.contains("合言葉") && !shown.contains("k=v"),
        "{shown}"
    );
}
