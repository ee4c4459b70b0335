//! `wrenn deploy DIR`: pack, upload, wait until it serves.

use edge_api::Function;

use crate::{
    args::DeployArgs, connection::Connection, failure::Failure, manifest, output::Out, pack,
};

/// Deploys and prints the function.
pub(crate) async fn run(
    connection: &Connection,
    args: &DeployArgs,
    out: &Out,
) -> Result<(), Failure> {
    let function = deploy(connection, args, out).await?;
    out.result(&function, |function| {
        format!("{} version {} at {}", function.name, function.version, function.url)
    })
}

/// Deploys the function in a directory; `dev up` does the same for the sample.
pub(crate) async fn deploy(
    connection: &Connection,
    args: &DeployArgs,
    out: &Out,
) -> Result<Function, Failure> {
    let manifest = manifest::read(args)?;
    let name = &manifest.config.name;
    let step = out.step(format!("packing {}", args.dir.display()));
    let packed = pack::pack(&args.dir, &manifest.exclude)?;
    step.done();
    let step = out.step(format!(
        "deploying {name}: {} files, {} KiB; boot, start, wait for port {}, snapshot",
        packed.entries,
        packed.bytes.len().div_ceil(1024),
        manifest.config.port
    ));
    let function = connection.client.deploy(&manifest.config, &packed.bytes).await?;
    step.done();
    Ok(function)
}
