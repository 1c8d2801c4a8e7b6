//! What the figures are held against: bare axum in a process of its own, without anything of the product's.
//!
//! `hello` answers a word. `rotation` does what no refresh can do without: one durable UPDATE of one row, and one
//! signature over claims of the usual size.

use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing;
use axum::{Json, Router};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use server::config::Database;
use server::storage::connections_for_two;
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{PgPool, SqlitePool};

use crate::Failure;
use crate::load::{RUN, Source, now, post};

/// Rows that the reference updates.
pub const ROWS: u32 = 10_000;

#[derive(Clone)]
enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

#[derive(Clone)]
struct Reference {
    pool: Pool,
    key: Arc<EncodingKey>,
}

/// Serves until the process is ended.
pub async fn serve(port: u16, database: Option<String>) -> Result<(), Failure> {
    let router = Router::new().route("/", routing::get(|| async { "hello" }));
    let router = match database {
        None => router,
        Some(url) => router.merge(rotation(&url).await?),
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    Ok(axum::serve(listener, router).await?)
}

const UPDATE: &str = "UPDATE reference SET generation = generation + 1 WHERE id = $1";

async fn rotation(url: &str) -> Result<Router, Failure> {
    server::domain::jwt::install_crypto();
    let table = "CREATE TABLE IF NOT EXISTS reference (id BIGINT PRIMARY KEY, generation BIGINT NOT NULL)";
    let rows = "INSERT INTO reference WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) \
                SELECT i, 0 FROM n";
    let pool = if url.starts_with("sqlite:") {
        let options = SqliteConnectOptions::from_str(url)?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await?;
        sqlx::query(table).execute(&pool).await?;
        sqlx::query(rows).execute(&pool).await?;
        Pool::Sqlite(pool)
    } else {
        let pool = PgPoolOptions::new().max_connections(connections()).connect(url).await?;
        sqlx::query(table).execute(&pool).await?;
        sqlx::query(rows).execute(&pool).await?;
        Pool::Postgres(pool)
    };
    let key = Arc::new(key()?);
    Ok(Router::new()
        .route("/rotate/{id}", routing::post(rotate))
        .with_state(Reference { pool, key }))
}

/// As many as the product may have on this machine: those of its settings, and its two pools for what is asked together.
fn connections() -> u32 {
    Database::default().max_connections + 2 * connections_for_two()
}

fn key() -> Result<EncodingKey, Failure> {
    #[expect(clippy::disallowed_methods, reason = "a key for one measurement")]
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &aws_lc_rs::rand::SystemRandom::new())?;
    Ok(EncodingKey::from_ec_der(pkcs8.as_ref()))
}

/// Claims of the usual size.
fn sign(key: &EncodingKey) -> Result<String, jsonwebtoken::errors::Error> {
    let claims = serde_json::json!({
        "iss": "http://localhost:3000", "aud": "http://localhost:3000", "sub": "0193a5b0-0000-7000-8000-000000000001",
        "client_id": "mayfly-native", "sid": "AZOlsAAAcACAAAAAAAAAAQ", "rg": 7, "jti": "AZOlsAAAcACAAAAAAAAAAQ",
        "iat": 1_790_000_000, "nbf": 1_790_000_000, "exp": 1_790_000_900, "auth_time": 1_790_000_000,
        "acr": "aal1", "amr": ["pwd"], "roles": ["member"],
    });
    jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, key)
}

/// Signatures a second that so many threads make, with nothing else to do.
pub fn signatures(threads: usize) -> Result<f64, Failure> {
    server::domain::jwt::install_crypto();
    let key = key()?;
    let begun = now();
    let signer = || {
        let mut made = 0_u32;
        while now() - begun < RUN {
            sign(&key)?;
            made += 1;
        }
        Ok::<_, jsonwebtoken::errors::Error>(made)
    };
    let made: Result<Vec<u32>, _> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(signer)).collect();
        running
            .into_iter()
            .map(|thread| thread.join().expect("signing does not panic"))
            .collect()
    });
    Ok(f64::from(made?.into_iter().sum::<u32>()) / RUN.as_secs_f64())
}

async fn rotate(
    State(reference): State<Reference>,
    Path(id): Path<i64>,
) -> Result<Json<serde_json::Value>, StatusCode> {
    let fault = |_| StatusCode::SERVICE_UNAVAILABLE;
    let changed = match &reference.pool {
        Pool::Sqlite(pool) => sqlx::query(UPDATE)
            .bind(id)
            .execute(pool)
            .await
            .map_err(fault)?
            .rows_affected(),
        Pool::Postgres(pool) => sqlx::query(UPDATE)
            .bind(id)
            .execute(pool)
            .await
            .map_err(fault)?
            .rows_affected(),
    };
    if changed != 1 {
        return Err(StatusCode::NOT_FOUND);
    }
    let signed = sign(&reference.key);
    let token = signed.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(Json(
        serde_json::json!({ "access_token": token, "refresh_token": id.to_string() }),
    ))
}

/// Its rows in turn.
pub struct Rows {
    next: AtomicU32,
    port: u16,
}

impl Rows {
    /// From the first on.
    pub const fn new(port: u16) -> Self {
        Self {
            next: AtomicU32::new(0),
            port,
        }
    }
}

impl Source for Rows {
    fn next(&self) -> Option<Vec<u8>> {
        let row = self.next.fetch_add(1, Ordering::Relaxed) % ROWS + 1;
        Some(post(&format!("/rotate/{row}"), self.port, "{}"))
    }

    fn answered(&self, _: &[u8]) -> Result<(), Failure> {
        Ok(())
    }
}
