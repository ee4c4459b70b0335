//! Compiles the guest daemon's schema; `protox` stands in for `protoc`, so no tool is needed.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto/process.proto");
    let set = protox::Compiler::new(["proto"])?
        .include_source_info(true)
        .include_imports(true)
        .open_file("process.proto")?
        .encode_file_descriptor_set();
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?);
    let set_file = out.join("process.descriptors");
    fs::write(&set_file, set)?;
    connectrpc_build::Config::new()
        .descriptor_set(&set_file)
        .files(&["process.proto"])
        .include_file("_connectrpc.rs")
        // Its own directives name a file it writes itself: everything would be built every time.
        .emit_rerun_directives(false)
        .compile()?;
    Ok(())
}
