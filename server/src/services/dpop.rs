//! Proof of possession (RFC 9449) as the services ask for it: what is bound to a key is used by its holder alone.
//!
//! A proof is used up only beside a token that our signature or outer tag vouches for, or at a sign-in, which is counted:
//! so strangers do not fill the table. That is one durable write for each request with a bound access token.
//!
//! Must not know how proofs arrive, nor in which words a refusal is answered.

use super::tokens::RefreshOutcome;
use super::{Backend, ServiceError};
use crate::domain::audit::{Circumstances, Kind, Outcome};
use crate::domain::clock::APART;
use crate::domain::dpop::{self, Expected, Proof, Refusal, Thumbprint, check_binding};
use crate::domain::id::{SessionId, UserId};
use crate::domain::refresh;
use crate::domain::session::{Client, Session};
use crate::storage;

/// Somebody who did not prove to hold a key; to be written down with [`Backend::record_unproven`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unproven {
    /// Why.
    pub refusal: Refusal,
    /// Whose good token it came with, and of which session.
    pub of: Option<(UserId, SessionId)>,
}

impl From<Refusal> for Unproven {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, of: None }
    }
}

/// Who presents a refresh token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder<'a> {
    pub(super) client: Client,
    /// The key it has proved to hold.
    pub(super) key: Option<Thumbprint>,
    /// A browser's.
    pub(super) bound_cookie: Option<&'a str>,
}

impl Holder<'_> {
    /// Whether this is the holder that the session is bound to. Of a session that is bound to no key it is anybody: a key
    /// that comes later proves nothing about who signed in, so tokens are bound when the session is made (section 5) and
    /// never afterwards; the answer's `token_type` says so.
    pub(super) fn proves(&self, session: &Session) -> Result<(), Unproven> {
        let shown = session.jkt.and(self.key);
        check_binding(session.jkt, shown).map_err(|refusal| Unproven {
            refusal,
            of: Some((session.user_id, session.id)),
        })
    }
}

impl Backend {
    /// Checks a proof but for its one use. `path`: of the request, below the issuer's address; `token`: the access token
    /// beside it.
    ///
    /// # Errors
    /// The first [`Refusal`] met.
    pub fn verify_dpop(&self, proof: &str, method: &str, path: &str, token: Option<&str>) -> Result<Proof, Refusal> {
        let expected = Expected {
            method,
            address: &format!("{}{path}", self.issuer),
            token,
            nonces: Some(&self.nonces),
            tolerance: self.verifier.tolerance,
        };
        dpop::verify(proof, &expected, self.now())
    }

    /// What the next proof has to carry.
    #[must_use]
    pub fn dpop_nonce(&self) -> String {
        self.nonces.current(self.now())
    }

    /// Uses up a proof, on all nodes.
    ///
    /// # Errors
    /// Infrastructure: then nobody may go by the proof. [`Refusal::Replayed`] inside if it was used before.
    pub async fn use_up_proof(&self, proof: &Proof) -> Result<Result<(), Refusal>, ServiceError> {
        let mut tx = self.store.write().await?;
        // By the slowest node's clock, though the fastest one's clears away.
        let until = proof.until.plus(APART);
        let new = storage::dpop::consume_proof(&mut tx, &proof.id, until).await?;
        tx.commit().await?;
        Ok(if new { Ok(()) } else { Err(Refusal::Replayed) })
    }

    /// Whether what is bound to a key, or to none, came with a proof of that key that is used for the first time, or with
    /// none.
    pub(super) async fn check_possession(
        &self,
        bound_to: Option<Thumbprint>,
        proof: Option<&Proof>,
    ) -> Result<Result<(), Refusal>, ServiceError> {
        match (check_binding(bound_to, proof.map(|proof| proof.key)), proof) {
            // In a place of its own, so that requests without a proof stay small.
            (Ok(()), Some(proof)) => Box::pin(self.use_up_proof(proof)).await,
            (checked, _) => Ok(checked),
        }
    }

    /// [`Backend::refresh`] for a program that proves to hold a key (section 5).
    ///
    /// # Errors
    /// Infrastructure only; nothing was changed then but that the proof may be used up.
    pub async fn refresh_proven(
        &self,
        token: &str,
        proof: &Proof,
        from: &Circumstances,
    ) -> Result<RefreshOutcome, ServiceError> {
        // What is no token of ours costs no write.
        if refresh::parse(&*self.keys_for_refresh(token).await?, token).is_none() {
            return Ok(self.refused_to_refresh(RefreshOutcome::Malformed));
        }
        if let Err(refusal) = self.use_up_proof(proof).await? {
            return Ok(self.refused_to_refresh(RefreshOutcome::Unproven(refusal.into())));
        }
        let holder = Holder {
            client: Client::Native,
            key: Some(proof.key),
            bound_cookie: None,
        };
        self.refresh_as(token, holder, true, from).await
    }

    /// Counts a refresh that nobody tried to carry out. That a nonce is missing or too old is how every client begins.
    #[must_use]
    pub fn refused_to_refresh(&self, outcome: RefreshOutcome) -> RefreshOutcome {
        if !matches!(&outcome, RefreshOutcome::Unproven(unproven) if unproven.refusal == Refusal::Nonce) {
            self.metrics.refused_to_refresh(&outcome);
        }
        outcome
    }

    /// Writes down that somebody did not prove to hold a key. Apart from the attempt, so that the edge can bound how many
    /// rows one network makes (F71).
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn record_unproven(&self, unproven: &Unproven, from: &Circumstances) -> Result<(), ServiceError> {
        let mut event = self
            .event(Kind::ProofRefused, from)
            .outcome(Outcome::Denied)
            .reason(unproven.refusal.as_str());
        if let Some((user, session)) = unproven.of {
            event = event.subject(user).session(session);
        }
        self.record(event).await
    }
}
