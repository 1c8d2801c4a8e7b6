//! `/healthz` and `/readyz`: whether the process lives, and whether it should get requests.
//!
//! Must not know what readiness depends on: it asks a [`Readiness`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

/// Whether what the server needs is there.
#[async_trait]
pub trait Readiness: Send + Sync {
    /// The database answers.
    async fn database(&self) -> bool;
    /// There is an active signing key and an active edge key, and the stored keys are the ones in memory.
    async fn keys(&self) -> bool;
    /// The clock agrees with those of the other nodes.
    fn clock(&self) -> bool;
}

/// Set once at SIGTERM: readiness goes first, then the listener.
#[derive(Clone, Debug, Default)]
pub struct Draining(Arc<AtomicBool>);

impl Draining {
    /// From now on `/readyz` says no.
    pub fn begin(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// It has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Longest a check may take; a database that hangs is a database that is not there.
const LONGEST_CHECK: Duration = Duration::from_secs(2);

/// What the two routes look at.
#[derive(Clone)]
pub struct Health {
    readiness: Arc<dyn Readiness>,
    draining: Draining,
}

/// The two routes.
pub fn routes(readiness: Arc<dyn Readiness>, draining: Draining) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(Health { readiness, draining })
}

/// The process lives.
#[utoipa::path(get, path = "/healthz", responses((status = 200, description = "Alive")))]
pub async fn healthz() -> impl IntoResponse {
    axum::Json(json!({ "status": "alive" }))
}

/// Whether it should get requests; says what is missing.
#[utoipa::path(get, path = "/readyz", responses(
    (status = 200, description = "Ready"), (status = 503, description = "Not now: database, keys, clock, or about to stop")))]
pub async fn readyz(State(health): State<Health>) -> Response {
    let within = |check| async { tokio::time::timeout(LONGEST_CHECK, check).await.unwrap_or(false) };
    let (database, keys) = tokio::join!(within(health.readiness.database()), within(health.readiness.keys()));
    let draining = health.draining.has_begun();
    let clock = health.readiness.clock();
    let ready = database && keys && clock && !draining;
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({
        "status": if ready { "ready" } else { "not_ready" },
        "database": database,
        "keys": keys,
        "clock": clock,
        "draining": draining,
    });
    (status, axum::Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::extract::Request;
    use tower::ServiceExt as _;

    /// Has everything but this.
    struct Without(&'static str);

    #[async_trait]
    impl Readiness for Without {
        async fn database(&self) -> bool {
            if self.0 == "an answer of the database" {
                std::future::pending::<()>().await;
            }
            self.0 != "database"
        }

        async fn keys(&self) -> bool {
            self.0 != "keys"
        }

        fn clock(&self) -> bool {
            self.0 != "clock"
        }
    }

    async fn status(path: &str, without: &'static str, draining: &Draining) -> u16 {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        routes(Arc::new(Without(without)), draining.clone())
            .oneshot(request)
            .await
            .unwrap()
            .status()
            .as_u16()
    }

    #[tokio::test]
    async fn ready_only_with_all_that_is_needed_and_while_not_draining() {
        let draining = Draining::default();
        for (without, expected) in [("nothing", 200), ("database", 503), ("keys", 503), ("clock", 503)] {
            assert_eq!(status("/readyz", without, &draining).await, expected, "{without}");
            assert_eq!(status("/healthz", without, &draining).await, 200, "{without}");
        }
        draining.begin();
        assert_eq!(status("/readyz", "nothing", &draining).await, 503);
        assert_eq!(status("/healthz", "nothing", &draining).await, 200);
    }

    #[tokio::test]
    async fn f7_a_database_that_hangs_is_not_ready() {
        let draining = Draining::default();
        let asked = status("/readyz", "an answer of the database", &draining);
        assert_eq!(tokio::time::timeout(Duration::from_secs(5), asked).await.unwrap(), 503);
    }
}
