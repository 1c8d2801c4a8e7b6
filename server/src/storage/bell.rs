//! Hearing at once that somebody revoked something: from this process by its [`Changes`], from other nodes by LISTEN.
//!
//! Only a wake-up call: what was revoked is read from the table, and whoever waits also looks by themselves from time
//! to time. A call that is lost costs time and nothing else.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::task::JoinHandle;

use super::Store;
use super::changes::Changes;
use super::connect::Pools;
use super::revocations::CHANNEL;

/// Pause before listening again after the connection was lost.
const PAUSE: Duration = Duration::from_secs(1);

/// Rings when something was revoked. Stops listening when dropped.
#[derive(Debug)]
pub struct Bell {
    heard: Arc<Changes>,
    listening: Option<JoinHandle<()>>,
}

impl Bell {
    /// Waits until something was revoked since the last time; may ring for nothing.
    pub async fn rings(&self) {
        self.heard.rings().await;
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        if let Some(listening) = &self.listening {
            listening.abort();
        }
    }
}

impl Store {
    /// Begins to listen. One at a time hears what this process itself revokes.
    #[must_use]
    pub fn bell(&self) -> Bell {
        let heard = self.changes.clone();
        let Pools::Postgres { migration, .. } = &self.pools else {
            return Bell { heard, listening: None };
        };
        // A connection of its own: it is busy for ever, and has no statement that a time limit could hit.
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_lazy_with(migration.as_ref().clone());
        let notify = heard.clone();
        let listening = tokio::spawn(async move {
            loop {
                let lost = async {
                    let mut listener = PgListener::connect_with(&pool).await?;
                    listener.listen(CHANNEL).await?;
                    loop {
                        // Also after a lost connection was made again: something may have been said meanwhile.
                        listener.try_recv().await?;
                        notify.ring();
                    }
                    #[expect(unreachable_code, reason = "names the type of the error")]
                    Ok::<(), sqlx::Error>(())
                };
                if let Err(error) = lost.await {
                    tracing::warn!(%error, "not listening for revocations of other nodes; will look by itself meanwhile");
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        Bell {
            heard,
            listening: Some(listening),
        }
    }
}
