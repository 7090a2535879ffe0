//! What the hosts say of themselves, from the collector that hears it to all others. It is not kept
//! by the bus: it is said again soon.

use std::time::Duration;

use async_nats::Client;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use prost::Message;
use sekimori_proto::v1::HostState;
use tokio::sync::broadcast::error::RecvError;

use crate::fleet::Fleet;
use crate::identity::check_name;
use crate::limits::SIGN_AGE_MAX;

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
    /// When, UTC ns since 1970 by that one's clock.
    #[prost(int64, tag = "4")]
    heard_ns: i64,
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
                    let (state, heard_ns) = (Some(state), now_ns());
                    let sign = Sign { host, state, collector: name.clone(), heard_ns };
                    // One that is lost is said again.
                    let _ = client.publish(subject.clone(), sign.encode_to_vec().into()).await;
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            message = signs.next() => {
                let Some(message) = message else { return };
                match Sign::decode(message.payload) {
                    Ok(Sign { host, state: Some(state), collector, heard_ns })
                        if collector != name && check_name(&host).is_ok() && is_fresh(heard_ns) =>
                    {
                        fleet.heard_elsewhere(&host, state);
                    }
                    Ok(_) => {}
                    Err(error) => tracing::warn!(%error, "a sign on the bus is no collector's"),
                }
            }
        }
    }
}

/// What waited while there was no connection is no sign of life any more.
fn is_fresh(heard_ns: i64) -> bool {
    Duration::from_nanos(now_ns().abs_diff(heard_ns)) <= SIGN_AGE_MAX
}

/// UTC ns since 1970.
fn now_ns() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
