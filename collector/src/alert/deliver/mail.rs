//! Mail: one server, TLS always, one connection for each notice.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue, MIME_VERSION_1_0};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream};
use lettre::transport::smtp::commands::{Data, Mail as MailFrom, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use lru::LruCache;
use rustls::ClientConfig;
use tokio::time::timeout;

use super::config::{MailConfig, MailTls};
use super::dial::{Dial, within};
use super::egress::Egress;
use super::error::{Fault, SendError};
use super::notice::Notice;
use super::secret::Secret;
use super::stream::Bounded;
use super::words::{lines, one_line};
use super::{starttls, tls};
use crate::limits::{
    ANSWER_TOLD_BYTES_MAX, GOODBYE_TIME_MAX, MAIL_TIME_MAX, MAILS_KEPT_MAX, RECIPIENTS_MAX,
    TEXT_BYTES_MAX, TITLE_BYTES_MAX,
};

/// Ways to log in, the better one first.
const MECHANISMS: &[Mechanism] = &[Mechanism::Plain, Mechanism::Login];
/// Answers that are about the login, not about the mail (RFC 4954, section 6).
const LOGIN_CODES: [u16; 4] = [530, 534, 535, 538];
/// Characters of an id that may stand in a `Message-ID`.
const ID_BYTES_MAX: usize = 128;

/// Sends by mail.
pub(super) struct Mail {
    dial: Dial,
    tls: MailTls,
    tls_config: Arc<ClientConfig>,
    login: Option<(String, Secret)>,
    from: Mailbox,
    to: Vec<Mailbox>,
    /// By notice, the recipients (their places in `to`) that have it or never will, while others
    /// still wait for it.
    settled: Mutex<LruCache<String, BTreeSet<usize>>>,
    pub(super) time_max: Duration,
}

/// What became of the recipients of one try.
#[derive(Default)]
struct Outcome {
    accepted: BTreeSet<usize>,
    refused: BTreeSet<usize>,
    later: BTreeSet<usize>,
    /// The last answer that was no yes.
    answer: String,
}

impl Mail {
    pub(super) fn new(config: &MailConfig, egress: &Egress, base: &Path) -> Result<Mail, Fault> {
        let dial = Dial::new(config.server.parse()?, egress)?;
        let ca_file = config.ca_file.as_ref().map(|path| base.join(path));
        let login = match (&config.user, &config.password_file) {
            (None, None) => None,
            (Some(user), Some(file)) => {
                if !(1..=256).contains(&user.len()) || user.contains(char::is_control) {
                    return Err(Fault::User);
                }
                let password = Secret::password("password_file", &base.join(file))?;
                Some((user.clone(), password))
            }
            _ => return Err(Fault::HalfLogin),
        };
        if !(1..=RECIPIENTS_MAX).contains(&config.to.len()) {
            return Err(Fault::Recipients(config.to.len()));
        }
        let to = config.to.iter().map(|it| mailbox("to", it)).collect::<Result<_, _>>()?;
        let kept = NonZeroUsize::new(MAILS_KEPT_MAX).unwrap_or(NonZeroUsize::MIN);
        Ok(Mail {
            dial,
            tls: config.tls,
            tls_config: tls::config(ca_file.as_deref())?,
            login,
            from: mailbox("from", &config.from)?,
            to,
            settled: Mutex::new(LruCache::new(kept)),
            time_max: MAIL_TIME_MAX,
        })
    }

    pub(super) async fn send(&self, notice: &Notice) -> Result<(), SendError> {
        let message = self.message(notice)?;
        let (mut connection, outcome) =
            within(self.time_max, &self.dial.target, self.deliver(notice, &message)).await?;
        // The server has the mail: what it says to this changes nothing.
        let _ = timeout(GOODBYE_TIME_MAX, connection.quit()).await;
        self.settle(notice, &outcome)
    }

    /// The mail as it is transmitted, without the dots of SMTP.
    pub(super) fn message(&self, notice: &Notice) -> Result<Vec<u8>, SendError> {
        let title = one_line(&notice.title, TITLE_BYTES_MAX);
        let mut mail = Message::builder()
            .from(self.from.clone())
            .subject(format!("[Sekimori {}] {title}", notice.severity))
            .date(notice.system_time())
            .message_id(Some(message_id(&notice.id, self.from.email.domain())))
            .header(AutoSubmitted)
            .header(MIME_VERSION_1_0)
            .header(ContentType::TEXT_PLAIN);
        for to in &self.to {
            mail = mail.to(to.clone());
        }
        let text = format!(
            "{title}\n\n{}\n\n-- \nSeverity: {}\nRule: {}\nTime: {}\nNotice: {}\n",
            lines(notice.text.trim_end(), TEXT_BYTES_MAX),
            notice.severity,
            one_line(&notice.rule, TITLE_BYTES_MAX),
            notice.time(),
            one_line(&notice.id, TITLE_BYTES_MAX),
        );
        let mail = mail.body(text);
        let mail =
            mail.map_err(|error| SendError::last(format!("the mail cannot be made: {error}")))?;
        Ok(mail.formatted())
    }

    /// One transaction, with those who do not have the mail yet.
    async fn deliver(
        &self,
        notice: &Notice,
        message: &[u8],
    ) -> Result<(AsyncSmtpConnection, Outcome), SendError> {
        let mut connection = self.connect().await?;
        let from = MailFrom::new(Some(self.from.email.clone()), Vec::new());
        connection.command(from).await.map_err(|error| answered(&error, "the sender"))?;
        let settled = self.settled_of(notice);
        let mut outcome = Outcome::default();
        for (place, to) in self.to.iter().enumerate().filter(|it| !settled.contains(&it.0)) {
            match connection.command(Rcpt::new(to.email.clone(), Vec::new())).await {
                Ok(_) => _ = outcome.accepted.insert(place),
                Err(error) => {
                    let error = Answer::from(&error);
                    match error.kind {
                        Refusal::Final => _ = outcome.refused.insert(place),
                        Refusal::ForNow => _ = outcome.later.insert(place),
                        Refusal::None => return Err(SendError::retry(error.told)),
                    }
                    outcome.answer = error.told;
                }
            }
        }
        if !outcome.accepted.is_empty() {
            connection.command(Data).await.map_err(|error| answered(&error, "the mail"))?;
            let sent = connection.message(message).await;
            sent.map_err(|error| answered(&error, "the mail"))?;
        }
        Ok((connection, outcome))
    }

    /// Connects, encrypts and logs in. What goes wrong here is never about the notice.
    async fn connect(&self) -> Result<AsyncSmtpConnection, SendError> {
        let stream = self.dial.connect().await?;
        let gone = |error| SendError::retry(format!("the mail server is gone: {error}"));
        let peer = stream.peer_addr().map_err(gone)?;
        let hello = hello(stream.local_addr().map_err(gone)?);
        let target = &self.dial.target;
        let stream: Box<dyn AsyncTokioStream> = match self.tls {
            MailTls::Implicit => {
                let stream = tls::connect(&self.tls_config, target, stream).await?;
                Box::new(Bounded::new(stream, peer))
            }
            MailTls::Starttls => {
                let stream = starttls::begin(stream, &hello.to_string()).await?;
                let stream = tls::connect(&self.tls_config, target, stream).await?;
                Box::new(Bounded::greeted(stream, peer))
            }
        };
        let connected = AsyncSmtpConnection::connect_with_transport(stream, &hello).await;
        let mut connection = connected.map_err(|error| {
            SendError::retry(format!("{target} does not greet: {}", Answer::from(&error).told))
        })?;
        if let Some((user, password)) = &self.login {
            let password = password.text().unwrap_or_default().to_owned();
            let credentials = Credentials::new(user.clone(), password);
            // What the server says may repeat what it was told.
            connection.auth(MECHANISMS, &credentials).await.map_err(|error| {
                let code = error.status().map_or_else(|| "no code".to_owned(), |it| it.to_string());
                SendError::retry(format!(
                    "{target} does not let the user of `user` and `password_file` in ({code})"
                ))
            })?;
        }
        Ok(connection)
    }

    fn settled_of(&self, notice: &Notice) -> BTreeSet<usize> {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        settled.get(&notice.id).cloned().unwrap_or_default()
    }

    /// Keeps in mind who has the mail, and says what is left to do.
    fn settle(&self, notice: &Notice, outcome: &Outcome) -> Result<(), SendError> {
        let Outcome { accepted, refused, later, answer } = outcome;
        let server = &self.dial.target;
        if !refused.is_empty() {
            let refused = self.names(refused);
            tracing::warn!(%server, refused, answer, "recipients of notices are REFUSED");
        }
        let mut known = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        let had_some = known.contains(&notice.id);
        if later.is_empty() {
            known.pop(&notice.id);
            return if accepted.is_empty() && !had_some {
                Err(SendError::last(format!("every recipient is refused: {answer}")))
            } else {
                Ok(())
            };
        }
        if !accepted.is_empty() {
            let mut settled = known.pop(&notice.id).unwrap_or_default();
            settled.extend(accepted.union(refused));
            known.put(notice.id.clone(), settled);
        }
        let waiting = self.names(later);
        Err(SendError::retry(format!("{server} does not take it for {waiting} yet: {answer}")))
    }

    fn names(&self, places: &BTreeSet<usize>) -> String {
        let names = places.iter().filter_map(|place| self.to.get(*place));
        names.map(|it| it.email.to_string()).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Debug for Mail {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Mail({}, {} recipients)", self.dial.target, self.to.len())
    }
}

/// RFC 3834: no person wrote this, and no program should answer it.
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(AutoSubmitted)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// What a server said, or why it said nothing.
struct Answer {
    kind: Refusal,
    told: String,
}

enum Refusal {
    /// 5xx.
    Final,
    /// 4xx, and what is wrong with the login.
    ForNow,
    /// No answer at all.
    None,
}

impl From<&lettre::transport::smtp::Error> for Answer {
    fn from(error: &lettre::transport::smtp::Error) -> Answer {
        let login = error.status().is_some_and(|code| LOGIN_CODES.contains(&code.into()));
        let kind = match () {
            () if error.is_permanent() && !login => Refusal::Final,
            () if error.is_permanent() || error.is_transient() => Refusal::ForNow,
            () => Refusal::None,
        };
        Answer { kind, told: one_line(&error.to_string(), ANSWER_TOLD_BYTES_MAX) }
    }
}

fn answered(error: &lettre::transport::smtp::Error, what: &str) -> SendError {
    let Answer { kind, told } = Answer::from(error);
    let reason = format!("the mail server does not take {what}: {told}");
    if matches!(kind, Refusal::Final) { SendError::last(reason) } else { SendError::retry(reason) }
}

/// An address in ASCII, with a name in any characters that do not steer.
fn mailbox(field: &'static str, written: &str) -> Result<Mailbox, Fault> {
    let parsed = written.parse::<Mailbox>().ok();
    let good = parsed.filter(|it| {
        let email: &str = it.email.as_ref();
        email.is_ascii() && one_line(written, usize::MAX) == written
    });
    good.ok_or_else(|| Fault::Address { field, address: one_line(written, ANSWER_TOLD_BYTES_MAX) })
}

/// The same for each try of one notice. An id that cannot stand in it is hashed.
fn message_id(id: &str, domain: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(plain) {
        return format!("<sekimori.{id}@{domain}>");
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, id.as_bytes());
    format!("<sekimori.{}@{domain}>", sekimori_evidence::hex(digest.as_ref()))
}

/// The address that the connection comes from: unlike the name of this host, a server that checks
/// what EHLO says can take it (RFC 5321, section 4.1.3).
fn hello(local: SocketAddr) -> ClientId {
    match local.ip().to_canonical() {
        IpAddr::V4(it) => ClientId::Ipv4(it),
        IpAddr::V6(it) => ClientId::Ipv6(it),
    }
}
