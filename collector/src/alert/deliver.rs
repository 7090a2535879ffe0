//! Senders of notices: mail, webhook, syslog. Each is given a notice as often as it takes.

mod connect;
mod egress;
mod mail;
mod syslog;
mod webhook;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::time;

pub use egress::Egress;
use mail::{Mail, MailConfig};
use syslog::{Syslog, SyslogConfig};
use webhook::{Webhook, WebhookConfig};

use crate::limits::{NAME_BYTES_MAX, NOTICE_SEND_TIME_MAX};

/// How bad something is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Look at it some day.
    Low,
    /// Look at it.
    #[default]
    Medium,
    /// Look at it today.
    High,
    /// Look at it now.
    Critical,
}

impl Severity {
    /// Its word in alerts.yaml.
    pub const fn word(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Low => "low",
            Severity::Medium => "medium",
            Severity::High => "high",
            Severity::Critical => "critical",
        }
    }
}

/// What is sent.
#[derive(Clone, Debug)]
pub struct Notice {
    /// The same with each try, and of no other notice.
    pub id: String,
    /// How bad it is.
    pub severity: Severity,
    /// Which rule found it.
    pub rule: String,
    /// One line for people.
    pub title: String,
    /// Several lines for people.
    pub text: String,
    /// For machines.
    pub json: serde_json::Value,
    /// UTC ns since 1970.
    pub time_ns: i64,
}

/// An entry of `deliver:`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointConfig {
    name: String,
    #[serde(default)]
    mail: Option<MailConfig>,
    #[serde(default)]
    webhook: Option<WebhookConfig>,
    #[serde(default)]
    syslog: Option<SyslogConfig>,
}

/// Where notices go.
#[derive(Debug)]
pub struct Endpoint {
    name: String,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Mail(Box<Mail>),
    Webhook(Webhook),
    Syslog(Syslog),
}

/// An endpoint that cannot be.
#[derive(Debug, Error)]
#[error("deliver {name:?}: {why}")]
pub struct EndpointError {
    name: String,
    why: String,
}

/// Why a notice was not taken.
#[derive(Debug, Error)]
#[error("{why}")]
pub struct SendError {
    why: String,
    is_final: bool,
    retry_after: Option<Duration>,
}

impl SendError {
    /// Another time it may be.
    fn passing(why: impl Into<String>) -> SendError {
        SendError { why: why.into(), is_final: false, retry_after: None }
    }

    /// It never will be.
    fn lasting(why: impl Into<String>) -> SendError {
        SendError { why: why.into(), is_final: true, retry_after: None }
    }

    /// Whether no other try makes sense.
    pub const fn is_final(&self) -> bool {
        self.is_final
    }

    /// How long the endpoint wants to be left alone.
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl Endpoint {
    /// Of its entry; files that it names are relative to `base`, and are read now.
    ///
    /// # Errors
    /// When it is not in `egress`, or something of it is missing or wrong.
    pub fn new(
        config: &EndpointConfig,
        egress: &Egress,
        base: &Path,
    ) -> Result<Endpoint, EndpointError> {
        let name = config.name.clone();
        let refused = |why: String| EndpointError { name: name.clone(), why };
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(refused(format!("a name has 1 to {NAME_BYTES_MAX} bytes")));
        }
        let way = match (&config.mail, &config.webhook, &config.syslog) {
            (Some(mail), None, None) => {
                Mail::new(mail, egress, base).map(|mail| Way::Mail(Box::new(mail)))
            }
            (None, Some(webhook), None) => Webhook::new(webhook, egress, base).map(Way::Webhook),
            (None, None, Some(syslog)) => Syslog::new(syslog, egress, base).map(Way::Syslog),
            _ => Err("one of mail, webhook and syslog".to_owned()),
        };
        Ok(Endpoint { way: way.map_err(refused)?, name })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends a notice.
    ///
    /// # Errors
    /// [`SendError`] says whether another try makes sense.
    pub async fn send(&self, notice: &Notice) -> Result<(), SendError> {
        let sending = async {
            match &self.way {
                Way::Mail(mail) => mail.send(notice).await,
                Way::Webhook(webhook) => webhook.send(notice).await,
                Way::Syslog(syslog) => syslog.send(notice).await,
            }
        };
        time::timeout(NOTICE_SEND_TIME_MAX, sending).await.unwrap_or_else(|_| {
            let seconds = NOTICE_SEND_TIME_MAX.as_secs();
            Err(SendError::passing(format!("no answer within {seconds} s")))
        })
    }
}

/// A file with a secret that nobody else may read, without what ends its line.
fn secret(base: &Path, file: &Path) -> Result<String, String> {
    use std::os::unix::fs::PermissionsExt as _;
    let path: PathBuf = base.join(file);
    let told = |error: std::io::Error| format!("{}: {error}", path.display());
    let mode = std::fs::metadata(&path).map_err(told)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(format!("{}: others may read it; chmod 600", path.display()));
    }
    let text = std::fs::read_to_string(&path).map_err(told)?;
    let text = text.trim_end_matches(['\r', '\n']).to_owned();
    if text.is_empty() || text.contains(['\r', '\n', '\0']) {
        return Err(format!("{}: expected one line", path.display()));
    }
    Ok(text)
}

/// In one line: nothing in a notice can begin another header, record or line.
fn one_line(text: &str) -> String {
    text.chars().map(|it| if it.is_control() { ' ' } else { it }).collect()
}

#[cfg(test)]
mod tests;
