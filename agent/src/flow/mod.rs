//! What the traffic calls the destinations of flows: DNS answers that came in, and the first bytes
//! that were sent. All of it is only what somebody wrote, and nobody checked it.
//!
//! What was sent is looked at until it says a name or is known to say none, and is forgotten then.

mod answers;
mod hello;
mod http;
mod quic;
mod smtp;
mod stream;
#[cfg(test)]
mod tests;

use std::fmt::Write;
use std::time::Instant;

use lru::LruCache;
use sekimori_abi::event::operation;
use sekimori_proto::v1::{Destination, HttpRequest, Name, NameSource, SmtpEnvelope};

use self::answers::Answers;
use self::quic::Datagrams;
use self::stream::Stream;
use crate::decode::Raw;
use crate::limits::{FLOW_PIECES_MAX, FLOWS_MAX, HOST_BYTES_MAX};

/// `IPPROTO_UDP`.
const UDP: u16 = 17;

/// What the traffic calls the destinations of flows.
#[derive(Default)]
pub struct Flows {
    answers: Answers,
    sockets: Sockets,
}

/// Flows by the kernel numbers of their sockets.
struct Sockets(LruCache<u64, Flow>);

impl Default for Sockets {
    fn default() -> Self {
        // It grows as it is used, up to `FLOWS_MAX`.
        Self(LruCache::unbounded())
    }
}

struct Flow {
    pieces: usize,
    state: State,
}

enum State {
    Stream(Stream),
    Datagrams(Datagrams),
    Learned(Box<Learned>),
}

/// What a flow says about its destination.
#[derive(Clone, Debug, Default, PartialEq)]
struct Learned {
    name: Option<(String, NameSource)>,
    http: Option<HttpRequest>,
    smtp: Option<SmtpEnvelope>,
}

/// What a parser makes of the bytes so far.
#[derive(Debug, PartialEq)]
enum Reading<T> {
    /// Nothing that follows changes this.
    Found(T),
    /// More bytes are needed.
    More,
    /// These bytes are nothing of the parser's, or they say nothing.
    Nothing,
}

impl Flows {
    /// Learns what destinations are called. Answers whether the record is for nothing else.
    pub fn learn(&mut self, raw: &Raw, now: Instant) -> bool {
        let from = &raw.event;
        match from.operation {
            operation::PAYLOAD => {
                self.payload(from.inode, from.protocol == UDP, from.size, raw.third);
            }
            operation::ANSWER => self.answer(raw.third, now),
            _ => return false,
        }
        true
    }

    /// A UDP payload that came from port 53. Bad ones are counted and change nothing.
    pub fn answer(&mut self, payload: &[u8], now: Instant) {
        self.answers.learn(payload, now);
    }

    /// Payloads from port 53 that are not DNS messages.
    #[must_use]
    pub const fn bad_answers(&self) -> u64 {
        self.answers.bad()
    }

    /// A piece of what was sent first over `socket` (the kernel's number of the socket), `offset`
    /// bytes from the beginning of what was sent. Each piece of a `datagram` flow is the beginning
    /// of one datagram, and its offset does not matter.
    pub fn payload(&mut self, socket: u64, datagram: bool, offset: u64, bytes: &[u8]) {
        let sockets = &mut self.sockets.0;
        let flow = sockets.get_or_insert_mut(socket, || Flow::new(datagram));
        flow.take(offset, bytes);
        while sockets.len() > FLOWS_MAX {
            sockets.pop_lru();
        }
    }

    /// Adds what is known to the destination of a record.
    pub fn describe(&self, socket: u64, destination: &mut Destination, now: Instant) {
        if let Some(flow) = self.sockets.0.peek(&socket) {
            let learned = flow.learned();
            // An address is no name, unless it is that of somebody behind a proxy.
            let name = learned.name.filter(|(name, _)| *name != destination.ip);
            if let Some((name, source)) = name {
                add(&mut destination.names, &name, source);
            }
            destination.http = learned.http.or(destination.http.take());
            destination.smtp = learned.smtp.or(destination.smtp.take());
        }
        if let Ok(address) = destination.ip.parse() {
            for name in self.answers.names(address, now) {
                add(&mut destination.names, name, NameSource::Dns);
            }
        }
    }

    /// The socket is closed.
    pub fn closed(&mut self, socket: u64) {
        self.sockets.0.pop(&socket);
    }
}

impl Flow {
    fn new(datagram: bool) -> Self {
        let state = if datagram {
            State::Datagrams(Datagrams::default())
        } else {
            State::Stream(Stream::default())
        };
        Self { pieces: 0, state }
    }

    fn take(&mut self, offset: u64, bytes: &[u8]) {
        self.pieces = self.pieces.saturating_add(1);
        let reading = match &mut self.state {
            State::Stream(stream) => stream.take(offset, bytes),
            State::Datagrams(datagrams) => datagrams.take(bytes),
            State::Learned(_) => return,
        };
        let learned = match reading {
            Reading::Found(learned) => learned,
            Reading::More if self.pieces < FLOW_PIECES_MAX => return,
            Reading::More => self.learned(),
            Reading::Nothing => Learned::default(),
        };
        self.state = State::Learned(Box::new(learned));
    }

    /// What is known when nothing more comes.
    fn learned(&self) -> Learned {
        match &self.state {
            State::Stream(stream) => stream.rest(),
            State::Datagrams(datagrams) => datagrams.rest(),
            State::Learned(learned) => Learned::clone(learned),
        }
    }
}

impl<T> Reading<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Reading<U> {
        match self {
            Self::Found(it) => Reading::Found(change(it)),
            Self::More => Reading::More,
            Self::Nothing => Reading::Nothing,
        }
    }
}

fn add(names: &mut Vec<Name>, name: &str, source: NameSource) {
    let known = |it: &Name| it.name == name && it.source == i32::from(source);
    if !names.iter().any(known) {
        names.push(Name { name: name.to_owned(), source: source.into() });
    }
}

/// The name of a host as it is recorded.
fn host(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.strip_suffix(b".").unwrap_or(bytes);
    join(bytes.split(|byte| *byte == b'.'))
}

/// The same of its labels: in small letters, without the final dot, and with `\DDD` for each byte
/// that is not printable ASCII, or is a dot and separates no labels. Names in other scripts stay as
/// they are on the wire.
fn join<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Option<String> {
    let mut name = String::new();
    for (index, label) in labels.enumerate() {
        if index > 0 {
            name.push('.');
        }
        for byte in label {
            if byte.is_ascii_graphic() && !b".\\".contains(byte) {
                name.push(char::from(byte.to_ascii_lowercase()));
            } else {
                let _ = write!(name, "\\{byte:03}");
            }
        }
        if name.len() > HOST_BYTES_MAX {
            return None;
        }
    }
    (!name.is_empty()).then_some(name)
}
