//! Agents that send what is prepared, each over a connection of its own.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use sekimori_proto::v1::IngestResponse;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::bench::{Bench, Prepared};
use crate::events::FIRST_NS;
use crate::wire::{self, Stamp};

/// Batches that an agent has at most on their way, as the true one.
pub const IN_FLIGHT_MAX: usize = 8;

/// More events than there is time for.
pub const WITHOUT_END: u64 = 1 << 32;

/// How agents send.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Events of each agent.
    pub each: u64,
    /// No batch begins after this.
    pub until: Option<Instant>,
    /// Events of a batch.
    pub batch: u64,
    /// Batches of an agent on their way at once.
    pub in_flight: usize,
}

/// Agents whose streams are open.
#[derive(Debug)]
pub struct Agents(Vec<Agent>);

#[derive(Debug)]
struct Agent {
    events: Prepared,
    boot: [u8; 16],
    /// Number of the last event.
    sequence: u64,
    batch: u64,
    step_ns: i64,
    requests: mpsc::Sender<Bytes>,
    acknowledgements: Streaming<IngestResponse>,
}

impl Agents {
    /// Connects these hosts and opens their streams. Events of a host are `step_ns` apart.
    ///
    /// # Errors
    /// When one of them is not let in.
    pub async fn connect(
        bench: &Bench,
        address: SocketAddr,
        hosts: Range<u64>,
        step_ns: i64,
    ) -> Result<Self> {
        let mut agents = Vec::new();
        for host in hosts {
            agents.push(Agent::connect(bench, address, host, step_ns).await?);
        }
        Ok(Self(agents))
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// Sends, and waits until everything is acknowledged; answers how many events that were.
    ///
    /// # Errors
    /// When the collector refuses something or goes away.
    pub async fn deliver(&mut self, pace: Pace) -> Result<u64> {
        let counts = self.0.iter_mut().map(|agent| agent.deliver(pace));
        Ok(try_join_all(counts).await?.into_iter().sum())
    }

    /// Ends the streams, as an agent that stops.
    ///
    /// # Errors
    /// When the collector ends one with something else.
    pub async fn close(self) -> Result<()> {
        for mut agent in self.0 {
            drop(agent.requests);
            while agent.acknowledgements.message().await?.is_some() {}
        }
        Ok(())
    }

    /// Time of the newest event that was sent, UTC ns since 1970.
    pub fn newest_ns(&self) -> i64 {
        self.0.iter().map(|agent| agent.stamp(agent.sequence).time_ns).max().unwrap_or(FIRST_NS)
    }
}

impl Agent {
    async fn connect(bench: &Bench, address: SocketAddr, host: u64, step_ns: i64) -> Result<Self> {
        let (requests, receiver) = mpsc::channel(IN_FLIGHT_MAX);
        let channel = bench.agent(address, host).await?;
        let acknowledgements = wire::open(channel, ReceiverStream::new(receiver)).await?;
        let mut boot = [0xb0; 16];
        boot.iter_mut().zip(host.to_le_bytes()).for_each(|(to, from)| *to = from);
        let events = bench.events(host);
        Ok(Self { events, boot, sequence: 0, batch: 0, step_ns, requests, acknowledgements })
    }

    async fn deliver(&mut self, pace: Pace) -> Result<u64> {
        let last = self.sequence + pace.each;
        let (mut in_flight, mut stored) = (0, 0);
        let before = self.sequence;
        loop {
            let open = pace.until.is_none_or(|until| Instant::now() < until);
            while open && in_flight < pace.in_flight && self.sequence < last {
                self.send(pace.batch.min(last - self.sequence)).await?;
                in_flight += 1;
            }
            if in_flight == 0 {
                break;
            }
            let answer = self.acknowledgements.message().await?;
            stored += u64::from(answer.context("the collector closed the stream")?.stored);
            in_flight -= 1;
        }
        let sent = self.sequence - before;
        ensure!(stored == sent, "{sent} events were sent and {stored} were new to the collector");
        Ok(sent)
    }

    async fn send(&mut self, count: u64) -> Result<()> {
        let numbers = self.sequence + 1..=self.sequence + count;
        let request = wire::request(
            self.batch + 1,
            numbers.map(|sequence| (self.stamp(sequence), self.event(sequence))),
        );
        self.sequence += count;
        self.batch += 1;
        self.requests.send(request).await.context("the collector ended the stream")
    }

    const fn stamp(&self, sequence: u64) -> Stamp {
        let time_ns = FIRST_NS + self.step_ns * sequence.cast_signed();
        Stamp { boot: self.boot, sequence, time_ns }
    }

    fn event(&self, sequence: u64) -> &[u8] {
        let at = usize::try_from(sequence).unwrap_or(0) % self.events.len().max(1);
        self.events.get(at).map_or(&[], Vec::as_slice)
    }
}
