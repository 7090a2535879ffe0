//! Compiles the .proto files in pure Rust (no protoc) into messages, clients and servers, and keeps
//! the descriptor set, comments included, for gRPC reflection.

use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

const FILES: [&str; 9] = [
    "sekimori/v1/alert.proto",
    "sekimori/v1/enroll.proto",
    "sekimori/v1/event.proto",
    "sekimori/v1/evidence.proto",
    "sekimori/v1/fleet.proto",
    "sekimori/v1/ingest.proto",
    "sekimori/v1/policy.proto",
    "sekimori/v1/query.proto",
    "sekimori/v1/watch.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=sekimori");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    // Cut out of the request's own buffer, not copied.
    tonic_prost_build::configure()
        .bytes(".sekimori.v1.IngestRequest.events")
        // One goes to many hosts.
        .bytes(".sekimori.v1.PolicyBundle.statement")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
