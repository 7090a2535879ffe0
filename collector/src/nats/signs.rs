//! What the hosts say of themselves, from the collector that hears it to all others. It is not kept
//! by the bus: it is said again soon.

use async_nats::Client;
use futures_util::StreamExt as _;
use prost::Message;
use sekimori_proto::v1::HostState;
use tokio::sync::broadcast::error::RecvError;

use crate::fleet::Fleet;

/// A sign of life.
#[derive(Clone, PartialEq, Message)]
struct Sign {
    /// The host.
    #[prost(string, tag = "1")]
    host: String,
    /// How it stands.
    #[prost(message, optional, tag = "2")]
    state: Option<HostState>,
    /// The collector that heard it.
    #[prost(string, tag = "3")]
    collector: String,
}

/// Tells the others what is heard here, and here what they hear, until the connection is given up.
pub async fn exchange(client: Client, subject: String, name: String, fleet: Fleet) {
    let mut heard = fleet.signs();
    let mut signs = match client.subscribe(subject.clone()).await {
        Ok(signs) => signs,
        Err(error) => {
            tracing::warn!(%error, "what other collectors hear of hosts is not known here");
            return;
        }
    };
    loop {
        tokio::select! {
            sign = heard.recv() => match sign {
                Ok((host, state)) => {
                    let sign = Sign { host, state: Some(state), collector: name.clone() };
                    // One that is lost is said again.
                    let _ = client.publish(subject.clone(), sign.encode_to_vec().into()).await;
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            message = signs.next() => {
                let Some(message) = message else { return };
                match Sign::decode(message.payload) {
                    Ok(Sign { host, state: Some(state), collector }) if collector != name => {
                        fleet.heard_elsewhere(&host, state);
                    }
                    Ok(_) => {}
                    Err(error) => tracing::warn!(%error, "a sign on the bus is no collector's"),
                }
            }
        }
    }
}
