//! A server of S3 that shares no code with ours: the tests of archives in a bucket start it.

use super::python::Package;

/// Moto, which checks signatures and what their owner may do.
pub const SERVER: Package =
    Package { directory: "s3-server", name: "moto", extras: "[server]", version: "5.2.5" };
