//! Password hashing off the async threads, with a bound on how much of it may wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::ServiceError;
use crate::domain::password::{self, HashParams, Password, Verification};
use crate::domain::random::Random;

/// Hashes and verifies with at most `threads` at once and `queue` waiting; beyond that: [`ServiceError::Busy`].
pub struct Hasher {
    params: HashParams,
    pepper: Arc<Zeroizing<[u8; 32]>>,
    threads: Semaphore,
    waiting: AtomicUsize,
    queue: usize,
    dummy: Arc<str>,
}

impl Hasher {
    /// `pepper` is a key kept outside the database; `threads` and `queue` are counts.
    #[must_use]
    pub fn new(params: HashParams, pepper: Zeroizing<[u8; 32]>, threads: usize, queue: usize) -> Self {
        let dummy = password::dummy_hash(&params, &pepper).into();
        Self {
            params,
            pepper: Arc::new(pepper),
            threads: Semaphore::new(threads.max(1)),
            waiting: AtomicUsize::new(0),
            queue,
            dummy,
        }
    }

    /// Hashes a new password.
    ///
    /// # Errors
    /// [`ServiceError::Busy`] when too much is waiting.
    pub async fn hash(&self, new: Password, random: Arc<dyn Random>) -> Result<String, ServiceError> {
        let (params, pepper) = (self.params, self.pepper.clone());
        Ok(self
            .run(move || password::hash(&new, &params, &pepper, random.as_ref()))
            .await??)
    }

    /// Verifies; without a stored hash the same work is done and the answer is [`Verification::Wrong`].
    ///
    /// # Errors
    /// [`ServiceError::Busy`] when too much is waiting.
    pub async fn verify(&self, given: Password, stored: Option<String>) -> Result<Verification, ServiceError> {
        let (params, pepper, dummy) = (self.params, self.pepper.clone(), self.dummy.clone());
        let known = stored.is_some();
        // Equal work for unknown accounts (P9).
        let stored = stored.unwrap_or_else(|| dummy.to_string());
        let verification = self
            .run(move || password::verify(&given, &stored, &params, &pepper))
            .await??;
        Ok(if known { verification } else { Verification::Wrong })
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, ServiceError> {
        struct Place<'a>(&'a AtomicUsize);
        impl Drop for Place<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        let ahead = self.waiting.fetch_add(1, Ordering::SeqCst);
        let place = Place(&self.waiting);
        if ahead >= self.queue + self.threads.available_permits() {
            return Err(ServiceError::Busy);
        }
        let permit = self.threads.acquire().await.map_err(|_| ServiceError::Busy)?;
        drop(place);
        let result = tokio::task::spawn_blocking(work).await;
        drop(permit);
        match result {
            Ok(value) => Ok(value),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
}
