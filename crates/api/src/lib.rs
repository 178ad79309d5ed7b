//! Generated code of the contract, and nothing else. Its documentation stands in `proto/`.

/// `proto/workload.proto`: Attach, Detach, Status.
#[expect(
    missing_docs,
    clippy::allow_attributes,
    reason = "generated from proto/, where the documentation is"
)]
pub mod workload {
    tonic::include_proto!("metropolis.node.core.network.workloads");
}

/// `proto/inspection.proto`: List, Get, Check, GetNode.
#[expect(
    missing_docs,
    clippy::allow_attributes,
    reason = "generated from proto/, where the documentation is"
)]
pub mod inspection {
    tonic::include_proto!("workloadnet.v1");
}

/// Both files as a serialised `google.protobuf.FileDescriptorSet`, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
