//! Refusals that this node has written down lately.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::audit::Event;
use crate::domain::id::SessionId;

/// For so long the same is not written down again.
const NOTED_FOR: Duration = Duration::from_mins(1);
/// Most that are remembered. With more of them within a minute each is written down.
const MOST: usize = 10_000;

/// What was refused of which session.
type Refused = (Option<SessionId>, Option<String>);

/// When they were written down, by [`Clock::elapsed`](crate::domain::clock::Clock::elapsed).
#[derive(Debug, Default)]
pub(in crate::services) struct Noted(Mutex<HashMap<Refused, Duration>>);

impl Noted {
    /// Whether the same was written down within the last minute.
    pub(super) fn knows(&self, event: &Event, elapsed: Duration) -> bool {
        let noted = self.all().get(&refused(event)).copied();
        noted.is_some_and(|at| is_recent(at, elapsed))
    }

    /// Says that it is committed.
    pub(super) fn note(&self, event: &Event, elapsed: Duration) {
        let mut all = self.all();
        if all.len() >= MOST {
            all.retain(|_, at| is_recent(*at, elapsed));
        }
        if all.len() < MOST {
            all.insert(refused(event), elapsed);
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Refused, Duration>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(event: &Event) -> Refused {
    (event.session_id, event.reason.clone())
}

fn is_recent(at: Duration, elapsed: Duration) -> bool {
    elapsed.saturating_sub(at) < NOTED_FOR
}
