//! Debug logs through aya-log: off unless the agent is started with `--program-logs`, and never used
//! for events.

use crate::offset::PROGRAM_LOGS;

/// Says what was decided. A function of its own: the verifier looks at it once per program, and not
/// behind its first branch when logs are off.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn log_outcome(kind: u32, operation: u32, verdict: u32, rule: u32) -> u32 {
    // aya-log's own level is not a constant to the verifier, this is.
    if PROGRAM_LOGS.get() == 0 {
        return 0;
    }
    // aya-log takes a context and does not use it.
    aya_log_ebpf::debug!(
        &(),
        "kind {} operation {} verdict {} rule {}",
        kind,
        operation,
        verdict,
        rule
    );
    0
}
