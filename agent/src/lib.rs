//! The endpoint agent: ring records in, stored and delivered events out.
//!
//! ring → [`decode`] → [`enrich`] → [`record`] → [`spool`] → [`ship`]. Verdicts are made in the
//! kernel; everything here explains them. Only [`kernel`] knows how programs are loaded, and every
//! module behind it works on plain bytes without privilege.
#![deny(unsafe_code)]

pub mod causes;
pub mod config;
pub mod control;
pub mod credentials;
pub mod decode;
pub mod enrich;
pub mod flow;
pub mod kernel;
pub mod limits;
pub mod receipt;
pub mod record;
pub mod removable;
pub mod run;
pub mod ship;
pub mod spool;
pub mod tell;
