//! Notices as a signed POST over HTTPS.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use ring::hmac;
use rustls::ClientConfig;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};

use super::connect::{Target, roots, tls};
use super::{Egress, Notice, SendError, one_line, secret};
use crate::limits::{WEBHOOK_ANSWER_BYTES_MAX, WEBHOOK_SECRET_BYTES_MIN};

/// `webhook:` of an endpoint.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    url: String,
    secret_file: PathBuf,
    #[serde(default)]
    ca_file: Option<PathBuf>,
}

pub struct Webhook {
    target: Target,
    authority: String,
    path: String,
    key: hmac::Key,
    tls: Arc<ClientConfig>,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The path of a URL may be a secret too.
        formatter.debug_struct("Webhook").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Webhook {
    pub fn new(config: &WebhookConfig, egress: &Egress, base: &Path) -> Result<Webhook, String> {
        let uri: Uri = config.url.parse().map_err(|error| format!("url: {error}"))?;
        let authority = uri.authority().ok_or("url: it names no host")?;
        if uri.scheme_str() != Some("https") || authority.as_str().contains('@') {
            return Err("url: expected https://HOST/PATH, without a user".to_owned());
        }
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host);
        let target = Target::new(host, authority.port_u16().unwrap_or(443), egress)?;
        let secret = secret(base, &config.secret_file)?;
        if secret.len() < WEBHOOK_SECRET_BYTES_MIN {
            return Err(format!("secret_file: at least {WEBHOOK_SECRET_BYTES_MIN} bytes"));
        }
        let path = uri.path_and_query().map_or("/", |it| it.as_str()).to_owned();
        Ok(Webhook {
            target,
            authority: authority.as_str().to_owned(),
            path,
            key: hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()),
            tls: tls(roots(base, config.ca_file.as_deref())?)?,
        })
    }

    pub async fn send(&self, notice: &Notice) -> Result<(), SendError> {
        let stream = self.target.connect_tls(&self.tls).await?;
        self.post(stream, notice).await
    }

    async fn post<S>(&self, stream: S, notice: &Notice) -> Result<(), SendError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let failed = |error: hyper::Error| SendError::passing(error.to_string());
        let request = self.request(notice, jiff::Timestamp::now().as_second())?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(failed)?;
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(request).await.map_err(failed);
        let answered = match answer {
            Ok(answer) => judged(answer).await,
            Err(error) => Err(error),
        };
        connection.abort();
        answered
    }

    fn request(&self, notice: &Notice, now_s: i64) -> Result<Request<Full<Bytes>>, SendError> {
        let mut json = notice.json.clone();
        if let Some(object) = json.as_object_mut() {
            object.insert("id".to_owned(), notice.id.as_str().into());
            object.insert("severity".to_owned(), notice.severity.word().into());
            object.insert("rule".to_owned(), notice.rule.as_str().into());
            object.insert("title".to_owned(), notice.title.as_str().into());
            object.insert("text".to_owned(), notice.text.as_str().into());
            object.insert("time".to_owned(), sekimori_proto::json::time(notice.time_ns));
        }
        let body = json.to_string();
        let tag = hmac::sign(&self.key, format!("{now_s}.{body}").as_bytes());
        let signature = format!("t={now_s},v1={}", sekimori_evidence::hex(tag.as_ref()));
        Request::post(&self.path)
            .header(HOST, &self.authority)
            .header(USER_AGENT, concat!("sekimori/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .header("Sekimori-Delivery", &notice.id)
            .header("Sekimori-Signature", signature)
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| SendError::lasting(error.to_string()))
    }
}

async fn judged(answer: hyper::Response<hyper::body::Incoming>) -> Result<(), SendError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let after = answer.headers().get(RETRY_AFTER).and_then(|it| it.to_str().ok());
    let retry_after = after.and_then(|it| it.parse().ok()).map(Duration::from_secs);
    let body = Limited::new(answer.into_body(), WEBHOOK_ANSWER_BYTES_MAX).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let why = format!("HTTP {status}: {}", one_line(&String::from_utf8_lossy(&body)));
    let passing = [
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
        // The secret may be changed at one end before it is at the other.
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::NOT_FOUND,
    ];
    let is_final = status.is_client_error() && !passing.contains(&status);
    Err(SendError { why: why.trim_end().to_owned(), is_final, retry_after })
}
