//! Webhooks: one POST of JSON over HTTPS, signed.
//!
//! `Sekimori-Signature: t=SECONDS,v1=HEX`, where HEX is HMAC-SHA256 with the shared key over
//! `SECONDS`, a dot and the body. The receiver computes it over the bytes as they came, compares in
//! constant time, refuses times that are more than some minutes away, and knows by
//! `Sekimori-Delivery` what it has already.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use ring::hmac;
use rustls::ClientConfig;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use url::{Position, Url};

use super::config::WebhookConfig;
use super::dial::{Dial, within};
use super::egress::Egress;
use super::error::{Fault, SendError};
use super::notice::Notice;
use super::secret::Secret;
use super::target::{Host, Target, name};
use super::tls;
use super::words::{cut, one_line};
use crate::limits::{
    ANSWER_TOLD_BYTES_MAX, HOOK_ANSWER_BYTES_MAX, HOOK_BODY_BYTES_MAX, HOOK_HEAD_BYTES_MAX,
    HOOK_TIME_MAX, RETRY_AFTER_MAX, TEXT_BYTES_MAX, TITLE_BYTES_MAX,
};

/// Parts of a URL that are shorter are no secret.
const TOKEN_BYTES_MIN: usize = 8;

/// Posts.
pub(super) struct Webhook {
    dial: Dial,
    /// None for HTTP without TLS, which goes to this host only.
    tls: Option<Arc<ClientConfig>>,
    /// Host and, if it is not the usual one, port.
    authority: String,
    /// Path and query: they may have a secret in them.
    path: String,
    key: hmac::Key,
    pub(super) time_max: Duration,
}

impl Webhook {
    pub(super) fn new(
        config: &WebhookConfig,
        egress: &Egress,
        base: &Path,
    ) -> Result<Webhook, Fault> {
        let url = Url::parse(config.url.secret())
            .map_err(|_| Fault::Url("this is no URL: write `https://host.example.org/path`"))?;
        let target = target(&url)?;
        let dial = Dial::new(target, egress)?;
        let ca_file = config.ca_file.as_ref().map(|path| base.join(path));
        let tls = match (url.scheme(), ca_file) {
            ("https", ca_file) => Some(tls::config(ca_file.as_deref())?),
            (_, None) => None,
            (_, Some(_)) => return Err(Fault::Url("`ca_file` is for https")),
        };
        let secret = Secret::key("secret_file", &base.join(&config.secret_file))?;
        Ok(Webhook {
            dial,
            tls,
            authority: url[Position::BeforeHost..Position::AfterPort].to_owned(),
            path: url[Position::BeforePath..Position::AfterQuery].to_owned(),
            key: hmac::Key::new(hmac::HMAC_SHA256, secret.bytes()),
            time_max: HOOK_TIME_MAX,
        })
    }

    pub(super) async fn send(&self, notice: &Notice) -> Result<(), SendError> {
        within(self.time_max, &self.dial.target, async {
            let stream = self.dial.connect().await?;
            match &self.tls {
                None => self.post(notice, stream).await,
                Some(config) => {
                    let stream = tls::connect(config, &self.dial.target, stream).await?;
                    self.post(notice, stream).await
                }
            }
        })
        .await
    }

    async fn post<S>(&self, notice: &Notice, stream: S) -> Result<(), SendError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let target = &self.dial.target;
        let gone = |error| SendError::retry(format!("{target} does not answer: {error}"));
        let request = self.request(notice, Timestamp::now().as_second())?;
        let mut builder = http1::Builder::new();
        let builder = builder.max_buf_size(HOOK_HEAD_BYTES_MAX).max_headers(64);
        let (mut sender, connection) =
            builder.handshake(TokioIo::new(stream)).await.map_err(gone)?;
        // It ends with this function.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let response = sender.send_request(request).await.map_err(gone)?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(self.refused(response).await)
    }

    fn request(&self, notice: &Notice, now_s: i64) -> Result<Request<Full<Bytes>>, SendError> {
        let body = body(notice);
        let signature = self.signature(now_s, &body);
        // Headers hold no line end; the body has the id as it is.
        let id = one_line(&notice.id, TITLE_BYTES_MAX);
        Request::post(&self.path)
            .header(HOST, &self.authority)
            .header(USER_AGENT, concat!("sekimori/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .header("Sekimori-Delivery", id)
            .header("Sekimori-Signature", signature)
            .body(Full::from(body))
            .map_err(|error| SendError::last(format!("the request cannot be made: {error}")))
    }

    fn signature(&self, now_s: i64, body: &str) -> String {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(format!("{now_s}.").as_bytes());
        context.update(body.as_bytes());
        format!("t={now_s},v1={}", sekimori_evidence::hex(context.sign().as_ref()))
    }

    /// What an answer means that is no success.
    async fn refused(&self, response: Response<Incoming>) -> SendError {
        let status = response.status();
        let target = &self.dial.target;
        if status.is_redirection() {
            return SendError::last(format!(
                "{target} answers {status}, and redirects are not followed: put the address that \
                 it points to in `url`"
            ));
        }
        let wait = response.headers().get(RETRY_AFTER).and_then(|it| it.to_str().ok());
        let wait = wait.and_then(|it| retry_after(it, Timestamp::now()));
        let told = self.without_tokens(&told(response.into_body()).await);
        let reason = format!("{target} answers {status}: {told}");
        if is_final(status) { SendError::last(reason) } else { SendError::retry(reason) }
            .after(wait)
    }

    /// The text of an answer, which may repeat the path, without what could be a secret in it.
    fn without_tokens(&self, told: &str) -> String {
        let mut told = told.replace(&self.path, "/…");
        for part in self.path.split(['/', '?', '&', '=']) {
            if part.len() >= TOKEN_BYTES_MIN {
                told = told.replace(part, "…");
            }
        }
        one_line(told.trim(), ANSWER_TOLD_BYTES_MAX)
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Webhook({})", self.dial.target)
    }
}

/// Where a URL leads, if it is one that notices may go to.
fn target(url: &Url) -> Result<Target, Fault> {
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(Fault::Url("it must have no user, password or fragment"));
    }
    let host = match url.host() {
        Some(url::Host::Domain(it)) => {
            Host::Name(name(it).ok_or(Fault::Url("its host is no name of a host"))?)
        }
        Some(url::Host::Ipv4(it)) => Host::Address(it.into()),
        Some(url::Host::Ipv6(it)) => Host::Address(it.into()),
        None => return Err(Fault::Url("it must begin with `https://` and a host")),
    };
    let local = match &host {
        Host::Name(name) => name == "localhost",
        Host::Address(address) => address.is_loopback(),
    };
    match (url.scheme(), local, url.port_or_known_default()) {
        ("https", _, Some(port)) | ("http", true, Some(port)) if port != 0 => {
            Ok(Target { host, port })
        }
        ("http", ..) => Err(Fault::Url("it must begin with `https://`, unless it is this host")),
        _ => Err(Fault::Url("it must begin with `https://`")),
    }
}

/// The notice as JSON. What machines are told cannot take the place of what every notice has.
fn body(notice: &Notice) -> String {
    let mut fields = Map::new();
    let title: &str = cut(&notice.title, TITLE_BYTES_MAX);
    fields.insert("id".to_owned(), json!(notice.id));
    fields.insert("severity".to_owned(), json!(notice.severity));
    fields.insert("rule".to_owned(), json!(notice.rule));
    fields.insert("title".to_owned(), json!(title));
    fields.insert("text".to_owned(), json!(cut(&notice.text, TEXT_BYTES_MAX)));
    fields.insert("time".to_owned(), json!(notice.time()));
    let known = fields.clone();
    match &notice.json {
        Value::Null => {}
        Value::Object(more) => {
            for (key, value) in more {
                fields.entry(key.as_str()).or_insert_with(|| value.clone());
            }
        }
        other => _ = fields.insert("data".to_owned(), other.clone()),
    }
    let body = Value::Object(fields).to_string();
    if body.len() <= HOOK_BODY_BYTES_MAX {
        return body;
    }
    let mut short = known;
    short.insert("shortened".to_owned(), json!(true));
    Value::Object(short).to_string()
}

/// Whether the answer is about this notice. Logins and rights can be mended, as can a server.
fn is_final(status: StatusCode) -> bool {
    status.is_client_error()
        && !matches!(
            status,
            StatusCode::UNAUTHORIZED
                | StatusCode::FORBIDDEN
                | StatusCode::PROXY_AUTHENTICATION_REQUIRED
                | StatusCode::REQUEST_TIMEOUT
                | StatusCode::TOO_EARLY
                | StatusCode::TOO_MANY_REQUESTS
        )
}

/// Seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(written: &str, now: Timestamp) -> Option<Duration> {
    let wait = match written.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = jiff::fmt::rfc2822::parse(written.trim()).ok()?.timestamp();
            Duration::try_from(until.duration_since(now)).unwrap_or_default()
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// The beginning of an answer's body.
async fn told(mut body: Incoming) -> String {
    let mut told = Vec::new();
    while told.len() < HOOK_ANSWER_BYTES_MAX {
        let Some(Ok(frame)) = body.frame().await else { break };
        if let Ok(data) = frame.into_data() {
            let room = HOOK_ANSWER_BYTES_MAX.saturating_sub(told.len());
            told.extend_from_slice(data.get(..room).unwrap_or(&data));
        }
    }
    String::from_utf8_lossy(&told).into_owned()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("120", Some(120))]
    #[case("999999", Some(3600))]
    #[case("Thu, 01 Jan 1970 00:02:00 GMT", Some(60))]
    #[case("Wed, 31 Dec 1969 00:00:00 GMT", Some(0))]
    #[case("-1", None)]
    #[case("soon", None)]
    fn how_long_to_wait(#[case] written: &str, #[case] seconds: Option<u64>) {
        let wait = retry_after(written, Timestamp::from_second(60).unwrap_or_default());
        assert_eq!(wait, seconds.map(Duration::from_secs));
    }

    #[rstest]
    #[case("https://a.example/x", Some("a.example:443"))]
    #[case("https://A.example.:8443/x?y=z", Some("a.example:8443"))]
    #[case("https://[2001:db8::1]/", Some("[2001:db8::1]:443"))]
    #[case("https://0x7f.1/", Some("127.0.0.1:443"))]
    #[case("http://127.0.0.1:8080/", Some("127.0.0.1:8080"))]
    #[case("http://localhost:8080/", Some("localhost:8080"))]
    #[case("http://a.example/", None)]
    #[case("http://10.0.0.1/", None)]
    #[case("ftp://a.example/", None)]
    #[case("https://u:p@a.example/", None)]
    #[case("https://a.example/#x", None)]
    #[case("file:///etc/passwd", None)]
    fn where_a_url_leads(#[case] url: &str, #[case] expected: Option<&str>) {
        let target = Url::parse(url).ok().and_then(|url| target(&url).ok());
        assert_eq!(target.map(|it| it.to_string()).as_deref(), expected);
    }
}
