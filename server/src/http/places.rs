//! Places for those who wait at this node for news: so many, and not all for one client.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::StatusCode;

use super::refusal::Refusal;
use crate::domain::client::ClientId;

/// One client may take one in so many.
const ONE_IN: usize = 2;

/// The places of those who wait for news at this node. One client leaves half of them to others.
#[derive(Debug)]
pub struct Places {
    most: usize,
    taken: Mutex<HashMap<ClientId, usize>>,
}

impl Places {
    /// So many of them.
    #[must_use]
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            taken: Mutex::default(),
        })
    }

    /// A place for a client, until it is dropped.
    ///
    /// # Errors
    /// 503 when all are taken, or this client has its share.
    pub fn take(self: &Arc<Self>, client: &ClientId) -> Result<Place, Refusal> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = taken.values().sum();
        let own = taken.get(client).copied().unwrap_or(0);
        if all >= self.most || own >= self.most / ONE_IN {
            let said = "Too many streams. Try again later.";
            let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", said);
            return Err(refusal.with_header("retry-after", "5"));
        }
        taken.insert(client.clone(), own + 1);
        Ok(Place {
            of: self.clone(),
            client: client.clone(),
        })
    }
}

/// One of them.
#[derive(Debug)]
pub struct Place {
    of: Arc<Places>,
    client: ClientId,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.of.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.client) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(taken.remove(&self.client)),
        }
    }
}
