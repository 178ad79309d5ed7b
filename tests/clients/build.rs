//! Compiles `proto/` with protox, so that building needs no protoc.

use std::{env, error::Error, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let protos = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("proto");
    let mut files = protox::compile(["api.proto"], [&protos])?;
    // Kubernetes' comments are no rustdoc.
    files
        .file
        .iter_mut()
        .for_each(|file| file.source_code_info = None);
    tonic_prost_build::configure()
        .build_transport(false)
        .build_server(false)
        .compile_fds(files)?;
    println!("cargo:rerun-if-changed={}", protos.display());
    Ok(())
}
