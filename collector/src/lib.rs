//! The collector: receives the events of many hosts, stores each once, and serves them.
//!
//! `listen` (who is there) → `ingest` (is it sound) → `store` (one writer, acknowledged after the
//! commit) → `watch` and `query`, which read the store and nothing else; `bus` only wakes them.
//! They read through `access`, which records by `audit` what an operator reads before they have it.
#![forbid(unsafe_code)]

pub mod access;
pub mod alert;
pub mod archive;
pub mod audit;
pub mod author;
pub mod bus;
pub mod certificates;
pub mod config;
mod crowd;
pub mod custody;
pub mod desk;
pub mod enroll;
pub mod evidence;
pub mod expression;
pub mod fleet;
mod gate;
pub mod identity;
mod in_time;
pub mod ingest;
pub mod limits;
pub mod listen;
pub mod metrics;
pub mod nats;
pub mod otlp;
pub mod pace;
pub mod pki;
pub mod policy;
pub mod query;
pub mod question;
pub mod revocation;
mod room;
pub mod server;
pub mod socket;
pub mod store;
pub mod tls;
pub mod turns;
pub mod watch;
mod wire;
