//! State before and beside a sign-in: tower-sessions on our own store (TOKENS.md, section 5).
//!
//! Owns: the store, the cookie's attributes, the form token and the notice in a session. Must not know what else is
//! kept there, and never decides whether somebody is signed in.
//!
//! The store keeps ids only as hashes and data only sealed, takes time and randomness from the product's own
//! sources, and never brings a deleted session back: `save` is an UPDATE.

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
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use tower_sessions::cookie::SameSite;
use tower_sessions::session::{Error as SessionError, Id, Record};
use tower_sessions::session_store::{Error, Result, SessionStore};
use tower_sessions::{Expiry, Session, SessionManagerLayer};

use super::cookies;
use crate::domain::clock::{Clock, Timestamp};
use crate::domain::keys::{KeyEncryptionKey, KeyError};
use crate::domain::random::{Random, secret};
use crate::services::ports::slot;
use crate::services::{Backend, sha256};
use crate::storage::{StorageError, Store, Tx, flows};

/// Place of the form token in the session.
pub const FORM_TOKEN: &str = "form_token";

/// A session nobody comes back to ends after this.
const IDLE: Duration = Duration::from_mins(30);
/// And any session after this, however busy: a sign-in does not take longer.
const LONGEST: Duration = Duration::from_hours(2);
/// Reading prolongs a session, but not more often than this: a page view is not a write.
const PROLONG_EVERY: Duration = Duration::from_mins(10);
/// Purpose under which the data is sealed.
const PURPOSE: &str = "flow";

/// Sessions in the table `flows`.
#[derive(Clone)]
pub struct FlowStore {
    store: Store,
    key: Arc<KeyEncryptionKey>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl std::fmt::Debug for FlowStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlowStore").finish_non_exhaustive()
    }
}

/// What is sealed.
#[derive(Serialize, Deserialize)]
struct Kept {
    started_at: Timestamp,
    expires_at: Timestamp,
    data: HashMap<String, Value>,
}

impl Kept {
    /// Prolonged from now on, up to the cap.
    fn prolonged(mut self, now: Timestamp) -> Self {
        self.expires_at = now.plus(IDLE).min(self.started_at.plus(LONGEST));
        self
    }

    /// It would gain enough to be worth a write.
    fn is_worth_prolonging(&self, now: Timestamp) -> bool {
        now.plus(IDLE).min(self.started_at.plus(LONGEST)) >= self.expires_at.plus(PROLONG_EVERY)
    }
}

/// The store's errors, as tower-sessions wants them: text without data.
fn backend(error: &StorageError) -> Error {
    Error::Backend(error.to_string())
}

impl FlowStore {
    /// A store in this database; `kek` is only used to derive a key of its own.
    #[must_use]
    pub fn new(store: Store, kek: &KeyEncryptionKey, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        let key = Arc::new(KeyEncryptionKey::from_bytes(*kek.derive("web session")));
        Self {
            store,
            key,
            clock,
            random,
        }
    }

    fn seal(&self, hash: &[u8; 32], kept: &Kept) -> Result<Vec<u8>> {
        let plain = serde_json::to_vec(kept).map_err(|error| Error::Encode(error.to_string()))?;
        Ok(self.key.seal(PURPOSE, hash, &plain, &*self.random))
    }

    fn open(&self, hash: &[u8; 32], sealed: &[u8]) -> Result<Kept> {
        let plain = self
            .key
            .open(PURPOSE, hash, sealed)
            .map_err(|error: KeyError| Error::Decode(error.to_string()))?;
        // The error's own text could quote the data.
        serde_json::from_slice(&plain).map_err(|_| Error::Decode("a sealed session is not what was sealed".into()))
    }

    async fn find(&self, tx: &mut Tx, hash: &[u8; 32], now: Timestamp) -> Result<Option<Kept>> {
        let sealed = flows::find_flow(tx, hash, now).await.map_err(|error| backend(&error))?;
        let kept = sealed.map(|sealed| self.open(hash, &sealed)).transpose()?;
        // The row's own expiry is only there for cleaning up; what was sealed counts. A session from the far future
        // means that the clock was set back, and then its end is not to be trusted either.
        Ok(kept.filter(|kept| now < kept.expires_at && now >= kept.started_at.minus(LONGEST)))
    }

    /// Changes a session that still lives. `None` if it does not: then nothing is written.
    async fn change(&self, hash: &[u8; 32], change: impl FnOnce(&mut Kept) + Send) -> Result<Option<Kept>> {
        let now = self.clock.now();
        let mut tx = self.store.write().await.map_err(|error| backend(&error))?;
        let Some(mut kept) = self.find(&mut tx, hash, now).await? else {
            return Ok(None);
        };
        change(&mut kept);
        let kept = kept.prolonged(now);
        let sealed = self.seal(hash, &kept)?;
        let written = flows::update_flow(&mut tx, hash, &sealed, kept.expires_at).await;
        let written = written.map_err(|error| backend(&error))?;
        tx.commit().await.map_err(|error| backend(&error))?;
        Ok(written.then_some(kept))
    }
}

#[async_trait]
impl SessionStore for FlowStore {
    async fn create(&self, record: &mut Record) -> Result<()> {
        let now = self.clock.now();
        let kept = Kept {
            started_at: now,
            expires_at: now,
            data: record.data.clone(),
        }
        .prolonged(now);
        let mut tx = self.store.write().await.map_err(|error| backend(&error))?;
        // Our own random bytes, whatever id the library proposed.
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes);
        record.id = Id(i128::from_le_bytes(bytes));
        let hash = hash(&record.id);
        let sealed = self.seal(&hash, &kept)?;
        let inserted = flows::insert_flow(&mut tx, &hash, &sealed, kept.expires_at).await;
        if !inserted.map_err(|error| backend(&error))? {
            return Err(Error::Backend("two sessions drew the same 128 random bits".into()));
        }
        tx.commit().await.map_err(|error| backend(&error))?;
        record.expiry_date = date(kept.expires_at);
        Ok(())
    }

    async fn save(&self, record: &Record) -> Result<()> {
        let data = record.data.clone();
        if self.change(&hash(&record.id), |kept| kept.data = data).await?.is_none() {
            // It was deleted or ran out while this request was on its way. It stays gone: that is the outcome the
            // other request asked for, and this one's browser starts anew with its next request.
            tracing::info!("a web session was over before it was saved");
        }
        Ok(())
    }

    async fn load(&self, id: &Id) -> Result<Option<Record>> {
        let (hash, now) = (hash(id), self.clock.now());
        let mut tx = self.store.read().await.map_err(|error| backend(&error))?;
        let found = self.find(&mut tx, &hash, now).await?;
        drop(tx);
        let kept = match found {
            Some(kept) if kept.is_worth_prolonging(now) => self.change(&hash, |_| ()).await?,
            found => found,
        };
        Ok(kept.map(|kept| Record {
            id: *id,
            data: kept.data,
            expiry_date: date(kept.expires_at),
        }))
    }

    async fn delete(&self, id: &Id) -> Result<()> {
        let mut tx = self.store.write().await.map_err(|error| backend(&error))?;
        flows::delete_flow(&mut tx, &hash(id))
            .await
            .map_err(|error| backend(&error))?;
        tx.commit().await.map_err(|error| backend(&error))
    }
}

/// What is stored instead of the id.
fn hash(id: &Id) -> [u8; 32] {
    sha256(&id.0.to_le_bytes())
}

/// For the library's record, which only carries it around.
fn date(at: Timestamp) -> OffsetDateTime {
    let nanos = i128::from(at.as_millis()) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// The layer: a cookie for this browser session, not readable by scripts, only over secure connections.
#[must_use]
pub fn layer(backend: &Backend) -> SessionManagerLayer<FlowStore> {
    session_layer(FlowStore::new(
        backend.store().clone(),
        backend.key_encryption_key(),
        backend.shared_clock(),
        backend.shared_random(),
    ))
}

fn session_layer(store: FlowStore) -> SessionManagerLayer<FlowStore> {
    SessionManagerLayer::new(store)
        .with_name(cookies::FLOW)
        .with_secure(true)
        .with_http_only(true)
        .with_same_site(SameSite::Lax)
        .with_path("/")
        // How long the browser keeps the cookie; how long it means anything is the store's business.
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
            let line = if deletes {
                cookies::clear(cookies::FLOW).unwrap_or(line)
            } else {
                line
            };
            headers.append(SET_COOKIE, line);
        }
    }
    response
}

/// Makes this browser's form token.
///
/// # Errors
/// When the session cannot be read.
pub async fn new_form_token(session: &Session, random: &dyn Random) -> std::result::Result<String, SessionError> {
    let token = BASE64URL_NOPAD.encode(secret::<32>(random).as_slice());
    session.insert(FORM_TOKEN, &token).await?;
    Ok(token)
}

/// This browser's form token, if it has one.
///
/// # Errors
/// When the session cannot be read.
pub async fn kept_form_token(session: &Session) -> std::result::Result<Option<String>, SessionError> {
    session.get(FORM_TOKEN).await
}

/// Keeps a notice for the next page.
///
/// # Errors
/// When the session cannot be read.
pub async fn flash(session: &Session, notice: Notice) -> std::result::Result<(), SessionError> {
    session.insert(slot::NOTICE, notice).await
}

#[cfg(test)]
mod tests;
