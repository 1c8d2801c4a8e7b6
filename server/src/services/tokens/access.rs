//! The check of an access token on every request (TOKENS.md §4): the signature and claims, the session's state, and whether
//! its rightful holder sends it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::domain::audit::{Circumstances, Kind, Outcome};
use crate::domain::clock::Timestamp;
use crate::domain::dpop::Proof;
use crate::domain::jwt::{AccessClaims, Claim, Refusal};
use crate::domain::notice::FORGED_ACCESS;
use crate::domain::policy::{Limits, strictest};
use crate::domain::session::{Ending, Session, Standing, Tightened};
use crate::domain::user::User;
use crate::services::dbsc::{OtherBrowser, Sender};
use crate::services::dpop::Unproven;
use crate::services::sessions::{Live, client_id};
use crate::services::{Backend, ServiceError};
use crate::storage::{StorageError, sessions};

/// The answer to a request waits no longer for its use to be written down; it has writing of its own to wait for.
const PATIENCE_TO_NOTE: Duration = Duration::from_millis(500);

/// What came of an access token.
#[derive(Debug)]
pub enum AccessOutcome {
    /// It is good, and its session lives.
    Valid(Arc<Live>),
    /// It is not a token of ours, or not for now.
    Refused(Refusal),
    /// Well signed, but its session is unknown or another person's, or it names a generation that never was.
    Forged,
    /// A good signature, but of a generation or grant that is no longer accepted: refresh.
    Stale,
    /// It is bound to a key and came without a good proof of it, or is not and came with one.
    Unproven(Unproven),
    /// It is a browser's, and another one sent it.
    OtherBrowser(OtherBrowser),
    /// Its session is over.
    Over(Ending),
}

impl AccessOutcome {
    /// The name in the metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Valid(_) => "valid",
            Self::Refused(_) => "refused",
            Self::Forged => "forged",
            Self::Stale => "stale",
            Self::Unproven(_) | Self::OtherBrowser(_) => "unproven",
            Self::Over(_) => "over",
        }
    }
}

/// What came beside an access token to show that its rightful holder sends it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beside<'a> {
    /// A program's proof of possession, not used up yet.
    pub proof: Option<&'a Proof>,
    /// A browser's bound cookie.
    pub bound_cookie: Option<&'a str>,
}

impl Backend {
    /// Checks an access token that came alone completely, the session's state included (TOKENS.md §4, steps 1 to 6).
    ///
    /// `is_activity`: the request is the person's own doing, not background traffic (M20).
    ///
    /// # Errors
    /// When the state cannot be had: then nobody may accept the token.
    pub async fn authenticate(
        &self,
        token: &str,
        is_activity: bool,
        from: &Circumstances,
    ) -> Result<AccessOutcome, ServiceError> {
        self.authenticate_with(token, Beside::default(), is_activity, from)
            .await
    }

    /// The same with what came beside the token: one that is bound to a key has to come with a proof of that key (RFC 9449,
    /// section 7.1), one of a bound browser with its cookie.
    ///
    /// # Errors
    /// When the state cannot be had: then nobody may accept the token.
    pub async fn authenticate_with(
        &self,
        token: &str,
        beside: Beside<'_>,
        is_activity: bool,
        from: &Circumstances,
    ) -> Result<AccessOutcome, ServiceError> {
        let outcome = match self.checked_before(token, is_activity) {
            Some(live) => self.check_sender(live, beside).await,
            // In a place of its own: what it needs would lie in the future of every request that never comes here.
            None => Box::pin(self.check_completely(token, beside, is_activity, from)).await,
        };
        self.metrics.checked(&outcome);
        outcome
    }

    /// The memory knows the token, and nothing of who sends it this time.
    async fn check_sender(&self, live: Arc<Live>, beside: Beside<'_>) -> Result<AccessOutcome, ServiceError> {
        if let Err(other) = self.check_browser(&live.session, Sender::Holder(beside.bound_cookie)) {
            return Ok(AccessOutcome::OtherBrowser(other));
        }
        if let Err(refusal) = self.check_possession(live.session.jkt, beside.proof).await? {
            let of = Some((live.user.id, live.session.id));
            return Ok(AccessOutcome::Unproven(Unproven { refusal, of }));
        }
        Ok(AccessOutcome::Valid(live))
    }

    async fn check_completely(
        &self,
        token: &str,
        beside: Beside<'_>,
        is_activity: bool,
        from: &Circumstances,
    ) -> Result<AccessOutcome, ServiceError> {
        let began = self.begin_check();
        let moment = self.moment();
        let claims = match self
            .verify(|keys| self.verifier.verify_access(keys, token, moment))
            .await?
        {
            Ok(claims) => claims,
            Err(refusal) => {
                if refusal == Refusal::ClaimMistyped(Claim::Sub) {
                    self.record_service_at_persons_door(token, from).await?;
                }
                return Ok(AccessOutcome::Refused(refusal));
            }
        };
        // Before anything is written down on the strength of the token.
        if let Err(refusal) = self
            .check_possession(claims.cnf.map(|cnf| cnf.jkt), beside.proof)
            .await?
        {
            let of = Some((claims.sub, claims.sid));
            return Ok(AccessOutcome::Unproven(Unproven { refusal, of }));
        }
        let sender = Sender::Holder(beside.bound_cookie);
        let outcome = self.authenticate_claims(&claims, sender, is_activity, from).await?;
        if let AccessOutcome::Valid(live) = &outcome {
            self.remember_check(token, claims, live, began);
        }
        Ok(outcome)
    }

    /// Step 6: what the session's state says about verified claims.
    pub(in crate::services) async fn authenticate_claims(
        &self,
        claims: &AccessClaims,
        sender: Sender<'_>,
        is_activity: bool,
        from: &Circumstances,
    ) -> Result<AccessOutcome, ServiceError> {
        let now = self.now();
        let found = sessions::find_known(&self.store, claims.sid).await?;
        let (session, user, policies) = match found {
            Some(found) if found.0.user_id != claims.sub => return self.forged(claims, "other_person", from).await,
            Some(found) if client_id(&found.0) != claims.client_id => {
                return self.forged(claims, "other_client", from).await;
            }
            Some(found) if found.0.jkt != claims.cnf.map(|cnf| cnf.jkt) => {
                return self.forged(claims, "other_key", from).await;
            }
            Some(found) if claims.rg > found.0.generation => {
                return self.forged(claims, "generation_ahead", from).await;
            }
            Some(found) => found,
            None => return self.forged(claims, "unknown_session", from).await,
        };
        let limits = strictest(&policies);
        let tight = match session.standing(&user, limits.as_ref(), self.limits_now()) {
            Standing::Over(ending) => {
                if self.write_down_end(None, &session, &ending, from).await? {
                    return Ok(AccessOutcome::Over(ending));
                }
                return Box::pin(self.authenticate_claims(claims, sender, is_activity, from)).await;
            }
            Standing::Alive(tight) => tight,
        };
        if claims.rg < session.min_generation
            || user.grant_epoch != session.grant_epoch
            || !self.is_within_access(claims, tight.access, now)
            || self.is_token_revoked(claims.jti).await?
        {
            return Ok(AccessOutcome::Stale);
        }
        if let Err(other) = self.check_browser(&session, sender) {
            return Ok(AccessOutcome::OtherBrowser(other));
        }
        let confirms = claims.rg == session.generation && !session.child_confirmed;
        let limits = limits.ok_or(ServiceError::Contradiction("a living session without limits"))?;
        let live = self
            .note_use(session, user, limits, &tight, is_activity, confirms)
            .await?;
        Ok(AccessOutcome::Valid(Arc::new(live)))
    }

    /// Whether the token is still good by the lifetime of access tokens in force, which may have become shorter than the one
    /// it was issued with (TOKENS.md §6).
    pub(in crate::services) fn is_within_access(
        &self,
        claims: &AccessClaims,
        access: Duration,
        now: Timestamp,
    ) -> bool {
        now < Timestamp::from_seconds(claims.iat).plus(access + self.verifier.tolerance)
    }

    /// Signed with our key, yet not what we ever signed: somebody has the key, or the database is an old one.
    async fn forged(
        &self,
        claims: &AccessClaims,
        reason: &'static str,
        from: &Circumstances,
    ) -> Result<AccessOutcome, ServiceError> {
        debug_assert!(FORGED_ACCESS.contains(&reason), "an alert");
        let event = self
            .event(Kind::AccessTokenRefused, from)
            .outcome(Outcome::Denied)
            .subject(claims.sub)
            .session(claims.sid)
            .reason(reason)
            .fact("client_id", claims.client_id.as_str());
        self.record(event).await?;
        tracing::error!(session = %claims.sid, reason, "an access token with a good signature was forged");
        Ok(AccessOutcome::Forged)
    }

    /// Writes what a use of a living session changes: tighter limits, confirmation, activity. At most one write a
    /// second for activity alone.
    async fn note_use(
        &self,
        mut session: Session,
        user: User,
        limits: Limits,
        tight: &Tightened,
        is_activity: bool,
        confirms: bool,
    ) -> Result<Live, ServiceError> {
        let now = self.now();
        let touches = is_activity && is_new_activity(&session, now);
        if confirms || touches || tight.changed {
            let written = self.write_use(&session, tight, touches, confirms);
            let written = timeout(PATIENCE_TO_NOTE, written).await;
            match written.unwrap_or(Err(StorageError::Abandoned)) {
                Ok(()) => {
                    session.child_confirmed |= confirms;
                    if touches {
                        session.last_active_at = now;
                    }
                }
                // The check itself has read all it needs. What is not written down now is with the next use; without
                // it the limits still hold, idle time only seems longer, and a lost answer is forgiven once more.
                Err(error) if error.is_unavailable() => {
                    tracing::warn!(%error, session = %session.id, "a use was not written down");
                }
                Err(error) => return Err(error.into()),
            }
        }
        session.tighten(tight);
        Ok(Live { session, user, limits })
    }

    async fn write_use(
        &self,
        session: &Session,
        tight: &Tightened,
        touches: bool,
        confirms: bool,
    ) -> Result<(), StorageError> {
        if confirms {
            self.tell_of_a_step().await?;
        }
        let now = self.now();
        let mut tx = self.store.write().await?;
        if tight.changed {
            sessions::tighten_session(&mut tx, session.id, tight).await?;
        }
        if confirms {
            sessions::confirm_generation(&mut tx, session.id, session.generation, now).await?;
        }
        if touches {
            sessions::touch_session(&mut tx, session.id, self.limits_now()).await?;
        }
        tx.commit().await
    }
}

/// Activity is written down once a second.
pub(in crate::services) fn is_new_activity(session: &Session, now: Timestamp) -> bool {
    now.since(session.last_active_at).as_millis() >= 1000
}
