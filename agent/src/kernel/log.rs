//! Debug logs of the programs, off unless asked for and never used for events.

use aya::programs::ProgramInfo;
use aya_log::EbpfLogger;
use tokio::io::unix::AsyncFd;
use tracing::warn;

use super::pins::Set;

/// Prints the programs' logs until the agent ends.
pub(super) fn follow(set: &Set) {
    let logger = ProgramInfo::from_pin(set.program("file_open"))
        .map_err(|error| error.to_string())
        .and_then(|info| EbpfLogger::init_from_id(info.id()).map_err(|error| error.to_string()));
    let logger = match logger {
        Ok(logger) => logger,
        Err(error) => return warn!("no program logs: {error}"),
    };
    // SAFETY: the logger owns its descriptor for as long as it lives.
    let mut logger = match unsafe { AsyncFd::register(logger) } {
        Ok(logger) => logger,
        Err(error) => return warn!("no program logs: {error}"),
    };
    tokio::spawn(async move {
        while let Ok(mut guard) = logger.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    });
}
