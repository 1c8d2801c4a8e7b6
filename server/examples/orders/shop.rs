//! The service's own routes. They never see a request that the layer did not let pass.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use server::domain::client::ClientId;
use server::domain::id::SessionId;
use server::domain::jwt::{AccessClaims, LogoutClaims};
use server::verify::Checker;
use server::verify::layer::require_token;
use server::verify::logout;

/// What the shop itself keeps for each session of Mayfly: here how often it came, in a real shop its basket. Bounded: a
/// session that ends is told, but a request that was let in just before may come after that.
#[derive(Clone, Default)]
struct Visits(Arc<Mutex<HashMap<SessionId, u32>>>);

const MOST_VISITORS: usize = 10_000;

impl Visits {
    fn one_more(&self, session: SessionId) -> u32 {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MOST_VISITORS && !kept.contains_key(&session) {
            kept.clear();
        }
        let visits = kept.entry(session).or_default();
        *visits += 1;
        *visits
    }

    fn forget(&self, session: SessionId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&session);
    }
}

/// All routes; `/readyz` is open to everybody, and `/logout` to whoever brings a logout token for this client.
pub fn routes(checker: Arc<Checker>, client: ClientId) -> Router {
    let visits = Visits::default();
    let kept = visits.clone();
    let ended = move |claims: LogoutClaims| {
        kept.forget(claims.sid);
        std::future::ready(Ok::<_, Infallible>(()))
    };
    Router::new()
        .route("/orders", get(orders))
        .with_state(visits)
        .layer(from_fn_with_state(checker.clone(), require_token))
        .route("/readyz", get(readyz))
        .with_state(checker.clone())
        .route("/logout", logout::route(checker, client, ended))
}

/// Whose orders these are; a real shop would go on from here.
async fn orders(State(visits): State<Visits>, Extension(claims): Extension<Arc<AccessClaims>>) -> Json<Value> {
    let visits = visits.one_more(claims.sid);
    Json(json!({ "customer": claims.sub, "roles": claims.roles, "orders": [], "visits": visits }))
}

/// Not ready while nobody could be let in.
async fn readyz(State(checker): State<Arc<Checker>>) -> StatusCode {
    if checker.is_up_to_date() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}
