//! Looks for what the rules look for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;
use sekimori_proto::v1::{
    Alert, AlertGroup, AlertRaised, Event, Field, Kind, SilenceRequest, StandingSilence,
};
use sekimori_proto::words::Word as _;
use tokio::task::JoinHandle;
use tokio::time::{self, Instant};

use super::kept::{Change, groups_text};
use super::notices;
use super::rules::{Rule, Rules, What};
use super::window::{Amount, Limit, Progress};
use super::{Alerts, lock, now_ns};
use crate::author::Author;
use crate::bus::Committed;
use crate::identity::Operator;
use crate::limits::{
    ALERT_GATHER, ALERT_GROUPS_MAX, ALERT_MARK_INTERVAL, ALERT_TICK, ALERT_WITHIN_MAX,
    ALERTS_OPEN_MAX, BATCH_EVENTS_MAX,
};
use crate::store::{ReadError, Readers, StoreError, bytes_of, value_of};

/// The engine.
#[derive(Debug)]
pub struct Engine {
    alerts: Alerts,
    readers: Readers,
    committed: Committed,
    author: Author,
    at_work: BTreeMap<String, Work>,
    senders: Vec<JoinHandle<()>>,
    seen: Option<(u64, u64, i64, i64)>,
}

/// One rule at work.
#[derive(Debug)]
struct Work {
    rule: Arc<Rule>,
    /// The last cursor that was looked at.
    position: u64,
    /// Up to here events only fill the windows: what they were alerts of is known.
    known: u64,
    /// Up to here values are only learned, and nothing is kept of how far that is.
    learned: u64,
    progress: LruCache<Vec<String>, Progress>,
    crowded: bool,
}

/// An event that makes an alert, or goes on with one.
#[derive(Debug)]
struct Hit {
    group: Vec<String>,
    /// What led to it, when it is the first.
    sum: Amount,
    event: Event,
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.senders.iter().for_each(JoinHandle::abort);
    }
}

impl Engine {
    /// Reads through `readers`, woken by `committed`, and records by `author`.
    pub fn new(alerts: Alerts, readers: Readers, committed: Committed, author: Author) -> Engine {
        let (at_work, senders) = Default::default();
        Engine { alerts, readers, committed, author, at_work, senders, seen: None }
    }

    /// Looks for ever.
    pub async fn run(mut self) {
        let mut committed = self.committed.follow();
        let (mut tick, mut mark) = (Instant::now(), Instant::now());
        loop {
            let now = Instant::now();
            if now >= tick {
                self.reload().await;
                self.close().await;
                tick = now + ALERT_TICK;
            }
            let upper = self.committed.get();
            let names: Vec<String> = self.at_work.keys().cloned().collect();
            for name in names {
                let Some(mut work) = self.at_work.remove(&name) else { continue };
                if let Err(error) = self.look(&mut work, upper).await {
                    tracing::error!(rule = name, %error, "an alert cannot be looked for; again soon");
                    self.alerts.stands(format!("rule:{name}"), |it| it.error = error.to_string());
                    // What was counted and not kept is counted again.
                    work = match self.begin(Arc::clone(&work.rule)).await {
                        Ok(begun) => begun,
                        Err(_) => work,
                    };
                }
                self.at_work.insert(name, work);
            }
            self.record().await;
            if now >= mark {
                let alerts = self.alerts.clone();
                let forget = before(now_ns(), ALERT_WITHIN_MAX);
                let marked = alerts.with_kept(move |kept| {
                    kept.change(|change| {
                        change.mark(now_ns(), upper, forget)?;
                        change.forget(forget)
                    })
                });
                if let Err(error) = marked.await {
                    tracing::error!(%error, "how far the store is cannot be noted");
                }
                mark = now + ALERT_MARK_INTERVAL;
            }
            // Records of alerts wake it once more, and then it sleeps.
            time::sleep(ALERT_GATHER).await;
            let more = committed.wait_for(|last| *last > upper);
            let _ = time::timeout_at(tick, more).await;
        }
    }

    /// Takes up another file.
    async fn reload(&mut self) {
        let path = self.alerts.0.path.clone();
        let seen = std::fs::metadata(&path).ok();
        let seen = seen.map(|it| (it.ino(), it.len(), it.mtime(), it.mtime_nsec()));
        if seen == self.seen && (seen.is_some() || !self.at_work.is_empty()) {
            return;
        }
        let before = std::mem::replace(&mut self.seen, seen);
        let rules = match seen {
            None => Rules::default(),
            Some(_) => match Rules::read(&path) {
                Ok(rules) => rules,
                Err(error) => {
                    let stays = if before.is_some() { "; those before stay" } else { "" };
                    tracing::error!(path = %path.display(), %error, "the alerts CANNOT BE USED{stays}");
                    *lock(&self.alerts.0.error) = error.to_string();
                    return;
                }
            },
        };
        lock(&self.alerts.0.error).clear();
        let mut at_work = BTreeMap::new();
        for rule in &rules.rules {
            match self.begin(Arc::new(rule.clone())).await {
                Ok(work) => {
                    at_work.insert(rule.name.clone(), work);
                }
                Err(error) => {
                    tracing::error!(rule = rule.name, %error, "an alert cannot be looked for");
                    // Tried again with the next look at the file.
                    self.seen = before;
                    return;
                }
            }
        }
        if !rules.rules.is_empty() || !self.at_work.is_empty() {
            tracing::info!(
                rules = rules.rules.len(),
                endpoints = rules.endpoints.len(),
                "alerts are looked for"
            );
        }
        self.at_work = at_work;
        let rules = Arc::new(rules);
        *lock(&self.alerts.0.rules) = Arc::clone(&rules);
        self.senders.drain(..).for_each(|sender| sender.abort());
        for place in 0..rules.endpoints.len() {
            let sending = notices::send(self.alerts.clone(), Arc::clone(&rules), place);
            self.senders.push(tokio::spawn(sending));
        }
        let names: Vec<String> = self.at_work.keys().cloned().collect();
        let closed = self
            .alerts
            .with_kept(move |kept| kept.change(|change| change.close_others(&names, now_ns())));
        if let Err(error) = closed.await {
            tracing::error!(%error, "alerts of rules that are no more cannot be closed");
        }
    }

    /// Where a rule begins.
    async fn begin(&self, rule: Arc<Rule>) -> Result<Work, StoreError> {
        let (name, within) = (rule.name.clone(), rule.what.within());
        let counts = match &rule.what {
            What::FirstSeen { .. } => false,
            What::Stages { stages, .. } => match stages.as_slice() {
                [stage] => stage.limit != Limit::Count(1),
                _ => true,
            },
        };
        let kept = self.alerts.with_kept(move |kept| {
            let position = kept.position(&name)?;
            let from = kept.position_at(before(now_ns(), within))?;
            Ok((position, from))
        });
        let (position, from) = kept.await?;
        let committed = self.committed.get();
        let learns = matches!(rule.what, What::FirstSeen { .. });
        if position.is_none() && !learns {
            // What comes from now on is looked at, also by the next run.
            let name = rule.name.clone();
            let kept = self
                .alerts
                .with_kept(move |kept| kept.change(|change| change.position(&name, committed)));
            kept.await?;
        }
        let (start, known, learned) = match position {
            // What was before the rule is no alert; what a new thing is, it learns from it.
            None if learns => (0, 0, committed),
            None => (committed, committed, 0),
            Some(position) if counts => (from.min(position), position, 0),
            Some(position) => (position, position, 0),
        };
        let most = NonZeroUsize::new(ALERT_GROUPS_MAX).unwrap_or(NonZeroUsize::MIN);
        let progress = LruCache::new(most);
        Ok(Work { rule, position: start, known, learned, progress, crowded: false })
    }

    /// Looks at what is new.
    async fn look(&self, work: &mut Work, upper: u64) -> Result<(), LookError> {
        while work.position < upper {
            let reader = Operator::collector();
            let condition = Arc::clone(&work.rule.condition);
            let step = self.readers.step(&reader, condition, work.position).await?;
            if step.position <= work.position {
                break;
            }
            let mut hits = Vec::new();
            for event in step.events {
                if Rule::looks_at(&event) {
                    work.consider(event, &mut hits);
                }
            }
            let position = step.position.min(upper).max(work.position);
            work.position = step.position;
            if !hits.is_empty() || position > work.known {
                self.keep(work, hits).await?;
            }
            let name = format!("rule:{}", work.rule.name);
            let unanswered = work.rule.condition.unanswered();
            let error = unanswered.map(ToString::to_string).unwrap_or_default();
            self.alerts.stands(name, |it| (it.position, it.error) = (position, error));
        }
        Ok(())
    }

    async fn keep(&self, work: &Work, hits: Vec<Hit>) -> Result<(), StoreError> {
        let (rule, position, learned) = (Arc::clone(&work.rule), work.position, work.learned);
        let some = !hits.is_empty();
        let kept = self.alerts.with_kept(move |kept| {
            let silences = if hits.is_empty() { Vec::new() } else { kept.silences(now_ns())? };
            kept.change(|change| {
                for hit in hits {
                    if is_hit(change, &rule, &hit, learned)? {
                        raise(change, &rule, hit, &silences)?;
                    }
                }
                // A rule that still learns begins again after a crash.
                if position >= learned { change.position(&rule.name, position) } else { Ok(()) }
            })
        });
        kept.await?;
        if some {
            self.alerts.0.news.notify_waiters();
        }
        Ok(())
    }

    /// Alerts to which nothing was added for long enough are over.
    async fn close(&self) {
        let now = now_ns();
        let quiet: Vec<(String, i64)> = self
            .at_work
            .values()
            .map(|work| (work.rule.name.clone(), before(now, work.rule.quiet)))
            .collect();
        let closed = self.alerts.with_kept(move |kept| {
            kept.change(|change| {
                quiet.iter().try_for_each(|(rule, hit_before)| {
                    change.close(rule, *hit_before, now).map(|_| ())
                })
            })
        });
        if let Err(error) = closed.await {
            tracing::error!(%error, "alerts that are over cannot be closed");
        }
    }

    /// Makes the records of alerts. What cannot be recorded is tried again.
    async fn record(&self) {
        let unrecorded = self.alerts.with_kept(|kept| kept.unrecorded(BATCH_EVENTS_MAX)).await;
        let unrecorded = match unrecorded {
            Ok(unrecorded) if unrecorded.is_empty() => return,
            Ok(unrecorded) => unrecorded,
            Err(error) => {
                tracing::error!(%error, "alerts cannot be recorded");
                return;
            }
        };
        let ids: Vec<u64> = unrecorded.iter().map(|alert| alert.id).collect();
        let events = unrecorded.into_iter().map(|alert| Event {
            kind: Kind::Alert.into(),
            alert: Some(AlertRaised {
                id: alert.id,
                rule: alert.rule,
                severity: alert.severity,
                title: alert.title,
                group: alert.group,
                count: alert.count,
                bytes: alert.bytes,
                first_ns: alert.first_ns,
                cursor: alert.first_cursor,
                silenced: alert.silenced,
            }),
            ..Event::default()
        });
        if let Err(error) = self.author.store_all(events.collect()).await {
            tracing::error!(%error, "alerts cannot be recorded");
            return;
        }
        let noted = self.alerts.with_kept(move |kept| {
            kept.change(|change| ids.iter().try_for_each(|id| change.recorded(*id)))
        });
        if let Err(error) = noted.await {
            tracing::error!(%error, "alerts will be recorded twice");
        }
    }
}

/// Why nothing could be looked at.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Work {
    /// Counts an event; what is enough is a hit.
    fn consider(&mut self, event: Event, hits: &mut Vec<Hit>) {
        let amount = Amount { count: 1, bytes: bytes_of(&event) };
        let group = self.rule.group(&event);
        let (stages, within) = match &self.rule.what {
            What::FirstSeen { .. } => {
                hits.push(Hit { group, sum: amount, event });
                return;
            }
            What::Stages { stages, within } => (stages, *within),
        };
        let limits: Vec<Limit> = stages.iter().map(|stage| stage.limit).collect();
        let is_new = event.cursor > self.known;
        if limits == [Limit::Count(1)] {
            if is_new {
                hits.push(Hit { group, sum: amount, event });
            }
            return;
        }
        if self.progress.len() == self.progress.cap().get()
            && !self.progress.contains(&group)
            && !std::mem::replace(&mut self.crowded, true)
        {
            tracing::warn!(
                rule = self.rule.name,
                "more than {ALERT_GROUPS_MAX} groups are counted: those that were still longest are \
                 forgotten"
            );
        }
        let progress = self.progress.get_or_insert_mut(group.clone(), Progress::default);
        let mut reached = None;
        for (place, stage) in stages.iter().enumerate() {
            // Of one stage, the condition was asked already.
            let belongs = stages.len() == 1 || stage.filter.matches(&event).unwrap_or(false);
            if belongs
                && let Some(sum) = progress.add(&limits, place, event.time_ns, within, amount)
            {
                reached = Some(sum);
            }
        }
        if let Some(sum) = reached
            && is_new
        {
            hits.push(Hit { group, sum, event });
        }
    }
}

/// Whether it is one: of what is to be seen for the first time, only the store of values knows.
fn is_hit(change: &Change<'_>, rule: &Rule, hit: &Hit, learned: u64) -> rusqlite::Result<bool> {
    let What::FirstSeen { fields, within } = &rule.what else { return Ok(true) };
    let values: Vec<String> = fields.iter().map(|field| value_of(*field, &hit.event)).collect();
    if values.iter().all(String::is_empty) {
        return Ok(false);
    }
    let value = serde_json::json!(values).to_string();
    let seen = change.saw(&rule.name, &value, hit.event.time_ns)?;
    let long_ago = |seen: i64| seen < before(hit.event.time_ns, *within);
    Ok(hit.event.cursor > learned && seen.is_none_or(long_ago))
}

fn raise(
    change: &Change<'_>,
    rule: &Rule,
    hit: Hit,
    silences: &[StandingSilence],
) -> rusqlite::Result<()> {
    let now = now_ns();
    let Hit { group, sum, event } = hit;
    let named = rule.by.iter().zip(group);
    let mut group: Vec<AlertGroup> =
        named.map(|(field, value)| AlertGroup { field: field.word().to_owned(), value }).collect();
    let mut open = change.open(&rule.name, &groups_text(&group))?;
    if open.is_none() && change.count_open(&rule.name)? >= ALERTS_OPEN_MAX {
        group = vec![AlertGroup { field: "group".to_owned(), value: "many more".to_owned() }];
        open = change.open(&rule.name, &groups_text(&group))?;
    }
    let mut alert = Alert {
        rule: rule.name.clone(),
        severity: rule.severity.as_str().to_owned(),
        group,
        count: sum.count,
        bytes: sum.bytes,
        first_ns: event.time_ns,
        last_ns: event.time_ns,
        first_cursor: event.cursor,
        last_cursor: event.cursor,
        opened_ns: now,
        ..Alert::default()
    };
    alert.title = title(rule, &alert);
    let Some(open) = open else {
        alert.silenced = silences.iter().any(|silence| is_silenced(silence, rule, &event));
        alert.id = change.raise(&alert, &groups_text(&alert.group))?;
        return if alert.silenced { Ok(()) } else { tell(change, rule, &alert, &event, now) };
    };
    let again = now.saturating_sub(open.told_ns) > nanoseconds(rule.remind);
    let told = again && !open.acknowledged && !open.silenced;
    let more = Alert { count: 1, bytes: bytes_of(&event), ..alert };
    match change.goes_on(open.id, now, &more, told)? {
        Some(alert) if told => {
            let alert = Alert { title: title(rule, &alert), ..alert };
            tell(change, rule, &alert, &event, now)
        }
        _ => Ok(()),
    }
}

fn tell(
    change: &Change<'_>,
    rule: &Rule,
    alert: &Alert,
    event: &Event,
    now: i64,
) -> rusqlite::Result<()> {
    let body = notices::body(rule, alert, event);
    for endpoint in &rule.to {
        let lost = change.notice(endpoint, alert.id, &body, now)?;
        if lost > 0 {
            tracing::error!(
                endpoint,
                lost,
                "notices that waited longest made room for new ones and are LOST"
            );
        }
    }
    Ok(())
}

/// `[high] mass-copy: desk-12 花子: 132 events, 5 GB`.
fn title(rule: &Rule, alert: &Alert) -> String {
    let values = alert.group.iter().filter(|it| !it.value.is_empty());
    let values: Vec<&str> = values.map(|it| it.value.as_str()).collect();
    let mut title = format!("[{}] {}: {}", rule.severity.as_str(), rule.name, values.join(", "));
    let events = if alert.count == 1 { "event" } else { "events" };
    // Writing to a String cannot fail.
    let _ = write!(title, ": {} {events}", alert.count);
    if alert.bytes > 0 {
        let _ = write!(title, ", {} bytes", alert.bytes);
    }
    title
}

fn is_silenced(silence: &StandingSilence, rule: &Rule, event: &Event) -> bool {
    let Some(SilenceRequest { rule: name, host, user, .. }) = &silence.what else { return false };
    (name.is_empty() || *name == rule.name)
        && (host.is_empty() || *host == event.host)
        && (user.is_empty() || *user == value_of(Field::User, event))
}

fn nanoseconds(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

fn before(time_ns: i64, time: Duration) -> i64 {
    time_ns.saturating_sub(nanoseconds(time))
}
