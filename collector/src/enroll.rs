//! `EnrollService`: certificates for those who have a token, and new ones for those who have one.
//!
//! The order of an enrolment: everything that can be wrong with the request is looked at first,
//! then the token is used up, then the certificate is made, then earlier ones are refused, then all
//! of it is recorded, and only then somebody is given the certificate. Whatever breaks in between
//! costs a token and gives nothing away.

use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

use sekimori_proto::token::Token;
use sekimori_proto::v1::enroll_service_server::EnrollService;
use sekimori_proto::v1::{
    EnrollRequest, EnrollResponse, HostChange, HostTurn, RenewRequest, RenewResponse,
};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::audit::Audit;
use crate::fleet::Fleet;
use crate::identity::{Holder, Role, Stranger};
use crate::limits::{
    ATTEMPT_INTERVAL, ATTEMPTS_ALL_BURST, ATTEMPTS_ALL_INTERVAL, ATTEMPTS_BURST, PACES_KEPT_MAX,
    PEER_DAYS_MAX, RENEWAL_INTERVAL, RENEWALS_BURST,
};
use crate::pace::Paces;
use crate::pki::{self, Certified, Grant, Life, PkiError, SigningRequest};

/// Gives certificates.
#[derive(Debug)]
pub struct Enroll {
    dir: PathBuf,
    audit: Audit,
    fleet: Fleet,
    /// That hosts are given; empty when there is none.
    policy_key: Vec<u8>,
    attempts: Paces<IpAddr>,
    all_attempts: Paces<()>,
    renewals: Paces<String>,
}

/// What is answered.
struct Made {
    certified: Certified,
    bundle_pem: String,
}

impl Enroll {
    /// With the authority of `dir`.
    pub fn new(dir: PathBuf, audit: Audit, fleet: Fleet, policy_key: Vec<u8>) -> Enroll {
        Enroll {
            dir,
            audit,
            fleet,
            policy_key,
            attempts: Paces::new(ATTEMPT_INTERVAL, ATTEMPTS_BURST, PACES_KEPT_MAX),
            all_attempts: Paces::new(ATTEMPTS_ALL_INTERVAL, ATTEMPTS_ALL_BURST, 1),
            renewals: Paces::new(RENEWAL_INTERVAL, RENEWALS_BURST, PACES_KEPT_MAX),
        }
    }

    /// What is begun is done to its end, also when whoever asked goes away: a token is not used up,
    /// and no certificate refused, without a record.
    async fn to_the_end<T: Send + 'static>(
        work: impl Future<Output = Result<T, Status>> + Send + 'static,
    ) -> Result<T, Status> {
        tokio::spawn(work).await.map_err(|error| Status::internal(error.to_string()))?
    }
}

#[tonic::async_trait]
impl EnrollService for Enroll {
    async fn enroll(
        &self,
        request: Request<EnrollRequest>,
    ) -> Result<Response<EnrollResponse>, Status> {
        let stranger = Stranger::of(&request)?;
        let from = network(stranger.address().ip());
        let now = Instant::now();
        if !self.attempts.allows(from, now) || !self.all_attempts.allows((), now) {
            tracing::warn!(address = %stranger.address(), "an enrolment was refused: too many");
            return Err(Status::resource_exhausted(
                "too many attempts to enrol failed lately: wait a minute and try again; the token \
                 was not used up",
            ));
        }
        let EnrollRequest { token, csr } = request.into_inner();
        let token: Token = token.parse().map_err(|error: sekimori_proto::token::TokenError| {
            Status::invalid_argument(error.to_string())
        })?;
        let (dir, fleet, audit) = (self.dir.clone(), self.fleet.clone(), self.audit.clone());
        let (id, address) = (token.name(), stranger.address().to_string());
        let policy_key = self.policy_key.clone();
        let answer = Enroll::to_the_end(async move {
            let known = fleet.clone();
            let work = move || enroll(&dir, &known, &token, &csr);
            let (grant, made, superseded) = in_background(work).await?;
            let Grant { name, role, by, .. } = grant;
            tracing::info!(%role, name, address, "enrolled");
            let told = HostChange {
                superseded,
                token: id,
                token_by: by,
                ..change(HostTurn::Enrolled, &name, role, address, &made.certified)
            };
            record(&audit, told).await?;
            fleet.certified(&name, role, &made.certified);
            let (certificate, role) = (made.certified.certificate_pem, role.to_string());
            let ca = made.bundle_pem;
            Ok(EnrollResponse { certificate, ca, name, role, policy_key })
        });
        let answer = answer.await?;
        self.attempts.give_back(&from);
        self.all_attempts.give_back(&());
        Ok(Response::new(answer))
    }

    async fn renew(
        &self,
        request: Request<RenewRequest>,
    ) -> Result<Response<RenewResponse>, Status> {
        let holder = Holder::of(&request)?;
        if !self.renewals.allows(holder.to_string(), Instant::now()) {
            return Err(Status::resource_exhausted(format!(
                "{holder} renewed {RENEWALS_BURST} times lately, which is the most: wait a minute"
            )));
        }
        let csr = request.into_inner().csr;
        let (dir, fleet, audit) = (self.dir.clone(), self.fleet.clone(), self.audit.clone());
        let answer = Enroll::to_the_end(async move {
            let held = holder.clone();
            let made = in_background(move || renew(&dir, &held, &csr)).await?;
            tracing::info!(%holder, "renewed");
            let address = holder.shown().address.map(|it| it.to_string()).unwrap_or_default();
            let (name, role) = (holder.name(), holder.role());
            let told = HostChange {
                serial_before: holder.shown().serial.clone(),
                ..change(HostTurn::Renewed, name, role, address, &made.certified)
            };
            record(&audit, told).await?;
            fleet.certified(name, role, &made.certified);
            let Made { certified, bundle_pem } = made;
            Ok(RenewResponse { certificate: certified.certificate_pem, ca: bundle_pem })
        });
        Ok(Response::new(answer.await?))
    }
}

async fn record(audit: &Audit, change: HostChange) -> Result<(), Status> {
    audit.change(change).await.map_err(|error| {
        Status::unavailable(format!(
            "what you were to be given cannot be recorded, so nothing is given: {error}"
        ))
    })
}

fn enroll(
    dir: &Path,
    fleet: &Fleet,
    token: &Token,
    csr: &[u8],
) -> Result<(Grant, Made, bool), PkiError> {
    let request = SigningRequest::from_der(csr)?;
    let authority = pki::authority(dir)?;
    let grant = pki::use_up(dir, token)?;
    let life = Life::days(grant.days.clamp(1, PEER_DAYS_MAX));
    let (name, role) = (grant.name.as_str(), grant.role);
    let certified = authority.certify_peer(name, role, life, &request)?;
    // A host has one certificate: whoever installs a machine again must not leave the key of the
    // last one good, and two machines under one name would hide each other. People have several
    // machines, and their certificates are revoked by hand.
    let superseded = role == Role::Agent
        && (fleet.knows(name) || dir.join("agents").join(name).symlink_metadata().is_ok());
    if superseded {
        pki::supersede(dir, name, role, &certified.serial)?;
    } else {
        pki::let_in(dir, name, role, &certified.serial)?;
    }
    let bundle_pem = authority.bundle_pem().to_owned();
    Ok((grant, Made { certified, bundle_pem }, superseded))
}

fn renew(dir: &Path, holder: &Holder, csr: &[u8]) -> Result<Made, PkiError> {
    let request = SigningRequest::from_der(csr)?;
    let authority = pki::authority(dir)?;
    let shown = holder.shown();
    let life = Life::as_between(shown.from_s, shown.until_s, Life::days(PEER_DAYS_MAX));
    let (name, role) = (holder.name(), holder.role());
    let certified = authority.certify_peer(name, role, life, &request)?;
    pki::let_in_after(dir, name, role, &shown.serial, &certified.serial)?;
    Ok(Made { certified, bundle_pem: authority.bundle_pem().to_owned() })
}

fn change(
    turn: HostTurn,
    name: &str,
    role: Role,
    address: String,
    certified: &Certified,
) -> HostChange {
    HostChange {
        turn: turn.into(),
        name: name.to_owned(),
        role: role.to_string(),
        address,
        serial: certified.serial.clone(),
        valid_until_ns: certified.until_s.saturating_mul(1_000_000_000),
        ..HostChange::default()
    }
}

/// Files and signatures are waited for elsewhere.
async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PkiError> + Send + 'static,
) -> Result<T, Status> {
    let done = spawn_blocking(work).await.map_err(|error| Status::internal(error.to_string()))?;
    done.map_err(|error| match error {
        PkiError::Token => Status::permission_denied(error.to_string()),
        PkiError::Request(_) => Status::invalid_argument(error.to_string()),
        PkiError::Refused => Status::permission_denied(error.to_string()),
        error => {
            // Whoever has no certificate yet is told nothing of the collector's files.
            tracing::error!(%error, "no certificate can be made");
            Status::unavailable(
                "this collector can make no certificates at the moment; its log says why (has it \
                 the key of the authority, ca.key?)",
            )
        }
    })
}

/// Whoever has one address of IPv6 has all of its network.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("192.0.2.7", "192.0.2.7")]
    #[case("::ffff:192.0.2.7", "192.0.2.7")]
    #[case("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::")]
    fn networks(#[case] address: &str, #[case] expected: &str) {
        assert_eq!(network(address.parse().unwrap()), expected.parse::<IpAddr>().unwrap());
    }
}
