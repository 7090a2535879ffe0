//! HTTP in clear.

use rstest::rstest;
use sekimori_proto::v1::{Destination, NameSource};

use super::{names, sent};
use crate::limits::HTTP_PATH_BYTES_MAX;

fn path(destination: &Destination) -> &[u8] {
    &destination.http.as_ref().unwrap().path
}

#[rstest]
#[case::plain("/", "/")]
#[case::query("/a/b?token=secret", "/a/b")]
#[case::fragment("/a#secret", "/a")]
#[case::both("/a#s?ecret", "/a")]
#[case::encoded("/%E6%97%A5%E6%9C%AC?secret", "/%E6%97%A5%E6%9C%AC")]
#[case::utf_8("/日本/議事録.pdf?secret", "/日本/議事録.pdf")]
#[case::at("/@scope/package?user:secret@x", "/@scope/package")]
#[case::space("/a b?secret", "/a b")]
#[case::server("*", "*")]
#[case::no_known_form("user:secret", "")]
#[case::no_known_form_either("http:user:secret@host/a", "")]
fn the_path_is_kept_without_its_secrets(#[case] target: &str, #[case] expected: &str) {
    let destination = sent([format!("PUT {target} HTTP/1.1\r\nHost: Example.jp:8080\r\n\r\nbody")]);
    assert_eq!(path(&destination), expected.as_bytes());
    assert_eq!(destination.http.as_ref().unwrap().method, "PUT");
    assert_eq!(names(&destination), [("example.jp", NameSource::Http)]);
    assert!(!format!("{destination:?}").contains("ecret"));
}

#[test]
fn a_path_may_be_in_another_encoding() {
    let destination = sent([b"GET /\x93\xfa\x96{ HTTP/1.0\r\nHost: a\r\n\r\n"]);
    assert_eq!(path(&destination), b"/\x93\xfa\x96{");
    assert_eq!(names(&destination), [("a", NameSource::Http)]);
}

#[rstest]
#[case::absolute("GET http://Example.jp/a?secret HTTP/1.1", "example.jp", "/a")]
#[case::port("GET http://example.jp:8080 HTTP/1.1", "example.jp", "/")]
#[case::query_only("GET http://example.jp?secret HTTP/1.1", "example.jp", "/")]
#[case::user("GET http://user:secret@example.jp/a HTTP/1.1", "example.jp", "/a")]
#[case::user_with_at("GET http://us@er:sec@ret@example.jp:80/a HTTP/1.1", "example.jp", "/a")]
#[case::ftp("GET ftp://user:secret@example.jp/a HTTP/1.0", "example.jp", "/a")]
#[case::ipv6("GET http://[2001:DB8::1]:80/a HTTP/1.1", "2001:db8::1", "/a")]
#[case::connect("CONNECT example.jp:443 HTTP/1.1", "example.jp", "example.jp:443")]
#[case::connect_as_user("CONNECT u:secret@example.jp:443 HTTP/1.1", "example.jp", "example.jp:443")]
#[case::connect_ipv6("CONNECT [2001:db8::1]:443 HTTP/1.1", "2001:db8::1", "[2001:db8::1]:443")]
#[case::password_with_slash("GET http://user:s/ecret@example.jp/a HTTP/1.1", "proxy.jp", "")]
#[case::connect_with_slash("CONNECT user:s/ecret@example.jp:443 HTTP/1.1", "proxy.jp", "")]
fn a_proxy_is_told_the_host(#[case] line: &str, #[case] host: &str, #[case] kept: &str) {
    let destination = sent([format!("{line}\r\nHost: proxy.jp\r\n\r\n")]);
    assert_eq!(names(&destination), [(host, NameSource::Http)]);
    assert_eq!(path(&destination), kept.as_bytes());
    assert!(!format!("{destination:?}").contains("ecret"));
}

#[rstest]
#[case("Host: example.jp", Some("example.jp"))]
#[case("hOsT:\texample.jp.:80 ", Some("example.jp"))]
#[case("X: y\r\nHost: [::1]:80", Some("::1"))]
#[case("Host: user:secret@example.jp", Some("example.jp"))]
#[case("Bad header\r\nHost: example.jp", Some("example.jp"))]
#[case("Host: xn--wgv71a119e.jp", Some("xn--wgv71a119e.jp"))]
#[case("Host: a b", Some(r"a\032b"))]
#[case("Host: a:b:80", None)]
#[case("Host:", None)]
#[case("X-Host: example.jp", None)]
fn the_host_is_in_a_header(#[case] headers: &str, #[case] expected: Option<&str>) {
    let destination = sent([format!("GET / HTTP/1.1\r\n{headers}\r\n\r\n")]);
    let found = names(&destination).first().map(|(name, _)| *name);
    assert_eq!(found, expected);
    assert_eq!(path(&destination), b"/");
}

#[test]
fn a_request_is_found_in_pieces_of_every_size() {
    let request = b"\r\nPOST /a HTTP/1.1\r\nA: b\r\nHost: example.jp\r\n\r\nbody";
    for cut in 0..=request.len() {
        let destination = sent([&request[..cut], &request[cut..]]);
        assert_eq!(names(&destination), [("example.jp", NameSource::Http)], "cut at {cut}");
        assert_eq!(path(&destination), b"/a");
    }
}

#[rstest]
#[case::no_end("GET /a HTTP/1.1\r\nHost: example.jp\r\nCookie: sec", "/a", true)]
#[case::no_host("GET /a HTTP/1.1\r\nHost: exam", "/a", false)]
#[case::only_a_line("GET /a HTTP/1.1\r\n", "/a", false)]
#[case::only_a_path("GET /a?secret", "/a", false)]
fn what_is_complete_of_a_request_is_used(
    #[case] request: &str,
    #[case] kept: &str,
    #[case] host: bool,
) {
    let destination = sent([request]);
    assert_eq!(path(&destination), kept.as_bytes());
    assert_eq!(!destination.names.is_empty(), host);
}

#[rstest]
#[case::cookie("/a", &format!("Host: example.jp\r\nCookie: {}", "s".repeat(5000)), "/a")]
#[case::headers("/a", &format!("Host: example.jp\r\n{}", "a:\n".repeat(2000)), "/a")]
#[case::query(&format!("/a?{}", "s".repeat(5000)), "Host: example.jp", "/a")]
fn a_request_that_is_too_long_is_read_as_far_as_it_came(
    #[case] target: &str,
    #[case] headers: &str,
    #[case] kept: &str,
) {
    let destination = sent([format!("GET {target} HTTP/1.1\r\n{headers}\r\n\r\n")]);
    assert_eq!(path(&destination), kept.as_bytes());
    assert_eq!(destination.names.is_empty(), target.contains('?'));
}

#[rstest]
#[case(2000)]
#[case(5000)]
fn a_long_path_is_cut(#[case] bytes: usize) {
    let destination = sent([format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(bytes))]);
    assert_eq!(path(&destination).len(), HTTP_PATH_BYTES_MAX);
}

#[rstest]
#[case("HTTP/1.1 200 OK\r\nHost: a\r\n\r\n")]
#[case("SSH-2.0-OpenSSH_9.9\r\n")]
#[case("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")]
#[case("NICK someone\r\nUSER a b c d\r\n")]
#[case("220 mail.example.jp ESMTP\r\n")]
#[case("GET /a\r\n")]
#[case("GET http://user:secret")]
#[case(" / HTTP/1.1\r\n\r\n")]
#[case("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\n\r\n")]
fn other_protocols_say_nothing(#[case] bytes: &str) {
    assert_eq!(sent([bytes]), Destination::default());
}
