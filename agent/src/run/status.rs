//! The answer to `sekimori status`.

use sekimori_abi::event::{counter, kind};
use sekimori_proto::v1::Kind;
use sekimori_proto::words::Word as _;

use crate::config::Collector;
use crate::control::{CollectorStatus, FeatureStatus, KindCounters, SpoolStatus};
use crate::kernel::{Counters, Feature};
use crate::ship::{ShipState, ShipStatus};
use crate::spool::SpoolStats;

pub(super) fn features(features: &[Feature]) -> Vec<FeatureStatus> {
    let of = |feature: &Feature| FeatureStatus {
        name: feature.name.to_owned(),
        hook: feature.hook.to_owned(),
        attached: feature.attached,
        detail: feature.detail.clone(),
        required: feature.required,
    };
    features.iter().map(of).collect()
}

pub(super) fn counters(counters: &Counters) -> Vec<KindCounters> {
    let rows = counters.per_kind.iter().enumerate().skip(1);
    rows.map(|(number, row)| {
        let of = |index: u32| row.get(index as usize).copied().unwrap_or(0);
        let lost = [counter::LOST_RING, counter::LOST_SCRATCH, counter::LOST_TABLE];
        KindCounters {
            kind: word(number),
            seen: of(counter::SEEN),
            emitted: of(counter::EMITTED),
            denied: of(counter::DENIED),
            lost: lost.into_iter().map(of).sum(),
        }
    })
    .collect()
}

/// The kind's word; what is not stored has none on the wire.
fn word(number: usize) -> String {
    for (class, word) in [(kind::FORK, "fork"), (kind::NOTE, "note")] {
        if number == usize::from(class) {
            return word.to_owned();
        }
    }
    let kind = i32::try_from(number).ok().and_then(|number| Kind::try_from(number).ok());
    kind.map_or_else(|| number.to_string(), |kind| kind.word().to_owned())
}

pub(super) const fn spool(stats: &SpoolStats) -> SpoolStatus {
    SpoolStatus {
        appended: stats.appended,
        dropped: stats.dropped,
        telemetry_bytes: stats.telemetry_bytes,
        alert_bytes: stats.alert_bytes,
        unacknowledged_bytes: stats.unacknowledged_bytes,
    }
}

pub(super) fn collector(collector: &Collector, status: &ShipStatus) -> CollectorStatus {
    let last_error = match &status.state {
        ShipState::Retrying { error, .. } => error.clone(),
        ShipState::Connecting | ShipState::Connected | ShipState::Stopped => String::new(),
    };
    CollectorStatus {
        address: collector.address.to_string(),
        connected: status.state == ShipState::Connected,
        acknowledged: status.acknowledged,
        last_error,
    }
}
