//! The one way in which this server sends mail: SMTP, over TLS or on this machine.

use std::time::Duration;

use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use secrecy::ExposeSecret as _;

use super::letter::Letter;
use super::{Outlet, SmtpSecurity};
use crate::domain::clock::Timestamp;
use crate::domain::id::MailId;
use crate::domain::mail::{SENDING, Sent};

/// The longest wait for one answer of the mail server.
const LONGEST_ANSWER: Duration = Duration::from_secs(10);

/// Where mails are handed in.
pub(super) struct Postbox {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl Postbox {
    /// Connects to nobody yet. Otherwise what is missing, in a few words.
    pub(super) async fn open(outlet: &Outlet) -> Result<Self, String> {
        let outlet = outlet.clone();
        // Reading the machine's certificate authorities takes a while, so not among other work.
        let opening = tokio::task::spawn_blocking(move || build(&outlet).map_err(|error| in_words(&error)));
        opening.await.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Hands one in. An error's code does not tell whether the server refused this mail or whoever sends it; a second look
    /// does.
    pub(super) async fn send(&self, letter: &Letter, to: &str, id: MailId, at: Timestamp) -> Sent {
        let message = match self.message(letter, to, id, at) {
            Ok(message) => message,
            Err(failure) => return Sent::Refused(failure),
        };
        match tokio::time::timeout(SENDING, self.hand_in(message)).await {
            Ok(sent) => sent,
            Err(_) => Sent::Away("no answer in time".to_owned()),
        }
    }

    async fn hand_in(&self, message: Message) -> Sent {
        let Err(error) = self.transport.send(message).await else {
            return Sent::Taken;
        };
        let failure = in_words(&error);
        // Of this client's own making: an address that this mail server cannot be told.
        let is_permanent = error.is_permanent() || error.is_client();
        match self.transport.test_connection().await {
            Ok(true) if is_permanent => Sent::Refused(failure),
            Ok(true) if error.is_transient() => Sent::NotNow(failure),
            // A connection that breaks is nobody's mail; nor is one that cannot be had, or a sign-in that is refused.
            Ok(_) | Err(_) => Sent::Away(failure),
        }
    }

    fn message(&self, letter: &Letter, to: &str, id: MailId, at: Timestamp) -> Result<Message, String> {
        let to: Address = to
            .parse()
            .map_err(|_| "not an address that mail can be sent to".to_owned())?;
        let host = self.from.email.domain();
        Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(letter.subject.clone())
            .message_id(Some(format!("<{id}@{host}>")))
            .date(at.to_system_time())
            .header(AutoSubmitted)
            .header(ContentType::TEXT_PLAIN)
            .body(letter.text.clone())
            .map_err(|error| in_words(&error))
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

fn build(outlet: &Outlet) -> Result<Postbox, lettre::transport::smtp::Error> {
    let server = &outlet.server;
    let tls = match server.security {
        SmtpSecurity::Tls => Tls::Wrapper(TlsParameters::new_rustls(server.host.clone())?),
        SmtpSecurity::StartTls => Tls::Required(TlsParameters::new_rustls(server.host.clone())?),
        SmtpSecurity::Loopback => Tls::None,
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&server.host)
        .port(server.port)
        .tls(tls)
        .timeout(Some(LONGEST_ANSWER))
        .hello_name(ClientId::Domain(outlet.from.email.domain().to_owned()));
    if let Some((name, password)) = &outlet.credentials {
        builder = builder.credentials(Credentials::new(name.clone(), password.expose_secret().to_owned()));
    }
    Ok(Postbox {
        transport: builder.build(),
        from: outlet.from.clone(),
    })
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
    text.chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .take(300)
        .collect()
}
