//! Whether the kernel still calls our hooks: one write to `kernel.ftrace_enabled` takes every program
//! off on kernels up to 6.12, and nothing tells them.

use std::fs;

use crate::kernel::{KernelError, Sensor};

/// Any file: what counts is that it is opened.
const OPENED: &str = "/proc/self/stat";
/// The switch.
const SWITCH: &str = "/proc/sys/kernel/ftrace_enabled";

/// What the last try showed.
#[derive(Debug)]
pub(super) struct Canary {
    /// The open was seen.
    pub alive: bool,
}

impl Canary {
    /// A start that put programs on their hooks takes them for called.
    pub const fn new() -> Self {
        Self { alive: true }
    }

    /// Opens a file and looks whether it was seen. Answers a sentence when that has changed. Others'
    /// opens can only raise the number, so a number that stays is proof.
    pub fn sing(&mut self, sensor: &Sensor) -> Result<Option<String>, KernelError> {
        if is_called(sensor)? {
            let back = !self.alive;
            self.alive = true;
            return Ok(back.then(|| "the kernel calls the programs' hooks again".to_owned()));
        }
        let before = std::mem::replace(&mut self.alive, false);
        let switch = fs::read_to_string(SWITCH).unwrap_or_default();
        if switch.trim() != "0" {
            let text = "the kernel does not call the programs' hooks: nothing is enforced, and \
                        nothing seems switched off";
            return Ok(before.then(|| text.to_owned()));
        }
        let mended = fs::write(SWITCH, "1");
        self.alive = mended.is_ok() && is_called(sensor)?;
        Ok(match (self.alive, mended) {
            (true, _) => Some(
                "kernel.ftrace_enabled was set to 0, which took all programs off their hooks; it \
                 was set to 1 again, and the policy is enforced again"
                    .to_owned(),
            ),
            (false, Ok(())) => before.then(|| {
                "kernel.ftrace_enabled was set to 0: nothing is enforced, and setting it to 1 did \
                 not help"
                    .to_owned()
            }),
            (false, Err(error)) => before.then(|| {
                format!(
                    "kernel.ftrace_enabled was set to 0: nothing is enforced, and it cannot be set \
                     to 1: {error}"
                )
            }),
        })
    }
}

fn is_called(sensor: &Sensor) -> Result<bool, KernelError> {
    let before = sensor.opens_seen()?;
    // It always exists; that it cannot be read would not matter.
    let _ = fs::File::open(OPENED);
    Ok(sensor.opens_seen()? > before)
}
