//! Every route over every protocol, by real sockets.
#![allow(clippy::unwrap_used)] // what can't be had here fails the test

mod client;
mod delays;
mod faults;
mod identity;
mod life;
mod streams;

use loadtest_server::{Server, ServerConfig};

async fn start() -> Server {
    Server::start(ServerConfig::default()).await.expect("it starts")
}
