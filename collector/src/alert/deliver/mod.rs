//! Takes notices to people and to other systems: by mail, to a webhook, to a syslog server.
//!
//! `config` (what `alerts.yaml` says) → [`Endpoint::new`] (checked, with its secrets and
//! certificates read, and nothing sent) → [`Endpoint::send`] (one notice, one connection, in
//! bounded time). Who tries again, and when, is not decided here: [`SendError`] says whether it
//! makes sense.
//!
//! Where a notice goes is bounded by [`Egress`], twice: an endpoint that is not in the list is
//! refused when the file is read, and what its name resolves to is looked at before each
//! connection, so that a name server cannot point the collector at its own services or at those of
//! the cloud it runs in.
//!
//! A notice may hold text that an attacker chose, as the name of a file. Each sender writes it so
//! that it stays within its field: see `words` and `syslog`.

mod address;
mod config;
mod dial;
mod egress;
mod error;
mod mail;
mod notice;
mod secret;
mod starttls;
mod stream;
mod syslog;
mod target;
mod tls;
mod webhook;
mod words;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;

pub use config::{
    EndpointConfig, Facility, HookUrl, MailConfig, MailTls, SyslogConfig, SyslogTransport,
    WebhookConfig,
};
pub use egress::{Egress, EgressError};
pub use error::{EndpointError, SendError};
pub use notice::{Notice, Severity};
pub(crate) use words::one_line;

use crate::limits::ENDPOINT_NAME_MAX;
use error::Fault;
use mail::Mail;
use syslog::Syslog;
use webhook::Webhook;

/// One place that notices go to.
pub struct Endpoint {
    name: String,
    sender: Sender,
}

enum Sender {
    Mail(Box<Mail>),
    Webhook(Box<Webhook>),
    Syslog(Box<Syslog>),
}

impl Endpoint {
    /// Checks what `config` says and reads the files it names, which are looked for below `base`
    /// unless their paths are absolute. Connects to nothing.
    ///
    /// # Errors
    /// [`EndpointError`] names the endpoint and says what to change.
    pub fn new(
        config: &EndpointConfig,
        egress: &Egress,
        base: &Path,
    ) -> Result<Endpoint, EndpointError> {
        let name = config.name.clone();
        let sender = build(config, egress, base);
        match sender {
            Ok(sender) => Ok(Endpoint { name, sender }),
            Err(fault) => Err(EndpointError { name: words::one_line(&name, 100), fault }),
        }
    }

    /// As it is called in the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends one notice. It may arrive more than once: when it arrived and the answer did not, the
    /// next try sends it again, under the same id.
    ///
    /// # Errors
    /// [`SendError`] says whether another try makes sense, and when.
    pub async fn send(&self, notice: &Notice) -> Result<(), SendError> {
        match &self.sender {
            Sender::Mail(mail) => mail.send(notice).await,
            Sender::Webhook(webhook) => webhook.send(notice).await,
            Sender::Syslog(syslog) => syslog.send(notice).await,
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Endpoint");
        shown.field("name", &self.name);
        match &self.sender {
            Sender::Mail(it) => shown.field("mail", it),
            Sender::Webhook(it) => shown.field("webhook", it),
            Sender::Syslog(it) => shown.field("syslog", it),
        };
        shown.finish()
    }
}

fn build(config: &EndpointConfig, egress: &Egress, base: &Path) -> Result<Sender, Fault> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !(1..=ENDPOINT_NAME_MAX).contains(&config.name.len()) || !config.name.bytes().all(plain) {
        return Err(Fault::Name);
    }
    match (&config.mail, &config.webhook, &config.syslog) {
        (Some(it), None, None) => Ok(Sender::Mail(Box::new(Mail::new(it, egress, base)?))),
        (None, Some(it), None) => Ok(Sender::Webhook(Box::new(Webhook::new(it, egress, base)?))),
        (None, None, Some(it)) => Ok(Sender::Syslog(Box::new(Syslog::new(it, egress, base)?))),
        _ => Err(Fault::NotOne),
    }
}
