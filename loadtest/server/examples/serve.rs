//! Runs the test server until Ctrl-C: `serve [clear address] [TLS address]`.

use std::error::Error;

use loadtest_server::{Server, ServerConfig};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut config = ServerConfig::default();
    let mut addresses = std::env::args().skip(1);
    if let Some(address) = addresses.next() {
        config.h1_h2_clear = Some(address.parse()?);
    }
    if let Some(address) = addresses.next() {
        config.tls = Some(address.parse()?);
    }
    let server = Server::start(config).await?;
    for (scheme, address) in [("http", server.clear_address()), ("https", server.tls_address())] {
        if let Some(address) = address {
            println!("{scheme}://{address}");
        }
    }
    println!("{}", server.ca_pem());
    tokio::signal::ctrl_c().await?;
    server.shutdown().await;
    Ok(())
}
