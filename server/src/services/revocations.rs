//! What was revoked, known to this node: read from the database again and again, kept in memory, and passed on to the
//! streams of other services.
//!
//! A node hears of another node's revocation by PostgreSQL's NOTIFY, and looks by itself every [`LOOK_POSTGRES`] or
//! [`LOOK_SQLITE`]. What it knows has a date. Whoever relies on it may do so for [`BOUND`]; a node that cannot look into
//! the database for longer says so instead of going by old knowledge.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::broadcast::{self, Receiver, Sender};

use super::recovery::SKIPPED_CURSORS;
use super::{Backend, ServiceError};
use crate::domain::clock::Timestamp;
use crate::domain::id::TokenId;
use crate::domain::revocation::{Entry, Presented, Registry, Verdict};
use crate::storage::revocations;

/// How old knowledge may be that an answer relies on.
pub const BOUND: Duration = Duration::from_secs(1);
/// The longest pause between two looks where NOTIFY calls in between.
const LOOK_POSTGRES: Duration = Duration::from_millis(250);
/// The same where other processes on the same file cannot call. A look reads one row.
const LOOK_SQLITE: Duration = Duration::from_millis(25);
/// Most entries in memory, about 30 MB; with an hour's memory that is 140 ended sessions a second, all day long.
const CAPACITY: usize = 500_000;
/// Most entries read at once: what a look, a piece of news, or a reader of the feed holds of them.
const PAGE: u32 = 1000;
const BEGINNING: Timestamp = Timestamp::from_millis(0);
/// News that a stream may lag behind before it is cut off; its reader comes again and reads from the table.
const BACKLOG: usize = 256;

/// What the node knows.
#[derive(Debug)]
pub(super) struct Revocations {
    known: RwLock<Known>,
    news: Sender<News>,
}

#[derive(Debug)]
struct Known {
    registry: Registry,
    /// Everything up to here; none before the first look.
    cursor: Option<u64>,
    /// The moment before the last look that succeeded.
    as_of: Option<Timestamp>,
    /// The last of them when everything there was had been read.
    seen: Option<Entry>,
    /// See [`News`].
    past: u64,
}

impl Default for Revocations {
    fn default() -> Self {
        Self {
            known: RwLock::new(Known {
                registry: Registry::new(CAPACITY),
                cursor: None,
                as_of: None,
                seen: None,
                past: 0,
            }),
            news: broadcast::channel(BACKLOG).0,
        }
    }
}

/// The result of one look into the database, also if there was nothing new.
#[derive(Clone, Debug)]
pub struct News {
    /// What is new, in the order of the cursors; a thousand at most.
    pub entries: Arc<[Entry]>,
    /// Nothing is missing up to here.
    pub cursor: u64,
    /// Whatever was revoked before this moment is among it, or was in looks before it. None: there is more to be read.
    pub as_of: Option<Timestamp>,
    /// How often the database went back in time, as far as this node knew: cursors of another past mean nothing now.
    pub past: u64,
}

/// Whether knowledge of that date may be relied on now. A date in the future says that a clock was set back.
fn is_fresh(as_of: Option<Timestamp>, now: Timestamp) -> bool {
    as_of.is_some_and(|as_of| now.since(as_of) <= BOUND && as_of.since(now) <= BOUND)
}

impl Backend {
    /// Follows what is revoked on this and every other node, for as long as the server runs.
    pub async fn follow_revocations(&self) {
        let bell = self.store.bell();
        let pause = if self.store.is_postgres() {
            LOOK_POSTGRES
        } else {
            LOOK_SQLITE
        };
        let mut well = true;
        loop {
            match self.catch_up_with_revocations().await {
                Ok(_) if well => {}
                Ok(_) => tracing::info!("revocations are known again"),
                Err(error) if well => {
                    tracing::error!(%error, "revocations are not known; what relies on them is refused");
                }
                Err(error) => tracing::debug!(%error, "revocations are still not known"),
            }
            well = self.knows_revocations();
            // Called or not: have a look.
            drop(tokio::time::timeout(pause, bell.rings()).await);
        }
    }

    /// One look into the database. How many entries were new.
    ///
    /// # Errors
    /// When the database fails; what is known then only grows older.
    pub async fn catch_up_with_revocations(&self) -> Result<usize, ServiceError> {
        if self.clock_watch.hears_anew.swap(false, Ordering::SeqCst) {
            // What was heard while the clock was ahead may have been forgotten as over.
            self.learn(|known| (known.cursor, known.seen, known.as_of) = (Some(0), None, None));
        }
        let (mut after, mut seen) = {
            let known = self.known_revocations();
            (known.cursor.unwrap_or(0), known.seen.clone())
        };
        let (mut new, mut last) = (0, None);
        loop {
            let Some(news) = self.read_after(after, seen.as_ref()).await? else {
                tracing::error!(known = after, "the database went back in time");
                let remembered = self.known_revocations().registry.remembered();
                self.revoke_again(after, seen.as_ref(), remembered).await?;
                (after, seen, last) = (0, None, None);
                self.learn(|known| {
                    (known.cursor, known.seen) = (Some(0), None);
                    known.as_of = None;
                    known.past += 1;
                });
                continue;
            };
            after = news.cursor;
            last = news.entries.last().cloned().or(last);
            // Further pages begin where only this look has been.
            seen = None;
            new += news.entries.len();
            let now = self.now();
            self.learn(|known| {
                known.registry.apply(&news.entries, now);
                known.cursor = Some(after);
                if news.as_of.is_some() && last.is_some() {
                    known.seen.clone_from(&last);
                }
                known.as_of = news.as_of.or(known.as_of);
            });
            let is_all = news.as_of.is_some();
            // An error says that nobody listens.
            drop(self.revocations.news.send(news));
            if is_all {
                return Ok(new);
            }
        }
    }

    fn known_revocations(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.revocations.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.revocations.known.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// What this node knows is no older than [`BOUND`].
    #[must_use]
    pub fn knows_revocations(&self) -> bool {
        is_fresh(self.known_revocations().as_of, self.now())
    }

    /// What this process itself has revoked is among what it knows.
    pub(super) fn knows_own_revocations(&self) -> bool {
        self.known_revocations().cursor >= Some(self.store.last_own_revocation())
    }

    /// What this node knows of a token, from memory: [`Verdict::Unknown`] if it is not up to date.
    #[must_use]
    pub fn revocation_verdict(&self, token: &Presented<'_>) -> Verdict {
        let known = self.known_revocations();
        let now = self.now();
        match known.registry.verdict(token, now) {
            Verdict::NotRevoked if !is_fresh(known.as_of, now) => Verdict::Unknown,
            verdict => verdict,
        }
    }

    /// Whether one access token was revoked by itself: from memory, and if that is not up to date from the database.
    ///
    /// # Errors
    /// When the database fails: then nobody may accept the token.
    pub(super) async fn is_token_revoked(&self, id: TokenId) -> Result<bool, ServiceError> {
        if self.knows_revocations() && self.knows_own_revocations() {
            let known = self.known_revocations().registry.is_token_revoked(id, self.now());
            if let Some(known) = known {
                return Ok(known);
            }
        }
        let mut tx = self.store.read().await?;
        Ok(revocations::is_token_revoked(&mut tx, id).await?)
    }

    /// Every look into the database from now on.
    #[must_use]
    pub fn hear_revocations(&self) -> Receiver<News> {
        self.revocations.news.subscribe()
    }

    /// Whether the number of an entry that a reader was told belongs to one of another moment now: the database has lost
    /// commits, and perhaps no node remembers them.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn was_given_again(&self, cursor: u64, at: Timestamp) -> Result<bool, ServiceError> {
        let mut tx = self.store.read().await?;
        Ok(revocations::is_of_another_moment(&mut tx, cursor, at).await?)
    }

    /// The next entries after a cursor that still matter, straight from the database. `None`: that cursor was never
    /// given, so the reader knows another past than we do and has to begin anew.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn read_revocations(&self, after: u64) -> Result<Option<News>, ServiceError> {
        self.read_after(after, None).await
    }

    /// The same for a reader that remembers an entry. `None` also if another one has its number now, or if numbers were
    /// skipped: another node found that the database went back in time.
    async fn read_after(&self, after: u64, seen: Option<&Entry>) -> Result<Option<News>, ServiceError> {
        let as_of = self.now();
        let past = self.known_revocations().past;
        let mut tx = self.store.read().await?;
        let last = revocations::find_last_cursor(&mut tx).await?;
        // The reader may have known of more than whoever skipped them; nobody lags behind by half of so many.
        let was_skipped = seen.is_some() && last.saturating_sub(after) > SKIPPED_CURSORS / 2;
        if after > last || was_skipped || revocations::was_given_again(&mut tx, seen).await? {
            return Ok(None);
        }
        let entries = if after < last {
            // A clock that is ahead would leave out what still matters.
            let over_at = if self.clock_has_settled() && self.may_clear_away() {
                as_of
            } else {
                BEGINNING
            };
            revocations::list_revocations(&mut tx, after, last, over_at, PAGE).await?
        } else {
            Vec::new()
        };
        let end = entries.last().filter(|_| entries.len() == PAGE as usize);
        Ok(Some(News {
            cursor: end.map_or(last, |entry| entry.cursor),
            as_of: end.is_none().then_some(as_of),
            entries: entries.into(),
            past,
        }))
    }

    /// Forgets here what concerns no living token any more, once the clock has settled.
    pub fn forget_past_revocations(&self) {
        // In this order: a jump between the two is seen.
        let now = self.now();
        if self.clock_has_settled() {
            self.learn(|known| known.registry.forget(now));
        }
    }
}
