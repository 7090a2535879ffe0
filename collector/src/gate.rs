//! The gate before all services: a stranger comes to the enrolment, an agent delivers and renews its
//! certificate, and neither comes anywhere else.
//!
//! Handlers ask for a typed identity, but a call reaches them when its message was read, which may
//! have megabytes. Who has no business with a service is turned away here, before anything of theirs
//! is read. A service that is new is open to operators alone.

use std::future::{Ready, ready};
use std::task::{Context, Poll};

use futures_util::future::Either;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::{Code, Status};

use crate::identity::{Caller, Peer};
use crate::in_time::InTime;
use crate::metrics;

/// The one call that is open to everybody.
const ENROLL: &str = "/sekimori.v1.EnrollService/Enroll";
/// What agents call.
const OF_AGENTS: [&str; 2] =
    ["/sekimori.v1.IngestService/Stream", "/sekimori.v1.EnrollService/Renew"];

/// Services behind the gate.
#[derive(Clone, Debug)]
pub struct Gate<S>(S);

impl<S> Gate<S> {
    /// Puts services behind it.
    pub const fn new(services: S) -> Gate<S> {
        Gate(services)
    }
}

impl<S, R> Service<http::Request<Body>> for Gate<S>
where
    S: Service<http::Request<Body>, Response = http::Response<R>>,
    R: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let Some(refusal) = refusal(request.extensions().get(), path) else {
            let request = request.map(|body| Body::new(InTime::new(body)));
            return Either::Left(self.0.call(request));
        };
        let response = if path == metrics::PATH {
            // Whoever scrapes reads the status of HTTP, and not that of gRPC.
            let mut response = http::Response::new(R::default());
            *response.status_mut() = match refusal.code() {
                Code::Unauthenticated => http::StatusCode::UNAUTHORIZED,
                _ => http::StatusCode::FORBIDDEN,
            };
            response
        } else {
            refusal.into_http()
        };
        Either::Right(ready(Ok(response)))
    }
}

/// Why a call does not get through.
fn refusal(caller: Option<&Caller>, path: &str) -> Option<Status> {
    match caller {
        Some(Caller::Known(Peer::Agent(agent))) => {
            let own = path == ENROLL || OF_AGENTS.contains(&path);
            (!own).then(|| {
                Status::permission_denied(format!(
                    "agent {} may not call {path}: an agent delivers records and renews its \
                     certificate; for all else show that of an operator (`sekimori-collector enroll \
                     NAME --role viewer`)",
                    agent.name()
                ))
            })
        }
        Some(Caller::Known(Peer::Operator(_) | Peer::Local(..))) => None,
        Some(Caller::Stranger(_)) | None => (path != ENROLL).then(|| {
            Status::unauthenticated(
                "this connection carries no identity: show a certificate (`sekimori-collector \
                 token NAME`, then enrol with it)",
            )
        }),
    }
}
