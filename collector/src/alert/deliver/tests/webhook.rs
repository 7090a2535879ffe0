use std::net::SocketAddr;

use ring::hmac;
use rstest::rstest;
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;

use super::servers::{acceptor, http, listen};
use super::*;

type Seen = UnboundedReceiver<(String, Vec<u8>)>;

/// A server that gives `answer`, over TLS, and the endpoint for it.
async fn hook(dir: &Path, answer: impl Into<String>) -> (Endpoint, Seen) {
    let (acceptor, answer) = (acceptor(dir), answer.into());
    let (address, seen) = listen(move |stream| {
        let (acceptor, answer) = (acceptor.clone(), answer.clone());
        async move {
            let stream = acceptor.accept(stream).await.unwrap();
            http(stream, &answer).await
        }
    })
    .await;
    (to(address, "https", dir), seen)
}

fn to(address: SocketAddr, scheme: &str, dir: &Path) -> Endpoint {
    let url = format!("{scheme}://{address}/services/T0TOKENTOKEN?key=K0TOKENTOKEN");
    let mut webhook = json!({"url": url, "secret_file": "key"});
    if scheme == "https" {
        webhook["ca_file"] = json!("ca.pem");
    }
    let config = json!({"name": "hook", "webhook": webhook});
    endpoint(config, &[&address.to_string()], dir).unwrap()
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|it| it.0.eq_ignore_ascii_case(name)).unwrap().1
}

#[tokio::test]
async fn a_body_is_signed_and_says_what_happened() {
    let dir = base();
    let (endpoint, mut seen) = hook(dir.path(), "HTTP/1.1 204 No Content\r\n\r\n").await;
    endpoint.send(&notice()).await.unwrap();
    let (head, body) = seen.recv().await.unwrap();
    assert!(
        head.starts_with("POST /services/T0TOKENTOKEN?key=K0TOKENTOKEN HTTP/1.1\r\n"),
        "{head}"
    );
    assert_eq!(header(&head, "Content-Type"), "application/json");
    assert_eq!(header(&head, "Sekimori-Delivery"), "01JD-7");
    assert!(header(&head, "Host").starts_with("127.0.0.1:"));

    let signature = header(&head, "Sekimori-Signature");
    let (time, hex) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    let now = jiff::Timestamp::now().as_second();
    assert!((now - time.parse::<i64>().unwrap()).abs() < 300);
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef");
    let signed = [time.as_bytes(), b".", &body].concat();
    let expected = sekimori_evidence::hex(hmac::sign(&key, &signed).as_ref());
    assert_eq!(hex, expected);

    let body: Value = serde_json::from_slice(&body).unwrap();
    let expected = json!({
        "id": "01JD-7", "severity": "high", "rule": "secret-to-usb",
        "title": "機密.xlsx が USB に書かれた", "text": "host: h1\nuser: 山田",
        "time": "2025-11-27T22:24:57.123456Z", "host": "h1", "events": [1, 2],
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn without_tls_to_this_host() {
    let dir = base();
    let (address, mut seen) = listen(|it| http(it, "HTTP/1.1 200 OK\r\n\r\nok")).await;
    let endpoint = to(address, "http", dir.path());
    endpoint.send(&forged()).await.unwrap();
    let (head, body) = seen.recv().await.unwrap();
    assert_eq!(header(&head, "Sekimori-Delivery"), "a\"] <0>1\\r\\n.\\r\\n");
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["id"], forged().id);
    assert_eq!(body["title"], forged().title);

    let much = json!({"blob": "x".repeat(1 << 20)});
    endpoint.send(&Notice { json: much, ..notice() }).await.unwrap();
    let (_, body) = seen.recv().await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&body["shortened"], &body["id"]), (&json!(true), &json!("01JD-7")));
    assert!(body.get("blob").is_none());
}

#[rstest]
#[case("500 Internal Server Error", "", false, None)]
#[case("503 Service Unavailable", "Retry-After: 7\r\n", false, Some(7))]
#[case("429 Too Many Requests", "Retry-After: 86400\r\n", false, Some(3600))]
#[case("408 Request Timeout", "", false, None)]
#[case("425 Too Early", "", false, None)]
#[case("401 Unauthorized", "", false, None)]
#[case("403 Forbidden", "", false, None)]
#[case("400 Bad Request", "", true, None)]
#[case("404 Not Found", "", true, None)]
#[case("413 Content Too Large", "", true, None)]
#[tokio::test]
async fn what_answers_mean(
    #[case] status: &str,
    #[case] headers: &str,
    #[case] is_final: bool,
    #[case] wait_s: Option<u64>,
) {
    let dir = base();
    let told = "no /services/T0TOKENTOKEN?key=K0TOKENTOKEN, K0TOKENTOKEN\n\u{1b}[2J";
    let length = told.len();
    let answer = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{told}");
    let (endpoint, _seen) = hook(dir.path(), answer).await;
    let error = endpoint.send(&notice()).await.unwrap_err();
    assert_eq!(error.is_final(), is_final);
    assert_eq!(error.retry_after(), wait_s.map(Duration::from_secs));
    let error = error.to_string();
    let (_, shown) = error.split_once(" answers ").unwrap();
    assert!(shown.starts_with(&status[..3]), "{shown}");
    assert!(shown.ends_with(": no /…, …\\n\\u{1b}[2J"), "{shown}");
}

#[tokio::test]
async fn no_redirect_is_followed() {
    let dir = base();
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let there = other.local_addr().unwrap();
    let answer = format!("HTTP/1.1 307 Temporary Redirect\r\nLocation: http://{there}/\r\n\r\n");
    let (endpoint, mut seen) = hook(dir.path(), answer).await;
    let error = endpoint.send(&notice()).await.unwrap_err();
    assert!(error.to_string().contains("redirects are not followed"), "{error}");
    assert!(error.is_final());
    seen.recv().await.unwrap();
    // Nobody else was asked, and the first one once.
    assert!(tokio::time::timeout(SHORT, other.accept()).await.is_err());
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn an_answer_without_end_is_read_to_its_limit() {
    let dir = base();
    let answer = format!("HTTP/1.1 400 Bad\r\n\r\n{}", "y".repeat(1 << 20));
    let (endpoint, _seen) = hook(dir.path(), answer).await;
    let error = endpoint.send(&notice()).await.unwrap_err();
    assert!(error.is_final() && error.to_string().len() < 400, "{error}");
    let answer = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(1 << 20));
    let (endpoint, _seen) = hook(dir.path(), answer).await;
    let error = endpoint.send(&notice()).await.unwrap_err();
    assert!(!error.is_final() && error.to_string().len() < 400, "{error}");
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let dir = base();
    acceptor(dir.path());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for scheme in ["https", "http"] {
        let mut endpoint = to(address, scheme, dir.path());
        let Sender::Webhook(webhook) = &mut endpoint.sender else { panic!() };
        assert_eq!(webhook.time_max, Duration::from_secs(15));
        webhook.time_max = SHORT;
        let error = endpoint.send(&notice()).await.unwrap_err();
        assert!(error.to_string().contains("did not finish within 300ms"), "{error}");
        assert!(!error.is_final());
    }
}

#[tokio::test]
async fn this_host_by_its_name() {
    let dir = base();
    let (address, mut seen) = listen(|it| http(it, "HTTP/1.1 200 OK\r\n\r\n")).await;
    let url = format!("http://localhost:{}/", address.port());
    let config = json!({"name": "hook", "webhook": {"url": url, "secret_file": "key"}});
    let named = format!("localhost:{}", address.port());
    let endpoint = endpoint(config, &[&named], dir.path()).unwrap();
    // By a task of its own, as the queue sends.
    tokio::spawn(async move { endpoint.send(&notice()).await }).await.unwrap().unwrap();
    seen.recv().await.unwrap();
}
