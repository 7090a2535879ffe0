//! The one place that reads clocks. Kernel records carry `CLOCK_BOOTTIME`; events carry UTC.

use nix::time::{ClockId, clock_gettime};

use crate::limits::{CLOCK_DRIFT_NS, CLOCK_STEP_NS};

/// The wall clock was set: it jumped by this much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// ns forward; negative when it was set back.
    pub by_ns: i64,
}

/// Boot time to UTC, with the difference of the two clocks as it was read last.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    offset_ns: i64,
}

impl Clock {
    /// Reads both clocks.
    #[must_use]
    pub fn new() -> Self {
        let (boot_ns, utc_ns) = read_both();
        Self::at(boot_ns, utc_ns)
    }

    /// As if both clocks had shown this.
    #[must_use]
    pub const fn at(boot_ns: i64, utc_ns: i64) -> Self {
        Self { offset_ns: utc_ns.saturating_sub(boot_ns) }
    }

    /// UTC of a boot time, ns since 1970.
    #[must_use]
    pub fn utc_ns(&self, boot_ns: u64) -> i64 {
        i64::try_from(boot_ns).unwrap_or(i64::MAX).saturating_add(self.offset_ns)
    }

    /// UTC now, on the same scale as [`Self::utc_ns`].
    #[must_use]
    pub fn now_ns(&self) -> i64 {
        self.utc_ns(boot_now_ns())
    }

    /// Reads both clocks again; call it about once a second.
    pub fn refresh(&mut self) -> Option<Step> {
        let (boot_ns, utc_ns) = read_both();
        self.observe(boot_ns, utc_ns)
    }

    /// Follows what the clocks show now. Reading them one after the other makes differences of a
    /// few microseconds, which are not followed: times of one process stay comparable.
    pub fn observe(&mut self, boot_ns: i64, utc_ns: i64) -> Option<Step> {
        let offset_ns = utc_ns.saturating_sub(boot_ns);
        let by_ns = offset_ns.saturating_sub(self.offset_ns);
        if by_ns.saturating_abs() >= CLOCK_DRIFT_NS {
            self.offset_ns = offset_ns;
        }
        (by_ns.saturating_abs() > CLOCK_STEP_NS).then_some(Step { by_ns })
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// `CLOCK_BOOTTIME`, ns.
#[must_use]
pub fn boot_now_ns() -> u64 {
    u64::try_from(read(ClockId::CLOCK_BOOTTIME)).unwrap_or(0)
}

fn read_both() -> (i64, i64) {
    (read(ClockId::CLOCK_BOOTTIME), read(ClockId::CLOCK_REALTIME))
}

/// Both clocks exist since Linux 2.6.39 and reading them cannot fail.
fn read(clock: ClockId) -> i64 {
    clock_gettime(clock).map_or(0, |time| {
        time.tv_sec().saturating_mul(1_000_000_000).saturating_add(time.tv_nsec())
    })
}
