//! State before and beside a sign-in, in a tower-sessions session: the flow, the form token, news for one page.
//!
//! The store is our own: ids are kept as hashes, data sealed, and saving never brings a deleted session back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use app::types::Notice;
use async_trait::async_trait;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{self, SET_COOKIE};
use axum::middleware::Next;
use axum::response::Response;
use data_encoding::BASE64URL_NOPAD;
use serde_json::Value;
use tower_sessions::cookie::SameSite;
use tower_sessions::session::{Error, Id, Record};
use tower_sessions::session_store::{self, SessionStore};
use tower_sessions::{Expiry, Session, SessionManagerLayer};

use super::cookies;
use crate::domain::random::{self, Random};
use crate::services::{Backend, sha256};
use crate::services::ports::slot;
use crate::storage::flows;

/// A flow is forgotten this long after it was last written.
const LIFETIME: Duration = Duration::from_secs(30 * 60);
const FORM_TOKEN: &str = "form_token";
const PURPOSE: &str = "flow";

/// The store on the `flows` table.
#[derive(Clone, Debug)]
pub struct FlowStore(Arc<Backend>);

/// The layer, with its cookie.
#[must_use]
pub fn layer(backend: Arc<Backend>) -> SessionManagerLayer<FlowStore> {
    SessionManagerLayer::new(FlowStore(backend))
        .with_name(cookies::FLOW)
        .with_secure(true)
        .with_http_only(true)
        .with_same_site(SameSite::Lax)
        .with_path("/")
        .with_expiry(Expiry::OnSessionEnd)
}

/// Layer directly outside [`layer`]: the library deletes the cookie without its attributes, and browsers pass over
/// whatever touches a `__Host-` name without `Secure` and `Path=/`.
pub async fn delete_completely(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if let header::Entry::Occupied(entry) = headers.entry(SET_COOKIE) {
        let deletion = format!("{}=;", cookies::FLOW);
        let lines: Vec<HeaderValue> = entry.remove_entry_mult().1.collect();
        for line in lines {
            let deletes = line.as_bytes().starts_with(deletion.as_bytes());
            let line = if deletes { cookies::clear(cookies::FLOW).unwrap_or(line) } else { line };
            headers.append(SET_COOKIE, line);
        }
    }
    response
}

fn hash_of(id: &Id) -> [u8; 32] {
    sha256(&id.0.to_be_bytes())
}

fn backend_error(error: impl std::fmt::Display) -> session_store::Error {
    session_store::Error::Backend(error.to_string())
}

impl FlowStore {
    fn seal(&self, hash: &[u8; 32], record: &Record) -> session_store::Result<Vec<u8>> {
        let plain = serde_json::to_vec(&record.data).map_err(|error| session_store::Error::Encode(error.to_string()))?;
        Ok(self.0.key_encryption_key().seal(PURPOSE, hash, &plain, self.0.random()))
    }
}

#[async_trait]
impl SessionStore for FlowStore {
    async fn create(&self, record: &mut Record) -> session_store::Result<()> {
        let mut tx = self.0.store().write().await.map_err(backend_error)?;
        loop {
            let hash = hash_of(&record.id);
            let sealed = self.seal(&hash, record)?;
            let expires_at = self.0.now().plus(LIFETIME);
            if flows::insert_flow(&mut tx, &hash, &sealed, expires_at).await.map_err(backend_error)? {
                break;
            }
            record.id = Id::default();
        }
        tx.commit().await.map_err(backend_error)
    }

    /// Only updates: a flow that was deleted meanwhile stays deleted.
    async fn save(&self, record: &Record) -> session_store::Result<()> {
        let hash = hash_of(&record.id);
        let sealed = self.seal(&hash, record)?;
        let mut tx = self.0.store().write().await.map_err(backend_error)?;
        let expires_at = self.0.now().plus(LIFETIME);
        if !flows::update_flow(&mut tx, &hash, &sealed, expires_at).await.map_err(backend_error)? {
            tracing::debug!("a flow was written that had been deleted; it stays deleted");
        }
        tx.commit().await.map_err(backend_error)
    }

    async fn load(&self, id: &Id) -> session_store::Result<Option<Record>> {
        let hash = hash_of(id);
        let mut tx = self.0.store().read().await.map_err(backend_error)?;
        let Some(sealed) = flows::find_flow(&mut tx, &hash, self.0.now()).await.map_err(backend_error)? else {
            return Ok(None);
        };
        let plain = self.0.key_encryption_key().open(PURPOSE, &hash, &sealed).map_err(backend_error)?;
        let data: HashMap<String, Value> =
            serde_json::from_slice(&plain).map_err(|error| session_store::Error::Decode(error.to_string()))?;
        // Ours is the clock that counts; the library is told that the record is still good.
        let expiry_date = time::OffsetDateTime::from_unix_timestamp(self.0.now().plus(LIFETIME).as_seconds())
            .map_err(backend_error)?;
        Ok(Some(Record { id: *id, data: data.into_iter().collect(), expiry_date }))
    }

    async fn delete(&self, id: &Id) -> session_store::Result<()> {
        let mut tx = self.0.store().write().await.map_err(backend_error)?;
        flows::delete_flow(&mut tx, &hash_of(id)).await.map_err(backend_error)?;
        tx.commit().await.map_err(backend_error)
    }
}

/// The form token of this browser, made on first use: 256 random bits.
///
/// # Errors
/// When the session cannot be read or written.
pub async fn form_token(session: &Session, random: &dyn Random) -> Result<String, Error> {
    if let Some(kept) = kept_form_token(session).await? {
        return Ok(kept);
    }
    let token = BASE64URL_NOPAD.encode(random::secret::<32>(random).as_slice());
    session.insert(FORM_TOKEN, &token).await?;
    Ok(token)
}

/// The form token, if there is one.
///
/// # Errors
/// When the session cannot be read.
pub async fn kept_form_token(session: &Session) -> Result<Option<String>, Error> {
    session.get(FORM_TOKEN).await
}

/// Keeps news for the next page.
///
/// # Errors
/// When the session cannot be written.
pub async fn flash(session: &Session, notice: Notice) -> Result<(), Error> {
    session.insert(slot::NOTICE, notice).await
}
