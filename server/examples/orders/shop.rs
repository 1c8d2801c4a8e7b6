//! The service's own routes. They never see a request that the layer did not let pass.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use server::domain::jwt::AccessClaims;
use server::verify::Checker;
use server::verify::layer::require_token;

/// All routes; `/readyz` is open to everybody.
pub fn routes(checker: Arc<Checker>) -> Router {
    Router::new()
        .route("/orders", get(orders))
        .layer(from_fn_with_state(checker.clone(), require_token))
        .route("/readyz", get(readyz))
        .with_state(checker)
}

/// Whose orders these are; a real shop would go on from here.
async fn orders(Extension(claims): Extension<Arc<AccessClaims>>) -> Json<Value> {
    Json(json!({ "customer": claims.sub, "roles": claims.roles, "orders": [] }))
}

/// Not ready while nobody could be let in.
async fn readyz(State(checker): State<Arc<Checker>>) -> StatusCode {
    if checker.is_up_to_date() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}
