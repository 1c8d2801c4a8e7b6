//! Device bound session credentials: a browser's session is bound to a key of that browser right after sign-in. Once the
//! browser has signed with it, the session is used with a bound cookie, which it signs for every few minutes, or not at all.
//!
//! Rotation knows nothing of it (TOKENS.md §3 holds as it stands): a bound cookie is asked for before a decision is carried
//! out, and signing for a new one changes nothing of the session.
//!
//! Must not know how proofs arrive, nor what a browser is told.

use super::{Backend, ServiceError, sha256};
use crate::domain::audit::{Circumstances, Kind, Outcome};
use crate::domain::clock::APART;
use crate::domain::dbsc::{BoundCookie, Refusal};
use crate::domain::id::{SessionId, UserId};
use crate::domain::policy::strictest;
use crate::domain::refresh;
use crate::domain::session::{Client, Session, Standing};
use crate::storage::{self, audit, sessions};

/// Somebody who is not the browser that a session is bound to; to be written down with [`Backend::record_other_browser`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherBrowser {
    /// Why.
    pub refusal: Refusal,
    /// Whose session.
    pub user_id: UserId,
    /// Which.
    pub session_id: SessionId,
}

impl OtherBrowser {
    const fn of(session: &Session, refusal: Refusal) -> Self {
        Self {
            refusal,
            user_id: session.user_id,
            session_id: session.id,
        }
    }
}

/// Who sends a token.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sender<'a> {
    /// Its holder, with this bound cookie.
    Holder(Option<&'a str>),
    /// A service that was given it and asks about it.
    Service,
}

/// Why a browser gets no cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRenewed {
    /// It may sign another challenge: this one is over, or used already by a request whose answer was lost.
    Again,
    /// It has no such proof, or no session lives that is bound to any browser.
    Unbound,
    /// It is not the session's browser.
    Other(OtherBrowser),
}

impl Backend {
    /// What a browser has to sign to have its new session bound; none if this session is not to be.
    #[must_use]
    pub fn offer_binding(&self, session: &Session) -> Option<String> {
        let is_new = session.generation == 0 && session.browser_key.is_none();
        let offers = self.binds_browsers && session.client == Client::Browser && is_new;
        offers.then(|| self.seals.registration_challenge(session.id, self.now()))
    }

    /// Which session a refresh token of ours is of, whatever became of either.
    #[must_use]
    pub fn session_of(&self, token: &str) -> Option<SessionId> {
        refresh::parse(&self.keys(), token).map(|presented| presented.session_id)
    }

    /// Whether the session is used by its own browser, as far as it has to be.
    ///
    /// # Errors
    /// [`OtherBrowser`].
    pub(super) fn check_browser(&self, session: &Session, sender: Sender<'_>) -> Result<(), OtherBrowser> {
        let (Sender::Holder(cookie), true) = (sender, self.binds_browsers) else {
            return Ok(());
        };
        let checked = match self.seals.check(session, cookie, self.now()) {
            // The browser goes by no clock, and still has its cookie.
            Err(Refusal::CookieExpired) => self.seals.check(session, cookie, self.slowest_now()),
            checked => checked,
        };
        checked.map_err(|refusal| OtherBrowser::of(session, refusal))
    }

    /// Binds the session that a refresh token belongs to. `proof`: what the browser signed with its new key.
    ///
    /// # Errors
    /// Infrastructure; nothing was changed then. [`Refusal`] inside: the session goes on as it is.
    pub async fn bind_browser(
        &self,
        token: &str,
        proof: &str,
        from: &Circumstances,
    ) -> Result<Result<BoundCookie, Refusal>, ServiceError> {
        let presented = refresh::parse(&self.keys(), token).filter(|_| self.binds_browsers);
        let Some(presented) = presented else {
            return Ok(Err(Refusal::Session));
        };
        let id = presented.session_id;
        let registered = match self.seals.verify_registration(proof, id, self.now()) {
            Ok(registered) => registered,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut tx = self.store.write().await?;
        let Some(session) = sessions::find_session(&mut tx, id).await? else {
            return Ok(Err(Refusal::Session));
        };
        if !presented.is_authentic(&self.open_secret(&session)?) {
            return Ok(Err(Refusal::Session));
        }
        if session.is_registered_with(&registered.point) {
            // Its first answer was lost.
            return Ok(Ok(self.seals.first_cookie(id, self.now())));
        }
        if session
            .browser_key
            .as_ref()
            .is_some_and(|key| key.point != registered.point)
        {
            // Somebody was quicker with another key: the browser, or who reads its traffic.
            drop(tx);
            let other = OtherBrowser::of(&session, Refusal::OtherKey);
            self.record_other_browser(&other, from).await?;
            return Ok(Err(other.refusal));
        }
        if !sessions::bind_browser(&mut tx, id, &registered.point).await? {
            return Ok(Err(Refusal::Session));
        }
        let event = self
            .event(Kind::SessionBound, from)
            .by_subject(session.user_id)
            .session(id)
            .device(session.device_id)
            .fact("bound_to_key", registered.thumbprint.to_string());
        audit::append_events(&mut tx, &[event]).await?;
        tx.commit().await?;
        Ok(Ok(self.seals.first_cookie(id, self.now())))
    }

    /// What a browser has to sign for its next cookie. Nothing is looked up: for a session that is not there nobody can.
    #[must_use]
    pub fn renewal_challenge(&self, session: SessionId) -> String {
        self.seals.renewal_challenge(session, self.now())
    }

    /// A new bound cookie for a browser that proves to hold the session's key, also while none is asked for. Neither is this
    /// the person's activity, nor does it change what the session's tokens are good for.
    ///
    /// # Errors
    /// Infrastructure; then the challenge may be used up.
    pub async fn renew_bound_cookie(
        &self,
        id: SessionId,
        proof: &str,
    ) -> Result<Result<BoundCookie, NotRenewed>, ServiceError> {
        let now = self.now();
        match self.seals.check_challenge(proof, id, now) {
            Ok(()) => {}
            Err(Refusal::Challenge) => return Ok(Err(NotRenewed::Again)),
            Err(_) => return Ok(Err(NotRenewed::Unbound)),
        }
        let Some((session, user, policies)) = sessions::find_known(&self.store, id).await? else {
            return Ok(Err(NotRenewed::Unbound));
        };
        let is_alive = matches!(
            session.standing(&user, strictest(&policies).as_ref(), self.limits_now()),
            Standing::Alive(_)
        );
        let Some(key) = session.browser_key.as_ref().filter(|_| is_alive) else {
            return Ok(Err(NotRenewed::Unbound));
        };
        let signed = match self.seals.verify_renewal(proof, id, key, now) {
            Ok(signed) => signed,
            Err(refusal) => return Ok(Err(NotRenewed::Other(OtherBrowser::of(&session, refusal)))),
        };
        let mut tx = self.store.write().await?;
        let once = sha256(&[b"dbsc ".as_slice(), signed.challenge.as_bytes()].concat());
        // A node whose clock is behind would take it for so much longer.
        let until = signed.until.plus(APART);
        if !storage::dpop::consume_proof(&mut tx, &once, until).await? {
            return Ok(Err(NotRenewed::Again));
        }
        if key.proved_at.is_none() {
            sessions::note_browser_proof(&mut tx, id, now).await?;
        }
        tx.commit().await?;
        Ok(Ok(self.seals.next_cookie(id, now)))
    }

    /// Writes down that somebody is not the browser that a session is bound to. A cookie after its end is an alarm: a browser
    /// deletes it then, so this is a copy.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn record_other_browser(&self, other: &OtherBrowser, from: &Circumstances) -> Result<(), ServiceError> {
        let kind = if other.refusal == Refusal::CookieExpired {
            tracing::error!(session = %other.session_id, "a copy of a bound cookie was used after its end");
            Kind::BoundCookieCopied
        } else {
            Kind::ProofRefused
        };
        let event = self
            .event(kind, from)
            .outcome(Outcome::Denied)
            .subject(other.user_id)
            .session(other.session_id)
            .reason(other.refusal.as_str());
        self.record(event).await
    }
}
