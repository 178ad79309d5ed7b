//! Generated code of the interface by which Kubernetes speaks to container runtimes, for the tests in `tests/real`. Its
//! documentation stands in `proto/api.proto`.

/// `runtime.v1`.
#[expect(missing_docs, reason = "generated from proto/, where the documentation is")]
pub mod runtime {
    tonic::include_proto!("runtime.v1");
}
