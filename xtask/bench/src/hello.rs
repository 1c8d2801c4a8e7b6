//! The reference: the least that axum can answer, as a program of its own, started like the server.

use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;

use crate::Failure;

/// Environment variable with the address to listen on.
pub const ADDRESS: &str = "BENCH_ADDRESS";

/// Serves `hello` at `/healthz` until killed.
///
/// # Errors
/// When [`ADDRESS`] is missing or cannot be bound.
pub fn serve() -> Result<(), Failure> {
    let address: SocketAddr = std::env::var(ADDRESS)?.parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await?;
        axum::serve(listener, Router::new().route("/healthz", get(async || "hello"))).await?;
        Ok(())
    })
}
