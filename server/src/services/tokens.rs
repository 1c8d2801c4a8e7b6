//! Using tokens: the check of an access token on every request ([`access`]), and the refresh (TOKENS.md §3).

mod access;
mod noted;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use super::dbsc::{OtherBrowser, Sender};
use super::dpop::{Holder, Unproven};
use super::forgetting::SESSIONS_KEPT;
use super::sessions::{Issued, Live, access_end};
use super::{Backend, ServiceError};
use crate::domain::audit::{Circumstances, Event, Kind, Outcome};
use crate::domain::id::{SessionId, UserId};
use crate::domain::jwt::Moment;
use crate::domain::keys::KeyRing;
use crate::domain::notice::{ELSEWHERE_IN_A_ROW, FORGED_REFRESH, MANY_IN_A_ROW};
use crate::domain::policy::{Limits, strictest};
use crate::domain::refresh::{self, Decision, MAX_REISSUES, Presented, SessionSecret, When};
use crate::domain::session::{Client, EndReason, Ending, Session};
use crate::domain::user::User;
use crate::storage::audit::EventFilter;
use crate::storage::sessions::Rotation;
use crate::storage::{Tx, audit, devices, sessions, users};
pub(super) use access::is_new_activity;
pub use access::{AccessOutcome, Beside};
pub(super) use noted::Noted;

/// A refresh gets its answer within this, whatever it has to wait for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What came of a refresh token; the names are those of TOKENS.md §3.
#[derive(Debug)]
#[expect(missing_docs, reason = "documented in TOKENS.md §3 and `domain::refresh::Decision`")]
pub enum RefreshOutcome {
    Malformed,
    Forged,
    /// Bound to a key that was not shown: nothing was changed, and nobody is suspected.
    Unproven(Unproven),
    /// A browser's, sent by another one: nothing was changed, and nobody is suspected.
    OtherBrowser(OtherBrowser),
    Over(Ending),
    Rotated(Box<Issued>),
    Reissued(Box<Issued>),
    Fresh(Box<Live>),
    Superseded(Box<Live>),
    Reused(Ending),
    Ahead(Ending),
}

impl RefreshOutcome {
    /// All names.
    pub const NAMES: [&'static str; 10] = [
        "malformed",
        "forged",
        "unproven",
        "over",
        "rotated",
        "reissued",
        "fresh",
        "superseded",
        "reused",
        "ahead",
    ];

    /// The name in the header `mayfly-refresh` and in the metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Forged => "forged",
            Self::Unproven(_) | Self::OtherBrowser(_) => "unproven",
            Self::Over(_) => "over",
            Self::Rotated(_) => "rotated",
            Self::Reissued(_) => "reissued",
            Self::Fresh(_) => "fresh",
            Self::Superseded(_) => "superseded",
            Self::Reused(_) => "reused",
            Self::Ahead(_) => "ahead",
        }
    }
}

/// What a refresh looks at, once its secret is open.
struct Read {
    session: Session,
    user: User,
    limits: Option<Limits>,
    secret: SessionSecret,
}

impl Backend {
    /// Writes down an end that was only found now; audits the use of a session that had ended before. `tx`: see
    /// [`Self::write_down_refusal`]. `false`: nothing is written, as somebody has used or ended the session meanwhile;
    /// read again and decide again.
    async fn write_down_end(
        &self,
        tx: Option<Tx>,
        session: &Session,
        ending: &Ending,
        from: &Circumstances,
    ) -> Result<bool, ServiceError> {
        if session.ending.is_some() {
            let event = self
                .event(Kind::SessionUsedAfterEnd, from)
                .outcome(Outcome::Denied)
                .subject(session.user_id)
                .session(session.id)
                .device(session.device_id)
                .reason(ending.reason.as_str());
            self.write_down_refusal(tx, event).await?;
            return Ok(true);
        }
        let mut tx = self.writing(tx).await?;
        if !sessions::end_unused_session(&mut tx, session.id, ending, session.last_active_at).await? {
            return Ok(false);
        }
        let kind = match ending.reason {
            EndReason::Idle | EndReason::Expired => Kind::SessionExpired,
            _ => Kind::SessionRevoked,
        };
        let event = self.ended_event(kind, from, session.user_id, session.id, session.device_id, ending);
        audit::append_events(&mut tx, &[event]).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Audits what was refused, unless the same was within the last minute: a dead token can be shown for ever, and whoever
    /// holds one must neither fill the log nor keep the writer busy (F71). `tx`: that it was read in. On
    /// SQLite a reader may see an ending whose commit is still to come, and nobody is told of one that is not: what was
    /// noted before was committed.
    async fn write_down_refusal(&self, tx: Option<Tx>, event: Event) -> Result<(), ServiceError> {
        let elapsed = self.clock.elapsed();
        // What only a holder of our keys can make is counted, for the alert.
        let is_forged = event
            .reason
            .as_deref()
            .is_some_and(|reason| FORGED_REFRESH.contains(&reason));
        if !is_forged && self.noted.knows(&event, elapsed) {
            return Ok(());
        }
        let mut tx = self.writing(tx).await?;
        audit::append_events(&mut tx, std::slice::from_ref(&event)).await?;
        tx.commit().await?;
        self.noted.note(&event, elapsed);
        Ok(())
    }

    /// Exchanges a refresh token.
    ///
    /// `client`: the kind of client that presents it; a token of the other kind is not its grant, and nothing of it
    /// is used up (R3). `slides`: the refresh itself is the person's activity (a native program, or a page being
    /// opened).
    ///
    /// # Errors
    /// Infrastructure only; nothing was changed then, and the client may simply try again.
    pub async fn refresh(
        &self,
        token: &str,
        client: Client,
        slides: bool,
        from: &Circumstances,
    ) -> Result<RefreshOutcome, ServiceError> {
        let holder = Holder {
            client,
            key: None,
            bound_cookie: None,
        };
        self.refresh_as(token, holder, slides, from).await
    }

    /// The same for a browser with its bound cookie, if it has one.
    ///
    /// # Errors
    /// Infrastructure only; nothing was changed then.
    pub async fn refresh_in_browser(
        &self,
        token: &str,
        bound_cookie: Option<&str>,
        slides: bool,
        from: &Circumstances,
    ) -> Result<RefreshOutcome, ServiceError> {
        let holder = Holder {
            client: Client::Browser,
            key: None,
            bound_cookie,
        };
        self.refresh_as(token, holder, slides, from).await
    }

    /// The same for a program that may have proved to hold a key.
    pub(super) async fn refresh_as(
        &self,
        token: &str,
        holder: Holder<'_>,
        slides: bool,
        from: &Circumstances,
    ) -> Result<RefreshOutcome, ServiceError> {
        // The wait for another refresh of the session counts, too.
        let refreshed = pin!(tokio::time::timeout(
            PATIENCE,
            self.refresh_in_turn(token, holder, slides, from)
        ));
        let (outcome, took) = self.timed(refreshed).await;
        let outcome = outcome.unwrap_or(Err(ServiceError::Busy));
        self.metrics.refreshed(&outcome, took);
        outcome
    }

    /// The keys to read a refresh token with. A node that was away may not know of a key yet. Anybody can name such a key, so
    /// it costs a look at most once a second; while the database is away nobody can tell, and everything else that is no
    /// token costs none.
    pub(super) async fn keys_for_refresh(&self, token: &str) -> Result<Arc<KeyRing>, ServiceError> {
        if refresh::is_of_unknown_key(&self.keys(), token) {
            return self.current_keys().await;
        }
        Ok(self.keys())
    }

    async fn refresh_in_turn(
        &self,
        token: &str,
        holder: Holder<'_>,
        slides: bool,
        from: &Circumstances,
    ) -> Result<RefreshOutcome, ServiceError> {
        let Some(presented) = refresh::parse(&*self.keys_for_refresh(token).await?, token) else {
            return Ok(RefreshOutcome::Malformed);
        };
        let _turn = self.refreshes.lock(presented.session_id).await;
        // What is signed below is signed with keys of now.
        self.current_keys().await?;
        self.tell_of_a_step().await?;
        // First beside the writers, which one at a time are the narrow place; what is written repeats its conditions.
        let known = sessions::find_known(&self.store, presented.session_id).await?;
        let first = self.try_refresh(None, known, &presented, holder, slides, from).await?;
        if let Some(outcome) = first {
            return Ok(outcome);
        }
        loop {
            // Something changed between reading and writing, or the decision is one that may rest on nothing old.
            let mut tx = self.store.write().await?;
            let known = sessions::find_known_with(&mut tx, presented.session_id).await?;
            let again = self
                .try_refresh(Some(tx), known, &presented, holder, slides, from)
                .await?;
            if let Some(outcome) = again {
                return Ok(outcome);
            }
        }
    }

    /// Decides and carries it out. `tx`: the transaction that `known` was read in, if it was read in one that writes.
    /// `None`: read again in such a one.
    async fn try_refresh(
        &self,
        mut tx: Option<Tx>,
        known: Option<sessions::Known>,
        presented: &Presented,
        holder: Holder<'_>,
        slides: bool,
        from: &Circumstances,
    ) -> Result<Option<RefreshOutcome>, ServiceError> {
        let refused = |reason| {
            self.event(Kind::RefreshRefused, from)
                .outcome(Outcome::Denied)
                .session(presented.session_id)
                .reason(reason)
        };
        let Some((session, user, policies)) = known else {
            // Its row is removed in the end; its id tells its age.
            let removed = self.now().minus(SESSIONS_KEPT);
            let (reason, outcome) = if presented.session_id.created_at().is_some_and(|at| at < removed) {
                let ending = Ending {
                    at: removed,
                    reason: EndReason::Expired,
                    rule: None,
                    limit: None,
                };
                ("removed_session", RefreshOutcome::Over(ending))
            } else {
                ("unknown_session", RefreshOutcome::Forged)
            };
            return self.refuse_refresh(tx, refused(reason), outcome).await;
        };
        let limits = strictest(&policies);
        let secret = self.open_secret(&session)?;
        let authentic = presented.is_authentic(&secret);
        if !authentic || session.client != holder.client {
            let reason = if authentic { "other_client" } else { "forged" };
            let event = refused(reason).subject(user.id);
            return self.refuse_refresh(tx, event, RefreshOutcome::Forged).await;
        }
        if let Err(unproven) = holder.proves(&session) {
            return Ok(Some(RefreshOutcome::Unproven(unproven)));
        }
        let mut decision = self.decide(&session, &user, limits.as_ref(), presented.generation);
        if let (Decision::Reuse, Some(tx)) = (&decision, &mut tx) {
            self.look_at_clocks(tx).await?;
            decision = self.decide(&session, &user, limits.as_ref(), presented.generation);
        }
        // An ending must not rest on what a commit under way may just be changing.
        if tx.is_none() && matches!(decision, Decision::Over(_) | Decision::Reuse | Decision::Ahead) {
            return Ok(None);
        }
        // Whose session is over is told so: it is not used.
        if !matches!(decision, Decision::Over(_))
            && let Err(other) = self.check_browser(&session, Sender::Holder(holder.bound_cookie))
        {
            return Ok(Some(RefreshOutcome::OtherBrowser(other)));
        }
        let read = Read {
            session,
            user,
            limits,
            secret,
        };
        self.carry_out(tx, decision, read, presented.generation, slides, from)
            .await
    }

    fn decide(&self, session: &Session, user: &User, limits: Option<&Limits>, presented: u64) -> Decision {
        let Moment { now, fastest } = self.moment();
        let when = When {
            now,
            idle_now: self.limits_now().idle_now,
            slowest: self.slowest_now(),
            slowest_of_all: self.slowest_now_of_all(),
            fastest,
        };
        match refresh::decide(session, user, limits, presented, when) {
            // Its access token is of a key that was revoked, and a program has nothing else.
            Decision::Fresh(tight)
                if session.client == Client::Native
                    && self.keys().may_have_lost_the_key_of(session.handed_out_at, now) =>
            {
                Decision::Rotate(tight)
            }
            decision => decision,
        }
    }

    /// A stranger's token has no good outer tag and never comes this far.
    async fn refuse_refresh(
        &self,
        tx: Option<Tx>,
        event: Event,
        outcome: RefreshOutcome,
    ) -> Result<Option<RefreshOutcome>, ServiceError> {
        self.write_down_refusal(tx, event).await?;
        Ok(Some(outcome))
    }

    async fn writing(&self, tx: Option<Tx>) -> Result<Tx, ServiceError> {
        match tx {
            Some(tx) => Ok(tx),
            None => Ok(self.store.write().await?),
        }
    }

    /// Carries out a decision. `None` if the row had changed meanwhile.
    #[expect(clippy::too_many_lines, reason = "one arm for each row of the table in TOKENS.md §3")]
    async fn carry_out(
        &self,
        tx: Option<Tx>,
        decision: Decision,
        read: Read,
        presented: u64,
        slides: bool,
        from: &Circumstances,
    ) -> Result<Option<RefreshOutcome>, ServiceError> {
        let now = self.now();
        let Read {
            mut session,
            user,
            limits,
            secret,
        } = read;
        let live = |session: Session, user: User| match limits.clone() {
            Some(limits) => Ok(Live { session, user, limits }),
            None => Err(ServiceError::Contradiction("a living session without limits")),
        };
        match decision {
            Decision::Over(ending) => {
                let is_over = self.write_down_end(tx, &session, &ending, from).await?;
                Ok(is_over.then_some(RefreshOutcome::Over(ending)))
            }
            Decision::Rotate(tight) => {
                session.tighten(&tight);
                let rotation = Rotation {
                    id: session.id,
                    from_generation: session.generation,
                    last_issued_at: session.handed_out_at,
                    now,
                    idle_now: self.limits_now().idle_now,
                    access_expires_at: access_end(&session, now),
                    auth_epoch: session.auth_epoch,
                    grant_epoch: user.grant_epoch,
                    counts_as_activity: slides,
                };
                let has_these_grants = session.grant_epoch == user.grant_epoch;
                session.generation += 1;
                session.rotated_at = now;
                session.handed_out_at = now;
                session.superseded_at = now;
                session.child_confirmed = false;
                session.reissues = 0;
                session.access_expires_at = rotation.access_expires_at;
                session.grant_epoch = user.grant_epoch;
                if slides {
                    session.last_active_at = now;
                }
                let event = self.token_event(Kind::TokenRotated, &session, user.id, from);
                let is_usual = tx.is_none() && !tight.changed && has_these_grants;
                // Cheap to keep, as grants seldom change.
                let owner = (!has_these_grants).then(|| user.clone());
                // Signed before the writer's turn, which is too narrow for it; handed out after the commit.
                let issued = self.issue(live(session, user)?, &secret)?;
                if is_usual {
                    let rotated = sessions::rotate_and_record(&self.store, rotation, event).await?;
                    return Ok(rotated.then(|| RefreshOutcome::Rotated(Box::new(issued))));
                }
                let mut tx = self.writing(tx).await?;
                // PostgreSQL does not look at the account's row again after waiting for the session's: another change under
                // way has its own say first.
                if let Some(owner) = owner
                    && !users::lock_user(&mut tx, &owner).await?
                {
                    return Ok(None);
                }
                if tight.changed {
                    sessions::tighten_session(&mut tx, rotation.id, &tight).await?;
                }
                if !sessions::rotate_session(&mut tx, &rotation).await? {
                    return Ok(None);
                }
                audit::append_events(&mut tx, &[event]).await?;
                tx.commit().await?;
                Ok(Some(RefreshOutcome::Rotated(Box::new(issued))))
            }
            Decision::Reissue(_) => {
                let mut tx = self.writing(tx).await?;
                if !sessions::count_reissue(&mut tx, session.id, session.generation, MAX_REISSUES, now).await? {
                    return Ok(None);
                }
                let elsewhere = reissued_elsewhere_in_a_row(&mut tx, &session, from).await?;
                let event = self
                    .token_event(Kind::TokenReissued, &session, user.id, from)
                    .fact("expires_at", session.access_expires_at.as_millis())
                    .fact(ELSEWHERE_IN_A_ROW, elsewhere);
                let issued = self.issue(live(session, user)?, &secret)?;
                audit::append_events(&mut tx, &[event]).await?;
                tx.commit().await?;
                Ok(Some(RefreshOutcome::Reissued(Box::new(issued))))
            }
            Decision::Fresh(tight) => {
                let mut tx = self.writing(tx).await?;
                sessions::confirm_generation(&mut tx, session.id, session.generation, now).await?;
                tx.commit().await?;
                session.tighten(&tight);
                Ok(Some(RefreshOutcome::Fresh(Box::new(live(session, user)?))))
            }
            Decision::Superseded(tight) => {
                session.tighten(&tight);
                Ok(Some(RefreshOutcome::Superseded(Box::new(live(session, user)?))))
            }
            Decision::Reuse | Decision::Ahead => {
                let (reason, kind) = if decision == Decision::Reuse {
                    (EndReason::TokenReused, Kind::TokenReused)
                } else {
                    (EndReason::DatabaseRolledBack, Kind::DatabaseRolledBack)
                };
                let ending = Ending {
                    at: now,
                    reason,
                    rule: None,
                    limit: None,
                };
                let mut tx = self.writing(tx).await?;
                if !sessions::end_session(&mut tx, session.id, &ending).await? {
                    return Ok(None);
                }
                if let Some(device) = session.device_id {
                    devices::drop_trust(&mut tx, device).await?;
                }
                // Both sides' circumstances: this request's are the event's own, and whoever has the newer token either signed in
                // or refreshed last.
                let last = list_last(&mut tx, session.id, Kind::TokenRotated, 1).await?.pop();
                let (last_address, last_agent) = last.map_or((None, None), |last| (last.address, last.user_agent));
                let event = self
                    .token_event(kind, &session, user.id, from)
                    .outcome(Outcome::Denied)
                    .reason(reason.as_str())
                    .fact("presented_generation", presented)
                    .fact("signed_in_address", session.address.clone())
                    .fact("signed_in_user_agent", session.user_agent.clone())
                    .fact("last_refresh_address", last_address)
                    .fact("last_refresh_user_agent", last_agent)
                    .fact("last_issue", session.handed_out_at.as_millis());
                audit::append_events(&mut tx, &[event]).await?;
                tx.commit().await?;
                tracing::error!(session = %session.id, reason = reason.as_str(), "a session was ended on suspicion");
                Ok(Some(if kind == Kind::TokenReused {
                    RefreshOutcome::Reused(ending)
                } else {
                    RefreshOutcome::Ahead(ending)
                }))
            }
        }
    }

    fn token_event(&self, kind: Kind, session: &Session, user: UserId, from: &Circumstances) -> Event {
        self.event(kind, from)
            .by_subject(user)
            .session(session.id)
            .device(session.device_id)
            .fact("generation", session.generation)
    }

    /// Records one event on its own, where nothing else is written.
    ///
    /// # Errors
    /// When the database fails or does not answer in time: then whether it was recorded is unknown.
    pub async fn record(&self, event: Event) -> Result<(), ServiceError> {
        Ok(audit::append_alone(&self.store, event).await?)
    }
}

/// The last events of a kind that a session has, the newest first.
async fn list_last(tx: &mut Tx, session: SessionId, kind: Kind, at_most: u32) -> Result<Vec<Event>, ServiceError> {
    let filter = EventFilter {
        session: Some(session),
        kind: Some(kind),
        ..EventFilter::default()
    };
    Ok(audit::list_events(tx, &filter, None, at_most).await?)
}

/// For how many generations in a row, this one the last, tokens were handed out again elsewhere than where they were for: at
/// another address, or to another program. 0 if these are not. A lost answer does that now and then; whoever rides along
/// on a copy does it each time.
async fn reissued_elsewhere_in_a_row(
    tx: &mut Tx,
    session: &Session,
    from: &Circumstances,
) -> Result<u64, ServiceError> {
    let rotated = list_last(tx, session.id, Kind::TokenRotated, 1).await?.pop();
    let is_elsewhere = rotated.is_some_and(|rotated| {
        rotated.address.as_deref() != from.address.as_deref()
            || rotated.user_agent.as_deref() != from.user_agent.as_deref()
    });
    if !is_elsewhere {
        return Ok(0);
    }
    let at_most = MAX_REISSUES * MANY_IN_A_ROW;
    let before = list_last(tx, session.id, Kind::TokenReissued, at_most).await?;
    let was_elsewhere = |generation: u64| {
        let number = |event: &Event, name| event.facts.get(name).and_then(serde_json::Value::as_u64);
        let mut of_it = before
            .iter()
            .filter(|event| number(event, "generation") == Some(generation));
        of_it.any(|event| number(event, ELSEWHERE_IN_A_ROW) > Some(0))
    };
    let earlier =
        (1..u64::from(MANY_IN_A_ROW)).take_while(|back| was_elsewhere(session.generation.saturating_sub(*back)));
    Ok(1 + earlier.count() as u64)
}
