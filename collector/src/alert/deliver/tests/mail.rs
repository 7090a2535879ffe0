use std::net::SocketAddr;

use rstest::rstest;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;

use super::servers::{Mta, Session, acceptor, base64, listen};
use super::*;

/// A server that behaves as `mta` says, with a certificate that `dir` has.
async fn serve(dir: &Path, mta: Mta) -> (SocketAddr, UnboundedReceiver<Session>) {
    let mta = Mta { acceptor: Some(acceptor(dir)), ..mta };
    listen(move |stream| {
        let mta = mta.clone();
        async move { mta.serve(stream).await }
    })
    .await
}

/// The same, and the endpoint for it.
async fn server(dir: &Path, mta: Mta) -> (Endpoint, UnboundedReceiver<Session>) {
    let tls = if mta.starttls { "starttls" } else { "implicit" };
    let (address, seen) = serve(dir, mta).await;
    (to(address, tls, dir), seen)
}

fn to(address: SocketAddr, tls: &str, dir: &Path) -> Endpoint {
    let config = json!({"name": "soc", "mail": {
        "server": address.to_string(), "tls": tls, "ca_file": "ca.pem",
        "user": "collector", "password_file": "password",
        "from": "関守 <alerts@example.org>",
        "to": ["a@example.org", "田中 <b@example.org>", "c@example.org"],
    }});
    endpoint(config, &[&address.to_string()], dir).unwrap()
}

/// The lines of the head, unfolded, and the text.
fn read(mail: &str) -> (Vec<String>, String) {
    let (head, body) = mail.split_once("\r\n\r\n").unwrap();
    let head = head.replace("\r\n ", " ").split("\r\n").map(str::to_owned).collect::<Vec<_>>();
    let encoding = field(&head, "Content-Transfer-Encoding");
    let text = match encoding.as_str() {
        "base64" => String::from_utf8(base64(body)).unwrap(),
        "quoted-printable" => quoted_printable(body),
        _ => body.to_owned(),
    };
    (head, text)
}

fn quoted_printable(body: &str) -> String {
    let body = body.replace("=\r\n", "");
    let mut parts = body.split('=');
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

fn field(head: &[String], name: &str) -> String {
    let mut values = head.iter().filter_map(|line| line.strip_prefix(&format!("{name}: ")));
    let value = values.next().unwrap().to_owned();
    assert!(values.next().is_none());
    value
}

/// Text of encoded words: a space between two of them does not count (RFC 2047).
fn words(text: &str) -> String {
    let (mut decoded, mut joins) = (String::new(), true);
    for word in text.split(' ') {
        let encoded = word.strip_prefix("=?utf-8?b?").and_then(|it| it.strip_suffix("?="));
        if !joins || (encoded.is_none() && !decoded.is_empty()) {
            decoded.push(' ');
        }
        decoded.push_str(
            &encoded.map_or(word.to_owned(), |it| String::from_utf8(base64(it)).unwrap()),
        );
        joins = encoded.is_some();
    }
    decoded
}

#[rstest]
#[case(false)]
#[case(true)]
#[tokio::test]
async fn a_mail_is_sent_in_tls_by_a_known_user(#[case] starttls: bool) {
    let dir = base();
    let (endpoint, mut seen) = server(dir.path(), Mta { starttls, ..Mta::default() }).await;
    endpoint.send(&notice()).await.unwrap();
    let session = seen.recv().await.unwrap();
    let clear: &[&str] = if starttls { &["EHLO [127.0.0.1]", "STARTTLS"] } else { &[] };
    assert_eq!(session.clear, clear);
    assert_eq!(session.of("EHLO"), ["[127.0.0.1]"]);
    let login = session.of("AUTH PLAIN");
    assert_eq!(base64(login[0]), b"\0collector\0correct horse");
    assert_eq!(session.of("MAIL FROM:"), ["<alerts@example.org>"]);
    let to = ["<a@example.org>", "<b@example.org>", "<c@example.org>"];
    assert_eq!(session.of("RCPT TO:"), to);
    assert_eq!(session.of("QUIT").len(), 1);

    let mail = session.mail.unwrap();
    assert!(mail.is_ascii());
    let (head, text) = read(&mail);
    assert_eq!(field(&head, "Message-ID"), "<sekimori.01JD-7@example.org>");
    assert_eq!(field(&head, "Auto-Submitted"), "auto-generated");
    assert_eq!(field(&head, "MIME-Version"), "1.0");
    assert_eq!(field(&head, "Content-Type"), "text/plain; charset=utf-8");
    assert_eq!(field(&head, "Date"), "Thu, 27 Nov 2025 22:24:57 +0000");
    let subject = words(&field(&head, "Subject"));
    assert_eq!(subject, "[Sekimori high] 機密.xlsx が USB に書かれた");
    let expected = "機密.xlsx が USB に書かれた\r\n\r\nhost: h1\r\nuser: 山田\r\n\r\n-- \r\n\
                    Severity: high\r\nRule: secret-to-usb\r\n\
                    Time: 2025-11-27T22:24:57.123456Z\r\nNotice: 01JD-7\r\n";
    assert!(text.starts_with(expected), "{text}");
}

#[tokio::test]
async fn a_title_adds_no_header_and_a_text_no_mail() {
    let dir = base();
    let (endpoint, mut seen) = server(dir.path(), Mta::default()).await;
    endpoint.send(&forged()).await.unwrap();
    let session = seen.recv().await.unwrap();
    assert_eq!(session.of("RCPT TO:").len(), 3);
    assert_eq!(session.of("MAIL FROM:").len(), 1);
    assert_eq!(session.of("DATA").len(), 1);
    let (head, text) = read(&session.mail.unwrap());
    let names: Vec<_> = head.iter().map(|line| line.split(':').next().unwrap()).collect();
    assert!(!names.contains(&"Bcc"), "{head:?}");
    let subject = words(&field(&head, "Subject"));
    assert!(subject.contains("機密\\r\\nBcc: evil@example.org\\n<13>1"), "{subject}");
    let id = field(&head, "Message-ID");
    assert_eq!(id.len(), "<sekimori.@example.org>".len() + 64, "{id}");
    assert!(text.contains("\r\nMAIL FROM:<evil@example.org>\r\n"), "{text}");
}

#[tokio::test]
async fn nothing_is_sent_without_starttls() {
    let dir = base();
    let mta = Mta { starttls: true, strips: true, ..Mta::default() };
    let (endpoint, mut seen) = server(dir.path(), mta).await;
    let error = endpoint.send(&notice()).await.unwrap_err();
    assert!(error.to_string().contains("does not offer STARTTLS"), "{error}");
    assert!(!error.is_final());
    assert_eq!(seen.recv().await.unwrap().clear, ["EHLO [127.0.0.1]"]);
}

#[tokio::test]
async fn what_is_said_before_the_handshake_is_not_believed_behind_it() {
    let dir = base();
    let injects = "250-mx\r\n250 AUTH LOGIN\r\n";
    let mta = Mta { starttls: true, injects, ..Mta::default() };
    let (endpoint, mut seen) = server(dir.path(), mta).await;
    let error = endpoint.send(&notice()).await.unwrap_err();
    assert!(!error.is_final());
    let session = seen.recv().await.unwrap();
    assert!(session.commands.is_empty(), "{session:?}");
}

#[tokio::test]
async fn a_server_of_another_authority_learns_nothing() {
    let (dir, other) = (base(), base());
    let (address, mut seen) = serve(other.path(), Mta::default()).await;
    acceptor(dir.path());
    let error = to(address, "implicit", dir.path()).send(&notice()).await;
    let error = error.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    assert!(!error.is_final());
    assert!(seen.recv().await.unwrap().commands.is_empty());
}

#[tokio::test]
async fn a_refused_login_can_be_mended_and_shows_no_password() {
    let dir = base();
    let auth = Some("535 5.7.8 not AGNvbGxlY3RvcgBjb3JyZWN0IGhvcnNl, correct horse\r\n");
    let (endpoint, mut seen) = server(dir.path(), Mta { auth, ..Mta::default() }).await;
    let error = endpoint.send(&notice()).await.unwrap_err();
    assert!(!error.is_final());
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("(535)"), "{shown}");
    assert!(!shown.contains("horse") && !shown.contains("AGNv"), "{shown}");
    assert!(seen.recv().await.unwrap().of("MAIL").is_empty());
}

#[rstest]
#[case("554 5.7.1 spam\r\n", true)]
#[case("552 too large\r\n", true)]
#[case("451 later\r\n", false)]
#[case("", false)]
#[tokio::test]
async fn what_is_said_to_the_mail(#[case] data: &'static str, #[case] is_final: bool) {
    let dir = base();
    let (mut endpoint, _seen) =
        server(dir.path(), Mta { data: Some(data), ..Mta::default() }).await;
    if data.is_empty() {
        let Sender::Mail(mail) = &mut endpoint.sender else { panic!() };
        mail.time_max = SHORT * 10;
    }
    let error = endpoint.send(&notice()).await.unwrap_err();
    assert_eq!(error.is_final(), is_final, "{error}");
}

#[tokio::test]
async fn one_recipient_that_is_gone_keeps_it_from_nobody() {
    let dir = base();
    let refused = vec![("b@", "550 5.1.1 gone\r\n")];
    let (endpoint, mut seen) = server(dir.path(), Mta { refused, ..Mta::default() }).await;
    endpoint.send(&notice()).await.unwrap();
    assert!(seen.recv().await.unwrap().mail.is_some());

    let refused = vec![("@example.org", "550 5.1.1 gone\r\n")];
    let (endpoint, mut seen) = server(dir.path(), Mta { refused, ..Mta::default() }).await;
    let error = endpoint.send(&notice()).await.unwrap_err();
    assert!(error.is_final() && error.to_string().contains("5.1.1 gone"), "{error}");
    assert!(seen.recv().await.unwrap().of("DATA").is_empty());
}

#[tokio::test]
async fn who_has_it_does_not_get_it_again() {
    let dir = base();
    let refused = vec![("b@", "450 4.2.0 greylisted\r\n"), ("c@", "550 gone\r\n")];
    let (endpoint, mut seen) = server(dir.path(), Mta { refused, ..Mta::default() }).await;
    let error = endpoint.send(&notice()).await.unwrap_err();
    assert!(!error.is_final());
    assert!(error.to_string().contains("b@example.org yet"), "{error}");
    let first = seen.recv().await.unwrap();
    assert_eq!(first.of("RCPT TO:").len(), 3);
    assert!(first.mail.is_some());

    endpoint.send(&notice()).await.unwrap_err();
    let second = seen.recv().await.unwrap();
    assert_eq!(second.of("RCPT TO:"), ["<b@example.org>"]);
    assert!(second.mail.is_none());
    // Another notice is for all of them.
    let other = Notice { id: "other".to_owned(), ..notice() };
    endpoint.send(&other).await.unwrap_err();
    assert_eq!(seen.recv().await.unwrap().of("RCPT TO:").len(), 3);
}

#[rstest]
#[case("implicit", "")]
#[case("starttls", "")]
#[case("starttls", "220-")]
#[tokio::test]
async fn a_server_that_never_comes_to_the_point(#[case] tls: &str, #[case] says: &'static str) {
    let dir = base();
    acceptor(dir.path());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut endpoint = to(listener.local_addr().unwrap(), tls, dir.path());
    let Sender::Mail(mail) = &mut endpoint.sender else { panic!() };
    assert_eq!(mail.time_max, Duration::from_secs(60));
    mail.time_max = SHORT;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.write_all(says.as_bytes()).await;
        // Until the client is gone.
        let _ = stream.readable().await;
        let mut rest = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await;
    });
    let error = endpoint.send(&notice()).await.unwrap_err();
    assert!(error.to_string().contains("did not finish"), "{error}");
    assert!(!error.is_final());
    server.await.unwrap();
}

#[rstest]
#[case("implicit")]
#[case("starttls")]
#[tokio::test]
async fn a_line_without_end_fills_no_memory(#[case] tls: &'static str) {
    let dir = base();
    let acceptor = acceptor(dir.path());
    let (address, _seen) = listen(move |mut stream| {
        let acceptor = acceptor.clone();
        async move {
            let line = vec![b'x'; 1 << 20];
            if tls == "starttls" {
                return stream.write_all(&line).await.is_ok();
            }
            let Ok(mut stream) = acceptor.accept(stream).await else { return false };
            stream.write_all(&line).await.is_ok()
        }
    })
    .await;
    let error = to(address, tls, dir.path()).send(&notice()).await.unwrap_err();
    assert!(!error.is_final());
    assert!(error.to_string().len() < 500, "{error}");
    assert!(!error.to_string().contains("did not finish"), "{error}");
}
