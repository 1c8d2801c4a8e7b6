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

impl Health {
    /// Looks after `readiness` until `draining` has begun.
    #[must_use]
    pub fn new(readiness: Arc<dyn Readiness>, draining: Draining) -> Self {
        Self { readiness, draining }
    }

    /// What there has to be, and whether it is there.
    pub async fn look(&self) -> Parts {
        let within = |check| async { tokio::time::timeout(LONGEST_CHECK, check).await.unwrap_or(false) };
        let (database, keys) = tokio::join!(within(self.readiness.database()), within(self.readiness.keys()));
        Parts {
            database,
            keys,
            clock: self.readiness.clock(),
            draining: self.draining.has_begun(),
        }
    }
}

/// See [`Readiness`] and [`Draining`].
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "documented where they come from")]
#[expect(clippy::struct_excessive_bools, reason = "each by itself, as `/readyz` shows them")]
pub struct Parts {
    pub database: bool,
    pub keys: bool,
    pub clock: bool,
    pub draining: bool,
}

impl Parts {
    /// Requests may come.
    #[must_use]
    pub const fn are_ready(&self) -> bool {
        self.database && self.keys && self.clock && !self.draining
    }
}

const ALIVE: &str = "/healthz";
const READY: &str = "/readyz";

/// Whether this is the path of one of the two routes.
#[must_use]
pub fn is_probe(path: &str) -> bool {
    [ALIVE, READY].contains(&path)
}

/// The two routes.
pub fn routes(health: Health) -> Router {
    Router::new()
        .route(ALIVE, get(healthz))
        .route(READY, get(readyz))
        .with_state(health)
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
    let parts = health.look().await;
    let ready = parts.are_ready();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({
        "status": if ready { "ready" } else { "not_ready" },
        "database": parts.database,
        "keys": parts.keys,
        "clock": parts.clock,
        "draining": parts.draining,
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
        routes(Health::new(Arc::new(Without(without)), draining.clone()))
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
