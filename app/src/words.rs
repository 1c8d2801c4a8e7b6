//! The sentences people read: one place, plain words, no blame.
//!
//! Owns: every sentence made from a code. Must not know: where on a page it stands.

pub mod time;

use crate::error::{ActionError, Field, PageError, Problem};
use crate::types::{AuditOutcome, EndReason, Ending, Lifetimes, MfaRule, Notice, Rule};
use time::{count_of, duration};

/// Why a session is over, as one sentence to the person it belonged to.
#[must_use]
pub fn ending(ending: &Ending) -> String {
    let rule = because(ending.rule.as_ref());
    match (ending.reason, ending.limit_s) {
        (EndReason::SignedOut, _) => "You signed out.".to_owned(),
        (EndReason::EndedByUser, _) => "This sign-in was ended from another of your devices.".to_owned(),
        (EndReason::EndedByAdmin, _) => "An administrator ended this sign-in.".to_owned(),
        (EndReason::Idle, Some(limit)) => {
            format!(
                "You were signed out because this sign-in was idle for {}{rule}.",
                duration(limit)
            )
        }
        (EndReason::Idle, None) => format!("You were signed out because this sign-in was idle for too long{rule}."),
        (EndReason::Expired, Some(limit)) => {
            format!(
                "You were signed out because this sign-in was {} old{rule}.",
                duration(limit)
            )
        }
        (EndReason::Expired, None) => format!("You were signed out because this sign-in had reached its end{rule}."),
        (EndReason::PasswordChanged, _) => "You were signed out because your password was changed.".to_owned(),
        (EndReason::FactorChanged, _) => "You were signed out because your second factor was changed.".to_owned(),
        (EndReason::FactorRequired, _) => {
            format!("You were signed out because a second factor is required now{rule}. Sign in again to set it up.")
        }
        (EndReason::UserDisabled, _) => "You were signed out because this account was disabled.".to_owned(),
        (EndReason::TokenReused, _) => "You were signed out to protect your account: somebody may have used a copy of \
            this sign-in. Change your password if you did not expect this."
            .to_owned(),
        (EndReason::DatabaseRolledBack, _) => {
            "You were signed out because the server was restored from an older copy.".to_owned()
        }
        (EndReason::Replaced, _) => "You were signed in anew after confirming that it is you.".to_owned(),
        (EndReason::TooManySessions, _) => {
            format!("You were signed out because you signed in on too many devices{rule}.")
        }
    }
}

/// The same for a list of ended sessions: short, without "you".
#[must_use]
pub fn ended(ending: &Ending) -> String {
    let rule = because(ending.rule.as_ref());
    match (ending.reason, ending.limit_s) {
        (EndReason::SignedOut, _) => "Signed out on the device".to_owned(),
        (EndReason::EndedByUser, _) => "Ended from another device".to_owned(),
        (EndReason::EndedByAdmin, _) => "Ended by an administrator".to_owned(),
        (EndReason::Idle, Some(limit)) => format!("Idle for {}{rule}", duration(limit)),
        (EndReason::Idle, None) => format!("Idle for too long{rule}"),
        (EndReason::Expired, Some(limit)) => format!("Reached its end after {}{rule}", duration(limit)),
        (EndReason::Expired, None) => format!("Reached its end{rule}"),
        (EndReason::PasswordChanged, _) => "Password changed".to_owned(),
        (EndReason::FactorChanged, _) => "Second factor changed".to_owned(),
        (EndReason::FactorRequired, _) => format!("A second factor became required{rule}"),
        (EndReason::UserDisabled, _) => "Account disabled".to_owned(),
        (EndReason::TokenReused, _) => "Ended to protect the account: a copy may have been used".to_owned(),
        (EndReason::DatabaseRolledBack, _) => "The server was restored from an older copy".to_owned(),
        (EndReason::Replaced, _) => "Replaced after confirming it was you".to_owned(),
        (EndReason::TooManySessions, _) => format!("Too many devices at once{rule}"),
    }
}

/// Endings that somebody should look at.
#[must_use]
pub const fn is_alarming(reason: EndReason) -> bool {
    matches!(reason, EndReason::TokenReused | EndReason::DatabaseRolledBack)
}

fn because(rule: Option<&Rule>) -> String {
    rule.map(|rule| format!(" (rule for role {})", rule.role))
        .unwrap_or_default()
}

/// "role finance, policy 7".
#[must_use]
pub fn rule(rule: &Rule) -> String {
    format!("role {}, policy {}", rule.role, rule.version)
}

/// The sentence for a form that was not carried out.
#[must_use]
pub fn action_error(error: ActionError) -> String {
    match error {
        ActionError::WrongCredentials => "The name or the password is not right.".to_owned(),
        ActionError::WrongCode => "That code is not right. Wait for the next one and try again.".to_owned(),
        ActionError::FlowExpired => "This took too long and was stopped to protect you. Please start again.".to_owned(),
        ActionError::TooManyTries { wait_s } => {
            format!(
                "Too many tries. Please wait {} and try again.",
                duration(i64::from(wait_s.max(1)))
            )
        }
        ActionError::Busy => "The server is busy. Please try again in a moment.".to_owned(),
        ActionError::SignedOut => "You are signed out. Please sign in again.".to_owned(),
        ActionError::Forbidden => "Your roles do not allow this.".to_owned(),
        ActionError::StepUpRequired => "Please confirm that it is you first.".to_owned(),
        ActionError::NotFound => "This is not there any more.".to_owned(),
        ActionError::Conflict => {
            "Somebody else changed this in the meantime. Look at the new values below, then save again.".to_owned()
        }
        ActionError::Invalid { field, problem } => self::problem(field, problem),
        ActionError::LastAdmin => {
            "This is the last administrator who can sign in. Make somebody else an administrator first.".to_owned()
        }
        ActionError::Unavailable => {
            "Something went wrong on our side; nothing was changed. Please try again.".to_owned()
        }
        ActionError::Malformed => "The form could not be read. Please fill it in again.".to_owned(),
    }
}

/// The sentence for one field.
#[must_use]
pub fn problem(field: Field, problem: Problem) -> String {
    let name = self::field(field);
    match problem {
        Problem::Missing => format!("{name}: please fill this in."),
        Problem::TooShort { min } => format!("{name}: use at least {}.", count_of(i64::from(min), "character")),
        Problem::TooLong { max } => format!("{name}: use at most {}.", count_of(i64::from(max), "character")),
        Problem::OutOfRange { min, max } if is_duration(field) => {
            format!("{name}: must be between {} and {}.", duration(min), duration(max))
        }
        Problem::OutOfRange { min, max } => format!("{name}: must be between {min} and {max}."),
        Problem::ExceedsLimit { of } => {
            format!(
                "{name}: must not be longer than the {}.",
                self::field(of).to_lowercase()
            )
        }
        Problem::NeedsJustification => {
            format!("{name}: goes beyond NIST SP 800-63B-4. Write down why, or choose a shorter time.")
        }
        Problem::TooCommon => format!("{name}: this one is well known or easy to guess. Choose another."),
        Problem::Taken => format!("{name}: already in use."),
        Problem::BadCharacters => format!("{name}: contains characters that cannot be used here."),
        Problem::Wrong => format!("{name}: not right."),
    }
}

/// Name of a field as its label says it.
#[must_use]
pub const fn field(field: Field) -> &'static str {
    match field {
        Field::Username => "Sign-in name",
        Field::Email => "E-mail address",
        Field::DisplayName => "Your name",
        Field::Password => "Password",
        Field::CurrentPassword => "Current password",
        Field::Code => "Code",
        Field::AccessLifetime => "Access token lifetime",
        Field::IdleLimit => "Idle limit",
        Field::AbsoluteLimit => "Absolute limit",
        Field::IdleWarning => "Idle warning",
        Field::RememberDevice => "Remember-device period",
        Field::StepUpAge => "Step-up age",
        Field::MaxSessions => "Most sessions at once",
        Field::Mfa => "Second factor",
        Field::Reason => "Reason",
        Field::Justification => "Justification",
        Field::Roles => "Roles",
        Field::From => "From",
        Field::To => "To",
        Field::Person => "Person",
        Field::Session => "Session",
    }
}

const fn is_duration(field: Field) -> bool {
    matches!(
        field,
        Field::AccessLifetime
            | Field::IdleLimit
            | Field::AbsoluteLimit
            | Field::IdleWarning
            | Field::RememberDevice
            | Field::StepUpAge
    )
}

/// Heading and sentence of a page that cannot be shown.
#[must_use]
pub const fn page_error(error: PageError) -> (&'static str, &'static str) {
    match error {
        PageError::NotSignedIn => ("You are signed out", "Please sign in to see this page."),
        PageError::Forbidden => (
            "You do not have permission for this page",
            "Your roles do not include it. If you need it for your work, ask an administrator.",
        ),
        PageError::NotFound => (
            "This page does not exist",
            "The address may be mistyped, or what was here is gone. Nothing is wrong with your sign-in.",
        ),
        PageError::StepUpRequired => ("Please confirm that it is you", "This page asks for a factor again."),
        PageError::BadQuery => (
            "This address cannot be read",
            "A filter or a value in the address is not acceptable.",
        ),
        PageError::Unavailable => (
            "This page is not available right now",
            "The fault is on our side and nothing was changed. Please try again in a moment.",
        ),
    }
}

/// Good news after an action.
#[must_use]
pub fn notice(notice: Notice) -> String {
    match notice {
        Notice::SessionEnded => "The session was ended. That device is signed out.".to_owned(),
        Notice::SessionsEnded { count: 0 } => "There was no other session to end.".to_owned(),
        Notice::SessionsEnded { count } => format!("{} ended.", sessions_were(count)),
        Notice::PasswordChanged { ended: 0 } => "Your password was changed.".to_owned(),
        Notice::PasswordChanged { ended } => format!("Your password was changed, and {} ended.", sessions_were(ended)),
        Notice::AuthenticatorAdded => "Your authenticator app is set up.".to_owned(),
        Notice::AuthenticatorRemoved => "Your authenticator app was removed.".to_owned(),
        Notice::PolicySaved { version } => {
            format!("Saved as policy {version}. Tighter limits apply from the next click of every living session.")
        }
        Notice::PersonDisabled { ended } => format!("The account was disabled, and {} ended.", sessions_were(ended)),
        Notice::PersonEnabled => "The account was enabled.".to_owned(),
        Notice::RolesChanged => "The roles were changed. They apply from the next click.".to_owned(),
        Notice::FormExpired => {
            "Nothing was sent, because this page had been open for too long. Please try again.".to_owned()
        }
    }
}

/// Whether it is good news; the only other kind is "please try again".
#[must_use]
pub const fn is_good(notice: Notice) -> bool {
    !matches!(notice, Notice::FormExpired)
}

fn sessions_were(count: u32) -> String {
    if count == 1 {
        "1 session was".to_owned()
    } else {
        format!("{count} sessions were")
    }
}

/// A policy's second-factor rule.
#[must_use]
pub const fn mfa(rule: MfaRule) -> &'static str {
    match rule {
        MfaRule::Off => "Off",
        MfaRule::Optional => "Optional",
        MfaRule::Required => "Required",
    }
}

/// The limits of a role: what, and how much, in the order of the form.
#[must_use]
pub fn limits(limits: &Lifetimes) -> [(&'static str, String); 7] {
    let or_none = |seconds: i64, none: &str| {
        if seconds == 0 {
            none.to_owned()
        } else {
            duration(seconds)
        }
    };
    [
        (field(Field::IdleLimit), duration(limits.idle_s)),
        (field(Field::AbsoluteLimit), duration(limits.absolute_s)),
        (field(Field::AccessLifetime), duration(limits.access_s)),
        (field(Field::Mfa), mfa(limits.mfa).to_owned()),
        (field(Field::StepUpAge), duration(limits.step_up_s)),
        (field(Field::IdleWarning), or_none(limits.idle_warning_s, "None")),
        (field(Field::MaxSessions), limits.max_sessions.to_string()),
    ]
}

/// An outcome in the log.
#[must_use]
pub const fn outcome(outcome: AuditOutcome) -> &'static str {
    match outcome {
        AuditOutcome::Success => "Success",
        AuditOutcome::Failure => "Failure",
        AuditOutcome::Denied => "Denied",
    }
}

/// A kind of event: `session_revoked` → "Session revoked".
#[must_use]
pub fn kind(kind: &str) -> String {
    let text = kind.replace('_', " ");
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(rule: Option<&str>) -> Ending {
        let rule = rule.map(|role| Rule {
            role: role.to_owned(),
            version: 7,
        });
        Ending {
            reason: EndReason::Idle,
            rule,
            limit_s: Some(900),
        }
    }

    #[test]
    fn an_ending_names_its_limit_and_its_rule() {
        assert_eq!(
            ending(&idle(Some("finance"))),
            "You were signed out because this sign-in was idle for 15 minutes (rule for role finance)."
        );
        assert_eq!(
            ended(&idle(Some("finance"))),
            "Idle for 15 minutes (rule for role finance)"
        );
        assert_eq!(ended(&idle(None)), "Idle for 15 minutes");
    }

    #[test]
    fn every_ending_is_a_sentence_without_jargon() {
        use EndReason as R;
        let reasons = [
            R::SignedOut,
            R::EndedByUser,
            R::EndedByAdmin,
            R::Idle,
            R::Expired,
            R::PasswordChanged,
            R::FactorChanged,
            R::FactorRequired,
            R::UserDisabled,
            R::TokenReused,
            R::DatabaseRolledBack,
            R::Replaced,
            R::TooManySessions,
        ];
        for reason in reasons {
            for limit_s in [None, Some(600)] {
                let over = Ending {
                    reason,
                    rule: None,
                    limit_s,
                };
                let sentence = ending(&over);
                assert!(sentence.ends_with('.'), "{sentence}");
                for text in [sentence, ended(&over)] {
                    assert!(!text.to_lowercase().contains("token") && !text.contains("  "), "{text}");
                }
            }
        }
    }

    #[test]
    fn wrong_credentials_do_not_say_which() {
        assert_eq!(
            action_error(ActionError::WrongCredentials),
            "The name or the password is not right."
        );
    }

    #[test]
    fn ranges_are_in_units_people_use() {
        let range = Problem::OutOfRange { min: 300, max: 3600 };
        assert_eq!(
            problem(Field::IdleLimit, range),
            "Idle limit: must be between 5 minutes and 1 hour."
        );
        let range = Problem::OutOfRange { min: 1, max: 100 };
        assert_eq!(
            problem(Field::MaxSessions, range),
            "Most sessions at once: must be between 1 and 100."
        );
        let too_long = Problem::ExceedsLimit {
            of: Field::AbsoluteLimit,
        };
        assert_eq!(
            problem(Field::IdleLimit, too_long),
            "Idle limit: must not be longer than the absolute limit."
        );
    }

    #[test]
    fn counts_agree_with_their_verb() {
        assert_eq!(notice(Notice::SessionsEnded { count: 1 }), "1 session was ended.");
        assert_eq!(notice(Notice::SessionsEnded { count: 4 }), "4 sessions were ended.");
        assert_eq!(
            notice(Notice::PasswordChanged { ended: 0 }),
            "Your password was changed."
        );
    }

    #[test]
    fn kinds_read_as_words() {
        assert_eq!(kind("session_revoked"), "Session revoked");
        assert_eq!(kind(""), "");
    }
}
