//! HTTP/1 in clear (RFC 9112).

use httparse::{EMPTY_HEADER, ParserConfig, Request, Status};
use sekimori_proto::v1::{HttpRequest, NameSource};

use super::{Learned, Reading, host};
use crate::limits::{HTTP_METHOD_BYTES_MAX, HTTP_PATH_BYTES_MAX};

/// No header is shorter than `a:` and the end of its line.
const HEADER_BYTES_MIN: usize = 3;
/// Stands in front of headers for the parser. The true line is read here: its target may be in any
/// encoding.
const ANY_LINE: &[u8] = b"GET / HTTP/1.1\r\n";

/// Reads a request from the beginning of a connection.
pub(super) fn read(bytes: &[u8]) -> Reading<Learned> {
    let bytes = skip_empty_lines(bytes);
    let Some((line, headers)) = split_line(bytes) else {
        let possible = method(bytes).is_some();
        return if possible { Reading::More } else { Reading::Nothing };
    };
    let Some(line) = Line::read(line) else {
        return Reading::Nothing;
    };
    match host_header(headers) {
        Reading::Found(header) => Reading::Found(line.learn(header.as_deref())),
        Reading::More => Reading::More,
        Reading::Nothing => Reading::Found(line.learn(None)),
    }
}

/// The same when nothing more comes, from what is complete.
pub(super) fn read_rest(bytes: &[u8]) -> Option<Learned> {
    let bytes = skip_empty_lines(bytes);
    let Some((line, headers)) = split_line(bytes) else {
        return Some(Line::read_cut(bytes)?.learn(None));
    };
    let line = Line::read(line)?;
    let complete = headers.iter().rposition(|byte| *byte == b'\n');
    let complete = complete.and_then(|last| headers.get(..=last)).unwrap_or_default();
    match host_header(&[complete, b"\r\n"].concat()) {
        Reading::Found(header) => Some(line.learn(header.as_deref())),
        Reading::More | Reading::Nothing => Some(line.learn(None)),
    }
}

/// The first line of a request.
struct Line<'a> {
    method: &'a str,
    target: &'a [u8],
}

impl<'a> Line<'a> {
    fn read(line: &'a [u8]) -> Option<Self> {
        let line = line.trim_ascii_end();
        let method = method(line)?;
        let rest = line.get(method.len()..)?;
        let (rest, version) = rest.split_at_checked(rest.len().checked_sub(b" HTTP/1.1".len())?)?;
        let [b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0'..=b'9'] = version else {
            return None;
        };
        let target = rest.trim_ascii();
        (!target.is_empty()).then_some(Self { method, target })
    }

    /// A line whose end is not known. Its path is known when it is not what was cut.
    fn read_cut(line: &'a [u8]) -> Option<Self> {
        let method = method(line).filter(|it| it.bytes().all(|byte| byte.is_ascii_uppercase()))?;
        let target = line.get(method.len()..)?.trim_ascii_start();
        let known = ends_before(target, b"?#;").len() < target.len();
        let long = target.starts_with(b"/") && target.len() > HTTP_PATH_BYTES_MAX;
        let request = !Target::of(method, target).path.is_empty();
        (request && (known || long)).then_some(Self { method, target })
    }

    fn learn(&self, header: Option<&[u8]>) -> Learned {
        let target = Target::of(self.method, self.target);
        // A proxy is told the destination in the target.
        let name = target.host.or_else(|| header.and_then(host_of)).and_then(host);
        let path = target.path.get(..HTTP_PATH_BYTES_MAX).unwrap_or(target.path).to_vec();
        Learned {
            name: name.map(|name| (name, NameSource::Http)),
            http: Some(HttpRequest { method: self.method.to_owned(), path }),
            smtp: None,
        }
    }
}

fn skip_empty_lines(bytes: &[u8]) -> &[u8] {
    let begin = bytes.iter().position(|byte| !b"\r\n".contains(byte));
    begin.and_then(|begin| bytes.get(begin..)).unwrap_or_default()
}

/// The first line, and what follows.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    bytes.split_at_checked(end.checked_add(1)?)
}

/// The method, or what may become one.
fn method(line: &[u8]) -> Option<&str> {
    let method = ends_before(line, b" ");
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    let legal = method.len() <= HTTP_METHOD_BYTES_MAX && method.iter().all(legal);
    str::from_utf8(method).ok().filter(|_| legal && !line.starts_with(b" "))
}

/// The value of `Host` when the headers are complete, if they have one.
fn host_header(headers: &[u8]) -> Reading<Option<Vec<u8>>> {
    let head = [ANY_LINE, headers].concat();
    let mut parsed = vec![EMPTY_HEADER; head.len() / HEADER_BYTES_MIN];
    let mut request = Request::new(&mut parsed);
    let mut config = ParserConfig::default();
    config.ignore_invalid_headers_in_requests(true);
    match config.parse_request(&mut request, &head) {
        Ok(Status::Complete(_)) => {
            let mut headers = request.headers.iter();
            let header = headers.find(|header| header.name.eq_ignore_ascii_case("host"));
            Reading::Found(header.map(|header| header.value.to_vec()))
        }
        Ok(Status::Partial) => Reading::More,
        Err(_) => Reading::Nothing,
    }
}

/// What is requested (RFC 9112, 3.2), without what must not be recorded: the query and the fragment
/// carry secrets, and so do the user and the password in front of a host.
#[derive(Default)]
struct Target<'a> {
    host: Option<&'a [u8]>,
    path: &'a [u8],
}

impl<'a> Target<'a> {
    fn of(method: &str, target: &'a [u8]) -> Self {
        let target = ends_before(target, b"?#;");
        // Of a target of no known form it cannot be told where its secrets are.
        if method == "CONNECT" {
            Self::authority(target).unwrap_or_default()
        } else if target.starts_with(b"/") || target == b"*" {
            Self { host: None, path: target }
        } else {
            Self::absolute(target).unwrap_or_default()
        }
    }

    /// `host:port`, which is the path too.
    fn authority(target: &'a [u8]) -> Option<Self> {
        let path = without_user(ends_before(target, b"/\\"));
        Some(Self { host: Some(host_of(path)?), path })
    }

    /// `http://host:port/path`. Nothing when a `/` in a password only makes it look like this.
    fn absolute(target: &'a [u8]) -> Option<Self> {
        let scheme = ends_before(target, b":");
        let rest = target.get(scheme.len()..)?.strip_prefix(b"://")?;
        if !scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte)) {
            return None;
        }
        let authority = ends_before(rest, b"/\\");
        let path = rest.get(authority.len()..)?;
        let path = if path.is_empty() { b"/" } else { path };
        Some(Self { host: Some(host_of(authority)?), path })
    }
}

/// The host in `host`, `host:port` or `[address]:port`, with or without a user in front.
fn host_of(authority: &[u8]) -> Option<&[u8]> {
    let authority = without_user(authority.trim_ascii());
    let (host, port) = match authority.strip_prefix(b"[") {
        Some(literal) => literal.split_at_checked(ends_before(literal, b"]").len())?,
        None => authority.split_at_checked(ends_before(authority, b":").len())?,
    };
    let port = port.strip_prefix(b"]").unwrap_or(port);
    let port = port.strip_prefix(b":").unwrap_or(port);
    port.iter().all(u8::is_ascii_digit).then_some(host)
}

fn without_user(authority: &[u8]) -> &[u8] {
    authority.rsplit(|byte| *byte == b'@').next().unwrap_or_default()
}

/// What stands in front of the first of these bytes, or all.
fn ends_before<'a>(bytes: &'a [u8], ends: &[u8]) -> &'a [u8] {
    bytes.split(|byte| ends.contains(byte)).next().unwrap_or_default()
}
