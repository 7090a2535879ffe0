//! Notices by mail: SMTP, over TLS from the start or from STARTTLS on, never without.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lettre::address::Envelope;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder};
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{
    AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters,
};
use lettre::transport::smtp::extension::ClientId;
use serde::Deserialize;

use super::connect::{Target, roots};
use super::{Egress, Notice, SendError, one_line, secret};
use crate::limits::{MAIL_RECIPIENTS_MAX, NOTICE_SEND_TIME_MAX};

/// `mail:` of an endpoint.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailConfig {
    server: String,
    #[serde(default)]
    tls: Tls,
    from: String,
    to: Vec<String>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    password_file: Option<PathBuf>,
    #[serde(default)]
    ca_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Tls {
    #[default]
    Implicit,
    Starttls,
}

pub struct Mail {
    target: Target,
    tls: Tls,
    parameters: TlsParameters,
    from: Mailbox,
    to: Vec<Mailbox>,
    envelope: Envelope,
    credentials: Option<Credentials>,
}

impl std::fmt::Debug for Mail {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Mail { target, from, to, .. } = self;
        formatter
            .debug_struct("Mail")
            .field("target", target)
            .field("from", from)
            .field("to", to)
            .finish_non_exhaustive()
    }
}

impl Mail {
    pub fn new(config: &MailConfig, egress: &Egress, base: &Path) -> Result<Mail, String> {
        let target = Target::parse(&config.server, egress)?;
        let mailbox = |text: &String| {
            text.parse::<Mailbox>().map_err(|error| format!("{text:?} is no mail address: {error}"))
        };
        if config.to.is_empty() || config.to.len() > MAIL_RECIPIENTS_MAX {
            return Err(format!("to: 1 to {MAIL_RECIPIENTS_MAX} mail addresses"));
        }
        let from = mailbox(&config.from)?;
        let to = config.to.iter().map(mailbox).collect::<Result<Vec<_>, _>>()?;
        let receivers = to.iter().map(|it| it.email.clone()).collect();
        let envelope = Envelope::new(Some(from.email.clone()), receivers);
        let envelope = envelope.map_err(|error| error.to_string())?;
        let credentials = match (&config.user, &config.password_file) {
            (Some(user), Some(file)) => Some(Credentials::new(user.clone(), secret(base, file)?)),
            (None, None) => None,
            _ => return Err("user and password_file belong together".to_owned()),
        };
        let mut parameters =
            TlsParameters::builder(target.host.clone()).certificate_store(CertificateStore::None);
        for root in roots(base, config.ca_file.as_deref())? {
            let root = Certificate::from_der(root.to_vec()).map_err(|error| error.to_string())?;
            parameters = parameters.add_root_certificate(root);
        }
        let parameters = parameters.build_rustls().map_err(|error| error.to_string())?;
        Ok(Mail { target, tls: config.tls, parameters, from, to, envelope, credentials })
    }

    fn message(&self, notice: &Notice) -> Result<Vec<u8>, SendError> {
        let mut message = MessageBuilder::new()
            .from(self.from.clone())
            .subject(one_line(&notice.title))
            // So that one that is sent twice is the same one.
            .message_id(Some(format!("<{}@{}>", notice.id, self.from.email.domain())))
            .header(ContentType::TEXT_PLAIN);
        for to in &self.to {
            message = message.to(to.clone());
        }
        let priority = notice.severity.word().to_owned();
        for (name, value) in
            [("Auto-Submitted", "auto-generated".to_owned()), ("X-Severity", priority)]
        {
            if let Ok(name) = HeaderName::new_from_ascii(name.to_owned()) {
                message = message.raw_header(HeaderValue::new(name, value));
            }
        }
        let message = message.body(notice.text.clone());
        let message = message.map_err(|error| SendError::lasting(error.to_string()))?;
        Ok(message.formatted())
    }

    pub async fn send(&self, notice: &Notice) -> Result<(), SendError> {
        let message = self.message(notice)?;
        let address = self.target.address().await?;
        let name = ClientId::default();
        let parameters = (self.tls == Tls::Implicit).then(|| self.parameters.clone());
        let most: Option<Duration> = Some(NOTICE_SEND_TIME_MAX);
        let connection =
            AsyncSmtpConnection::connect_tokio1(address, most, &name, parameters, None).await;
        let mut connection = connection.map_err(|error| self.failed(&error))?;
        let sent = self.speak(&mut connection, &name, &message).await;
        if sent.is_ok() {
            // It was taken; how the connection ends does not matter.
            let _ = connection.quit().await;
        } else {
            connection.abort().await;
        }
        sent
    }

    async fn speak(
        &self,
        connection: &mut AsyncSmtpConnection,
        name: &ClientId,
        message: &[u8],
    ) -> Result<(), SendError> {
        if self.tls == Tls::Starttls {
            if !connection.can_starttls() {
                return Err(SendError::passing("the server offers no STARTTLS"));
            }
            let upgraded = connection.starttls(self.parameters.clone(), name).await;
            upgraded.map_err(|error| self.failed(&error))?;
        }
        if !connection.is_encrypted() {
            return Err(SendError::passing("the connection is not encrypted"));
        }
        if let Some(credentials) = &self.credentials {
            let mechanisms = [Mechanism::Plain, Mechanism::Login];
            let entered = connection.auth(&mechanisms, credentials).await;
            entered.map_err(|error| self.failed(&error))?;
        }
        let sent = connection.send(&self.envelope, message).await;
        sent.map(|_| ()).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &Error) -> SendError {
        let Target { host, port, .. } = &self.target;
        let source = std::error::Error::source(error).map(ToString::to_string);
        let why = format!(
            "{host}:{port}: {error}{}",
            source.map(|it| format!(": {it}")).unwrap_or_default()
        );
        // A mailbox may come back, and a password be mended: only the age of a notice ends it.
        SendError::passing(one_line(&why))
    }
}
