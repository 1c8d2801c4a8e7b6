//! Making and ending sessions: the parts that sign-in, refresh, accounts and administration share.

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::{Mutex, MutexGuard};

use super::{Backend, ServiceError};
use crate::domain::audit::{Circumstances, Event, Kind};
use crate::domain::clock::{APART, Timestamp};
use crate::domain::dpop::Thumbprint;
use crate::domain::id::{DeviceId, SessionId, TokenId, UserId};
use crate::domain::jwt::{AccessClaims, Confirmation, sign_access};
use crate::domain::keys::KeyEncryptionKey;
use crate::domain::policy::Limits;
use crate::domain::refresh::{self, SessionSecret};
use crate::domain::session::{Client, EndReason, Ending, Session, acr};
use crate::domain::user::User;
use crate::domain::{random, session};
use crate::storage::{Tx, audit, sessions, users};

/// How many sessions can refresh at once without ever waiting for another one by chance.
const LOCKS: u64 = 1024;

/// Refreshes of one session run one at a time within this process: a fixed number of locks, so it is bounded.
#[derive(Debug)]
pub struct SessionLocks(Box<[Mutex<()>]>);

impl Default for SessionLocks {
    fn default() -> Self {
        Self((0..LOCKS).map(|_| Mutex::new(())).collect())
    }
}

impl SessionLocks {
    /// Waits for the session's turn.
    pub async fn lock(&self, session: SessionId) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        session.hash(&mut hasher);
        let shard = usize::try_from(hasher.finish() % LOCKS).unwrap_or(0);
        self.0[shard].lock().await
    }
}

/// A living session with whose it is and what limits it.
#[derive(Clone, Debug)]
pub struct Live {
    /// The session, limits in force already applied.
    pub session: Session,
    /// Its owner, with roles.
    pub user: User,
    /// The strictest limits of those roles.
    pub limits: Limits,
}

/// A pair of tokens, to be handed out after the commit.
#[derive(Debug)]
pub struct Issued {
    /// The session they belong to.
    pub live: Live,
    /// Access token.
    pub access: SecretString,
    /// Its `exp`.
    pub access_expires_at: Timestamp,
    /// Refresh token.
    pub refresh: SecretString,
}

/// How somebody proved who they are.
#[derive(Clone, Debug)]
pub struct Proof {
    /// Methods of RFC 8176, space-separated.
    pub amr: &'static str,
    /// When the last factor was shown.
    pub at: Timestamp,
}

/// What a new session is made of.
#[derive(Debug)]
pub struct NewSession<'a> {
    /// Whose.
    pub user: &'a User,
    /// Limits of their roles.
    pub limits: &'a Limits,
    /// How they proved it.
    pub proof: Proof,
    /// Kind of client.
    pub client: Client,
    /// The key that a program has proved to hold.
    pub key: Option<Thumbprint>,
    /// Device, if it has been recognised.
    pub device: Option<DeviceId>,
    /// The session that step-up replaces: its start and absolute end are carried on.
    pub replaces: Option<&'a Session>,
}

impl Backend {
    /// Makes a session, within the most sessions at once, and signs its first tokens.
    pub(super) async fn create_session(
        &self,
        tx: &mut Tx,
        new: NewSession<'_>,
        from: &Circumstances,
    ) -> Result<Issued, ServiceError> {
        let now = self.now();
        let (user, limits) = (new.user, new.limits);
        self.make_room(tx, user, limits, new.replaces.map(|old| old.id), from)
            .await?;
        let id = SessionId::new(now, self.random());
        let secret = SessionSecret::new(random::secret::<32>(self.random()));
        let mut session = Session {
            id,
            user_id: user.id,
            device_id: new.device,
            client: new.client,
            secret_sealed: self
                .kek
                .seal("session", id.0.as_bytes(), secret.expose(), self.random()),
            generation: 0,
            rotated_at: now,
            handed_out_at: now,
            superseded_at: now,
            child_confirmed: false,
            reissues: 0,
            access_expires_at: now,
            min_generation: 0,
            auth_epoch: user.auth_epoch,
            grant_epoch: user.grant_epoch,
            started_at: now,
            authenticated_at: new.proof.at,
            last_active_at: now,
            access: limits.lifetimes.access,
            idle: limits.lifetimes.idle,
            idle_rule: limits.idle_rule.clone(),
            absolute_expires_at: now.plus(limits.lifetimes.absolute),
            absolute_rule: limits.absolute_rule.clone(),
            amr: new.proof.amr.to_owned(),
            address: from.address.as_deref().unwrap_or_default().to_owned(),
            user_agent: from.user_agent.as_deref().unwrap_or_default().to_owned(),
            jkt: new.key,
            browser_key: None,
            ending: None,
        };
        if let Some(old) = new.replaces {
            // One factor shown again renews nothing but its own age: limits can only shrink.
            session.started_at = old.started_at;
            if old.absolute_expires_at < session.absolute_expires_at {
                session.absolute_expires_at = old.absolute_expires_at;
                session.absolute_rule = old.absolute_rule.clone();
            }
        }
        session.access_expires_at = access_end(&session, now);
        sessions::insert_session(tx, &session).await?;
        let mut created = self
            .event(Kind::SessionCreated, from)
            .by_subject(user.id)
            .session(id)
            .device(new.device)
            .fact("amr", new.proof.amr)
            .fact("client", new.client.as_str())
            .fact("idle_s", session.idle.as_secs())
            .fact("idle_rule", rule_text(&session.idle_rule))
            .fact("absolute_end", session.absolute_expires_at.as_millis())
            .fact("absolute_rule", rule_text(&session.absolute_rule));
        if let Some(key) = session.jkt {
            created = created.fact("bound_to_key", key.to_string());
        }
        audit::append_events(tx, &[created]).await?;
        self.issue(
            Live {
                session,
                user: user.clone(),
                limits: limits.clone(),
            },
            &secret,
        )
    }

    /// Ends the longest unused sessions until one more fits.
    async fn make_room(
        &self,
        tx: &mut Tx,
        user: &User,
        limits: &Limits,
        replaced: Option<SessionId>,
        from: &Circumstances,
    ) -> Result<(), ServiceError> {
        // One sign-in of a person at a time, or two at once would both count the same (S13).
        if !users::lock_user(tx, user).await? {
            return Err(ServiceError::AccountChanged);
        }
        let mut oldest =
            sessions::list_oldest_living_sessions(tx, user.id, limits.lifetimes.max_sessions.saturating_sub(1)).await?;
        oldest.retain(|session| Some(session.id) != replaced);
        for session in oldest {
            let ending = Ending {
                at: self.now(),
                reason: EndReason::TooManySessions,
                rule: None,
                limit: None,
            };
            self.end_session(tx, &session, ending, Kind::SessionRevoked, from)
                .await?;
        }
        Ok(())
    }

    /// Signs the access token of the session's current generation and derives the refresh token.
    pub(super) fn issue(&self, live: Live, secret: &SessionSecret) -> Result<Issued, ServiceError> {
        let ring = self.keys();
        let session = &live.session;
        let now = self.now();
        fail::fail_point!("tokens::before_sign", |_| Err(
            crate::domain::jwt::JwtError::Signing.into()
        ));
        // A node whose clock is ahead may have written it: no token lives longer than the rule says by any clock.
        let expires_at = session.access_expires_at.min(now.plus(session.access));
        let claims = AccessClaims {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            sub: live.user.id,
            client_id: client_id(session),
            sid: session.id,
            rg: session.generation,
            jti: TokenId::new(now, self.random()),
            iat: now.as_seconds(),
            nbf: now.as_seconds(),
            exp: expires_at.as_seconds(),
            auth_time: session.authenticated_at.as_seconds(),
            acr: acr(&session.amr).to_owned(),
            amr: session.amr.split(' ').map(str::to_owned).collect(),
            roles: live.user.roles.clone(),
            cnf: session.jkt.map(|jkt| Confirmation { jkt }),
        };
        let access = sign_access(&ring, &claims)?;
        fail::fail_point!(
            "tokens::signed",
            |_| Err(crate::storage::StorageError::Abandoned.into())
        );
        Ok(Issued {
            access,
            access_expires_at: expires_at,
            refresh: refresh::derive(&ring, secret, session.id, session.generation, session.rotated_at),
            live,
        })
    }

    /// Opens a session's secret.
    pub(super) fn open_secret(&self, session: &Session) -> Result<SessionSecret, ServiceError> {
        open_session_secret(&self.kek, session.id, &session.secret_sealed)
    }

    /// Ends one session, with its audit row. Whether it was this call that ended it.
    pub(super) async fn end_session(
        &self,
        tx: &mut Tx,
        session: &Session,
        ending: Ending,
        kind: Kind,
        from: &Circumstances,
    ) -> Result<bool, ServiceError> {
        if !sessions::end_session(tx, session.id, &ending).await? {
            return Ok(false);
        }
        let event = self.ended_event(kind, from, session.user_id, session.id, session.device_id, &ending);
        audit::append_events(tx, &[event]).await?;
        Ok(true)
    }

    /// Ends all sessions of a person but one. How many ended.
    pub(super) async fn end_sessions_of(
        &self,
        tx: &mut Tx,
        user: UserId,
        except: Option<SessionId>,
        reason: EndReason,
        from: &Circumstances,
    ) -> Result<u32, ServiceError> {
        let ending = Ending {
            at: self.now(),
            reason,
            rule: None,
            limit: None,
        };
        let ended = sessions::end_sessions_of_user(tx, user, except, &ending).await?;
        let events: Vec<Event> = ended
            .iter()
            .map(|(id, device)| self.ended_event(Kind::SessionRevoked, from, user, *id, *device, &ending))
            .collect();
        audit::append_events(tx, &events).await?;
        Ok(u32::try_from(events.len()).unwrap_or(u32::MAX))
    }

    pub(super) fn ended_event(
        &self,
        kind: Kind,
        from: &Circumstances,
        user: UserId,
        session: SessionId,
        device: Option<DeviceId>,
        ending: &Ending,
    ) -> Event {
        let mut event = self
            .event(kind, from)
            .subject(user)
            .session(session)
            .device(device)
            .reason(ending.reason.as_str());
        // Limits end sessions by themselves: nobody did it, though somebody's request brought it to light.
        if matches!(ending.reason, EndReason::Idle | EndReason::Expired) {
            event.actor_id = None;
        }
        if let Some(by) = from.session_id.filter(|by| *by != session) {
            event = event.fact("by_session", by.to_string());
        }
        if let Some(rule) = &ending.rule {
            event = event.fact("rule", rule_text(rule));
        }
        if let Some(limit) = ending.limit {
            event = event.fact("limit_s", limit.as_secs());
        }
        event
    }

    /// Writes down the end of sessions whose limits have passed without anybody looking, for the list of ended
    /// ones and the audit log. How many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sweep_expired(&self) -> Result<usize, ServiceError> {
        // So that nobody waits for long, and other housekeeping has its turn: what is left is the next sweep's.
        const AT_ONCE: u32 = 500;
        const ROUNDS: usize = 20;
        let mut ended = 0;
        for _ in 0..ROUNDS {
            // Whoever looks at one that reached its absolute limit ends it sooner.
            let now = self.limits_now().idle_now;
            let due = sessions::list_due_sessions(&mut self.store.read().await?, now, AT_ONCE).await?;
            let are_all = due.len() < AT_ONCE as usize;
            let (mut overdue, used): (Vec<_>, Vec<_>) = due
                .into_iter()
                .partition(|session| now >= session.absolute_expires_at.min(session.idle_expires_at()));
            if !used.is_empty() {
                let used: Vec<SessionId> = used.iter().map(|session| session.id).collect();
                let mut tx = self.store.write().await?;
                sessions::put_off_looking(&mut tx, &used).await?;
                tx.commit().await?;
            }
            if !overdue.is_empty() {
                // In the order in which other nodes, and those who end many, take hold of them.
                overdue.sort_unstable_by_key(|session| session.id);
                ended += self.write_down_expiries(&overdue, now).await?;
            }
            if are_all {
                break;
            }
        }
        Ok(ended)
    }

    async fn write_down_expiries(&self, overdue: &[Session], now: Timestamp) -> Result<usize, ServiceError> {
        let mut tx = self.store.write().await?;
        let mut events = Vec::new();
        for session in overdue {
            let (reason, rule, limit) = if now >= session.absolute_expires_at {
                let limit = session.absolute_expires_at.since(session.started_at);
                (EndReason::Expired, session.absolute_rule.clone(), limit)
            } else {
                (EndReason::Idle, session.idle_rule.clone(), session.idle)
            };
            let ending = Ending {
                at: self.now(),
                reason,
                rule: Some(rule),
                limit: Some(limit),
            };
            if sessions::end_overdue_session(&mut tx, session.id, &ending, now).await? {
                let system = Circumstances::default();
                let (user, device) = (session.user_id, session.device_id);
                events.push(self.ended_event(Kind::SessionExpired, &system, user, session.id, device, &ending));
            }
        }
        audit::append_events(&mut tx, &events).await?;
        tx.commit().await?;
        Ok(events.len())
    }
}

/// Opens the sealed secret of that session.
pub(super) fn open_session_secret(
    kek: &KeyEncryptionKey,
    id: SessionId,
    sealed: &[u8],
) -> Result<SessionSecret, ServiceError> {
    let bytes = kek.open("session", id.0.as_bytes(), sealed)?;
    SessionSecret::from_slice(&bytes).ok_or(ServiceError::Contradiction("session secret is not 32 bytes"))
}

/// `exp` of an access token signed now: the policy's lifetime, never beyond the session's absolute end.
#[must_use]
pub fn access_end(session: &session::Session, now: Timestamp) -> Timestamp {
    now.plus(session.access).min(session.absolute_expires_at)
}

/// The claim `client_id` of the session's access tokens.
pub(super) fn client_id(session: &Session) -> String {
    format!("mayfly-{}", session.client.as_str())
}

/// "finance, policy 7", as the log names a rule.
#[must_use]
pub fn rule_text(rule: &crate::domain::policy::Rule) -> String {
    format!("{}, policy {}", rule.role, rule.version)
}

/// Whether the last factor is recent enough for a sensitive act. One that is still to come was shown while the clock was
/// ahead, who knows when.
#[must_use]
pub fn is_recent(session: &Session, step_up: Duration, now: Timestamp) -> bool {
    now.since(session.authenticated_at) < step_up && session.authenticated_at.since(now) <= APART
}
