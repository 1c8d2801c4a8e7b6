//! A small service beside Mayfly: it lets people in with Mayfly's access tokens, checks them by itself, and refuses a
//! revoked one within a second.
//!
//! ```text
//! ORDERS_ISSUER=http://localhost:3000 ORDERS_CLIENT_ID=svc-… ORDERS_CLIENT_SECRET=mcs_… \
//!     cargo run --package server --example orders
//! ```
//!
//! The client needs the scope `revocations`, and to be told of ended sessions
//! `--backchannel-logout-uri http://127.0.0.1:3100/logout`. `ORDERS_AUDIENCE` is the issuer unless set otherwise, and the service
//! listens on `ORDERS_ADDRESS`, 127.0.0.1:3100 if not set. `ORDERS_URL` is where its clients reach it: without it, tokens that
//! are bound to a key of their program are refused.

mod issuer;
mod shop;

use std::sync::Arc;
use std::time::Duration;

use issuer::Issuer;
use server::domain::client::ClientId;
use server::domain::clock::{Clock, SystemClock};
use server::domain::jwt::install_crypto;
use server::verify::{BOUND, Checker, Expected};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    install_crypto();
    let variable = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
    let url = variable("ORDERS_ISSUER")?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let client = variable("ORDERS_CLIENT_ID")?;
    let client = ClientId::parse(&client).ok_or("ORDERS_CLIENT_ID is no client id")?;
    let issuer = Issuer::new(
        url.clone(),
        client.to_string(),
        variable("ORDERS_CLIENT_SECRET")?.into(),
        clock.clone(),
    )?;
    let expected = Expected {
        audience: variable("ORDERS_AUDIENCE").unwrap_or_else(|_| url.clone()),
        issuer: url,
        clock_tolerance: Duration::from_secs(30),
        bound: BOUND,
        address: variable("ORDERS_URL").ok(),
    };
    let checker = Arc::new(Checker::new(expected, Arc::new(issuer), clock));
    let address = variable("ORDERS_ADDRESS").unwrap_or_else(|_| "127.0.0.1:3100".to_owned());
    let listener = TcpListener::bind(&address).await?;
    println!("Serving on http://{}", listener.local_addr()?);
    tokio::select! {
        served = axum::serve(listener, shop::routes(checker.clone(), client)) => served?,
        () = checker.follow() => {}
    }
    Ok(())
}
