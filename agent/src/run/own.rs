//! Which files are the agent's own: whoever changes them changes what it does next.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::kernel::Own;

/// Its program, configuration, policy, keys, certificates and spool, and the directories that the middle
/// three lie in. `files` are the configuration and the policy.
pub(super) fn files(config: &Config, files: &[&Path]) -> Vec<(PathBuf, Own)> {
    let mut own = BTreeMap::new();
    let tls = config.collector.tls.iter();
    let certificates = tls.flat_map(|tls| [&tls.ca, &tls.cert, &tls.key].map(PathBuf::as_path));
    let key = config.policy_key.iter().map(PathBuf::as_path);
    for file in files.iter().copied().chain(certificates).chain(key) {
        own.insert(file.to_owned(), Own::File);
        let directory = file.parent().filter(|it| !it.as_os_str().is_empty());
        own.extend(directory.map(|it| (it.to_owned(), Own::File)));
    }
    own.extend(std::env::current_exe().ok().map(|program| (program, Own::File)));
    own.insert(config.spool.directory.clone(), Own::Directory);
    own.into_iter().collect()
}
