//! The listener: plain HTTP on loopback or behind a declared proxy, TLS by rustls otherwise; bounds on what a
//! connection may cost; an orderly end.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use axum::Router;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use hyper_util::rt::TokioTimer;
use tokio::signal::unix::{SignalKind, signal};

use super::AppState;
use crate::cli::CliError;

/// A client that does not send its headers within this is let go of (slowloris); also how long a connection idles.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// Header bytes of a request; beyond: 431.
const MOST_HEADER_BYTES: usize = 64 * 1024;
/// Header lines of a request; beyond: 431.
const MOST_HEADERS: usize = 100;

/// Serves until SIGTERM or SIGINT, then finishes what is under way.
///
/// # Errors
/// When the address cannot be bound or the certificate cannot be read.
pub async fn serve(state: &AppState, router: Router) -> Result<(), CliError> {
    let settings = &state.settings.server;
    let listener = TcpListener::bind(settings.address)
        .map_err(|error| format!("cannot listen on {}: {error}", settings.address))?;
    listener.set_nonblocking(true)?;
    let handle = Handle::new();
    tokio::spawn(end_on_signal(state.clone(), handle.clone()));
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let address = listener.local_addr()?;
    match &settings.tls {
        Some(tls) => {
            let config = RustlsConfig::from_pem_file(&tls.cert, &tls.key)
                .await
                .map_err(|error| format!("server.tls: certificate or key cannot be used: {error}"))?;
            let mut server = axum_server::from_tcp_rustls(listener, config)?.handle(handle);
            bound(server.http_builder());
            println!("Serving {} on https://{address}", state.settings.public_url);
            server.serve(service).await?;
        }
        None => {
            let mut server = axum_server::from_tcp(listener)?.handle(handle);
            bound(server.http_builder());
            println!("Serving {} on http://{address}", state.settings.public_url);
            server.serve(service).await?;
        }
    }
    Ok(())
}

fn bound(builder: &mut hyper_util::server::conn::auto::Builder<hyper_util::rt::TokioExecutor>) {
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_buf_size(MOST_HEADER_BYTES)
        .max_headers(MOST_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(HEADERS_WITHIN)
        .max_concurrent_streams(100)
        .max_header_list_size(u32::try_from(MOST_HEADER_BYTES).unwrap_or(u32::MAX));
}

/// Readiness goes first, so that a balancer looks elsewhere; then the listener closes and requests under way finish.
async fn end_on_signal(state: AppState, handle: Handle<SocketAddr>) {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be heard; the process can only be killed");
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    state.draining.begin();
    tracing::info!("asked to stop: finishing what is under way");
    handle.graceful_shutdown(Some(Duration::from_secs(state.settings.server.drain_seconds)));
}
