//! The built-in server: to try scenarios on, and to measure the harness itself.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Args;
use loadtest::calibrate;
use loadtest_server::{Server, ServerConfig};

use super::output;

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// HTTP/1.1 and HTTP/2 in the clear; loopback only
    #[arg(long, default_value = "127.0.0.1:7800", value_name = "ADDRESS:PORT")]
    clear: SocketAddr,
    /// HTTP/1.1 and HTTP/2 over TLS, HTTP/3 over QUIC; loopback only
    #[arg(long, default_value = "127.0.0.1:7843", value_name = "ADDRESS:PORT")]
    tls: SocketAddr,
    /// Where to put the certificate to trust
    #[arg(long, default_value = "loadtest-ca.pem", value_name = "FILE")]
    ca_file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct CalibrateArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Serves until it is interrupted.
pub(crate) async fn serve(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let config = ServerConfig {
        h1_h2_clear: Some(args.clear),
        tls: Some(args.tls),
        ..ServerConfig::default()
    };
    let server = Server::start(config).await?;
    output::write(&args.ca_file, server.ca_pem().as_bytes())?;
    println!("http://{}/ and https://{}/ (h1, h2, h3)", args.clear, args.tls);
    println!("trust {}; end with an interrupt", args.ca_file.display());
    tokio::signal::ctrl_c().await?;
    server.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

/// Shows the error of the harness's own measurement.
pub(crate) async fn calibrate(args: &CalibrateArgs) -> anyhow::Result<ExitCode> {
    let calibration = calibrate::run(calibrate::Size::Full).await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&calibration)?);
    } else {
        print!("{calibration}");
    }
    Ok(ExitCode::SUCCESS)
}
