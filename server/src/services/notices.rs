//! What follows from events: alerts for the security desk, in the log and by mail, and mails to the people they concern.
//!
//! An event and the note that something is to follow from it are written in one transaction; what follows is drawn from
//! there within a second, in another one. So whoever signs in or refreshes waits for none of it, and none of it is lost.

use std::collections::HashMap;

use super::{Backend, ServiceError};
use crate::domain::audit::{Circumstances, Event, Kind, Outcome};
use crate::domain::clock::APART;
use crate::domain::id::{EventId, MailId, UserId};
use crate::domain::mail::{Audience, MOST_WAITING, MOST_WAITING_FOR_ONE, Mail};
use crate::domain::notice::{Alert, Rule, WINDOW, Window, is_for_the_person};
use crate::domain::user::User;
use crate::storage::audit::notices;
use crate::storage::{Tx, audit, mail, users};

/// Most events of one transaction.
const MOST_EVENTS: u32 = 100;

/// What one turn writes.
#[derive(Default)]
struct Consequences {
    alerts: Vec<Alert>,
    events: Vec<Event>,
}

impl Backend {
    /// Draws the consequences of what has happened. How many events they were; as many as fit into one transaction, so
    /// ask again until there are none.
    ///
    /// # Errors
    /// Infrastructure; nothing is lost, it is drawn next time.
    pub async fn draw_consequences(&self) -> Result<usize, ServiceError> {
        let now = self.now();
        let mut tx = self.store.read().await?;
        let windows = notices::list_alert_windows(&mut tx).await?;
        let is_needed = windows.iter().any(|window| window.is_over(now)) || notices::has_notices(&mut tx).await?;
        drop(tx);
        if !is_needed {
            return Ok(0);
        }
        let mut tx = self.store.write().await?;
        notices::take_turn(&mut tx).await?;
        // After the wait for other nodes.
        let now = self.now();
        let noticed = notices::list_noticed(&mut tx, MOST_EVENTS).await?;
        let mut drawn = Consequences::default();
        let mut windows = HashMap::new();
        for mut window in notices::list_alert_windows(&mut tx).await? {
            if window.is_over(now) {
                drawn.alerts.extend(window.tell(now));
                notices::delete_alert_window(&mut tx, window.rule).await?;
            } else {
                windows.insert(window.rule, window);
            }
        }
        for (id, event) in &noticed {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    tracing::error!(%error, event = %id, "nothing follows from an event that cannot be read");
                    continue;
                }
            };
            if let Some(rule) = Rule::of(event) {
                let window = windows
                    .entry(rule)
                    .and_modify(|window: &mut Window| window.count(event.id))
                    .or_insert_with(|| Window::begin(rule, event.id, now));
                drawn.alerts.extend(window.tell(now));
            }
            if is_for_the_person(event.kind) && self.mail.is_some() {
                self.tell_person(&mut tx, event, &mut drawn).await?;
            }
        }
        for window in windows.values() {
            notices::put_alert_window(&mut tx, window).await?;
        }
        notices::delete_notices(&mut tx, &noticed).await?;
        for alert in &drawn.alerts {
            self.raise(&mut tx, alert, &mut drawn.events).await?;
        }
        audit::append_events(&mut tx, &drawn.events).await?;
        tx.commit().await?;
        for Alert { rule, count, .. } in drawn.alerts {
            tracing::error!(rule = rule.as_str(), count, "an alert: the audit log says more");
        }
        Ok(noticed.len())
    }

    /// An alert is an event of its own, and a mail to everybody at the security desk.
    async fn raise(&self, tx: &mut Tx, alert: &Alert, events: &mut Vec<Event>) -> Result<(), ServiceError> {
        let about = audit::find_event(tx, alert.event).await?;
        let subject = about.as_ref().and_then(|about| about.subject_id);
        let raised = self
            .event(Kind::AlertRaised, &Circumstances::default())
            .outcome(Outcome::Failure)
            .subject(subject)
            .reason(alert.rule.as_str())
            .fact("count", alert.count)
            .fact("since", alert.since.as_millis())
            .fact("about_event", alert.event.to_string());
        events.push(match about.and_then(|about| about.session_id) {
            Some(session) => raised.session(session),
            None => raised,
        });
        let desk = self.mail.iter().flat_map(|outlet| &outlet.security_desk);
        for recipient in desk {
            let waiting = self.waiting_mail(alert.event, Audience::SecurityDesk, recipient.to_string(), alert.count);
            mail::insert_mail(tx, &waiting).await?;
        }
        Ok(())
    }

    async fn tell_person(&self, tx: &mut Tx, event: &Event, drawn: &mut Consequences) -> Result<(), ServiceError> {
        // Who has no address reads of an ended session at the next sign-in, and of the rest on the page of security.
        let Some(User {
            id: user,
            email: Some(email),
            ..
        }) = find_subject(tx, event.subject_id).await?
        else {
            return Ok(());
        };
        // Somebody who has a copy brings that about as often as they like.
        if event.kind == Kind::BoundCookieCopied && !self.is_news(tx, user, event.kind).await? {
            return Ok(());
        }
        let waiting = self.waiting_mail(event.id, Audience::Person, email, 1);
        let (all, for_one) = mail::count_mails_to_people(tx, &waiting.recipient).await?;
        if all < MOST_WAITING && for_one < MOST_WAITING_FOR_ONE {
            return Ok(mail::insert_mail(tx, &waiting).await?);
        }
        let given_up = self.mail_event(Kind::MailGivenUp, &waiting, Some(event));
        drawn
            .events
            .push(given_up.outcome(Outcome::Failure).reason("too_many_waiting"));
        Ok(())
    }

    /// Whether the person was told of nothing of this kind within the last minutes.
    async fn is_news(&self, tx: &mut Tx, user: UserId, kind: Kind) -> Result<bool, ServiceError> {
        let now = self.now();
        let not_after = (now.minus(WINDOW), now.plus(APART));
        Ok(notices::tell_person(tx, user, kind, now, not_after).await?)
    }

    fn waiting_mail(&self, event: EventId, audience: Audience, recipient: String, count: u64) -> Mail {
        let now = self.now();
        Mail {
            id: MailId::new(now, self.random()),
            event,
            audience,
            recipient,
            count,
            created_at: now,
            retry_at: now,
            tries: 0,
        }
    }
}

/// The person an event concerns, if there is one.
pub(super) async fn find_subject(tx: &mut Tx, subject: Option<UserId>) -> Result<Option<User>, ServiceError> {
    match subject {
        Some(id) => Ok(users::find_user(tx, id).await?),
        None => Ok(None),
    }
}
