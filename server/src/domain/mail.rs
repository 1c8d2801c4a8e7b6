//! Mails that wait to be sent: whom they are for, and when one is tried again or given up. Must not know what they say, nor
//! how they are sent.

use std::time::Duration;

use super::clock::Timestamp;
use super::id::{EventId, MailId};

/// Most mails that wait for people. What would be more is given up at once; alerts are few by themselves.
pub const MOST_WAITING: u64 = 10_000;
/// So long a mail is tried; older news has been seen in the dashboard, or helps nobody.
pub const KEPT: Duration = Duration::from_hours(72);
/// Whoever begins a try has so long for it: a few answers of a slow server, and by how much clocks of nodes may differ.
pub const CLAIM: Duration = SENDING.saturating_add(super::outage::APART);
/// One try takes at most so long.
pub const SENDING: Duration = Duration::from_secs(30);
/// A mail that the server refuses for good is tried so often: its operator may have to mend a setting.
const MOST_REFUSALS: u32 = 4;

/// Whom a mail is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// The person the event concerns.
    Person,
    /// Whoever watches over this server.
    SecurityDesk,
}

impl Audience {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Person, Self::SecurityDesk];

    /// The word in the database and in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::SecurityDesk => "security_desk",
        }
    }
}

/// One that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// The same at every try; also in its `Message-ID`, by which a mailbox knows what it has.
    pub id: MailId,
    /// What it tells of.
    pub event: EventId,
    /// Whom it is for.
    pub audience: Audience,
    /// Where it goes.
    pub recipient: String,
    /// Events it stands for.
    pub count: u64,
    /// Since when it waits.
    pub created_at: Timestamp,
    /// Not before.
    pub retry_at: Timestamp,
    /// Tries that were begun.
    pub tries: u32,
}

/// What came of a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The mail server took it upon itself.
    Taken,
    /// It will not take this one (SMTP 5xx, or no address at all).
    Refused(String),
    /// It does not take this one now (SMTP 4xx).
    NotNow(String),
    /// It takes none.
    Away(String),
}

impl Mail {
    /// When to try again after a try that failed; `None`: it is given up. Of an outage the caller knows better.
    #[must_use]
    pub fn next_try(&self, is_refused: bool, now: Timestamp) -> Option<Timestamp> {
        let pause = Duration::from_mins(match self.tries {
            0 | 1 => 1,
            2 => 5,
            3 => 15,
            _ => 60,
        });
        let is_given_up = (is_refused && self.tries >= MOST_REFUSALS) || self.is_too_old(now);
        (!is_given_up).then(|| now.plus(pause))
    }

    /// It is news no more.
    #[must_use]
    pub fn is_too_old(&self, now: Timestamp) -> bool {
        now.since(self.created_at) >= KEPT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f11_a_mail_is_tried_for_three_days_and_a_refused_one_for_twenty_minutes() {
        let at = |seconds: i64| Timestamp::from_seconds(1_800_000_000 + seconds);
        let tries = |is_refused| {
            let mut mail = Mail {
                id: MailId(uuid::Uuid::nil()),
                event: EventId(uuid::Uuid::nil()),
                audience: Audience::Person,
                recipient: "ada@example.com".to_owned(),
                count: 1,
                created_at: at(0),
                retry_at: at(0),
                tries: 0,
            };
            loop {
                mail.tries += 1;
                match mail.next_try(is_refused, mail.retry_at) {
                    Some(next) => mail.retry_at = next,
                    None => return (mail.tries, mail.retry_at.since(at(0)).as_secs() / 60),
                }
            }
        };
        assert_eq!(tries(true), (4, 21));
        assert_eq!(tries(false), (76, 72 * 60 + 21));
    }
}
