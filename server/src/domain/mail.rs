//! Mails that wait to be sent: whom they are for, and when one is tried again or given up. Must not know what they say, nor
//! how they are sent.

use std::time::Duration;

use super::clock::Timestamp;
use super::id::{EventId, MailId};

/// Most mails that wait for people. What would be more is given up at once; alerts are few by themselves.
pub const MOST_WAITING: u64 = 10_000;
/// Of these for one address.
pub const MOST_WAITING_FOR_ONE: u64 = 20;
/// So long a mail waits at most; older news has been seen in the dashboard, or helps nobody.
pub const KEPT: Duration = Duration::from_hours(72);
/// The longest wait for a connection to the mail server that is ready to take mails.
pub const OPENING: Duration = Duration::from_secs(30);
/// The longest wait for one of its answers.
pub const ANSWER: Duration = Duration::from_secs(20);
/// The longest wait for its answer to a whole mail, which it may look through first. RFC 5321, section 4.5.3.2.6, grants ten
/// minutes; all other mails wait as long.
pub const TAKING: Duration = Duration::from_mins(2);
/// Whoever begins a try has so long for it: a connection that proves closed, another one, the envelope, the mail, and by how
/// much clocks of nodes may differ.
pub const CLAIM: Duration = OPENING
    .saturating_mul(2)
    .saturating_add(ANSWER.saturating_mul(4))
    .saturating_add(TAKING)
    .saturating_add(super::clock::APART);
/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);
/// A mail is tried so often if the mail server knows no such recipient, or does not say whether it took the mail: its
/// operator may have to mend a setting.
const MOST_IN_VAIN: u32 = 4;

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

/// In which way a try failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The mail server knows no such recipient, or that is no address at all.
    Refused,
    /// It did not take this one, for a reason that may pass or concern others, too.
    NotNow,
    /// The connection broke or stood still before the whole mail was said.
    Broken,
    /// It was told everything and did not say whether it took it.
    Unsure,
    /// It takes none.
    Away,
}

impl Failure {
    /// The word in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::NotNow => "not_now",
            Self::Broken => "broken",
            Self::Unsure => "unsure",
            Self::Away => "away",
        }
    }
}

/// A try that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotSent {
    /// How.
    pub failure: Failure,
    /// Why, in a few words.
    pub why: String,
}

impl NotSent {
    /// In this way, for this reason.
    #[must_use]
    pub const fn new(failure: Failure, why: String) -> Self {
        Self { failure, why }
    }

    /// The mail server takes none.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.failure == Failure::Away
    }

    /// The same without this address: mail servers repeat it, and no log needs it.
    #[must_use]
    pub fn without(mut self, address: &str) -> Self {
        self.why = self.why.replace(address, "the recipient");
        self
    }
}

impl Mail {
    /// When to try again after a try that failed; `None`: never.
    #[must_use]
    pub fn next_try(&self, failure: Failure, now: Timestamp) -> Option<Timestamp> {
        let pause = Duration::from_mins(match self.tries {
            0 | 1 => 1,
            2 => 5,
            3 => 15,
            _ => 60,
        });
        // An alert may come twice rather than not at all.
        let is_in_vain = self.audience == Audience::Person && matches!(failure, Failure::Refused | Failure::Unsure);
        (!is_in_vain || self.tries < MOST_IN_VAIN).then(|| now.plus(pause))
    }
}

/// What was to wait until later than this was written before the clock was set back: it waits no more.
#[must_use]
pub fn latest_retry(now: Timestamp) -> Timestamp {
    now.plus(LONGEST_PAUSE + super::clock::APART)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f11_a_mail_is_tried_every_hour_and_four_times_if_that_is_in_vain() {
        let at = |seconds: i64| Timestamp::from_seconds(1_800_000_000 + seconds);
        let tries = |audience, failure| {
            let mut mail = Mail {
                id: MailId(uuid::Uuid::nil()),
                event: EventId(uuid::Uuid::nil()),
                audience,
                recipient: "ada@example.com".to_owned(),
                count: 1,
                created_at: at(0),
                retry_at: at(0),
                tries: 0,
            };
            while mail.retry_at.since(at(0)) < KEPT {
                mail.tries += 1;
                match mail.next_try(failure, mail.retry_at) {
                    Some(next) => mail.retry_at = next,
                    None => break,
                }
            }
            (mail.tries, mail.retry_at.since(at(0)).as_secs() / 60)
        };
        assert_eq!(tries(Audience::Person, Failure::Refused), (4, 21));
        assert_eq!(tries(Audience::Person, Failure::Unsure), (4, 21));
        assert_eq!(tries(Audience::SecurityDesk, Failure::Refused), (75, 72 * 60 + 21));
        assert_eq!(tries(Audience::Person, Failure::NotNow), (75, 72 * 60 + 21));
    }
}
