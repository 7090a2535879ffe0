//! The gate before all services: a stranger comes to the enrolment, and nowhere else.
//!
//! Handlers ask for a typed identity, but a call reaches them when its message was read, which may
//! have megabytes. Strangers are turned away here, before anything of theirs is read. A service
//! that is new is closed to them without a word.

use std::future::{Ready, ready};
use std::task::{Context, Poll};

use futures_util::future::Either;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};

use crate::identity::Caller;
use crate::in_time::InTime;
use crate::metrics;

/// The one call that is open to everybody.
const ENROLL: &str = "/sekimori.v1.EnrollService/Enroll";

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
        let known = matches!(request.extensions().get(), Some(Caller::Known(_)));
        if known || request.uri().path() == ENROLL {
            let request = request.map(|body| Body::new(InTime::new(body)));
            return Either::Left(self.0.call(request));
        }
        if request.uri().path() == metrics::PATH {
            // Whoever scrapes reads the status of HTTP, and not that of gRPC.
            let mut refusal = http::Response::new(R::default());
            *refusal.status_mut() = http::StatusCode::UNAUTHORIZED;
            return Either::Right(ready(Ok(refusal)));
        }
        let refusal = Status::unauthenticated(
            "this connection carries no identity: show a certificate (`sekimori-collector token \
             NAME`, then enrol with it)",
        );
        Either::Right(ready(Ok(refusal.into_http())))
    }
}
