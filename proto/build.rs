//! Compiles the .proto files in pure Rust (no protoc) into messages, clients and servers, and keeps
//! the descriptor set, comments included, for gRPC reflection.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use prost_types::FileDescriptorSet;

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
    forwarding(compiler.file_descriptor_set(), &out.join("forward"))
}

/// The server of live streams once more, for one that answers with `forward::SubscribeResponse`.
fn forwarding(mut files: FileDescriptorSet, out: &Path) -> Result<(), Box<dyn Error>> {
    files.file.retain(|file| file.name() == "sekimori/v1/watch.proto");
    for file in &mut files.file {
        file.message_type.clear();
        file.dependency.clear();
    }
    fs::create_dir_all(out)?;
    tonic_prost_build::configure()
        .build_client(false)
        .out_dir(out)
        .extern_path(".sekimori.v1.SubscribeRequest", "crate::v1::SubscribeRequest")
        .extern_path(".sekimori.v1.SubscribeResponse", "crate::forward::SubscribeResponse")
        .compile_fds(files)?;
    Ok(())
}
