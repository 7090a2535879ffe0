//! `FleetService`: the list of hosts, and orders to cut one off.

use std::collections::HashSet;

use prost::Message as _;
use sekimori_proto::v1::fleet_service_server::FleetService;
use sekimori_proto::v1::{
    ActPhase, FleetHost, IsolateRequest, IsolateResponse, ListHostsRequest, ListHostsResponse,
    ReleaseRequest, ReleaseResponse,
};
use tonic::{Request, Response, Status};

use super::Fleet;
use crate::audit::{Act, Audit};
use crate::identity::{Admin, Viewer};
use crate::limits::{
    FILTER_VALUES_MAX, FLEET_PAGE_BYTES_MAX, FLEET_PAGE_DEFAULT, FLEET_PAGE_MAX, PEER_NAME_MAX,
    SENTENCE_BYTES_MAX,
};

/// Answers how the hosts stand.
#[derive(Debug)]
pub struct FleetAnswers {
    fleet: Fleet,
    audit: Audit,
}

impl FleetAnswers {
    /// Of these hosts; what admins order is recorded by `audit`.
    pub fn new(fleet: Fleet, audit: Audit) -> FleetAnswers {
        FleetAnswers { fleet, audit }
    }

    async fn order(
        &self,
        admin: &Admin,
        host: &str,
        isolated: bool,
        reason: &str,
    ) -> Result<(), Status> {
        if reason.trim().is_empty() || reason.len() > SENTENCE_BYTES_MAX {
            let reason =
                format!("reason: 1 to {SENTENCE_BYTES_MAX} bytes, for those who ask later");
            return Err(Status::invalid_argument(reason));
        }
        if !self.fleet.knows(host) {
            return Err(Status::not_found("no host of this name ever delivered or enrolled"));
        }
        let operator = admin.operator();
        let method = if isolated { "Isolate" } else { "Release" };
        let question = format!("{host} --reason {reason:?}");
        let phase = ActPhase::Unspecified;
        // That the order before was done is recorded before it is forgotten for this one.
        self.fleet.tell_orders(&self.audit).await;
        self.audit.record(operator, Act { method, question, answered: 0, phase }).await?;
        tracing::warn!(%operator, host, reason, method, "an order for a host");
        let kept = self.fleet.order(host, isolated, reason, &operator.to_string()).await;
        kept.map_err(|_| {
            Status::unavailable("the order cannot be kept, so it was not given; see the log")
        })
    }

    /// One page behind `after`, and whether there is more.
    fn page(&self, after: &str, limit: usize, only: &HashSet<&str>) -> (Vec<FleetHost>, bool) {
        let (mut count, mut bytes, mut more) = (0, 0, false);
        let mut hosts = self.fleet.list(after, |host| {
            if !only.is_empty() && !only.contains(host.host.as_str()) {
                return true;
            }
            bytes += host.encoded_len();
            more = count >= limit || (count > 0 && bytes > FLEET_PAGE_BYTES_MAX);
            count += usize::from(!more);
            !more
        });
        hosts.retain(|host| only.is_empty() || only.contains(host.host.as_str()));
        (hosts, more)
    }
}

#[tonic::async_trait]
impl FleetService for FleetAnswers {
    async fn list(
        &self,
        request: Request<ListHostsRequest>,
    ) -> Result<Response<ListHostsResponse>, Status> {
        Viewer::of(&request)?;
        let ListHostsRequest { limit, page, hosts } = request.into_inner();
        let limit = match limit {
            0 => FLEET_PAGE_DEFAULT,
            limit if limit <= FLEET_PAGE_MAX => limit,
            limit => {
                let reason = format!("limit {limit}: at most {FLEET_PAGE_MAX} hosts a page");
                return Err(Status::invalid_argument(reason));
            }
        };
        if page.len() > PEER_NAME_MAX || hosts.len() > FILTER_VALUES_MAX {
            return Err(Status::invalid_argument(format!(
                "page is a next_page of this service, and hosts has at most {FILTER_VALUES_MAX}"
            )));
        }
        let only = hosts.iter().map(String::as_str).collect();
        let (hosts, more) = self.page(&page, usize::try_from(limit).unwrap_or(usize::MAX), &only);
        let last = hosts.last().map(|host| host.host.clone());
        let next_page = last.filter(|_| more).unwrap_or_default();
        Ok(Response::new(ListHostsResponse { hosts, next_page }))
    }

    async fn isolate(
        &self,
        request: Request<IsolateRequest>,
    ) -> Result<Response<IsolateResponse>, Status> {
        let admin = Admin::of(&request)?;
        let IsolateRequest { host, reason } = request.into_inner();
        self.order(&admin, &host, true, &reason).await?;
        Ok(Response::new(IsolateResponse {}))
    }

    async fn release(
        &self,
        request: Request<ReleaseRequest>,
    ) -> Result<Response<ReleaseResponse>, Status> {
        let admin = Admin::of(&request)?;
        let ReleaseRequest { host, reason } = request.into_inner();
        self.order(&admin, &host, false, &reason).await?;
        Ok(Response::new(ReleaseResponse {}))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::author::Author;
    use crate::identity::Agent;
    use crate::store::Store;

    #[tokio::test]
    async fn pages_hold_every_host_once() {
        let dir = tempfile::tempdir().unwrap();
        let fleet = Fleet::open(dir.path()).unwrap();
        for number in 0..25 {
            drop(fleet.enter(&Agent::for_test(&format!("pc-{number:02}"))));
        }
        let store = Store::open(&dir.path().join("events"), None).unwrap();
        let author = Author::open(dir.path(), &store).await.unwrap();
        let answers = FleetAnswers::new(fleet, Audit::new(author));
        let (mut names, mut after) = (Vec::new(), String::new());
        loop {
            let (hosts, more) = answers.page(&after, 10, &HashSet::new());
            assert!(hosts.len() <= 10);
            names.extend(hosts.iter().map(|host| host.host.clone()));
            after = names.last().unwrap().clone();
            if !more {
                break;
            }
        }
        let expected: Vec<String> = (0..25).map(|number| format!("pc-{number:02}")).collect();
        assert_eq!(names, expected);
        let (hosts, more) = answers.page("", 10, &HashSet::from(["pc-07", "pc-24", "nobody"]));
        let names: Vec<&str> = hosts.iter().map(|host| host.host.as_str()).collect();
        assert_eq!((names, more), (vec!["pc-07", "pc-24"], false));
    }
}
