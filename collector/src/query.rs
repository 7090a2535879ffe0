//! `QueryService`: pages of stored events, and what the store holds.

use std::collections::BTreeMap;
use std::str::FromStr;

use sekimori_proto::v1::query_service_server::QueryService;
use sekimori_proto::v1::{
    AggregateRequest, AggregateResponse, HostStatus, Order, SearchRequest, SearchResponse,
    StatusRequest, StatusResponse,
};
use tonic::{Request, Response, Status};

use crate::access::{Access, Count};
use crate::bus::{Committed, Connected};
use crate::identity::{Analyst, Viewer};
use crate::limits::{
    GROUPS_SHOWN_DEFAULT, GROUPS_SHOWN_MAX, PAGE_TOKEN_BYTES_MAX, SEARCH_EVENTS_DEFAULT,
    SEARCH_EVENTS_MAX,
};
use crate::question;
use crate::store::{Condition, Gap, Groups, Position, Search};

/// Answers questions about stored events.
#[derive(Debug)]
pub struct Query {
    access: Access,
    committed: Committed,
    connected: Connected,
}

impl Query {
    /// Reads through `access`.
    pub fn new(access: Access, committed: Committed, connected: Connected) -> Query {
        Query { access, committed, connected }
    }
}

#[tonic::async_trait]
impl QueryService for Query {
    async fn search(
        &self,
        request: Request<SearchRequest>,
    ) -> Result<Response<SearchResponse>, Status> {
        let analyst = Analyst::of(&request)?;
        let request = request.into_inner();
        let bad = |error: &dyn std::fmt::Display| Status::invalid_argument(error.to_string());
        let condition = Condition::new(request.filter.as_ref()).map_err(|error| bad(&error))?;
        let question = question::search(&request).map_err(|error| bad(&error))?;
        let limit = match request.limit {
            0 => SEARCH_EVENTS_DEFAULT,
            limit if limit <= SEARCH_EVENTS_MAX => limit,
            limit => {
                let reason = format!("limit {limit}: at most {SEARCH_EVENTS_MAX} events a page");
                return Err(Status::invalid_argument(reason));
            }
        };
        let newest_first = request.newest_first;
        let position = match request.page.as_str() {
            "" => Position { upper: self.committed.get(), last: None },
            token => {
                let token = Token::from_str(token).map_err(|()| {
                    bad(&"page: not a next_page of this collector; leave it empty to begin")
                })?;
                if token.newest_first != newest_first {
                    return Err(bad(&"page: newest_first differs from that of the page before"));
                }
                token.position
            }
        };
        let search = Search { condition, position, limit, newest_first };
        let page = self.access.search(&analyst, question, search).await?;
        let next_page = page.next.map(|position| Token { position, newest_first }.to_string());
        Ok(Response::new(SearchResponse {
            events: page.events,
            next_page: next_page.unwrap_or_default(),
            gaps: gaps(page.gaps),
        }))
    }

    async fn aggregate(
        &self,
        request: Request<AggregateRequest>,
    ) -> Result<Response<AggregateResponse>, Status> {
        let viewer = Viewer::of(&request)?;
        let request = request.into_inner();
        let bad = |error: &dyn std::fmt::Display| Status::invalid_argument(error.to_string());
        let condition = Condition::new(request.filter.as_ref()).map_err(|error| bad(&error))?;
        let question = question::aggregate(&request).map_err(|error| bad(&error))?;
        let order = Order::try_from(request.order)
            .map_err(|_| bad(&format!("order: {} is not a known value", request.order)))?;
        let limit = match request.limit {
            0 => GROUPS_SHOWN_DEFAULT,
            limit if limit <= GROUPS_SHOWN_MAX => limit,
            limit => return Err(bad(&format!("limit {limit}: at most {GROUPS_SHOWN_MAX} groups"))),
        };
        let groups = Groups::new(&request.by, request.distinct, request.zone_offset_s)
            .map_err(|error| bad(&error))?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let count = Count { condition, upper: self.committed.get(), groups, order, limit };
        let answer = self.access.aggregate(&viewer, question, &request, count).await?;
        Ok(Response::new(answer))
    }

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let viewer = Viewer::of(&request)?;
        let stored = self.access.hosts(&viewer).await?;
        let events = stored.iter().map(|host| host.events).sum();
        let mut hosts: BTreeMap<String, HostStatus> =
            stored.into_iter().map(|host| (host.host.clone(), host)).collect();
        // The collector is always there for itself.
        if let Some(own) = hosts.get_mut(self.access.own_host()) {
            own.connected = true;
        }
        for host in self.connected.hosts() {
            let status = hosts.entry(host.clone()).or_default();
            status.host = host;
            status.connected = true;
        }
        Ok(Response::new(StatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            events,
            last_cursor: self.committed.get(),
            hosts: hosts.into_values().collect(),
        }))
    }
}

/// What could not be read, as the caller sees it.
pub fn gaps(gaps: Vec<Gap>) -> Vec<sekimori_proto::v1::Gap> {
    let shown = |Gap { first, last, reason }| sekimori_proto::v1::Gap { first, last, reason };
    gaps.into_iter().map(shown).collect()
}

/// What a `next_page` says. It grants nothing: whoever makes one up sees events that any search
/// would show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Token {
    position: Position,
    newest_first: bool,
}

impl std::fmt::Display for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let direction = if self.newest_first { 'n' } else { 'o' };
        let (time_ns, cursor) = self.position.last.unwrap_or_default();
        write!(formatter, "1{direction}.{}.{time_ns}.{cursor}", self.position.upper)
    }
}

impl FromStr for Token {
    type Err = ();

    fn from_str(text: &str) -> Result<Token, ()> {
        if text.len() > PAGE_TOKEN_BYTES_MAX {
            return Err(());
        }
        let parts: Vec<&str> = text.split('.').collect();
        let [direction, upper, time_ns, cursor] = parts.as_slice() else {
            return Err(());
        };
        let newest_first = match *direction {
            "1n" => true,
            "1o" => false,
            _ => return Err(()),
        };
        let last = (time_ns.parse().map_err(|_| ())?, cursor.parse().map_err(|_| ())?);
        let position = Position { upper: upper.parse().map_err(|_| ())?, last: Some(last) };
        Ok(Token { position, newest_first })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_comes_back_as_it_was(
            upper: u64,
            last: (i64, u64),
            newest_first: bool,
        ) {
            let position = Position { upper, last: Some(last) };
            let token = Token { position, newest_first };
            prop_assert!(token.to_string().len() <= PAGE_TOKEN_BYTES_MAX);
            prop_assert_eq!(token.to_string().parse(), Ok(token));
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in
            ["x", "1n.1.2", "1n.1.2.3.4", "2n.1.2.3", "1n.-1.2.3", "1o.1.2.３", &"1".repeat(200)]
        {
            assert_eq!(text.parse::<Token>(), Err(()), "{text}");
        }
    }
}
