//! Notices on their way: one task an endpoint, each notice until it is taken, refused or too old.

use std::sync::Arc;
use std::time::Duration;

use sekimori_proto::json;
use sekimori_proto::v1::{Alert, Event};
use serde::{Deserialize, Serialize};
use tokio::time;

use super::deliver::{Notice, Severity};
use super::kept::Due;
use super::rules::{Rule, Rules};
use super::{Alerts, now_ns};
use crate::limits::{NOTICE_PAUSE_MAX, NOTICE_PAUSE_MIN, NOTICE_TIME_MAX};

/// How long it looks away when nothing waits and nobody calls.
const IDLE: Duration = Duration::from_secs(5);

/// What a notice says, as it waits.
#[derive(Debug, Deserialize, Serialize)]
struct Body {
    rule: String,
    severity: Severity,
    title: String,
    text: String,
    json: serde_json::Value,
    time_ns: i64,
}

/// The notice of an alert, as it waits.
pub fn body(rule: &Rule, alert: &Alert, event: &Event) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            text.push_str(&format!("{name}: {value}\n"));
        }
    };
    line("alert", &alert.id.to_string());
    line("rule", &rule.name);
    line("about", &rule.description);
    alert.group.iter().for_each(|it| line(&it.field, &it.value));
    line("events", &alert.count.to_string());
    line("bytes", &alert.bytes.to_string());
    line("since", json::time(alert.first_ns).as_str().unwrap_or_default());
    line("last", json::time(alert.last_ns).as_str().unwrap_or_default());
    line("cursor", &event.cursor.to_string());
    let group: serde_json::Map<_, _> =
        alert.group.iter().map(|it| (it.field.clone(), it.value.as_str().into())).collect();
    let event = json::event(event);
    text.push_str(&format!("event: {event}\n"));
    let json = serde_json::json!({
        "alert": alert.id, "description": rule.description, "group": group,
        "count": alert.count, "bytes": alert.bytes, "first": json::time(alert.first_ns),
        "last": json::time(alert.last_ns), "event": event,
    });
    let body = Body {
        rule: rule.name.clone(),
        severity: rule.severity,
        title: alert.title.clone(),
        text,
        json,
        time_ns: now_ns(),
    };
    serde_json::to_string(&body).unwrap_or_default()
}

/// A notice that is no alert, to see whether it arrives.
pub fn test(by: &str) -> Notice {
    let time_ns = now_ns();
    Notice {
        id: format!("test-{time_ns}"),
        severity: Severity::Info,
        rule: "test".to_owned(),
        title: "[info] test: a notice without an alert / 通知の試験".to_owned(),
        text: format!("{by} asked whether this arrives.\n"),
        json: serde_json::json!({ "test": true, "by": by }),
        time_ns,
    }
}

/// Sends the notices of one endpoint, for ever.
pub async fn send(alerts: Alerts, rules: Arc<Rules>, place: usize) {
    let Some(endpoint) = rules.endpoints.get(place) else { return };
    let name = endpoint.name().to_owned();
    loop {
        let asked = name.clone();
        let next = alerts.with_kept(move |kept| kept.next_notice(&asked)).await;
        let due = match next {
            Ok(Some((due_ns, due))) if due_ns <= now_ns() => due,
            Ok(Some((due_ns, _))) => {
                let pause = u64::try_from(due_ns.saturating_sub(now_ns())).unwrap_or(0);
                idle(&alerts, Duration::from_nanos(pause)).await;
                continue;
            }
            Ok(None) => {
                idle(&alerts, IDLE).await;
                continue;
            }
            Err(error) => {
                tracing::error!(endpoint = name, %error, "the notices that wait cannot be read");
                time::sleep(IDLE).await;
                continue;
            }
        };
        let id = due.id;
        let sent = match notice(&due) {
            Some(notice) => endpoint
                .send(&notice)
                .await
                .map_err(|error| (error.is_final(), error.retry_after(), error.to_string())),
            None => Err((true, None, "the notice cannot be read any more".to_owned())),
        };
        let age =
            Duration::from_nanos(u64::try_from(now_ns().saturating_sub(due.made_ns)).unwrap_or(0));
        let kept = match sent {
            Ok(()) => {
                alerts.stands(format!("endpoint:{name}"), |it| {
                    it.sent = it.sent.saturating_add(1);
                    it.error.clear();
                });
                alerts.with_kept(move |kept| kept.change(|change| change.done(id))).await
            }
            Err((is_final, _, error)) if is_final || age > NOTICE_TIME_MAX => {
                tracing::error!(endpoint = name, %error, "a notice is LOST: it will not be taken");
                alerts.stands(format!("endpoint:{name}"), |it| {
                    it.failed = it.failed.saturating_add(1);
                    it.error = error;
                });
                alerts.with_kept(move |kept| kept.change(|change| change.done(id))).await
            }
            Err((_, after, error)) => {
                let pause = pause(due.tries).max(after.unwrap_or_default()).min(NOTICE_PAUSE_MAX);
                tracing::warn!(
                    endpoint = name, %error, "a notice is tried again in {} s", pause.as_secs()
                );
                alerts.stands(format!("endpoint:{name}"), |it| it.error = error);
                let pause = i64::try_from(pause.as_nanos()).unwrap_or(i64::MAX);
                let due_ns = now_ns().saturating_add(pause);
                alerts.with_kept(move |kept| kept.change(|change| change.again(id, due_ns))).await
            }
        };
        if let Err(error) = kept {
            tracing::error!(endpoint = name, %error, "that a notice was sent cannot be noted");
            time::sleep(IDLE).await;
        }
    }
}

/// Until there is news, or as long as this.
async fn idle(alerts: &Alerts, most: Duration) {
    let _ = time::timeout(most.min(IDLE), alerts.0.news.notified()).await;
}

fn pause(tries: u32) -> Duration {
    let doubled = NOTICE_PAUSE_MIN.saturating_mul(1_u32.checked_shl(tries.min(16)).unwrap_or(1));
    doubled.min(NOTICE_PAUSE_MAX)
}

fn notice(due: &Due) -> Option<Notice> {
    let body: Body = serde_json::from_str(&due.body).ok()?;
    let Body { rule, severity, title, text, json, time_ns } = body;
    Some(Notice {
        id: format!("{}-{}", due.made_ns, due.id),
        severity,
        rule,
        title,
        text,
        json,
        time_ns,
    })
}
