//! What the agent tells the collector of itself.

use std::sync::OnceLock;

use jiff::Timestamp;
use sekimori_proto::v1::{HostState, StageLoss};

use super::Agent;
use crate::limits::{FINDING_CHARS_MAX, FINDINGS_MAX};

/// How the agent stands now.
pub(super) fn state(agent: &Agent) -> HostState {
    let (policy, spool) = (agent.keeper.status(), &agent.config.spool);
    let refused = agent.distributed.refused.clone().unwrap_or_default();
    let (stats, shipped) = (agent.spool.stats(), agent.link.shipper.status().borrow().refused);
    let mut lost: Vec<StageLoss> = agent
        .pipeline
        .losses()
        .iter()
        .map(|(stage, count)| StageLoss { stage: stage.clone(), count: *count })
        .collect();
    for (stage, count) in [("spool", stats.dropped), ("ship", shipped)] {
        if count > 0 {
            lost.push(StageLoss { stage: stage.to_owned(), count });
        }
    }
    HostState {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: kernel_release().to_owned(),
        policy: policy.name.clone(),
        policy_sha256: agent.keeper.sha256(),
        mode: agent.keeper.mode().to_owned(),
        spool_bytes: stats.unacknowledged_bytes,
        spool_bytes_max: spool.telemetry_bytes_max.saturating_add(spool.alert_bytes_max),
        lost,
        findings: findings(agent),
        started_ns: agent.started_ns,
        isolation_order: agent.carried_out.order,
        isolated: agent.carried_out.isolated,
        policy_epoch: agent.distributed.epoch,
        policy_refused_epoch: refused.epoch,
        policy_refusal: refused.told.chars().take(FINDING_CHARS_MAX).collect(),
        policy_from_collector: agent.distributed.on,
        clock_ns: Timestamp::now().as_nanosecond().try_into().unwrap_or(i64::MAX),
    }
}

/// What does not work, the worst first, as far as there is room.
fn findings(agent: &Agent) -> Vec<String> {
    let mut findings = Vec::new();
    if !agent.canary.alive {
        findings
            .push("the kernel does not call the programs' hooks: nothing is enforced".to_owned());
    }
    if agent.order != agent.carried_out {
        findings.push("the order about its isolation could not be carried out yet".to_owned());
    }
    if agent.distributed.trouble.is_some() {
        findings.push(
            "the collector's policy that was kept cannot be used; the host's own file is in force"
                .to_owned(),
        );
    }
    // Why may name people, and this is for all operators.
    if agent.keeper.status().refused.is_some() {
        findings.push("the last policy was refused; `sekimori status` there says why".to_owned());
    }
    let missing = agent.sensor.features().iter().filter(|feature| !feature.attached);
    findings.extend(missing.map(|it| format!("{} ({}): {}", it.name, it.hook, it.detail)));
    findings.truncate(FINDINGS_MAX);
    findings.into_iter().map(|it| it.chars().take(FINDING_CHARS_MAX).collect()).collect()
}

fn kernel_release() -> &'static str {
    static RELEASE: OnceLock<String> = OnceLock::new();
    RELEASE.get_or_init(|| {
        let names = nix::sys::utsname::uname();
        names.map_or_else(|_| String::new(), |it| it.release().to_string_lossy().into_owned())
    })
}
