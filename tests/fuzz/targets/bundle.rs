//! Any bytes as a policy from a collector, and as one that the owner of the key signed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use sekimori_fuzz::proof::key;
use sekimori_fuzz::seeds;
use sekimori_policy::bundle;
use sekimori_proto::v1::{PolicyBundle, PolicyStatement};
use sha2::{Digest as _, Sha256};

const HOST: &str = "pc-1";

fuzz_target!(
    init: seeds::write(seeds::statements()),
    |bytes: &[u8]| {
        let key = key();
        if let Ok(bundle) = PolicyBundle::decode(bytes) {
            assert!(bundle::accept(&bundle, &key.public(), HOST, 0).is_err(), "nobody signed it");
        }
        let Ok(mut statement) = PolicyStatement::decode(bytes) else { return };
        taken(&statement);
        // So far that the text counts.
        if let Ok(text) = zstd::bulk::decompress(&statement.text_zstd, 1 << 20) {
            statement.sha256 = Sha256::digest(text).to_vec();
            taken(&statement);
        }
    }
);

fn taken(statement: &PolicyStatement) {
    let key = key();
    let bundle = bundle::sign(key, statement);
    let Ok((accepted, text)) = bundle::accept(&bundle, &key.public(), HOST, 7) else { return };
    assert_eq!(accepted, *statement);
    assert!(accepted.epoch > 7 && bundle::is_for(&accepted, HOST));
    assert_eq!(Sha256::digest(text).as_slice(), accepted.sha256);
}
