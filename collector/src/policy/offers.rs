//! What goes down one open stream of a host.

use sekimori_proto::v1::{HostState, PolicyBundle};
use tokio::sync::watch;

use super::Policies;

/// Policies for one open stream.
#[derive(Debug)]
pub struct Offers {
    policies: Policies,
    host: String,
    changed: watch::Receiver<u64>,
    /// What the host said on this stream: one that said nothing is given nothing.
    said: Option<HostState>,
    /// Epoch of the last one that was sent.
    sent: u64,
}

impl Policies {
    /// Those for the host that opened a stream.
    pub fn offers(&self, host: &str) -> Offers {
        let changed = self.0.changed.subscribe();
        Offers { policies: self.clone(), host: host.to_owned(), changed, said: None, sent: 0 }
    }
}

impl Offers {
    /// The host said how it stands.
    pub fn heard(&mut self, state: &HostState) {
        self.said = Some(state.clone());
        self.changed.mark_changed();
    }

    /// Waits for a policy that the host is to run, does not run, and was not sent on this stream.
    pub async fn next(&mut self) -> PolicyBundle {
        loop {
            if self.changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if let Some(bundle) = self.due() {
                return bundle;
            }
        }
    }

    fn due(&mut self) -> Option<PolicyBundle> {
        let said = self.said.as_ref().filter(|state| state.policy_from_collector)?;
        let (epoch, bundle) = self.policies.wanted(&self.host)?;
        // A host that is ahead of what is known here refuses it, and everybody sees that it does.
        (epoch != said.policy_epoch && epoch != self.sent).then(|| {
            self.sent = epoch;
            bundle
        })
    }
}
