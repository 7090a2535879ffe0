//! `cargo xtask demo`: from a fresh machine to a leak that is seen, stopped and recorded.

use std::time::Duration;

use anyhow::Result;

use crate::setup::kernels::Matrix;
use crate::vm::{self, Request, Show};
use crate::{build, setup, test};

const TIMEOUT: Duration = Duration::from_secs(600);

/// Sets up, builds, boots the default kernel and runs the demonstration there; returns its status.
///
/// # Errors
/// When a step before the demonstration fails.
pub fn run() -> Result<u8> {
    let kernel = Matrix::read()?.default;
    setup::run(&setup::Options { refresh: false, kernel: vec![kernel.clone()] })?;
    build::run(build::Options::default())?;
    println!("boot   linux {kernel} in a VM");
    let outcome = vm::boot(&Request {
        timeout: Some(TIMEOUT),
        command: vec![test::SCENARIOS.to_owned(), "demo".to_owned()],
        ..Request::new(kernel, test::sticks()?, Show::AsIs)
    })?;
    Ok(outcome.status)
}
