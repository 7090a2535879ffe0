//! Records that decode, one behind the other, with anything in their fields.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use sekimori_fuzz::{Agent, seeds, valid};

#[derive(Debug)]
struct Records(Vec<Vec<u8>>);

impl<'a> Arbitrary<'a> for Records {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let mut rest = bytes.bytes(bytes.len())?;
        let mut records = Vec::new();
        while let Some((record, behind)) = valid(rest) {
            records.push(record);
            rest = behind;
        }
        Ok(Self(records))
    }
}

fuzz_target!(
    init: seeds::write(seeds::rows_of_records()),
    |records: Records| {
        let mut agent = Agent::new();
        for record in &records.0 {
            assert!(agent.take(record), "a valid record was refused");
        }
        agent.poll();
    }
);
