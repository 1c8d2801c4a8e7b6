//! Sending the mails that wait: each is tried until the mail server has taken it, however long that is away, or given up
//! after days. Whoever signs in or refreshes never waits for it.
//!
//! A mail that was taken in the moment in which this process ended is sent once more, under the same `Message-ID`.

mod letter;
mod postbox;

use lettre::Address;
use lettre::message::Mailbox;
use secrecy::SecretString;

use super::notices::find_subject;
use super::{Backend, ServiceError};
use crate::domain::audit::{Circumstances, Event, Kind, Outcome};
use crate::domain::clock::Timestamp;
use crate::domain::id::MailId;
use crate::domain::mail::{Audience, CLAIM, Mail, Sent};
use crate::domain::outage::Outage;
use crate::storage::{Tx, audit, mail};

use letter::Letter;
use postbox::Postbox;

/// Most mails of one look.
const MOST_MAILS: u32 = 20;

/// The way mails go out.
#[derive(Clone, Debug)]
pub struct Outlet {
    /// Who takes them.
    pub server: SmtpServer,
    /// Sign-in name and password there.
    pub credentials: Option<(String, SecretString)>,
    /// Who they are from.
    pub from: Mailbox,
    /// Who is alerted.
    pub security_desk: Vec<Address>,
}

/// A mail server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmtpServer {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How what is said to it is kept secret.
    pub security: SmtpSecurity,
}

/// How what is said to a mail server is kept secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmtpSecurity {
    /// TLS from the first byte (RFC 8314).
    Tls,
    /// TLS before anything else is said, or nothing is (RFC 3207).
    StartTls,
    /// It is on this machine.
    Loopback,
}

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
    /// Tries the mails that it is time for, one after another, until one finds the mail server away. How many it took.
    ///
    /// # Errors
    /// Infrastructure; nothing is lost, whatever was not written down is sent again.
    pub async fn send_mails(&self) -> Result<usize, ServiceError> {
        let Some(outlet) = &self.mail else { return Ok(0) };
        let mut tx = self.store.read().await?;
        let due = mail::list_due_mails(&mut tx, self.now(), MOST_MAILS).await?;
        let outage = mail::find_mail_outage(&mut tx).await?;
        drop(tx);
        if due.is_empty() || outage.is_some_and(|outage| outage.rests(self.now())) {
            return Ok(0);
        }
        let postbox = Postbox::open(outlet).await;
        let mut taken = 0;
        for mail in due {
            let Some(mail) = self.begin_try(mail).await? else {
                continue;
            };
            let sent = match &postbox {
                Ok(postbox) => self.try_mail(postbox, &mail).await?,
                Err(failure) => Sent::Away(failure.clone()),
            };
            taken += usize::from(sent == Sent::Taken);
            let is_away = matches!(sent, Sent::Away(_));
            self.note_sent(mail, sent).await?;
            if is_away {
                break;
            }
        }
        Ok(taken)
    }

    /// Sends a mail right now that says only that mails arrive.
    ///
    /// # Errors
    /// What went wrong, in a few words.
    pub async fn send_test_mail(&self, to: &Address) -> Result<(), String> {
        let outlet = self.mail.as_ref().ok_or("mail.server is not set: no mail is sent")?;
        let now = self.now();
        let id = MailId::new(now, self.random());
        let postbox = Postbox::open(outlet).await?;
        match postbox.send(&Letter::test(self.issuer()), to.as_ref(), id, now).await {
            Sent::Taken => Ok(()),
            Sent::Refused(failure) | Sent::NotNow(failure) | Sent::Away(failure) => Err(failure),
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

    async fn try_mail(&self, postbox: &Postbox, mail: &Mail) -> Result<Sent, ServiceError> {
        let mut tx = self.store.read().await?;
        let event = audit::find_event(&mut tx, mail.event).await?;
        let event = event.ok_or(ServiceError::Contradiction("a mail about no event"))?;
        let person = find_subject(&mut tx, event.subject_id).await?;
        drop(tx);
        let letter = match mail.audience {
            Audience::Person => Letter::to_person(&event, person.as_ref(), self.issuer()),
            Audience::SecurityDesk => Letter::to_security_desk(&event, mail.count, person.as_ref(), self.issuer()),
        };
        Ok(postbox.send(&letter, &mail.recipient, mail.id, mail.created_at).await)
    }

    /// Writes down what came of a try, and how the mail server is doing.
    async fn note_sent(&self, mail: Mail, sent: Sent) -> Result<(), ServiceError> {
        let now = self.now();
        let mut tx = self.store.write().await?;
        let about = audit::find_event(&mut tx, mail.event).await?;
        let event = |kind| self.mail_event(kind, &mail, about.as_ref());
        let given_up = |failure: &str, reason| {
            tracing::error!(mail = %mail.id, failure, reason, "a mail was given up");
            let event = event(Kind::MailGivenUp).outcome(Outcome::Failure).reason(reason);
            event.fact("failure", failure).fact("tries", mail.tries)
        };
        let mut written = Vec::new();
        let is_last_try = match &sent {
            Sent::Taken => {
                written.push(event(Kind::MailSent).fact("tries", mail.tries));
                mail::delete_mail(&mut tx, &mail).await?
            }
            Sent::Refused(failure) | Sent::NotNow(failure) => {
                let is_refused = matches!(sent, Sent::Refused(_));
                if let Some(next) = mail.next_try(is_refused, now) {
                    mail::postpone_mail(&mut tx, &mail, next, mail.tries).await?
                } else {
                    written.push(given_up(failure, if is_refused { "refused" } else { "too_old" }));
                    mail::delete_mail(&mut tx, &mail).await?
                }
            }
            Sent::Away(failure) if mail.is_too_old(now) => {
                written.push(given_up(failure, "too_old"));
                mail::delete_mail(&mut tx, &mail).await?
            }
            // When the server is back, at once; it was no try of this mail.
            Sent::Away(_) => mail::postpone_mail(&mut tx, &mail, now, mail.tries - 1).await?,
        };
        if !is_last_try {
            // The try took longer than it may, and another node went on with it: what that one writes down holds.
            return Ok(());
        }
        written.extend(self.note_outage(&mut tx, &sent).await?);
        audit::append_events(&mut tx, &written).await?;
        Ok(tx.commit().await?)
    }

    /// That the mail server is away for longer than a moment, or came back after that.
    async fn note_outage(&self, tx: &mut Tx, sent: &Sent) -> Result<Option<Event>, ServiceError> {
        let before = mail::find_mail_outage(tx).await?;
        let after = match sent {
            Sent::Away(failure) => Some(Outage::after(before.as_ref(), failure.clone(), self.now())),
            _ => None,
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

    /// An event about a mail: it concerns whom the mail's event does.
    pub(super) fn mail_event(&self, kind: Kind, mail: &Mail, about: Option<&Event>) -> Event {
        let event = self
            .event(kind, &Circumstances::default())
            .subject(about.and_then(|about| about.subject_id))
            .fact("event", mail.event.to_string())
            .fact("audience", mail.audience.as_str())
            .fact("message", mail.id.to_string());
        match about.and_then(|about| about.session_id) {
            Some(session) => event.session(session),
            None => event,
        }
    }
}
