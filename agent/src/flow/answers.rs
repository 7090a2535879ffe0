//! Names that DNS answers gave to addresses.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::base::iana::{Class, Rcode};
use domain::base::name::Label;
use domain::base::{Message, ParsedRecord};
use domain::dep::octseq::Octets;
use domain::rdata::{A, Aaaa};
use lru::LruCache;

use super::join;
use crate::limits::{
    ADDRESSES_MAX, ADDRESSES_PER_ANSWER_MAX, ANSWER_KEPT_MAX, ANSWER_KEPT_MIN,
    NAMES_PER_ADDRESS_MAX,
};

/// The names of addresses.
pub(super) struct Answers {
    /// The names of each address, latest first.
    addresses: LruCache<IpAddr, Vec<Known>>,
    bad: u64,
}

struct Known {
    name: Arc<str>,
    answered: Instant,
    kept: Duration,
}

/// One answer: what was asked, and the addresses with their times to live.
struct Answer {
    name: String,
    addresses: Vec<(IpAddr, Duration)>,
}

impl Default for Answers {
    fn default() -> Self {
        // It grows as it is used, up to `ADDRESSES_MAX`.
        Self { addresses: LruCache::unbounded(), bad: 0 }
    }
}

impl Answers {
    /// Learns from a payload that came from port 53.
    pub(super) fn learn(&mut self, payload: &[u8], now: Instant) {
        match read(payload) {
            Ok(Some(answer)) => self.remember(&answer, now),
            Ok(None) => {}
            Err(Bad) => self.bad = self.bad.saturating_add(1),
        }
    }

    /// Payloads that were not DNS messages.
    pub(super) const fn bad(&self) -> u64 {
        self.bad
    }

    /// Names of an address, latest first.
    pub(super) fn names(&self, address: IpAddr, now: Instant) -> impl Iterator<Item = &str> {
        let known = self.addresses.peek(&address.to_canonical());
        let fresh = move |it: &&Known| now.saturating_duration_since(it.answered) < it.kept;
        known.into_iter().flatten().filter(fresh).map(|it| &*it.name)
    }

    fn remember(&mut self, answer: &Answer, answered: Instant) {
        let name: Arc<str> = answer.name.as_str().into();
        for (address, time_to_live) in &answer.addresses {
            let kept = (*time_to_live).clamp(ANSWER_KEPT_MIN, ANSWER_KEPT_MAX);
            let known = self.addresses.get_or_insert_mut(*address, Vec::new);
            known.retain(|it| it.name != name);
            known.insert(0, Known { name: Arc::clone(&name), answered, kept });
            known.truncate(NAMES_PER_ADDRESS_MAX);
            while self.addresses.len() > ADDRESSES_MAX {
                self.addresses.pop_lru();
            }
        }
    }
}

/// It is no DNS message.
struct Bad;

/// Reads a message; there is nothing in most.
///
/// Aliases (CNAME) are not followed: whatever addresses are in the answer are those of the name
/// that was asked for.
fn read(payload: &[u8]) -> Result<Option<Answer>, Bad> {
    let message = Message::from_octets(payload).map_err(|_| Bad)?;
    let header = message.header();
    if !header.qr() || header.rcode() != Rcode::NOERROR || message.header_counts().qdcount() != 1 {
        return Ok(None);
    }
    let question = message.sole_question().map_err(|_| Bad)?;
    let mut addresses = Vec::new();
    for record in message.answer().map_err(|_| Bad)? {
        let record = record.map_err(|_| Bad)?;
        let time_to_live = Duration::from_secs(record.ttl().as_secs().into());
        if let Some(address) = address(&record)?
            && addresses.len() < ADDRESSES_PER_ANSWER_MAX
        {
            addresses.push((address.to_canonical(), time_to_live));
        }
    }
    let labels = question.qname().iter().filter(|label| !label.is_root());
    let name = join(labels.map(Label::as_slice)).filter(|_| !addresses.is_empty());
    Ok(name.map(|name| Answer { name, addresses }))
}

/// The address in a record, if it is of that kind.
fn address<Octs: Octets + ?Sized>(record: &ParsedRecord<'_, Octs>) -> Result<Option<IpAddr>, Bad> {
    if record.class() != Class::IN {
        return Ok(None);
    }
    let old = record.to_record::<A>().map_err(|_| Bad)?;
    let new = record.to_record::<Aaaa>().map_err(|_| Bad)?;
    let new = new.map(|record| record.data().addr().into());
    Ok(old.map(|record| record.data().addr().into()).or(new))
}
