//! `/metrics`, on an address of its own (L12): for the operator's monitoring, never for everybody.
//!
//! Must not know what is counted. Nothing but this route is served there.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::AppState;
use super::health::{Health, Parts};

/// The text form of Prometheus and its kin, version 1.0.
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The route, for whoever comes from a network of `metrics.readers`.
pub fn router(state: &AppState) -> Router {
    let routes = Router::new().route("/metrics", get(show)).with_state(state.clone());
    routes.layer(from_fn_with_state(state.clone(), only_readers))
}

async fn only_readers(
    State(state): State<AppState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let (readers, peer) = (&state.settings.metrics.readers, peer.ip().to_canonical());
    if readers.iter().any(|network| network.contains(&peer)) {
        return next.run(request).await;
    }
    (
        StatusCode::FORBIDDEN,
        "this machine is in no network of metrics.readers\n",
    )
        .into_response()
}

async fn show(State(state): State<AppState>) -> Response {
    let health = Health::new(state.backend.clone(), state.draining.clone());
    let (look, ()) = tokio::join!(health.look(), state.backend.count_tables());
    let Parts {
        database,
        keys,
        clock,
        draining,
    } = look;
    let ready = [
        ("database", database),
        ("keys", keys),
        ("clock", clock),
        ("serving", !draining),
    ];
    match state.backend.show_metrics(&ready) {
        Ok(text) => ([(CONTENT_TYPE, TEXT), (CACHE_CONTROL, "no-store")], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
