//! Sending the mails that wait: each is tried until the mail server has taken it, however long that is away, or given up
//! after days. Whoever signs in or refreshes never waits for it.
//!
//! A mail that was taken in the moment in which this process ended is sent once more, under the same `Message-ID`.

mod letter;
mod postbox;

use lettre::Address;

use super::notices::find_subject;
use super::{Backend, ServiceError};
use crate::config::Outlet;
use crate::domain::audit::{Circumstances, Event, Kind, Outcome};
use crate::domain::clock::Timestamp;
use crate::domain::id::MailId;
use crate::domain::mail::{Audience, CLAIM, Failure, KEPT, Mail, NotSent};
use crate::domain::outage::Outage;
use crate::storage::{Tx, audit, mail};

use letter::Letter;
use postbox::Postbox;

/// Most mails of one look.
const MOST_MAILS: u32 = 20;
/// Most mails given up in one transaction.
const MOST_OLD: u32 = 100;

/// How mail is doing.
#[derive(Debug)]
pub struct MailStatus {
    /// So many wait.
    pub waiting: u64,
    /// Since when the oldest does.
    pub oldest: Option<Timestamp>,
    /// None: the server is well, as far as anybody knows.
    pub outage: Option<Outage>,
}

impl Backend {
    /// Tries mails that it is time for, one after another, until one finds the mail server away or this process is to end.
    /// Whether there may be more to do at once.
    ///
    /// # Errors
    /// Infrastructure; nothing is lost, whatever was not written down is sent again.
    pub async fn send_mails(&self) -> Result<bool, ServiceError> {
        let Some(outlet) = &self.mail else { return Ok(false) };
        let mut tx = self.store.read().await?;
        let due = mail::list_due_mails(&mut tx, self.now(), MOST_MAILS).await?;
        let outage = mail::find_mail_outage(&mut tx).await?;
        drop(tx);
        if due.is_empty() || outage.is_some_and(|outage| outage.rests(self.now())) {
            return Ok(false);
        }
        let may_be_more = due.len() == MOST_MAILS as usize;
        let mut postbox = None;
        for mail in due {
            if self.is_ending() {
                break;
            }
            let Some(mail) = self.begin_try(mail).await? else {
                continue;
            };
            if mail.audience == Audience::SecurityDesk && !outlet.has_at_desk(&mail.recipient) {
                self.give_up(vec![mail], "no_longer_at_the_desk").await?;
                continue;
            }
            let sent = self.try_mail(outlet, &mut postbox, &mail).await?;
            let is_away = sent.as_ref().is_err_and(NotSent::is_away);
            self.note_sent(mail, sent.err()).await?;
            if is_away {
                return Ok(false);
            }
        }
        if let Some(postbox) = postbox {
            postbox.close().await;
        }
        Ok(may_be_more && !self.is_ending())
    }

    /// Gives up what has waited for days. Whether there may be more of it.
    ///
    /// # Errors
    /// Infrastructure; nothing was given up then.
    pub async fn give_up_old_mails(&self) -> Result<bool, ServiceError> {
        let since = self.now().minus(KEPT);
        let mut tx = self.store.read().await?;
        let old = mail::list_old_mails(&mut tx, since, MOST_OLD).await?;
        drop(tx);
        if old.is_empty() {
            return Ok(false);
        }
        let may_be_more = old.len() == MOST_OLD as usize;
        self.give_up(old, "too_old").await?;
        Ok(may_be_more)
    }

    async fn give_up(&self, mails: Vec<Mail>, reason: &str) -> Result<(), ServiceError> {
        let mut tx = self.store.write().await?;
        let mut given_up = Vec::new();
        for mail in mails {
            let about = audit::find_event(&mut tx, mail.event).await?;
            // Unless another node was faster, or has begun a try.
            if mail::delete_mail(&mut tx, &mail).await? {
                given_up.push(self.given_up_event(&mail, about.as_ref(), reason, None));
            }
        }
        audit::append_events(&mut tx, &given_up).await?;
        Ok(tx.commit().await?)
    }

    /// Sends a mail right now that says only that mails arrive.
    ///
    /// # Errors
    /// What went wrong, in a few words.
    pub async fn send_test_mail(&self, to: &Address) -> Result<(), String> {
        let outlet = self.mail.as_ref().ok_or("mail.server is not set: no mail is sent")?;
        let now = self.now();
        let id = MailId::new(now, self.random());
        let mut postbox = Postbox::open(outlet).await?;
        let sent = postbox.send(&Letter::test(self.issuer()), to.as_ref(), id, now).await;
        postbox.close().await;
        match sent {
            Some(sent) => sent.map_err(|not_sent| not_sent.why),
            None => Err("the mail server ended the connection".to_owned()),
        }
    }

    /// Whether there is a mail server.
    #[must_use]
    pub const fn sends_mails(&self) -> bool {
        self.mail.is_some()
    }

    /// How many wait, and how the mail server is doing.
    ///
    /// # Errors
    /// Infrastructure.
    pub async fn mail_status(&self) -> Result<MailStatus, ServiceError> {
        let mut tx = self.store.read().await?;
        Ok(MailStatus {
            waiting: mail::count_mails(&mut tx).await?,
            oldest: mail::find_oldest_mail(&mut tx).await?,
            outage: mail::find_mail_outage(&mut tx).await?,
        })
    }

    async fn begin_try(&self, mut mail: Mail) -> Result<Option<Mail>, ServiceError> {
        let until = self.now().plus(CLAIM);
        let mut tx = self.store.write().await?;
        let is_ours = mail::begin_try(&mut tx, &mail, until).await?;
        tx.commit().await?;
        mail.tries += 1;
        Ok(is_ours.then_some(mail))
    }

    /// Over the connection there is, or a new one.
    async fn try_mail(
        &self,
        outlet: &Outlet,
        postbox: &mut Option<Postbox>,
        mail: &Mail,
    ) -> Result<Result<(), NotSent>, ServiceError> {
        let mut tx = self.store.read().await?;
        let event = audit::find_event(&mut tx, mail.event).await?;
        let event = event.ok_or(ServiceError::Contradiction("a mail about no event"))?;
        let person = find_subject(&mut tx, event.subject_id).await?;
        drop(tx);
        let letter = match mail.audience {
            Audience::Person => Letter::to_person(&event, person.as_ref(), self.issuer()),
            Audience::SecurityDesk => Letter::to_security_desk(&event, mail.count, person.as_ref(), self.issuer()),
        };
        loop {
            let open = match postbox.take_if(|open| !open.is_lost()) {
                Some(open) => open,
                None => match Postbox::open(outlet).await {
                    Ok(open) => open,
                    Err(why) => return Ok(Err(NotSent::new(Failure::Away, why))),
                },
            };
            let open = postbox.insert(open);
            // None at most once: only a connection that was used before.
            if let Some(sent) = open.send(&letter, &mail.recipient, mail.id, mail.created_at).await {
                return Ok(sent);
            }
        }
    }

    /// Writes down what came of a try, and how the mail server is doing.
    async fn note_sent(&self, mail: Mail, not_sent: Option<NotSent>) -> Result<(), ServiceError> {
        let now = self.now();
        let mut tx = self.store.write().await?;
        let about = audit::find_event(&mut tx, mail.event).await?;
        let mut written = Vec::new();
        let is_last_try = match &not_sent {
            None => {
                written.push(self.mail_event(Kind::MailSent, &mail, about.as_ref()));
                mail::delete_mail(&mut tx, &mail).await?
            }
            // When the server is back, at once; it was no try of this mail.
            Some(not_sent) if not_sent.is_away() => mail::postpone_mail(&mut tx, &mail, now, mail.tries - 1).await?,
            Some(not_sent) => {
                if let Some(next) = mail.next_try(not_sent.failure, now) {
                    mail::postpone_mail(&mut tx, &mail, next, mail.tries).await?
                } else {
                    let (reason, why) = (not_sent.failure.as_str(), Some(not_sent.why.as_str()));
                    written.push(self.given_up_event(&mail, about.as_ref(), reason, why));
                    mail::delete_mail(&mut tx, &mail).await?
                }
            }
        };
        if !is_last_try {
            // The try took longer than it may, and another node went on with it: what that one writes down holds.
            return Ok(());
        }
        written.extend(self.note_outage(&mut tx, not_sent).await?);
        audit::append_events(&mut tx, &written).await?;
        Ok(tx.commit().await?)
    }

    /// That nothing was taken for longer than a moment, or something after that.
    async fn note_outage(&self, tx: &mut Tx, not_sent: Option<NotSent>) -> Result<Option<Event>, ServiceError> {
        let before = mail::find_mail_outage(tx).await?;
        let after = match not_sent {
            // That the server took it is the only sign that it takes mails.
            None => None,
            // It says nothing about other mails.
            Some(NotSent {
                failure: Failure::Refused,
                ..
            }) => before.clone(),
            Some(NotSent { why, .. }) => Some(Outage::after(before.as_ref(), why, self.now())),
        };
        if before == after || !mail::put_mail_outage(tx, before.as_ref(), after.as_ref()).await? {
            return Ok(None);
        }
        let was_noted = before.as_ref().is_some_and(Outage::is_noted);
        let event = |kind| self.event(kind, &Circumstances::default());
        Ok(match &after {
            Some(outage) if outage.is_noted() && !was_noted => {
                let failure = outage.failure.as_str();
                tracing::error!(failure, "the mail server takes no mails; will try again");
                Some(
                    event(Kind::MailsDelayed)
                        .outcome(Outcome::Failure)
                        .fact("failure", failure),
                )
            }
            None if was_noted => {
                tracing::info!("the mail server takes mails again");
                Some(event(Kind::MailsResumed).fact("tries", before.map(|outage| outage.tries)))
            }
            _ => None,
        })
    }

    fn given_up_event(&self, mail: &Mail, about: Option<&Event>, reason: &str, failure: Option<&str>) -> Event {
        tracing::error!(mail = %mail.id, reason, failure, "a mail was given up");
        let event = self.mail_event(Kind::MailGivenUp, mail, about);
        let event = event.outcome(Outcome::Failure).reason(reason);
        event.fact("failure", failure)
    }

    /// An event about a mail: it concerns whom the mail's event does.
    pub(super) fn mail_event(&self, kind: Kind, mail: &Mail, about: Option<&Event>) -> Event {
        let event = self
            .event(kind, &Circumstances::default())
            .subject(about.and_then(|about| about.subject_id))
            .fact("about_event", mail.event.to_string())
            .fact("audience", mail.audience.as_str())
            .fact("message", mail.id.to_string())
            .fact("tries", mail.tries);
        match about.and_then(|about| about.session_id) {
            Some(session) => event.session(session),
            None => event,
        }
    }
}
