//! Events in the words of other systems: OCSF and ECS.
//!
//! Both begin with the project's own JSON form ([`sekimori_proto::json`]). What has a place in the
//! other schema is moved there; what is left when all was moved goes along as it is (`unmapped`,
//! `sekimori`). So nothing of an event can be lost, also no field that is added later.
#![forbid(unsafe_code)]

mod ecs;
mod ocsf;
mod rest;
mod values;

pub use ecs::{ECS_VERSION, ecs};
pub use ocsf::{OCSF_VERSION, ocsf};
