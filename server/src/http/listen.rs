//! The listener: TCP or TLS, what one connection may cost, and stopping without dropping anybody.
//!
//! Owns sockets and their limits. Must not know routes.

mod guard;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum_server::Handle;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::signal::unix::{SignalKind, signal};

use super::AppState;
use super::health::Draining;
use super::protect::MOST_HEAD_BYTES;
use crate::config::{Server, Tls};
use guard::Guard;

/// Time for a request's line and headers; also how long an idle HTTP/1 connection is kept.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Beyond the request timeout a connection on which nothing moves is closed.
const STALL_MARGIN: Duration = Duration::from_secs(2);
/// Most headers of a request; more are 431.
const MOST_HEADERS: usize = 100;
/// Requests at once on one HTTP/2 connection.
const MOST_STREAMS: u32 = 100;
/// Streams that a client may reset before the connection is closed (rapid reset).
const MOST_RESETS: usize = 20;
/// Most connections at once where something small is served beside the product.
const MOST_BESIDE: usize = 16;
/// A connection there on which nothing moves for so long is closed: more than what is asked for may take.
const STALL_BESIDE: Duration = Duration::from_secs(30);
/// After SIGTERM the listener stays open this long, so that balancers see `/readyz` before they see a closed port.
const NOTICE: Duration = Duration::from_secs(1);

/// Why the server does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Plain HTTP would be readable and changeable by everybody on the way (M7).
    #[error(
        "{0} is not loopback: set server.tls.cert and server.tls.key, or name the proxies that do TLS in \
         server.trusted_proxies"
    )]
    PlainHttp(SocketAddr),
    /// The address cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Certificate or key cannot be read.
    #[error("TLS file {}: {reason}", path.display())]
    TlsFile {
        /// Which.
        path: PathBuf,
        /// In words, without any of its content.
        reason: String,
    },
    /// Certificate and key do not fit together, or TLS cannot be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The system refuses signals or the listener failed.
    #[error("the listener failed: {0}")]
    Listener(#[from] io::Error),
}

/// Listens and serves until SIGTERM, SIGINT, or `failure`, then drains.
///
/// # Errors
/// [`ListenError`].
pub async fn serve(
    state: &AppState,
    router: Router,
    failure: impl Future<Output = ()> + Send,
) -> Result<(), ListenError> {
    let settings = &state.settings.server;
    let tls = settings.tls.as_ref().map(tls_config).transpose()?;
    let listener = bind(settings)?;
    let signal = stop_signal()?;
    let stop = async {
        tokio::select! {
            stop = signal => stop,
            () = failure => Stop::AtOnce,
        }
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    println!(
        "Serving {} on {scheme}://{}",
        state.settings.public_url,
        listener.local_addr()?
    );
    serve_on(listener, tls, router, settings, &state.draining, stop).await
}

/// Binds the address of the settings, unless that would mean plain HTTP off loopback without a proxy.
///
/// # Errors
/// [`ListenError::PlainHttp`], [`ListenError::Bind`].
pub fn bind(settings: &Server) -> Result<std::net::TcpListener, ListenError> {
    let address = settings.address;
    let exposed = !address.ip().to_canonical().is_loopback();
    if exposed && settings.tls.is_none() && settings.trusted_proxies.is_empty() {
        return Err(ListenError::PlainHttp(address));
    }
    bind_to(address)
}

/// Binds an address whoever may reach it.
///
/// # Errors
/// [`ListenError::Bind`].
pub fn bind_to(address: SocketAddr) -> Result<std::net::TcpListener, ListenError> {
    let bound = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|source| ListenError::Bind { address, source })
}

/// Something small, served on an address of its own in plain HTTP for as long as this is there.
pub struct Beside(Handle<SocketAddr>);

impl Beside {
    /// Begins to serve on what [`bind_to`] gave, and says where.
    ///
    /// # Errors
    /// [`ListenError::Listener`].
    pub fn serve(listener: std::net::TcpListener, what: &'static str, router: Router) -> Result<Self, ListenError> {
        println!("{what} at http://{}", listener.local_addr()?);
        let handle = Handle::new();
        let guard = Guard::new(MOST_BESIDE, HEADER_TIMEOUT, STALL_BESIDE, false);
        let mut server = axum_server::from_tcp(listener)?.handle(handle.clone()).acceptor(guard);
        limit_requests(server.http_builder());
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let serving = server.http1_only().serve(service);
        tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, what, "no more of it");
            }
        });
        Ok(Self(handle))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.0.shutdown();
    }
}

/// Serves on a bound listener until `stop` is done, then drains: readiness goes first, then the listener, then the
/// connections; what is still running after `drain_seconds` is cut off. `stop` says whether balancers are to be
/// given time to notice.
///
/// # Errors
/// When the listener fails.
pub async fn serve_on(
    listener: std::net::TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    settings: &Server,
    draining: &Draining,
    stop: impl Future<Output = Stop> + Send,
) -> Result<(), ListenError> {
    let address = listener.local_addr()?;
    let handle = Handle::new();
    let stall = Duration::from_secs(settings.request_timeout_seconds) + STALL_MARGIN;
    let guard = Guard::new(settings.max_connections, HEADER_TIMEOUT, stall, tls.is_some());
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tracing::info!(%address, tls = tls.is_some(), "listening");

    let mut server = axum_server::from_tcp(listener)?.handle(handle.clone());
    let builder = server.http_builder();
    limit_requests(builder);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_STREAMS)
        .max_header_list_size(MOST_HEAD_BYTES)
        .max_pending_accept_reset_streams(MOST_RESETS)
        .max_local_error_reset_streams(MOST_RESETS);
    let serving = async {
        match tls {
            Some(config) => {
                let acceptor = RustlsAcceptor::new(RustlsConfig::from_config(config)).acceptor(guard);
                server.acceptor(acceptor).serve(service).await
            }
            // Without TLS nobody speaks HTTP/2 to us; its plain-text form would only be another way in.
            // (In this order: setting the acceptor forgets the version.)
            None => server.acceptor(guard).http1_only().serve(service).await,
        }
    };
    let drain = async {
        let asked = stop.await;
        draining.begin();
        tracing::info!("stopping");
        let whole = Duration::from_secs(settings.drain_seconds);
        let notice = if asked == Stop::Announced {
            NOTICE.min(whole / 4)
        } else {
            Duration::ZERO
        };
        tokio::time::sleep(notice).await;
        handle.graceful_shutdown(Some(whole.saturating_sub(notice)));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = serving => Ok(result?),
        () = drain => Ok(()),
    }
}

/// What one request over HTTP/1 may cost before it is read.
fn limit_requests(builder: &mut Builder<TokioExecutor>) {
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(MOST_HEADERS)
        .max_buf_size(MOST_HEAD_BYTES as usize);
}

/// How the server was asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// By an orchestrator (SIGTERM): balancers may need a moment.
    Announced,
    /// By somebody at the keyboard (SIGINT), or because it cannot go on.
    AtOnce,
}

fn stop_signal() -> io::Result<impl Future<Output = Stop> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => Stop::Announced,
            _ = interrupt.recv() => Stop::AtOnce,
        }
    })
}

/// Reads certificate and key; AWS-LC does the cryptography, TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1.
///
/// # Errors
/// [`ListenError::TlsFile`], [`ListenError::Tls`].
pub fn tls_config(files: &Tls) -> Result<Arc<ServerConfig>, ListenError> {
    let unreadable = |path: &Path, reason: String| ListenError::TlsFile {
        path: path.to_path_buf(),
        reason,
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(&files.cert, error.to_string()))?;
    if chain.is_empty() {
        return Err(unreadable(&files.cert, "there is no certificate in it".to_owned()));
    }
    refuse_open_key(&files.key)?;
    // The error says what is missing, never what is there.
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unreadable(&files.key, error.to_string()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A private key that everybody on the machine can read is no secret (M10).
fn refuse_open_key(path: &Path) -> Result<(), ListenError> {
    use std::os::unix::fs::PermissionsExt as _;
    let refuse = |reason: String| ListenError::TlsFile {
        path: path.to_path_buf(),
        reason,
    };
    let mode = std::fs::metadata(path)
        .map_err(|error| refuse(error.to_string()))?
        .permissions()
        .mode();
    if mode.trailing_zeros() >= 3 {
        // Nothing for others.
        return Ok(());
    }
    Err(refuse(format!(
        "everybody may read or change it (mode {:04o}); make it 0600 or 0640",
        mode & 0o7777
    )))
}

#[cfg(test)]
mod tests;
