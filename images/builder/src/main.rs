//! `wrenn-images build`: makes kernel, initramfs and templates of an installation.

use anyhow::Context;
use images::ImagesConfig;
use pool_config::Loader;
use std::io::IsTerminal;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let loader = Loader::new("wrenn-images", "Builds kernel, initramfs and templates")
        .command("build", "Builds what is missing or whose inputs changed");
    let loaded = match loader.load::<ImagesConfig>() {
        Ok(loaded) => loaded,
        Err(error) => error.exit(),
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();

    if loaded.command.is_none() {
        eprintln!("wrenn-images: say what to do: `wrenn-images build` (see --help)");
        return ExitCode::from(64);
    }
    let outcome = images::build(&loaded.layout, &loaded.config)
        .with_context(|| format!("cannot build images for {}", loaded.layout.root().display()));
    match outcome {
        Ok(built) => {
            println!("{built}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("wrenn-images: {error:#}");
            ExitCode::FAILURE
        }
    }
}
