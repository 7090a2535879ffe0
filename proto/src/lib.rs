//! The wire: the messages and services of `sekimori.v1`, the words people use for their numbers,
//! the JSON form of an event, and the token of an enrolment.
#![forbid(unsafe_code)]

pub mod forward;
pub mod json;
pub mod token;
pub mod words;

/// Messages, clients and servers made from the .proto files, whose comments are the documentation.
#[allow(missing_docs, clippy::all, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("sekimori.v1");
}

/// Encoded `FileDescriptorSet` of every .proto file, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("descriptors");
