//! `FleetService`: the list of hosts.

use std::collections::HashSet;

use prost::Message as _;
use sekimori_proto::v1::fleet_service_server::FleetService;
use sekimori_proto::v1::{FleetHost, ListHostsRequest, ListHostsResponse};
use tonic::{Request, Response, Status};

use super::Fleet;
use crate::identity::Viewer;
use crate::limits::{
    FILTER_VALUES_MAX, FLEET_PAGE_BYTES_MAX, FLEET_PAGE_DEFAULT, FLEET_PAGE_MAX, PEER_NAME_MAX,
};

/// Answers how the hosts stand.
#[derive(Debug)]
pub struct FleetAnswers(Fleet);

impl FleetAnswers {
    /// Of these hosts.
    pub fn new(fleet: Fleet) -> FleetAnswers {
        FleetAnswers(fleet)
    }

    /// One page behind `after`, and whether there is more.
    fn page(&self, after: &str, limit: usize, only: &HashSet<&str>) -> (Vec<FleetHost>, bool) {
        let (mut count, mut bytes, mut more) = (0, 0, false);
        let mut hosts = self.0.list(after, |host| {
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
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::identity::Agent;

    #[test]
    fn pages_hold_every_host_once() {
        let dir = tempfile::tempdir().unwrap();
        let fleet = Fleet::open(dir.path()).unwrap();
        for number in 0..25 {
            drop(fleet.enter(&Agent::for_test(&format!("pc-{number:02}"))));
        }
        let answers = FleetAnswers::new(fleet);
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
