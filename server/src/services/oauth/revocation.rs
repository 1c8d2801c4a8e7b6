//! Giving a token back (RFC 7009). Whoever holds one may: a service that finds a person's token where it should not
//! be does the right thing by sending it here.

use crate::domain::audit::{Circumstances, Kind};
use crate::domain::client::ServiceClient;
use crate::domain::clock::{APART, Timestamp};
use crate::domain::id::SessionId;
use crate::domain::jwt::{MAX_TOLERANCE, ServiceClaims};
use crate::domain::refresh;
use crate::domain::session::{EndReason, Ending, Session};
use crate::services::{Backend, ServiceError};
use crate::storage::{Tx, audit, revocations, sessions};

/// What came of a revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevokeOutcome {
    /// Its session is over now; of a service the token itself.
    Ended,
    /// No token of ours, or it was over before: nothing to do, and no error (RFC 7009, section 2.2).
    NothingToEnd,
}

impl Backend {
    /// Ends the session that the token belongs to: a refresh token of any generation, or a person's access token. A
    /// service's access token is revoked by itself.
    ///
    /// `by`: the client that hands it in, if it proved itself.
    ///
    /// # Errors
    /// Infrastructure: then the token may still be good, and the caller has to try again.
    pub async fn revoke_token(
        &self,
        token: &str,
        by: Option<&ServiceClient>,
        from: &Circumstances,
    ) -> Result<RevokeOutcome, ServiceError> {
        let moment = self.moment();
        // With the keys of the database: done is only said of a token that is looked at.
        if let Some(presented) = refresh::parse(&*self.current_keys().await?, token) {
            let (mut tx, found) = self.begin_revocation(presented.session_id).await?;
            let Some(session) = found else {
                return Ok(RevokeOutcome::NothingToEnd);
            };
            if !presented.is_authentic(&self.open_secret(&session)?) {
                return Ok(RevokeOutcome::NothingToEnd);
            }
            let ended = self
                .revoke_session(&mut tx, &session, "refresh_token", by, from)
                .await?;
            tx.commit().await?;
            return Ok(ended);
        }
        if let Ok(claims) = self
            .verify(|keys| self.verifier.verify_access(keys, token, moment))
            .await?
        {
            let (mut tx, found) = self.begin_revocation(claims.sid).await?;
            // A token of a generation that never was is a forged one.
            let own = found.filter(|session| session.user_id == claims.sub && claims.rg <= session.generation);
            let Some(session) = own else {
                return Ok(RevokeOutcome::NothingToEnd);
            };
            let ended = self.revoke_session(&mut tx, &session, "access_token", by, from).await?;
            tx.commit().await?;
            return Ok(ended);
        }
        match self
            .verify(|keys| self.verifier.verify_service(keys, token, moment))
            .await?
        {
            Ok(claims) => self.revoke_service_token(&claims, by, from).await,
            Err(_) => Ok(RevokeOutcome::NothingToEnd),
        }
    }

    async fn revoke_service_token(
        &self,
        claims: &ServiceClaims,
        by: Option<&ServiceClient>,
        from: &Circumstances,
    ) -> Result<RevokeOutcome, ServiceError> {
        let mut tx = self.store.write().await?;
        if revocations::is_token_revoked(&mut tx, claims.jti).await? {
            return Ok(RevokeOutcome::NothingToEnd);
        }
        // By the slowest node's clock, though the fastest one's clears away.
        let until = Timestamp::from_seconds(claims.exp).plus(MAX_TOLERANCE + APART);
        revocations::revoke_token(&mut tx, claims.jti, self.now(), until);
        let event = self
            .event(Kind::ServiceTokenRevoked, from)
            .fact("client_id", claims.client_id.as_str())
            .fact("by_client", by.map(|client| client.id.as_str()));
        audit::append_events(&mut tx, &[event]).await?;
        tx.commit().await?;
        Ok(RevokeOutcome::Ended)
    }

    async fn begin_revocation(&self, session: SessionId) -> Result<(Tx, Option<Session>), ServiceError> {
        let mut tx = self.store.write().await?;
        let found = sessions::find_session(&mut tx, session).await?;
        Ok((tx, found))
    }

    async fn revoke_session(
        &self,
        tx: &mut Tx,
        session: &Session,
        shown: &'static str,
        by: Option<&ServiceClient>,
        from: &Circumstances,
    ) -> Result<RevokeOutcome, ServiceError> {
        let ending = Ending {
            at: self.now(),
            reason: EndReason::SignedOut,
            rule: None,
            limit: None,
        };
        // One conditional UPDATE, as every rotation is: in either order of a race the session is over.
        if !sessions::end_session(tx, session.id, &ending).await? {
            return Ok(RevokeOutcome::NothingToEnd);
        }
        let mut event = self
            .ended_event(
                Kind::SignedOut,
                from,
                session.user_id,
                session.id,
                session.device_id,
                &ending,
            )
            .fact("shown", shown);
        match by {
            Some(client) => event = event.fact("by_client", client.id.as_str()),
            None => event.actor_id = Some(session.user_id),
        }
        audit::append_events(tx, &[event]).await?;
        Ok(RevokeOutcome::Ended)
    }
}
