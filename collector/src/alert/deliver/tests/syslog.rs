use std::net::SocketAddr;

use rstest::rstest;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, UdpSocket};

use super::servers::{Stream, acceptor, listen};
use super::*;

fn to(address: SocketAddr, transport: &str, base: &Path) -> Endpoint {
    let mut syslog = json!({"server": address.to_string(), "transport": transport});
    if transport == "tls" {
        syslog["ca_file"] = json!("ca.pem");
    }
    let config = json!({"name": "siem", "syslog": syslog});
    endpoint(config, &[&address.to_string()], base).unwrap()
}

fn syslog(endpoint: &Endpoint) -> &Syslog {
    let Sender::Syslog(syslog) = &endpoint.sender else { panic!() };
    syslog
}

async fn all(mut stream: impl Stream) -> String {
    let mut read = String::new();
    let _ = stream.read_to_string(&mut read).await;
    read
}

/// Header, structured data and text, by the grammar of RFC 5424.
fn parts(record: &str) -> (Vec<&str>, Vec<(String, String)>, &str) {
    let (head, rest) = record.split_once(" [sekimori@32473 ").unwrap();
    let head = head.split(' ').collect();
    let (mut rest, mut params) = (rest, Vec::new());
    loop {
        let (name, value) = rest.split_once("=\"").unwrap();
        let (mut text, mut escaped, mut end) = (String::new(), false, 0);
        for (at, character) in value.char_indices() {
            match character {
                '\\' if !escaped => escaped = true,
                '"' if !escaped => {
                    end = at;
                    break;
                }
                _ => {
                    text.push(character);
                    escaped = false;
                }
            }
        }
        params.push((name.to_owned(), text));
        rest = &value[end + 1..];
        match rest.strip_prefix(' ') {
            Some(next) => rest = next,
            None => return (head, params, rest.strip_prefix("] \u{feff}").unwrap()),
        }
    }
}

#[rstest]
#[case("tcp")]
#[case("tls")]
#[tokio::test]
async fn one_record_with_its_length(#[case] transport: &'static str) {
    let dir = base();
    let acceptor = acceptor(dir.path());
    let (address, mut seen) = listen(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if transport == "tcp" {
                return all(stream).await;
            }
            match acceptor.accept(stream).await {
                Ok(stream) => all(stream).await,
                Err(error) => error.to_string(),
            }
        }
    })
    .await;
    to(address, transport, dir.path()).send(&notice()).await.unwrap();
    let read = seen.recv().await.unwrap();
    let (length, record) = read.split_once(' ').unwrap();
    assert_eq!(length.parse::<usize>().unwrap(), record.len());
    let (head, params, text) = parts(record);
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let pid = std::process::id().to_string();
    let time = "2025-11-27T22:24:57.123456Z";
    assert_eq!(head, ["<163>1", time, &host, "sekimori", &pid, "alert"]);
    let expected = [("id", "01JD-7"), ("rule", "secret-to-usb"), ("severity", "high")];
    assert_eq!(params, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(text, "機密.xlsx が USB に書かれた: host: h1\\nuser: 山田");
}

#[tokio::test]
async fn a_datagram_is_cut_between_characters() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let endpoint = to(server.local_addr().unwrap(), "udp", Path::new("/"));
    let long = Notice { text: "山".repeat(5000), severity: Severity::Critical, ..notice() };
    endpoint.send(&long).await.unwrap();
    let mut buffer = [0; 4096];
    let length = server.recv(&mut buffer).await.unwrap();
    assert!((2046..=2048).contains(&length), "{length}");
    let record = std::str::from_utf8(&buffer[..length]).unwrap();
    assert!(record.starts_with("<162>1 ") && record.ends_with('山'), "{record}");
    let many = Notice { text: "x".repeat(100_000), ..notice() };
    assert_eq!(syslog(&endpoint).record(&many, 8192).len(), 8192);
}

#[test]
fn nothing_forges_a_second_record_or_field() {
    let endpoint = to("127.0.0.1:1".parse().unwrap(), "udp", Path::new("/"));
    let record = syslog(&endpoint).record(&forged(), 8192);
    assert!(!record.contains(char::is_control), "{record}");
    let (head, params, text) = parts(&record);
    assert_eq!(head.len(), 6);
    let names: Vec<_> = params.iter().map(|it| it.0.as_str()).collect();
    assert_eq!(names, ["id", "rule", "severity"]);
    assert_eq!(params[0].1, "a\"] <0>1\\r\\n.\\r\\n");
    assert_eq!(params[1].1, "r\"] [x@1 y=\"\\\\nz");
    assert!(text.starts_with("機密\\r\\nBcc: evil@example.org\\n<13>1"), "{text}");
}

#[tokio::test]
async fn a_server_of_another_authority_gets_nothing() {
    let (dir, other) = (base(), base());
    let acceptor_of_other = acceptor(other.path());
    acceptor(dir.path());
    let (address, mut seen) = listen(move |stream| {
        let acceptor = acceptor_of_other.clone();
        async move { acceptor.accept(stream).await.is_ok() }
    })
    .await;
    let error = to(address, "tls", dir.path()).send(&notice()).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    assert!(!error.is_final());
    assert!(!seen.recv().await.unwrap());
}

#[tokio::test]
async fn nobody_there_is_worth_another_try() {
    let dir = base();
    acceptor(dir.path());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut endpoint = to(address, "tls", dir.path());
    let Sender::Syslog(syslog) = &mut endpoint.sender else { panic!() };
    syslog.time_max = SHORT;
    let error = endpoint.send(&notice()).await.unwrap_err();
    assert!(error.to_string().contains("did not finish within"), "{error}");
    drop(listener);
    let error = endpoint.send(&notice()).await.unwrap_err();
    assert!(error.to_string().contains("cannot connect"), "{error}");
    assert!(!error.is_final());
}
