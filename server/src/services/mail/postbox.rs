//! The one way in which this server sends mail: SMTP (RFC 5321), over TLS or on this machine.

use std::time::Duration;

use lettre::Address;
use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt, Rset};
use lettre::transport::smtp::extension::ClientId;
use secrecy::ExposeSecret as _;

use super::letter::Letter;
use crate::config::{Outlet, SmtpServer};
use crate::domain::clock::Timestamp;
use crate::domain::id::MailId;
use crate::domain::mail::{ANSWER, Failure, NotSent, OPENING, TAKING};

/// The longest wait for a farewell.
const FAREWELL: Duration = Duration::from_secs(1);

/// A connection over which mails are handed in, one after another.
pub(super) struct Postbox {
    connection: AsyncSmtpConnection,
    from: Mailbox,
    /// A mail was handed in before: some servers want a new connection then.
    is_used: bool,
    /// Nothing more can be said over it.
    is_lost: bool,
}

impl Postbox {
    /// Connects and signs in. Otherwise what is in the way, in a few words.
    pub(super) async fn open(outlet: &Outlet) -> Result<Self, String> {
        let opened = tokio::time::timeout(OPENING, connect(outlet)).await;
        let connection = opened.map_err(|_| "no answer in time".to_owned())??;
        Ok(Self {
            connection,
            from: outlet.from.clone(),
            is_used: false,
            is_lost: false,
        })
    }

    /// Hands one in; `None`: the server ends this connection between two mails, and there was no try.
    pub(super) async fn send(
        &mut self,
        letter: &Letter,
        to: &str,
        id: MailId,
        at: Timestamp,
    ) -> Option<Result<(), NotSent>> {
        let (to, message) = match self.message(letter, to, id, at) {
            Ok(made) => made,
            Err(why) => return Some(Err(NotSent::new(Failure::Refused, why))),
        };
        let is_used = std::mem::replace(&mut self.is_used, true);
        let sent = self.hand_in(to.clone(), &message).await;
        if is_used && sent.as_ref().is_err_and(NotSent::is_away) {
            self.is_lost = true;
            return None;
        }
        Some(sent.map_err(|not_sent| not_sent.without(to.as_ref())))
    }

    /// Only what the server says of the recipient is this mail's fault; all else may concern every mail, whenever it is said:
    /// some servers refuse a sender, or the client itself, only when they hear a recipient.
    async fn hand_in(&mut self, to: Address, message: &[u8]) -> Result<(), NotSent> {
        let from = Mail::new(Some(self.from.email.clone()), Vec::new());
        let from = async |server: &mut AsyncSmtpConnection| server.command(from).await.map(drop);
        if let Err(not_sent) = self.say(ANSWER, Failure::Away, from).await {
            return Err(NotSent::new(Failure::Away, not_sent.why));
        }
        let envelope =
            async |server: &mut AsyncSmtpConnection| server.command(Rcpt::new(to, Vec::new())).await.map(drop);
        let data = async |server: &mut AsyncSmtpConnection| server.command(Data).await.map(drop);
        let mut told = self.say(ANSWER, Failure::Broken, envelope).await;
        if told.is_ok() {
            told = self.say(ANSWER, Failure::Broken, data).await;
        }
        if told.is_err() && !self.is_lost {
            // It is taken back, so that the next can be asked about. A server that does not answer this is found out with that.
            let reset = async |server: &mut AsyncSmtpConnection| server.command(Rset).await.map(drop);
            drop(self.say(ANSWER, Failure::Broken, reset).await);
        }
        told?;
        let mail = async |server: &mut AsyncSmtpConnection| server.message(message).await.map(drop);
        self.say(TAKING, Failure::Unsure, mail).await
    }

    /// `silence`: in which way it fails if there is no answer.
    async fn say(
        &mut self,
        longest: Duration,
        silence: Failure,
        what: impl AsyncFnOnce(&mut AsyncSmtpConnection) -> Result<(), Error>,
    ) -> Result<(), NotSent> {
        if self.is_lost {
            return Err(NotSent::new(silence, "the connection was lost".to_owned()));
        }
        let Ok(said) = tokio::time::timeout(longest, what(&mut self.connection)).await else {
            self.is_lost = true;
            return Err(NotSent::new(silence, "no answer in time".to_owned()));
        };
        let Err(error) = said else { return Ok(()) };
        let why = in_words(&error);
        let failure = match error.status() {
            Some(code) if is_about_recipient(&code.to_string(), &why) => Failure::Refused,
            Some(_) => Failure::NotNow,
            None => {
                self.is_lost = true;
                silence
            }
        };
        Err(NotSent::new(failure, why))
    }

    /// Whether another mail can be handed in here.
    pub(super) const fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Says goodbye.
    pub(super) async fn close(mut self) {
        if !self.is_lost {
            // What was taken stays taken, whatever is answered to it.
            drop(tokio::time::timeout(FAREWELL, self.connection.quit()).await);
        }
    }

    fn message(&self, letter: &Letter, to: &str, id: MailId, at: Timestamp) -> Result<(Address, Vec<u8>), String> {
        let to: Address = to
            .parse()
            .map_err(|_| "not an address that mail can be sent to".to_owned())?;
        let host = self.from.email.domain();
        let message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to.clone()))
            .subject(letter.subject.clone())
            .message_id(Some(format!("<{id}@{host}>")))
            .date(at.to_system_time())
            .header(AutoSubmitted)
            .header(ContentType::TEXT_PLAIN)
            .body(letter.text.clone())
            .map_err(|error| in_words(&error))?;
        Ok((to, message.formatted()))
    }
}

/// No program answers this (RFC 3834, section 5).
#[derive(Clone, Debug)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

async fn connect(outlet: &Outlet) -> Result<AsyncSmtpConnection, String> {
    let SmtpServer { host, port, is_tls } = outlet.server.clone();
    let tls = if is_tls {
        // Reading the machine's certificate authorities takes a while, so not among other work.
        let name = host.clone();
        let reading = tokio::task::spawn_blocking(move || TlsParameters::new_rustls(name));
        let read = reading.await.map_err(|error| in_words(&error))?;
        Some(read.map_err(|error| in_words(&error))?)
    } else {
        None
    };
    let name = ClientId::Domain(outlet.from.email.domain().to_owned());
    let connected = AsyncSmtpConnection::connect_tokio1((host, port), None, &name, tls, None).await;
    let mut connection = connected.map_err(|error| in_words(&error))?;
    if let Some((name, password)) = &outlet.credentials {
        let credentials = Credentials::new(name.clone(), password.expose_secret().to_owned());
        let signed_in = connection.auth(DEFAULT_MECHANISMS, &credentials).await;
        signed_in.map_err(|error| in_words(&error))?;
    }
    Ok(connection)
}

/// Whether a refusal says that there is no such recipient, by its code and by its enhanced one if there is one (RFC 3463,
/// sections 3.2 and 3.3).
fn is_about_recipient(code: &str, failure: &str) -> bool {
    const ADDRESSES: [&str; 7] = ["5.1.1", "5.1.2", "5.1.3", "5.1.4", "5.1.5", "5.1.6", "5.1.10"];
    let is_enhanced = |word: &&str| {
        let parts: Vec<&str> = word.split('.').collect();
        parts.len() == 3
            && parts
                .iter()
                .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    match failure.split_whitespace().find(is_enhanced) {
        Some(enhanced) => enhanced.starts_with("5.2.") || ADDRESSES.contains(&enhanced),
        None => matches!(code, "550" | "551" | "553"),
    }
}

/// What went wrong, down to its cause, in one line.
fn in_words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        let further = deeper.to_string();
        if !text.contains(&further) {
            text = format!("{text}: {further}");
        }
        cause = deeper.source();
    }
    let printable = text.chars().map(|char| if char.is_control() { ' ' } else { char });
    printable.take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::is_about_recipient;

    #[test]
    fn f11_only_what_is_said_of_the_recipient_is_that_mails_fault() {
        let refused =
            |answer: &str| is_about_recipient(&answer[..3], &format!("permanent error ({}): {answer}", &answer[..3]));
        for answer in [
            "550 5.1.1 <ada@example.org>: Recipient address rejected: User unknown",
            "550 5.1.10 recipient not found",
            "552 5.2.2 mailbox full",
            "550 no such user here",
        ] {
            assert!(refused(answer), "{answer}");
        }
        for answer in [
            "553 5.7.1 <mayfly@example.com>: Sender address rejected: not owned by user",
            "554 5.7.1 <ada@example.org>: Relay access denied",
            "550 5.7.60 client does not have permissions to send as this sender",
            "550 5.1.8 sender's domain does not exist",
            "450 4.2.0 greylisted",
            "452 4.5.3 too many recipients",
            "554 no mails today",
        ] {
            assert!(!refused(answer), "{answer}");
        }
    }
}
