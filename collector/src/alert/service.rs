//! `AlertService`: what was found, who looks after it, and what tells nobody for a while.

use sekimori_proto::v1::alert_service_server::AlertService;
use sekimori_proto::v1::{
    AcknowledgeRequest, AcknowledgeResponse, ActPhase, AlertEndpoint, AlertRule, ListAlertsRequest,
    ListAlertsResponse, SilenceRequest, SilenceResponse, TestEndpointRequest, TestEndpointResponse,
    UnsilenceRequest, UnsilenceResponse,
};
use tonic::{Request, Response, Status};

use super::{Alerts, lock, notices, now_ns};
use crate::audit::{Act, Audit};
use crate::identity::{Admin, Analyst, Operator};
use crate::limits::{
    ALERT_WITHIN_MAX, ALERTS_PAGE_DEFAULT, ALERTS_PAGE_MAX, FILTER_VALUES_MAX, NAME_BYTES_MAX,
    SENTENCE_BYTES_MAX,
};
use crate::store::StoreError;

/// Answers operators.
#[derive(Debug)]
pub struct AlertAnswers {
    alerts: Alerts,
    audit: Audit,
}

impl AlertAnswers {
    /// Records by `audit`.
    pub fn new(alerts: Alerts, audit: Audit) -> AlertAnswers {
        AlertAnswers { alerts, audit }
    }

    async fn record(
        &self,
        operator: &Operator,
        method: &'static str,
        question: String,
        answered: usize,
    ) -> Result<(), Status> {
        let answered = answered as u64;
        let act = Act { method, question, answered, phase: ActPhase::Unspecified };
        self.audit.record(operator, act).await
    }
}

#[tonic::async_trait]
impl AlertService for AlertAnswers {
    async fn list(
        &self,
        request: Request<ListAlertsRequest>,
    ) -> Result<Response<ListAlertsResponse>, Status> {
        let analyst = Analyst::of(&request)?;
        let ListAlertsRequest { open, limit, below, rules } = request.into_inner();
        let limit = match limit {
            0 => ALERTS_PAGE_DEFAULT,
            limit if limit <= ALERTS_PAGE_MAX => limit,
            limit => {
                let reason = format!("limit {limit}: at most {ALERTS_PAGE_MAX} alerts a page");
                return Err(Status::invalid_argument(reason));
            }
        };
        if rules.len() > FILTER_VALUES_MAX || rules.iter().any(|it| it.len() > NAME_BYTES_MAX) {
            return Err(Status::invalid_argument(format!(
                "rules: at most {FILTER_VALUES_MAX}, of {NAME_BYTES_MAX} bytes"
            )));
        }
        let mut question = if open { "--open".to_owned() } else { String::new() };
        rules.iter().for_each(|rule| question.push_str(&format!(" --rule {rule}")));
        let (most, now) = (usize::try_from(limit).unwrap_or(usize::MAX), now_ns());
        let read = self.alerts.with_kept(move |kept| {
            let alerts = kept.alerts(open, below, &rules, most.saturating_add(1))?;
            Ok((alerts, kept.silences(now)?))
        });
        let (mut alerts, silences) = read.await.map_err(|error| unavailable(&error))?;
        let more = alerts.len() > most;
        alerts.truncate(most);
        let next_below = alerts.last().filter(|_| more).map_or(0, |alert| alert.id);
        let (rules, file_error) = (self.alerts.rules(), lock(&self.alerts.0.error).clone());
        let mut endpoints = Vec::new();
        for endpoint in &rules.endpoints {
            let name = endpoint.name().to_owned();
            let standing = self.alerts.standing(&format!("endpoint:{name}"));
            let asked = name.clone();
            let waiting = self.alerts.with_kept(move |kept| kept.waiting(&asked)).await;
            endpoints.push(AlertEndpoint {
                name,
                waiting: waiting.map_err(|error| unavailable(&error))?,
                sent: standing.sent,
                failed: standing.failed,
                error: standing.error,
            });
        }
        let stand = rules.rules.iter().map(|rule| {
            let standing = self.alerts.standing(&format!("rule:{}", rule.name));
            AlertRule {
                name: rule.name.clone(),
                description: rule.description.clone(),
                severity: rule.severity.as_str().to_owned(),
                position: standing.position,
                error: standing.error,
            }
        });
        let mut rules: Vec<AlertRule> = stand.collect();
        if !file_error.is_empty() {
            let name = self.alerts.0.path.display().to_string();
            rules.push(AlertRule { name, error: file_error, ..AlertRule::default() });
        }
        self.record(analyst.operator(), "ListAlerts", question.trim().to_owned(), alerts.len())
            .await?;
        Ok(Response::new(ListAlertsResponse { alerts, next_below, silences, endpoints, rules }))
    }

    async fn acknowledge(
        &self,
        request: Request<AcknowledgeRequest>,
    ) -> Result<Response<AcknowledgeResponse>, Status> {
        let analyst = Analyst::of(&request)?;
        let AcknowledgeRequest { ids, note } = request.into_inner();
        if ids.is_empty() || ids.len() > FILTER_VALUES_MAX {
            return Err(Status::invalid_argument(format!("ids: 1 to {FILTER_VALUES_MAX}")));
        }
        sentence("note", &note)?;
        let operator = analyst.operator();
        let named: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let question = format!("{} --note {note:?}", named.join(" "));
        self.record(operator, "Acknowledge", question, ids.len()).await?;
        let by = operator.to_string();
        let kept = self.alerts.with_kept(move |kept| {
            kept.change(|change| {
                let mut unknown = None;
                for id in ids {
                    if change.acknowledge(id, &by, &note, now_ns())? == 0 {
                        unknown = Some(id);
                    }
                }
                Ok(unknown)
            })
        });
        match kept.await.map_err(|error| unavailable(&error))? {
            Some(id) => Err(Status::not_found(format!("there is no alert {id}"))),
            None => Ok(Response::new(AcknowledgeResponse {})),
        }
    }

    async fn silence(
        &self,
        request: Request<SilenceRequest>,
    ) -> Result<Response<SilenceResponse>, Status> {
        let admin = Admin::of(&request)?;
        let what = request.into_inner();
        let SilenceRequest { rule, host, user, until_ns, reason } = &what;
        if [rule, host, user].iter().all(|it| it.is_empty()) {
            let reason = "name a rule, a host or a user: nobody silences everything";
            return Err(Status::invalid_argument(reason));
        }
        if [rule, host, user].iter().any(|it| it.len() > NAME_BYTES_MAX) {
            let reason = format!("rule, host and user have at most {NAME_BYTES_MAX} bytes");
            return Err(Status::invalid_argument(reason));
        }
        if reason.trim().is_empty() {
            return Err(Status::invalid_argument("reason: say why, for those who ask later"));
        }
        sentence("reason", reason)?;
        let most = i64::try_from(ALERT_WITHIN_MAX.as_nanos()).unwrap_or(i64::MAX);
        if !(1..=most).contains(&until_ns.saturating_sub(now_ns())) {
            let days = ALERT_WITHIN_MAX.as_secs() / 86_400;
            let reason = format!("until_ns: in the future, and within {days} days");
            return Err(Status::invalid_argument(reason));
        }
        let mut question = String::new();
        for (name, value) in [("rule", rule), ("host", host), ("user", user)] {
            if !value.is_empty() {
                question.push_str(&format!("--{name} {value} "));
            }
        }
        let until = sekimori_proto::json::time(*until_ns);
        let until = until.as_str().unwrap_or_default();
        question.push_str(&format!("--until {until} --reason {reason:?}"));
        let operator = admin.operator();
        self.record(operator, "Silence", question, 0).await?;
        let by = operator.to_string();
        let kept =
            self.alerts.with_kept(move |kept| kept.change(|change| change.silence(&what, &by)));
        let id = kept.await.map_err(|error| unavailable(&error))?;
        Ok(Response::new(SilenceResponse { id }))
    }

    async fn unsilence(
        &self,
        request: Request<UnsilenceRequest>,
    ) -> Result<Response<UnsilenceResponse>, Status> {
        let admin = Admin::of(&request)?;
        let UnsilenceRequest { id } = request.into_inner();
        self.record(admin.operator(), "Unsilence", id.to_string(), 0).await?;
        let kept = self.alerts.with_kept(move |kept| kept.change(|change| change.unsilence(id)));
        match kept.await.map_err(|error| unavailable(&error))? {
            true => Ok(Response::new(UnsilenceResponse {})),
            false => Err(Status::not_found(format!("there is no silence {id}"))),
        }
    }

    async fn test(
        &self,
        request: Request<TestEndpointRequest>,
    ) -> Result<Response<TestEndpointResponse>, Status> {
        let admin = Admin::of(&request)?;
        let TestEndpointRequest { endpoint: name } = request.into_inner();
        let rules = self.alerts.rules();
        let Some(endpoint) = rules.endpoints.iter().find(|it| it.name() == name) else {
            return Err(Status::not_found("there is no endpoint of this name in alerts.yaml"));
        };
        let operator = admin.operator();
        self.record(operator, "TestEndpoint", name, 0).await?;
        match endpoint.send(&notices::test(&operator.to_string())).await {
            Ok(()) => Ok(Response::new(TestEndpointResponse {})),
            Err(error) => Err(Status::unavailable(format!("it was not taken: {error}"))),
        }
    }
}

fn sentence(name: &str, text: &str) -> Result<(), Status> {
    if text.len() > SENTENCE_BYTES_MAX {
        let reason = format!("{name}: at most {SENTENCE_BYTES_MAX} bytes");
        return Err(Status::invalid_argument(reason));
    }
    Ok(())
}

fn unavailable(error: &StoreError) -> Status {
    tracing::error!(%error, "the alerts that are kept cannot be used");
    Status::unavailable("the alerts that are kept cannot be used; see the log")
}
