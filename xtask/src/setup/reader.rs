//! A reader of Parquet that shares no code with ours: the tests of archives ask it what it finds.

use super::python::Package;

/// DuckDB.
pub const READER: Package =
    Package { directory: "parquet-reader", name: "duckdb", extras: "", version: "2.0.1" };
