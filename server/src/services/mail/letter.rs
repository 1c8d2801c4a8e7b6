//! What mails say: plain text, without a secret and without a link that does anything by itself. What a stranger could
//! have written, such as the name of a browser, is told in our own words.

use app::words::time::exact;

use crate::domain::audit::{Event, Kind};
use crate::domain::clock::Timestamp;
use crate::domain::device::{DeviceKind, describe};
use crate::domain::notice::Rule;
use crate::domain::user::User;

/// A mail in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Letter {
    pub(super) subject: String,
    pub(super) text: String,
}

impl Letter {
    /// That mails arrive.
    pub(super) fn test(issuer: &str) -> Self {
        Self {
            subject: format!("Mails of {} arrive", host(issuer)),
            text: format!("Somebody who operates {issuer} sent this to see whether its mails arrive. They do.\n"),
        }
    }

    /// To whom an event concerns.
    pub(super) fn to_person(event: &Event, person: Option<&User>, issuer: &str) -> Self {
        let (subject, what, advice) = words(event.kind);
        let (name, account) = person.map_or(("there", "-"), |person| (display_name(person), &person.username));
        let (at, used) = (when(event.at), place_of(event));
        let circumstances = if event.kind == Kind::TokenReused {
            let began = place(fact(event, "signed_in_address"), fact(event, "signed_in_user_agent"));
            let last = place(
                fact(event, "last_refresh_address"),
                fact(event, "last_refresh_user_agent"),
            );
            format!("Session: signed in {began}\nThen:    used {last}\nAt last: used {used}")
        } else {
            format!("From:    {used}")
        };
        let further = match event.kind {
            Kind::BoundCookieCopied => "More of the same within ten minutes sends no further mail.\n\n",
            _ => "",
        };
        Self {
            subject: format!("{}: {subject}", host(issuer)),
            text: format!(
                "Hello {name},\n\n{what}\n\nWhen:    {at}\nAccount: {account} at {issuer}\n{circumstances}\n\n{advice}\n\n\
                 Your devices:  {issuer}/\nYour security: {issuer}/security\n\n{further}\
                 This message was sent by a program; nobody reads an answer. It never asks for a password or\n\
                 a code: if in doubt, type the address of the page yourself.\n"
            ),
        }
    }

    /// To whoever watches over this server. `event`: the last of so many.
    pub(super) fn to_security_desk(event: &Event, count: u64, person: Option<&User>, issuer: &str) -> Self {
        let (title, meaning) = Rule::of(event).map_or(("an alert", ""), alert_words);
        let mut lines = vec![format!("{title}\n\n{meaning}\n")];
        if count > 1 {
            lines.push(format!("Events:  {count}; the last of them:"));
        }
        lines.push(format!("When:    {}", when(event.at)));
        lines.extend(person.map(|person| format!("Person:  {}", person.username)));
        lines.extend(event.session_id.map(|session| format!("Session: {session}")));
        if event.address.is_some() || event.user_agent.is_some() {
            lines.push(format!("From:    {}", place_of(event)));
        }
        lines.push(format!("\nEverything about it: {issuer}/admin/audit/{}", event.id));
        if count > 1 {
            let kind = event.kind.as_str();
            lines.push(format!("All of its kind:     {issuer}/admin/audit?kind={kind}"));
        }
        lines.push("More of the same within ten minutes is told once, when they are over.\n".to_owned());
        let times = if count > 1 {
            format!(" ({count})")
        } else {
            String::new()
        };
        Self {
            subject: format!("{}: alert: {title}{times}", host(issuer)),
            text: lines.join("\n"),
        }
    }
}

/// Subject, what happened, what to do about it.
const fn words(kind: Kind) -> (&'static str, &'static str, &'static str) {
    const NOT_YOU: &str = "If this was you, there is nothing to do. If it was not, somebody else is using your account: sign in,\n\
         change your password, end every device you do not know, and tell your administrator.";
    match kind {
        Kind::TokenReused => (
            "a session of yours was ended",
            "One of your sessions was used from two places at once, so somebody may have a copy of it. It was\n\
             ended for both, and that device is asked for a second factor again.",
            "One of the uses above may not have been you, even if all look like your own device. Sign in again\n\
             where you were. If you know of no copy (a restored backup of a browser's profile is one), a\n\
             program on that device may have stolen the session: have the device looked at, and change your\n\
             password from another one.",
        ),
        Kind::BoundCookieCopied => (
            "a copy of your browser's session was refused",
            "Somebody used a copy of what your browser keeps for one of your sessions. It was refused, and\n\
             your session goes on: it needs a key that cannot be copied out of your device.",
            "A program on that device may have copied it: have the device looked at, and change your\n\
             password from another one.",
        ),
        Kind::PasswordChanged => ("your password was changed", "Your password was changed.", NOT_YOU),
        Kind::AuthenticatorAdded => (
            "an authenticator app was set up",
            "An authenticator app was set up for your account.",
            NOT_YOU,
        ),
        Kind::AuthenticatorRemoved => (
            "your authenticator app was removed",
            "The authenticator app was removed from your account.",
            NOT_YOU,
        ),
        Kind::RecoveryCodeUsed => (
            "a recovery code was used",
            "One of your recovery codes was used to sign in.",
            NOT_YOU,
        ),
        Kind::RecoveryCodesRenewed => (
            "your recovery codes were replaced",
            "New recovery codes were made for your account; the old ones are no longer good.",
            NOT_YOU,
        ),
        _ => (
            "something happened to your account",
            "Something happened to your account.",
            NOT_YOU,
        ),
    }
}

/// Title and meaning.
const fn alert_words(rule: Rule) -> (&'static str, &'static str) {
    match rule {
        Rule::TokenReused => (
            "a used refresh token came back",
            "Two parties held the same session. It was ended for both, and the person was told. The event\n\
             shows where the session began, where it was last refreshed, and who used the older token.",
        ),
        Rule::DatabaseRolledBack => (
            "the database went back in time",
            "A client had a newer token than the database knows of, or a node knew of revocations that the\n\
             database has lost: an older copy of it is in use. What the node knew was revoked again. Stop every\n\
             node and run `mayfly recover`, or other used tokens and ended sessions count again.",
        ),
        Rule::TokensShared => (
            "the same tokens go to two places",
            "For three generations in a row a session's new tokens were handed out a second time, at another address or\n\
             to another program than the first. Somebody may be using a copy beside its owner. End the session if its\n\
             owner does not know both.",
        ),
        Rule::BoundCookieCopied => (
            "a copied cookie jar was used",
            "A bound cookie came after its end, when its browser had deleted it. It was refused, and the\n\
             session goes on. Something on the person's device copies cookies.",
        ),
        Rule::RefreshTokensForged => (
            "forged refresh tokens",
            "Refresh tokens came that carry this server's outer tag and that it never made. Somebody may have\n\
             the edge keys (the key-encryption key and a copy of the database), or an older copy of the\n\
             database is in use.",
        ),
        Rule::AccessTokenForged => (
            "a forged access token",
            "An access token came that carries this server's signature and that it never signed. Somebody may\n\
             have a signing key: `mayfly keys revoke` refuses everything it signed. Or an older copy of the\n\
             database is in use.",
        ),
        Rule::AuditLogContradicted => (
            "the audit log is not what it was",
            "The checkpoint beside the database shows an end of the audit log that the log does not have:\n\
             somebody cut it off or replaced it, or an older copy of the database is in use.\n\
             `mayfly audit verify` says more.",
        ),
        Rule::KeyFileMissing => (
            "the key file is gone",
            "The file with the key-encryption key is not where it was, or cannot be looked at. The server goes on\n\
             with what it has in memory; the next start will fail. Put the file back from its backup.",
        ),
        Rule::KeysDamaged => (
            "the stored keys are damaged",
            "The table `keys` lacks keys that are in use, or has them altered. Every node goes on with what it has in\n\
             memory, and the next start will fail. Put the rows back from a backup while a node still runs; if there is\n\
             none, `mayfly recover` makes others, and everybody signs in again.",
        ),
    }
}

fn when(at: Timestamp) -> String {
    exact(at.as_millis())
}

fn fact<'e>(event: &'e Event, name: &str) -> Option<&'e str> {
    event.facts.get(name)?.as_str()
}

/// Where whoever brought it about was.
fn place_of(event: &Event) -> String {
    place(event.address.as_deref(), event.user_agent.as_deref())
}

/// "with Firefox on Linux from 192.0.2.7". What a program calls itself may be anything.
fn place(address: Option<&str>, user_agent: Option<&str>) -> String {
    let device = describe(user_agent.unwrap_or_default());
    let device = match device.kind {
        DeviceKind::Program => "a program".to_owned(),
        _ => device.to_string(),
    };
    format!("with {device} from {}", address.unwrap_or("an unknown address"))
}

/// A name, unless somebody wrote something else there.
fn display_name(person: &User) -> &str {
    let name = person.display_name.trim();
    let is_of_names = |char: char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '\'' | '’');
    if name.chars().all(is_of_names) {
        name
    } else {
        &person.username
    }
}

/// The host people know this server by.
fn host(issuer: &str) -> &str {
    let rest = issuer.split_once("://").map_or(issuer, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}
