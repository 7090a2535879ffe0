//! One host.

use std::time::Duration;

use sekimori_proto::v1::{FleetHost, HostChange, HostState, HostTurn, Isolation};
use tokio::time::Instant;

use crate::identity::Role;
use crate::limits::{CLOCK_OFF_MAX, FLEET_DAYS_KEPT, FLEET_SIGNS_INTERVAL, SECONDS_A_DAY};

const NS_A_SECOND: i64 = 1_000_000_000;

/// What is known of a host.
#[derive(Clone, Debug, Default)]
pub(super) struct Host {
    /// UTC ns since 1970; 0 when it never delivered.
    pub first_seen_ns: i64,
    /// The same.
    pub last_seen_ns: i64,
    /// What it said last, and when.
    pub state: Option<(HostState, i64)>,
    /// Serial number of the certificate that it showed, or was given, last.
    pub serial: String,
    /// Seconds since 1970 of its end; 0 when it is not known.
    pub certificate_until_s: i64,
    /// Where it came from last.
    pub address: String,
    /// That it is silent is a record.
    pub told_silent: bool,
    /// Whether it is to be cut off, as it was ordered last.
    pub order: Option<Isolation>,
    /// Number of the last order that is recorded as done.
    pub told_order: u64,
    /// The last sign of life that this collector saw.
    pub heard: Option<Instant>,
    /// Open streams.
    pub streams: usize,
    /// It says on an open stream how it stands: when that ends, it is silent. An agent of an
    /// earlier version says nothing while nothing happens, and its open stream is all there is.
    pub speaks: bool,
    /// What is known of it is not written yet.
    pub unwritten: Unwritten,
    /// When it was written last.
    pub written: Option<Instant>,
}

/// What is not on the disk yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unwritten {
    /// Nothing.
    #[default]
    Nothing,
    /// Signs of life, of which the last one says all: there are many, and they can wait.
    Signs,
    /// Something that is not said again by itself.
    Facts,
}

impl Host {
    pub fn heard(&mut self, now_ns: i64) {
        self.unwritten = self.unwritten.max(Unwritten::Signs);
        if self.first_seen_ns == 0 {
            self.first_seen_ns = now_ns;
            self.unwritten = Unwritten::Facts;
        }
        self.last_seen_ns = self.last_seen_ns.max(now_ns);
        self.heard = Some(Instant::now());
    }

    /// Its agent said how it stands.
    pub fn said(&mut self, state: HostState, now_ns: i64) {
        let carried_out =
            |state: &HostState| (state.isolation_order, state.isolated, state.policy_epoch);
        let before = self.state.as_ref().map(|(state, _)| carried_out(state));
        if before != Some(carried_out(&state)) {
            self.unwritten = Unwritten::Facts;
        }
        self.speaks = true;
        self.state = Some((state, now_ns));
    }

    /// Whether it is time to write it.
    pub fn is_to_be_written(&self, now: Instant) -> bool {
        match self.unwritten {
            Unwritten::Nothing => false,
            Unwritten::Signs => {
                self.written.is_none_or(|at| now.duration_since(at) >= FLEET_SIGNS_INTERVAL)
            }
            Unwritten::Facts => true,
        }
    }

    pub fn certificate(&mut self, serial: &str, until_s: i64) {
        if (self.serial.as_str(), self.certificate_until_s) != (serial, until_s) {
            self.unwritten = Unwritten::Facts;
        }
        serial.clone_into(&mut self.serial);
        self.certificate_until_s = until_s;
    }

    /// The order that its agent has not said to be done.
    pub fn open_order(&self) -> Option<&Isolation> {
        let done = self.state.as_ref().map_or(0, |(state, _)| state.isolation_order);
        self.order.as_ref().filter(|order| order.order > done)
    }

    /// The order that was done and is not recorded as that.
    pub fn done_order(&self) -> Option<&Isolation> {
        let order = self.order.as_ref()?;
        let done = self.open_order().is_none() && self.told_order != order.order;
        done.then_some(order)
    }

    /// The record of that.
    pub fn done(&self, name: &str, order: &Isolation) -> HostChange {
        let turn = if order.isolated { HostTurn::Isolated } else { HostTurn::Released };
        HostChange {
            ordered_by: order.by.clone(),
            reason: order.reason.clone(),
            ..self.change(name, turn)
        }
    }

    /// What is to be recorded now, if anything. `since` is when this collector began to listen.
    pub fn turn(&self, now: Instant, since: Instant, silent_after: Duration) -> Option<HostTurn> {
        let last = self.heard.map_or(since, |heard| heard.max(since));
        let there = self.streams > 0 && !self.speaks;
        let silent = !there && now.duration_since(last) > silent_after;
        match (silent, self.told_silent) {
            // Who was only enrolled so far was never there.
            (true, false) => (self.first_seen_ns != 0).then_some(HostTurn::Silent),
            (false, true) => self.heard.map(|_| HostTurn::Returned),
            _ => None,
        }
    }

    pub fn change(&self, name: &str, turn: HostTurn) -> HostChange {
        HostChange {
            turn: turn.into(),
            name: name.to_owned(),
            role: Role::Agent.to_string(),
            address: self.address.clone(),
            last_seen_ns: self.last_seen_ns,
            ..HostChange::default()
        }
    }

    /// Whether it may be forgotten: it cannot come again as it is, and did not for long.
    pub fn is_gone(&self, now_ns: i64) -> bool {
        let seconds = FLEET_DAYS_KEPT.saturating_mul(SECONDS_A_DAY.cast_signed());
        let before_ns = now_ns.saturating_sub(seconds.saturating_mul(NS_A_SECOND));
        let ended_ns = self.certificate_until_s.saturating_mul(NS_A_SECOND);
        // One that was cut off must find that out when it comes after all.
        let cut_off = self.order.as_ref().is_some_and(|order| order.isolated);
        self.streams == 0 && !cut_off && self.last_seen_ns < before_ns && ended_ns < before_ns
    }

    pub fn shown(&self, name: &str) -> FleetHost {
        FleetHost {
            host: name.to_owned(),
            first_seen_ns: self.first_seen_ns,
            last_seen_ns: self.last_seen_ns,
            connected: self.streams > 0,
            silent: self.told_silent,
            state: self.state.as_ref().map(|(state, _)| state.clone()),
            state_ns: self.state.as_ref().map_or(0, |(_, ns)| *ns),
            certificate_end_ns: self.certificate_until_s.saturating_mul(NS_A_SECOND),
            certificate_serial: self.serial.clone(),
            address: self.address.clone(),
            isolation: self.order.clone(),
            clock_ahead_ns: self.clock_ahead_ns(),
        }
    }

    /// By how much its clock was ahead of the collector's when it spoke last. An agent of an earlier
    /// version does not say what its clock says.
    fn clock_ahead_ns(&self) -> Option<i64> {
        let (state, heard_ns) = self.state.as_ref()?;
        (state.clock_ns != 0).then(|| state.clock_ns.saturating_sub(*heard_ns))
    }

    /// Whether its clock is so far off that its events stand at wrong times.
    pub fn clock_is_wrong(&self) -> bool {
        let off_ns = self.clock_ahead_ns().unwrap_or(0).unsigned_abs();
        Duration::from_nanos(off_ns) > CLOCK_OFF_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn silent_once_and_returned_once() {
        let since = Instant::now();
        let turn =
            |host: &Host, minutes: u32| host.turn(since + MINUTE * minutes, since, MINUTE * 5);
        let mut host = Host { first_seen_ns: 1, ..Host::default() };
        // It was known before the collector started, which was away itself.
        assert_eq!(turn(&host, 4), None);
        assert_eq!(turn(&host, 6), Some(HostTurn::Silent));
        host.told_silent = true;
        assert_eq!(turn(&host, 60), None);
        host.heard = Some(since + MINUTE * 61);
        assert_eq!(turn(&host, 62), Some(HostTurn::Returned));
        host.told_silent = false;
        assert_eq!(turn(&host, 63), None);
        assert_eq!(turn(&host, 67), Some(HostTurn::Silent));
    }

    #[test]
    fn a_restart_cries_neither_silent_nor_returned() {
        let since = Instant::now();
        let host = Host { first_seen_ns: 1, told_silent: true, ..Host::default() };
        assert_eq!(host.turn(since, since, MINUTE), None);
        assert_eq!(host.turn(since + MINUTE * 2, since, MINUTE), None);
    }

    #[test]
    fn an_open_stream_is_enough_for_who_never_speaks() {
        let since = Instant::now();
        let mut host = Host { first_seen_ns: 1, streams: 1, ..Host::default() };
        assert_eq!(host.turn(since + MINUTE * 9, since, MINUTE), None);
        host.speaks = true;
        assert_eq!(host.turn(since + MINUTE * 9, since, MINUTE), Some(HostTurn::Silent));
    }

    #[test]
    fn a_clock_is_compared_when_it_is_told() {
        const S: i64 = NS_A_SECOND;
        let mut host = Host::default();
        let mut told = |clock_ns, heard_ns| {
            host.said(HostState { clock_ns, ..HostState::default() }, heard_ns);
            (host.shown("pc").clock_ahead_ns, host.clock_is_wrong())
        };
        assert_eq!(told(0, 100 * S), (None, false));
        assert_eq!(told(130 * S, 100 * S), (Some(30 * S), false));
        assert_eq!(told(39 * S, 100 * S), (Some(-61 * S), true));
        assert_eq!(told(i64::MAX, -1), (Some(i64::MAX), true));
        assert_eq!(told(i64::MIN, 1), (Some(i64::MIN), true));
    }

    #[test]
    fn who_only_enrolled_is_not_silent() {
        let since = Instant::now();
        assert_eq!(Host::default().turn(since + MINUTE * 9, since, MINUTE), None);
    }

    #[test]
    fn signs_of_life_are_written_now_and_then_and_facts_at_once() {
        let now = Instant::now();
        let mut host = Host { first_seen_ns: 1, written: Some(now), ..Host::default() };
        assert!(!host.is_to_be_written(now + MINUTE));
        host.heard(2);
        host.said(HostState::default(), 2);
        host.unwritten = Unwritten::Signs;
        assert!(!host.is_to_be_written(now + MINUTE / 2));
        assert!(host.is_to_be_written(now + MINUTE));
        host.said(HostState::default(), 3);
        assert_eq!(host.unwritten, Unwritten::Signs);
        host.said(HostState { isolation_order: 7, ..HostState::default() }, 4);
        assert!(host.is_to_be_written(now));
    }

    #[test]
    fn forgotten_long_after_the_certificate() {
        let day = 86_400 * NS_A_SECOND;
        let host = Host { last_seen_ns: day, certificate_until_s: 2 * 86_400, ..Host::default() };
        assert!(!host.is_gone(91 * day));
        assert!(host.is_gone(93 * day));
        assert!(!Host { streams: 1, ..host }.is_gone(93 * day));
    }
}
