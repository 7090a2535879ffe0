#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::PermissionsExt as _;

use sekimori_evidence::SigningKey;
use sha2::{Digest as _, Sha256};

use super::*;

const OWN: &str = "{ apiVersion: sekimori/v1, kind: Policy, metadata: { name: own }, rules: [] }\n";
const GIVEN: &str =
    "{ apiVersion: sekimori/v1, kind: Policy, metadata: { name: given }, rules: [] }\n";

struct Bench {
    directory: tempfile::TempDir,
    key: SigningKey,
    config: Config,
}

fn bench() -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let key = SigningKey::open(&directory.path().join("policy.key")).unwrap();
    let at = directory.path().display();
    let text = format!(
        "policy: {at}/policy.yaml\npolicy_from: collector\npolicy_key: {at}/policy.pub\n\
         spool: {{ directory: {at}/spool }}\ncollector: {{ address: \"unix:{at}/socket\" }}\n"
    );
    let config = Config::parse(&text, Path::new("agent.yaml")).unwrap();
    fs::create_dir(&config.spool.directory).unwrap();
    fs::write(&config.policy, OWN).unwrap();
    fs::write(config.policy_key.clone().unwrap(), bundle::key_text(&key.public())).unwrap();
    Bench { directory, key, config }
}

impl Bench {
    fn bundle(&self, epoch: u64) -> PolicyBundle {
        let statement = PolicyStatement {
            epoch,
            text_zstd: zstd::encode_all(GIVEN.as_bytes(), 0).unwrap(),
            sha256: Sha256::digest(GIVEN).to_vec(),
            percent: 100,
            ..PolicyStatement::default()
        };
        bundle::sign(&self.key, &statement)
    }

    /// An agent that starts: what it knows, and the policy that it puts in force.
    fn start(&self) -> (Distributed, String) {
        let mut distributed = Distributed::new(&self.config, false);
        let keeper = Keeper::new(self.config.policy.clone(), 0);
        let loaded = distributed.load(&keeper).unwrap();
        (distributed, loaded.compiled.name)
    }

    fn take(&self, distributed: &mut Distributed, epoch: u64) -> Result<(), DistributedError> {
        let bundle = self.bundle(epoch);
        let (statement, text) = distributed.accept(&bundle)?;
        assert_eq!(text, GIVEN.as_bytes());
        distributed.stage(&bundle)?;
        distributed.keep(statement.epoch)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.config.spool.directory.join(name)
    }
}

fn is_older(result: Result<(), DistributedError>) -> bool {
    matches!(result, Err(DistributedError::Bundle(BundleError::Epoch { .. })))
}

#[test]
fn the_file_is_in_force_until_the_first_has_come_and_not_after_it() {
    let bench = bench();
    let (mut distributed, name) = bench.start();
    assert_eq!((name.as_str(), distributed.epoch), ("own", 0));
    bench.take(&mut distributed, 3).unwrap();
    for file in [BUNDLE, EPOCH] {
        let mode = fs::metadata(bench.path(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let (distributed, name) = bench.start();
    assert_eq!((name.as_str(), distributed.epoch), ("given", 3));
    assert_eq!(distributed.trouble, None);
}

#[test]
fn no_earlier_epoch_comes_back_over_a_restart() {
    let bench = bench();
    let (mut distributed, _) = bench.start();
    bench.take(&mut distributed, 3).unwrap();
    assert!(is_older(bench.take(&mut distributed, 3)));
    let (mut distributed, _) = bench.start();
    assert!(is_older(bench.take(&mut distributed, 2)));
    assert!(is_older(bench.take(&mut distributed, 3)));
    // Nor when somebody takes the file away; the same one may come again then.
    fs::remove_file(bench.path(BUNDLE)).unwrap();
    let (mut distributed, name) = bench.start();
    assert_eq!(name, "own");
    assert!(distributed.trouble.as_ref().unwrap().contains("is gone"));
    assert!(is_older(bench.take(&mut distributed, 2)));
    bench.take(&mut distributed, 3).unwrap();
    assert_eq!(bench.start().1, "given");
}

#[test]
fn an_earlier_bundle_in_its_place_is_not_put_in_force() {
    let bench = bench();
    let (mut distributed, _) = bench.start();
    bench.take(&mut distributed, 3).unwrap();
    fs::write(bench.path(BUNDLE), bench.bundle(2).encode_to_vec()).unwrap();
    let (distributed, name) = bench.start();
    assert_eq!((name.as_str(), distributed.epoch), ("own", 0));
    assert!(distributed.trouble.unwrap().contains("epoch 2 is not higher"));
}

#[test]
fn a_kill_between_the_two_files_costs_nothing() {
    let bench = bench();
    let (mut distributed, _) = bench.start();
    bench.take(&mut distributed, 3).unwrap();
    fs::write(bench.path(BUNDLE), bench.bundle(4).encode_to_vec()).unwrap();
    let (mut distributed, _) = bench.start();
    assert_eq!(distributed.epoch, 4);
    assert!(is_older(bench.take(&mut distributed, 4)));
}

#[test]
fn what_was_kept_is_checked_again() {
    let bench = bench();
    let (mut distributed, _) = bench.start();
    bench.take(&mut distributed, 3).unwrap();
    let good = fs::read(bench.path(BUNDLE)).unwrap();
    let mut changed = good.clone();
    *changed.last_mut().unwrap() ^= 1;
    for bytes in [changed, b"no bundle".to_vec(), Vec::new()] {
        fs::write(bench.path(BUNDLE), bytes).unwrap();
        let (distributed, name) = bench.start();
        assert_eq!((name.as_str(), distributed.epoch), ("own", 0));
        assert!(distributed.trouble.is_some());
    }
    fs::write(bench.path(BUNDLE), good).unwrap();
    assert_eq!(bench.start().1, "given");
    // With another key nothing holds, and without one neither.
    let other = SigningKey::open(&bench.directory.path().join("other.key")).unwrap();
    let path = bench.config.policy_key.clone().unwrap();
    fs::write(&path, bundle::key_text(&other.public())).unwrap();
    assert_eq!(bench.start().1, "own");
    fs::remove_file(&path).unwrap();
    let (mut distributed, name) = bench.start();
    assert_eq!(name, "own");
    let refused = bench.take(&mut distributed, 9).unwrap_err().to_string();
    assert!(refused.contains("enrol this host again"), "{refused}");
}

#[test]
fn whose_admin_did_not_turn_it_on_keeps_the_file() {
    let mut bench = bench();
    let (mut distributed, _) = bench.start();
    bench.take(&mut distributed, 3).unwrap();
    let chosen = Distributed::new(&bench.config, true);
    assert!(!chosen.on, "a policy on the command line is the one");
    bench.config.policy_from = PolicyFrom::File;
    let (distributed, name) = bench.start();
    assert_eq!((name.as_str(), distributed.on, distributed.epoch), ("own", false, 0));
}
