//! Generates the RPC types and stubs; `protox` compiles the schema, so no `protoc` is needed.

use std::{env, error::Error, fs, path::PathBuf};

const SCHEMA: &str = "proto/wrenn/agent/v1/agent.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={SCHEMA}");
    let descriptors = PathBuf::from(env::var("OUT_DIR")?).join("agent.binpb");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true).open_file(SCHEMA)?;
    fs::write(&descriptors, compiler.encode_file_descriptor_set())?;
    connectrpc_build::Config::new()
        .descriptor_set(descriptors)
        .files(&["wrenn/agent/v1/agent.proto"])
        .include_file("_connectrpc.rs")
        .emit_rerun_directives(false)
        .compile()?;
    Ok(())
}
