//! A new certificate before the old one ends.

use std::time::Duration;

use jiff::Timestamp;
use sekimori_proto::v1::RenewRequest;
use sekimori_proto::v1::enroll_service_client::EnrollServiceClient;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;

use super::{CredentialsError, Life, failed, refused, stage};
use crate::config::{Collector, Tls};
use crate::limits;
use crate::ship::{self, Peers};

/// Whether less than a third of the certificate's life is left, and when it ends.
///
/// # Errors
/// When it cannot be read.
pub fn is_due(tls: &Tls) -> Result<Option<Life>, CredentialsError> {
    let pem = std::fs::read(&tls.cert).map_err(failed("read", &tls.cert))?;
    let unreadable = |reason| CredentialsError::Unreadable { path: tls.cert.clone(), reason };
    let life = Life::of(&pem).map_err(unreadable)?;
    Ok(life.is_due(Timestamp::now().as_second()).then_some(life))
}

/// Renews over a connection that shows the old certificate.
///
/// # Errors
/// When it is refused, or a file cannot be written. The old certificate stays good until its end.
pub async fn renew_over(channel: Channel, tls: &Tls) -> Result<(), CredentialsError> {
    let staged = stage(tls)?;
    let request = RenewRequest { csr: staged.request()? };
    let mut client = EnrollServiceClient::new(channel);
    let answer = timeout(limits::ENROLL_TIMEOUT, client.renew(request)).await;
    let answer = answer.map_err(|_| CredentialsError::Refused {
        code: tonic::Code::DeadlineExceeded,
        message: "no answer in time".to_owned(),
    })?;
    let answer = answer.map_err(|status| refused(&status))?.into_inner();
    staged.commit(&answer.certificate, &answer.ca)
}

/// Renews again and again, until the task is dropped. `renewed` hears of it each time.
pub async fn keep(collector: Collector, peers: Peers, renewed: watch::Sender<()>) {
    let Some(tls) = collector.tls.clone() else {
        return;
    };
    // Many hosts are enrolled on one day, and need not come on one day.
    let mut wait = jittered(limits::RENEW_FIRST);
    loop {
        sleep(wait).await;
        wait = jittered(limits::RENEW_INTERVAL);
        let life = match is_due(&tls) {
            Ok(Some(life)) => life,
            Ok(None) => continue,
            Err(error) => {
                tracing::warn!(%error, "whether the certificate must be renewed is not known");
                continue;
            }
        };
        let until = Timestamp::from_second(life.until_s).unwrap_or_default();
        match renew(&collector, &peers, &tls).await {
            Ok(()) => {
                tracing::info!("the certificate was renewed");
                renewed.send_replace(());
            }
            Err(error) => tracing::warn!(
                %error, %until,
                "the certificate could not be renewed; it is tried again, and NOTHING IS DELIVERED \
                 after its end"
            ),
        }
    }
}

async fn renew(collector: &Collector, peers: &Peers, tls: &Tls) -> Result<(), CredentialsError> {
    let address = collector.address.to_string();
    let channel = ship::channel(collector, peers)
        .await
        .map_err(|error| CredentialsError::Connect { address, message: error.to_string() })?;
    renew_over(channel, tls).await
}

/// Three quarters of it to five quarters.
fn jittered(time: Duration) -> Duration {
    let mut byte = [128];
    // Without random bytes everybody comes at the same time, which is no harm to one.
    let _ = getrandom::fill(&mut byte);
    time * 3 / 4 + time * u32::from(byte[0]) / 512
}
